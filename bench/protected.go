package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"singularity/luks"
	"singularity/luks/xts"
)

// phrase opens the encrypted images of this program.
const phrase = "a passphrase that anybody may know"

// protections are the kinds of an image whose reads are compared: as it is, with
// a hash tree, encrypted, and both.
var protections = []struct {
	name              string
	signed, encrypted bool
	goal              float64
}{
	{"plain", false, false, 0},
	{"checked by a hash tree", true, false, 1.12},
	{"encrypted", false, true, 1.15},
	{"encrypted and checked", true, true, 1.25},
}

// protected: what it costs to read an image that is checked or encrypted, and
// to start it.
func (b *bench) protected(ctx context.Context) error {
	return errors.Join(b.protectedReads(ctx), b.protectedStarts(ctx), b.cipher(ctx))
}

// protectedReads: the CPU of the program and of the server together, on fresh
// mounts. The key of the encrypted images is derived at the least cost.
func (b *bench) protectedReads(ctx context.Context) error {
	for _, c := range []string{"gzip", "zstd"} {
		images, err := b.makeProtected(ctx, c, luks.RandomKDF())
		if err != nil {
			return err
		}
		for _, work := range []struct {
			name string
			argv []string
			n    int
		}{
			{"python, numpy, scipy", []string{"python3", "-c", imports}, b.longRuns()},
			{"tar of /usr", []string{"sh", "-c", "tar -C / -cf - usr | wc -c"}, b.packRuns()},
		} {
			var sides []side
			for _, image := range images {
				sides = append(sides, b.opens(image, work.argv...))
			}
			got, err := rounds(ctx, work.n, sides)
			if err != nil {
				return err
			}
			for i, p := range protections[1:] {
				b.compare(row{Name: "CPU of " + work.name + ", " + c + ", " + p.name + " / plain", Goal: p.goal, Unit: "ms"}, cpus(got[i+1]), cpus(got[0]))
			}
		}
		for _, image := range images {
			os.Remove(image)
		}
	}
	return nil
}

// opens is a side that runs args in an image, on a mount of its own, with the
// key at hand.
func (b *bench) opens(image string, args ...string) side {
	argv := b.singularity(image, args...)
	return side{image, func(ctx context.Context) (sample, error) {
		c := b.command(ctx, argv...)
		c.Env = append(c.Env, "SINGULARITY_SYPGPDIR="+b.path("tmp/keys"), "SINGULARITY_ENCRYPTION_PASSPHRASE="+phrase)
		return b.once(c, "")
	}}
}

// protectedStarts: the start of a program that does nothing, from images of two
// sizes.
func (b *bench) protectedStarts(ctx context.Context) error {
	images, err := b.makeProtected(ctx, "zstd", luks.RandomKDF())
	if err != nil {
		return err
	}
	var sides []side
	for _, image := range images {
		sides = append(sides, b.opens(image, "true"))
	}
	derive := side{"derive", func(ctx context.Context) (sample, error) { return b.derive(ctx, images[2]) }}
	got, err := rounds(ctx, 2*b.n, append(sides, derive))
	if err != nil {
		return err
	}
	b.more(row{Name: "start of a signed image, fresh mount, more than unsigned", Goal: 5, Unit: "ms"}, walls(got[1]), walls(got[0]))
	b.more(row{Name: "CPU of the same", Unit: "ms"}, cpus(got[1]), cpus(got[0]))
	besides := func(values func([]sample) []float64) []float64 {
		out := values(got[2])
		for i, v := range values(got[4]) {
			out[i] -= v
		}
		return out
	}
	b.more(row{Name: "start of an encrypted image besides the derivation of its key, more than plain", Goal: 3, Unit: "ms"}, besides(walls), walls(got[0]))
	b.more(row{Name: "CPU of the same", Unit: "ms"}, besides(cpus), cpus(got[0]))
	b.more(row{Name: "start of an encrypted and signed image besides the same, more than plain", Unit: "ms"}, walls(got[3]), walls(got[0]))
	return nil
}

