package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	noiseFiles  = 30      // more than the server keeps decompressed, so that a file in its turn comes from the image
	noiseSize   = 1 << 20 // bytes of each
	smallFiles  = 400     // of the image that is read whole
	freshEvery  = 10      // of so many trials one has a start of its own
	turnOver    = 600     // trials, then the other kind of mount
	readNoise   = "dd if=/noise/%02d iflag=direct bs=131072 2>/dev/null | md5sum"
	readAllFile = "tar -c -f - bin data | md5sum"
)

// flip: any one bit of a signed image changes while a container runs from it. What
// is read then is what was signed, or an error; never anything else.
func (b *bench) flip(ctx context.Context) error {
	f := &flipper{b: b, dice: &dice{uint64(b.seed)}, counts: map[string]int{}}
	if err := f.prepare(ctx); err != nil {
		return err
	}
	say("%d trials, seed %d", b.flipN, b.seed)
	if err := f.trials(ctx); err != nil {
		return err
	}
	if f.session != nil {
		f.session.close()
	}
	// All bits are back.
	for _, name := range []string{"noise.sif", "small.sif"} {
		if _, err := b.withKeys(ctx, "verify", "--local", f.path(name)); err != nil {
			return err
		}
	}
	f.report()
	return nil
}

// flipper is a run of flip.
type flipper struct {
	b       *bench
	dice    *dice
	session *session // the container that keeps running
	starts  int      // of such containers
	lives   int      // trials with them
	offs    []int64  // where the files of noise begin
	sums    []string
	whole   string         // the checksum of the small image's files
	counts  map[string]int // results by kind of trial
	wrong   []string
}

func (f *flipper) path(name string) string { return f.b.path("tmp/flip/" + name) }

// prepare makes an image of files that do not compress, each of which lies in one
// piece, and a small one of many files, most of which is tables.
func (f *flipper) prepare(ctx context.Context) error {
	for _, d := range []string{"", "noise/bin", "noise/noise", "noise/tmp", "noise/proc", "small/bin", "small/data", "small/tmp", "small/proc"} {
		if err := f.b.makeDir(f.path(d)); err != nil {
			return err
		}
	}
	noise := make([]byte, noiseSize)
	for i := range noiseFiles {
		for k := range noise {
			noise[k] = byte(f.dice.n(256))
		}
		if err := os.WriteFile(f.path(fmt.Sprintf("noise/noise/%02d", i)), noise, 0o644); err != nil {
			return err
		}
	}
	for i := range smallFiles {
		dir := f.path(fmt.Sprintf("small/data/dir%02d", i%23))
		if err := f.b.makeDir(dir); err != nil {
			return err
		}
		var text []byte // that shrinks a little
		for range f.dice.n(1000) {
			text = fmt.Appendf(text, "%x\n", f.dice.n(1<<40))
		}
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, i), text, 0o644); err != nil {
			return err
		}
		if err := os.Symlink(fmt.Sprintf("../%d", i), fmt.Sprintf("%s/link%d", dir, i)); err != nil {
			return err
		}
	}
	if err := f.b.makeKey(ctx); err != nil {
		return err
	}
	for _, name := range []string{"noise", "small"} {
		if err := f.makeImage(ctx, name); err != nil {
			return err
		}
	}
	image, err := os.ReadFile(f.path("noise.sif"))
	if err != nil {
		return err
	}
	for i := range noiseFiles {
		text, err := os.ReadFile(f.path(fmt.Sprintf("noise/noise/%02d", i)))
		if err != nil {
			return err
		}
		at := bytes.Index(image, text)
		if at < 0 {
			return fmt.Errorf("file %d of noise does not lie in the image as it is", i)
		}
		f.offs = append(f.offs, int64(at))
	}
	return nil
}

func (f *flipper) makeImage(ctx context.Context, name string) error {
	if err := copyProgram("/bin/busybox", f.path(name+"/bin/busybox")); err != nil {
		return fmt.Errorf("cannot make an image: %w", err)
	}
	for _, applet := range []string{"sh", "dd", "md5sum", "tar"} {
		if err := os.Symlink("busybox", f.path(name+"/bin/"+applet)); err != nil {
			return err
		}
	}
	if _, err := f.b.output(ctx, f.b.program("packtree"), "-c", "gzip", f.path(name), f.path(name+".sqfs")); err != nil {
		return err
	}
	if err := f.b.wrap(ctx, f.path(name+".sqfs"), f.path(name+".sif"), squashfsPart); err != nil {
		return err
	}
	_, err := f.b.withKeys(ctx, "sign", f.path(name+".sif"))
	return err
}

