// Command bench measures the programs of this repository against their peers
// and prints one table of ratios.
//
//	go run ./bench [-quick] [-n RUNS] [-only NAME,...] [-tree DIR] [-dir CACHE] [-bin DIR]
//	go run ./bench -only soak [-soak STARTS] [-seed N] [-user NAME]
//	go run ./bench -only flip [-flip TRIALS] [-seed N] [-user NAME]
//
// Each row compares two commands that do the same work. They run by turns, A B
// A B, in one process of this program, so that what else the machine does falls
// on both; the ratio is the median of the ratios of neighbours. The goals are
// the ones that the project set itself; a row without a goal is a report.
//
// In: a directory tree (made by mmdebstrap on the first run: Debian with
// python3, numpy and scipy) and the programs in bin/. Out: the table, and two
// files in bench/results, named by date and processor. The tree and the images
// made from it stay in the cache directory for the next run.
//
// Everything runs as an ordinary user, also if root starts it; only the
// kernel's squashfs is mounted by root, and its rows are left out otherwise. A
// peer that is not installed costs its rows, which say so. Mounts of
// squashfuse and of the kernel live in a namespace that ends with the run, and
// commands die with this program, so that not even a kill -9 leaves any.
//
// The second form measures nothing: it starts containers of every kind, kills
// processes of ours at random, and counts what is left behind. Nor does the
// third: it changes single bits of a signed image and counts the wrong reads.
//
// Files: main.go (flags, order), measure.go (runs and statistics), session.go
// (a shell that runs commands by turns), inputs.go (tree and images), peers.go
// (how each peer is called), start.go, shared.go, site.go, hot.go, read.go, pack.go,
// layers.go, trust.go, protected.go, soak.go, flip.go, builder.go (the rows), services.go,
// services_site.go, services_seed.go and mongodb.go (those of the server), report.go (the
// table).
package main
