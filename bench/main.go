package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// groups are the measurements by name, in the order in which they run.
var groups = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"start", (*bench).launcher},
	{"init", (*bench).packageInit},
	{"exec", (*bench).execTrue},
	{"shared", (*bench).shared},
	{"site", (*bench).site},
	{"python", (*bench).python},
	{"hot", (*bench).hot},
	{"find", (*bench).find},
	{"read", (*bench).reads},
	{"memory", (*bench).memory},
	{"build", (*bench).packTree},
	{"layers", (*bench).buildLayers},
	{"trust", (*bench).trust},
	{"watch", (*bench).watch},
	{"protected", (*bench).protected},
	{"services", (*bench).services},
	{"mongodb", (*bench).mongodb},
	{"builder", (*bench).builder},
	{soakName, (*bench).soak},
	{flipName, (*bench).flip},
}

// The groups that run only if -only names them: counts, no measurements to compare
// with later ones.
const (
	soakName = "soak"
	flipName = "flip"
)

// bench is one run of the program.
type bench struct {
	n       int // runs of a short command
	quick   bool
	soakN   int
	flipN   int
	seed    int64
	only    []string
	given   string // the tree that -tree names
	bin     string // where the programs were built
	results string
	dir     string // the cache
	locked  *os.File
	user    account
	peers   map[string]string // paths of the programs that were found
	stderr  *os.File          // of the commands, for messages
	report  report
}

func main() {
	// The death of the thread that starts a command ends the command.
	runtime.LockOSThread()
	b := &bench{}
	var only, user string
	flag.IntVar(&b.n, "n", 0, "`runs` of each short command (default 25, with -quick 7)")
	flag.IntVar(&b.soakN, "soak", 10000, "number of `starts` of -only soak")
	flag.IntVar(&b.flipN, "flip", 10000, "number of `trials` of -only flip")
	flag.Int64Var(&b.seed, "seed", time.Now().Unix(), "`number` that the random choices of -only soak and flip begin with")
	flag.BoolVar(&b.quick, "quick", false, "fewer runs, and none that takes minutes")
	flag.StringVar(&only, "only", "", "run only these, of: "+groupNames())
	flag.StringVar(&b.given, "tree", "", "pack this `directory` (default: one made by mmdebstrap)")
	flag.StringVar(&b.dir, "dir", filepath.Join(os.TempDir(), "singularity-bench"), "cache `directory` for tree and images")
	flag.StringVar(&b.bin, "bin", "bin", "`directory` of the programs to measure")
	flag.StringVar(&b.results, "results", "bench/results", "`directory` for the results; empty for none")
	flag.StringVar(&user, "user", os.Getenv("SUDO_USER"), "`name` of the ordinary user, if started by root")
	flag.Parse()
	if b.n == 0 {
		b.n = 25
		if b.quick {
			b.n = 7
		}
	}
	if only != "" {
		b.only = strings.Split(only, ",")
	}
	if only == soakName || only == flipName {
		b.results = ""
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := b.run(ctx, user)
	b.clean()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func groupNames() string {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	return strings.Join(names, ",")
}

func (b *bench) run(ctx context.Context, user string) error {
	for _, name := range b.only {
		if !strings.Contains(","+groupNames()+",", ","+name+",") {
			return fmt.Errorf("unknown measurement %q, want some of %s", name, groupNames())
		}
	}
	var err error
	if b.user, err = ordinaryUser(user); err != nil {
		return err
	}
	b.findPeers()
	if err := b.prepare(ctx); err != nil {
		return fmt.Errorf("cannot prepare: %w", err)
	}
	b.report.begin(b)
	for _, g := range groups {
		if !slices.Contains(b.only, g.name) && (len(b.only) > 0 || g.name == soakName || g.name == flipName) {
			continue
		}
		say("measuring %s", g.name)
		err := g.run(b, ctx)
		if ctx.Err() != nil {
			b.report.end()
			fmt.Println(b.report.markdown())
			return fmt.Errorf("interrupted while measuring %s; the results are not saved", g.name)
		}
		if err != nil {
			// One broken measurement must not cost the others.
			b.skip(g.name, err.Error())
		}
	}
	b.report.end()
	fmt.Println(b.report.markdown())
	return b.report.save(b.results)
}

// say tells what goes on, apart from the table on standard output.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