// derive measures the derivation alone: what an encrypted image must cost.
func (b *bench) derive(ctx context.Context, image string) (s sample, err error) {
	f, err := os.Open(image)
	if err != nil {
		return s, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return s, err
	}
	r := io.NewSectionReader(f, partOff, info.Size()-partOff)
	c, err := luks.Open(r, r.Size())
	if err != nil {
		return s, err
	}
	begin, cpu := time.Now(), ownCPU()
	v, err := c.Unlock(ctx, []byte(phrase), luks.Limits{})
	if err != nil {
		return s, err
	}
	s = sample{wall: time.Since(begin), cpu: ownCPU() - cpu}
	v.Close()
	return s, nil
}

func ownCPU() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// makeProtected makes the images of protections around the squashfs of that
// compressor.
func (b *bench) makeProtected(ctx context.Context, compressor string, kdf luks.KDF) ([]string, error) {
	if err := b.makeKey(ctx); err != nil {
		return nil, err
	}
	sealed := b.path("tmp/sealed")
	defer os.Remove(sealed)
	if err := b.sealFile(ctx, b.image(compressor), sealed, kdf); err != nil {
		return nil, err
	}
	var list []string
	for i, p := range protections {
		file, part, fs := b.path(fmt.Sprintf("tmp/%s-%d.sif", compressor, i)), b.image(compressor), squashfsPart
		if p.encrypted {
			part, fs = sealed, encryptedPart
		}
		if err := b.wrap(ctx, part, file, fs); err != nil {
			return nil, err
		}
		if p.signed {
			if _, err := b.withKeys(ctx, "sign", file); err != nil {
				return nil, err
			}
		}
		list = append(list, file)
	}
	return list, nil
}

// sealFile encrypts a file into a container of its own.
func (b *bench) sealFile(ctx context.Context, from, to string, kdf luks.KDF) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	w, err := luks.Create(ctx, out, []byte(phrase), luks.Options{KDF: kdf})
	if err != nil {
		return err
	}
	if _, err := io.Copy(struct{ io.Writer }{w}, in); err != nil {
		return err
	}
	size, err := w.Close()
	return errors.Join(err, out.Truncate(size))
}

// cipher: AES-256-XTS over sectors of 4 KiB, on one processor.
func (b *bench) cipher(ctx context.Context) error {
	const goal = 1000.0 / 3 // ms for a GB
	c, err := xts.New(make([]byte, xts.ScheduleSize), []byte(phrase + phrase)[:64])
	if err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	var ours, peer []float64
	for range b.longRuns() {
		begin, n := ownCPU(), 0
		for ownCPU()-begin < 100*time.Millisecond {
			c.Decrypt(buf, buf, 4096, 0, 8)
			n += len(buf)
		}
		ours = append(ours, ms(ownCPU()-begin)/float64(n)*1e9)
		if v, err := b.opensslXTS(ctx); err == nil {
			peer = append(peer, v)
		}
	}
	b.absolute(row{Name: "AES-256-XTS, CPU for a GB", Goal: goal, Unit: "ms"}, ours)
	if len(peer) > 0 {
		b.compare(row{Name: "the same / `openssl speed -evp aes-256-xts`", Unit: "ms"}, ours, peer)
	}
	return nil
}

var speedLine = regexp.MustCompile(`(?im)^aes-256-xts\s+([\d.]+)k`)

// opensslXTS returns the milliseconds of CPU that openssl needs for a GB.
func (b *bench) opensslXTS(ctx context.Context) (float64, error) {
	if err := b.need("openssl"); err != nil {
		return 0, err
	}
	text, err := b.output(ctx, b.peers["openssl"], "speed", "-seconds", "1", "-bytes", "4096", "-decrypt", "-evp", "aes-256-xts")
	if err != nil {
		return 0, err
	}
	m := speedLine.FindStringSubmatch(text)
	if m == nil {
		return 0, errors.New("openssl speed printed no figure")
	}
	v, err := strconv.ParseFloat(m[1], 64)
	return 1e9 / v, err
}
