package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"singularity/advisory"
	"singularity/sbom"
)

// cpu is the time that this process had processors.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkEverything compares 10,000 images of 400 packages with 60,000 new advisories
// in one pass.
func BenchmarkEverything(b *testing.B) {
	const images, records = 10_000, 60_000
	rng := rand.New(rand.NewPCG(1, 2))
	build := advisory.NewBuilder()
	for n := range records {
		var r advisory.Record
		text := rec(fmt.Sprint("A-", n), day1, fmt.Sprint("Debian:", 10+n%4), fmt.Sprint("p", rng.IntN(20_000)), fmt.Sprintf("1.%d.0-1", rng.IntN(40)), "high", fmt.Sprint("CVE-2026-", n/2))
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			b.Fatal(err)
		}
		if err := build.Add(&r); err != nil {
			b.Fatal(err)
		}
	}
	db := build.DB()
	c := newCorpus()
	begun := cpu(b)
	benchImages(b, c)
	_, different := c.size()
	b.Logf("%d images, %d different packages; into memory in %s of processors", images, different, cpu(b)-begun)
	for b.Loop() {
		c.db, c.found = nil, map[uint32][]advisory.Finding{}
		begun = cpu(b)
		if err := c.use(b.Context(), db, nil); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((cpu(b) - begun).Seconds(), "cpu-s/pass")
	}
	begun, found := cpu(b), 0
	for n := range images {
		k, _ := c.image(fmt.Sprintf("%064x", n))
		found += len(k.findings)
	}
	b.Logf("%d findings of all images listed in %s of processors", found, cpu(b)-begun)
	if found == 0 {
		b.Error("nothing was found")
	}
}

// benchImages are 10,000 lists of 400 packages, of 400 states of four distributions, a
// tenth of whose packages is each image's own.
func benchImages(b *testing.B, c *corpus) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 10_000 {
		state := n % 400
		inv := sbom.Inventory{Distro: sbom.Distro{ID: "debian", Version: fmt.Sprint(10 + state%4)}}
		for p := range 400 {
			switch {
			case p%10 == 0: // its own
				inv.Packages = append(inv.Packages, deb(fmt.Sprint("p", rng.IntN(20_000)), fmt.Sprintf("1.%d.%d-1", rng.IntN(60), n)))
			default:
				inv.Packages = append(inv.Packages, deb(fmt.Sprint("p", p*7+state%4), fmt.Sprintf("1.%d.%d-1", (p+state)%60, state)))
			}
		}
		if err := c.add(b.Context(), fmt.Sprintf("%064x", n), &inv); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInjected adds one advisory to a directory of 60,000 that is in use with
// 10,000 images: until the findings of the images tell of it, from the look at the
// directory on.
func BenchmarkInjected(b *testing.B) {
	s := &Service{o: Options{Dir: b.TempDir(), Advisories: b.TempDir()}, corpus: newCorpus(), log: slog.New(slog.DiscardHandler), now: time.Now}
	rng := rand.New(rand.NewPCG(1, 2))
	write := func(n int, text string) {
		if err := os.WriteFile(filepath.Join(s.o.Advisories, fmt.Sprintf("A-%d.json", n)), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	s.startData(b.Context())
	for n := range 60_000 {
		write(n, rec(fmt.Sprint("A-", n), day1, fmt.Sprint("Debian:", 10+n%4), fmt.Sprint("p", rng.IntN(20_000)), fmt.Sprintf("1.%d.0-1", rng.IntN(40)), "high", fmt.Sprint("CVE-2026-", n/2)))
	}
	benchImages(b, s.corpus)
	look := func(what string) {
		begun := cpu(b)
		s.lookAtData(b.Context())
		if s.data.problem != "" {
			b.Fatal(s.data.problem)
		}
		b.Logf("%s: %s of processors", what, cpu(b)-begun)
	}
	look("everything in one pass")
	look("nothing new")
	if s.corpus.turnOf() == 0 {
		b.Fatal("nothing was compared")
	}
	n := 60_000
	for b.Loop() {
		write(n, rec(fmt.Sprint("A-", n), day2, "Debian:12", "p79", "1.99.0-1", "critical", fmt.Sprint("CVE-2027-", n)))
		begun := cpu(b)
		s.lookAtData(b.Context())
		b.ReportMetric((cpu(b) - begun).Seconds(), "cpu-s/advisory")
		if found := len(s.corpus.touched(fmt.Sprint("CVE-2027-", n))); found < 1000 {
			b.Fatalf("%d images", found)
		}
		n++
	}
}

// BenchmarkLoad reads the stored lists of 500 images of 400 packages, as a start does.
func BenchmarkLoad(b *testing.B) {
	v := &Service{corpus: newCorpus()}
	var text strings.Builder
	inv := sbom.Inventory{Distro: sbom.Distro{ID: "debian", Version: "12"}}
	for p := range 400 {
		inv.Packages = append(inv.Packages, sbom.Package{Type: "deb", Name: fmt.Sprint("package-", p), Version: fmt.Sprintf("1.%d.0-1", p), Arch: "amd64", Source: fmt.Sprint("source-", p), License: "GPL-2+"})
	}
	json.NewEncoder(&text).Encode(inv)
	for b.Loop() {
		begun := cpu(b)
		for n := range 500 {
			var got sbom.Inventory
			if err := json.Unmarshal([]byte(text.String()), &got); err != nil {
				b.Fatal(err)
			}
			if err := v.corpus.add(context.Background(), fmt.Sprint(n), &got); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((cpu(b) - begun).Seconds(), "cpu-s/500")
	}
}