// trials does them all.
func (f *flipper) trials(ctx context.Context) error {
	noise, err := os.OpenFile(f.path("noise.sif"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer noise.Close()
	small, err := os.OpenFile(f.path("small.sif"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer small.Close()
	if err := f.remember(ctx); err != nil {
		return err
	}
	for n := range f.b.flipN {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n%1000 == 0 {
			say("%d trials, %v", n, f.counts)
		}
		if n%freshEvery == freshEvery-1 {
			err = f.fresh(ctx, small, n/freshEvery%2 == 0)
		} else {
			err = f.lived(ctx, noise)
		}
		if err != nil {
			return fmt.Errorf("trial %d: %w", n, err)
		}
	}
	return nil
}

// remember reads everything as it was signed.
func (f *flipper) remember(ctx context.Context) error {
	if err := f.renew(ctx); err != nil {
		return err
	}
	for i := range noiseFiles {
		_, sum, err := f.session.step(fmt.Sprintf(readNoise, i))
		if err != nil {
			return err
		}
		f.sums = append(f.sums, sum)
	}
	s, err := f.open(ctx, "small.sif", "--no-shared-mount")
	if err != nil {
		return err
	}
	defer s.close()
	_, f.whole, err = s.step(readAllFile)
	return err
}

// open starts a container that waits for commands.
func (f *flipper) open(ctx context.Context, image string, flags ...string) (*session, error) {
	argv := append([]string{f.b.program("singularity"), "exec"}, flags...)
	c := f.b.command(ctx, append(argv, f.path(image), "sh", "-c", "set -o pipefail; cd /; "+loop)...)
	c.Env = append(c.Env, "SINGULARITY_SYPGPDIR="+f.b.path("tmp/keys"))
	return f.b.start(c)
}

// renew starts the container that keeps running, in turns with a mount that
// others may share and one of its own.
func (f *flipper) renew(ctx context.Context) (err error) {
	var flags []string
	if f.starts%2 == 1 {
		flags = []string{"--no-shared-mount"}
	}
	if f.session != nil {
		f.session.close()
	}
	f.starts++
	f.session, err = f.open(ctx, "noise.sif", flags...)
	return err
}

// lived changes a bit of the file whose turn it is, under the container that runs.
// The file is then read as it was, all of it, so that its turn comes after every
// block was replaced in the server's memory.
func (f *flipper) lived(ctx context.Context, image *os.File) error {
	if f.lives%turnOver == turnOver/2 {
		if err := f.renew(ctx); err != nil {
			return err
		}
	}
	i := f.lives % noiseFiles
	f.lives++
	at, bit := f.offs[i]+int64(f.dice.n(noiseSize)), f.dice.n(8)
	line := fmt.Sprintf(readNoise, i)
	err := f.during(image, at, bit, func() error {
		_, sum, err := f.session.step(line)
		f.note("a container that runs", sum, f.sums[i], err, at, bit)
		return nil
	})
	if err != nil {
		return err
	}
	_, sum, err := f.session.step(line)
	if err == nil && sum != f.sums[i] {
		err = errors.New("a file is not what it was when the bit is back")
	}
	return err
}

// fresh changes a bit anywhere in the image's file after a start, before anything
// but the shell was read, or before the start; then all files are read.
func (f *flipper) fresh(ctx context.Context, image *os.File, before bool) error {
	st, err := image.Stat()
	if err != nil {
		return err
	}
	at, bit := int64(f.dice.n(int(st.Size()))), f.dice.n(8)
	if before {
		return f.during(image, at, bit, func() error {
			s, err := f.open(ctx, "small.sif", "--no-shared-mount")
			if err != nil {
				f.note("before a start", "", f.whole, err, at, bit)
				return nil
			}
			defer s.close()
			_, sum, err := s.step(readAllFile)
			f.note("before a start", sum, f.whole, err, at, bit)
			return nil
		})
	}
	s, err := f.open(ctx, "small.sif", "--no-shared-mount")
	if err != nil {
		return err
	}
	defer s.close()
	return f.during(image, at, bit, func() error {
		_, sum, err := s.step(readAllFile)
		f.note("after a start", sum, f.whole, err, at, bit)
		return nil
	})
}

// during does something while a bit of the image is another one.
func (f *flipper) during(image *os.File, at int64, bit int, do func() error) error {
	var one [1]byte
	if _, err := image.ReadAt(one[:], at); err != nil {
		return err
	}
	if _, err := image.WriteAt([]byte{one[0] ^ 1<<bit}, at); err != nil {
		return err
	}
	err := do()
	_, back := image.WriteAt(one[:], at)
	return errors.Join(err, back)
}

// note counts the result of a trial.
func (f *flipper) note(kind, got, want string, err error, at int64, bit int) {
	switch {
	case err != nil:
		f.counts[kind+": errors"]++
	case got == want:
		f.counts[kind+": unchanged"]++
	default:
		f.counts[kind+": wrong"]++
		f.wrong = append(f.wrong, fmt.Sprintf("%s: bit %d of byte %d", kind, bit, at))
	}
}

func (f *flipper) report() {
	for _, k := range sortedKeys(f.counts) {
		say("%5d  %s", f.counts[k], k)
	}
	for _, w := range f.wrong[:min(len(f.wrong), 20)] {
		say("  %s", w)
	}
	errs := 0
	for k, n := range f.counts {
		if strings.HasSuffix(k, "errors") {
			errs += n
		}
	}
	// Trials of which none was noticed have tried nothing.
	met := verdict(len(f.wrong) == 0 && errs > f.b.flipN/2)
	f.b.add(row{Name: "flip: wrong reads of a signed image of which a bit changes", Result: float64(len(f.wrong)), Ours: newSpread([]float64{float64(len(f.wrong))}), Met: met,
		Note: fmt.Sprintf("%d trials, %d errors, the rest unchanged, seed %d", f.b.flipN, errs, f.b.seed)})
}
