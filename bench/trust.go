package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// allowance is what sign and verify may take besides the hash of the file.
const allowance = 5 * time.Millisecond

// largeImage is the size of the image that is signed and verified.
const largeImage = 2 << 30

// trust: sign and verify of a whole image, against the hash of its file.
func (b *bench) trust(ctx context.Context) error {
	if err := b.need("openssl"); err != nil {
		b.skip("sign and verify", err.Error())
		return nil
	}
	file := b.path("tmp/signed.sif")
	if err := b.makeLarge(ctx, file); err != nil {
		return err
	}
	defer os.Remove(file)
	if err := b.makeKey(ctx); err != nil {
		return err
	}
	restore, err := unsigned(file)
	if err != nil {
		return err
	}
	sign := side{"sign", func(ctx context.Context) (sample, error) {
		if err := restore(); err != nil {
			return sample{}, err
		}
		return b.withKeys(ctx, "sign", file)
	}}
	names := []string{"sign", "verify", "verify --by-tree"}
	goals := []float64{1.05, 1.05, 0.6}
	got, err := rounds(ctx, b.packRuns(), []side{
		sign,
		{"verify", func(ctx context.Context) (sample, error) { return b.withKeys(ctx, "verify", "--local", file) }},
		{"by tree", func(ctx context.Context) (sample, error) {
			return b.withKeys(ctx, "verify", "--local", "--by-tree", file)
		}},
		b.runs("openssl", "", b.peers["openssl"], "dgst", "-sha256", file),
	})
	if err != nil {
		return err
	}
	peer := got[len(names)]
	for i, name := range names {
		less := values(got[i], func(s sample) float64 { return ms(s.wall - allowance) })
		b.compare(row{Name: "`" + name + "` of a large image, less 5 ms / `openssl dgst -sha256` of the file", Goal: goals[i], Unit: "ms"}, less, walls(peer))
		b.compare(row{Name: "CPU of the same", Unit: "ms"}, cpus(got[i]), cpus(peer))
	}
	return nil
}

// makeLarge makes a SIF whose one partition has the blocks of an image again and
// again; with -quick, once.
func (b *bench) makeLarge(ctx context.Context, file string) error {
	part := b.path("tmp/large")
	defer os.Remove(part)
	out, err := os.Create(part)
	if err != nil {
		return err
	}
	size := int64(0)
	for size < largeImage && err == nil && (size == 0 || !b.quick) {
		var in *os.File
		if in, err = os.Open(b.image("gzip")); err != nil {
			break
		}
		var n int64
		n, err = io.Copy(out, in)
		size += n
		in.Close()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return b.wrap(ctx, part, file, squashfsPart)
}

// makeKey makes the key that this run signs with.
func (b *bench) makeKey(ctx context.Context) error {
	if exists(b.path("tmp/keys/pgp-secret")) {
		return nil
	}
	_, err := b.withKeys(ctx, "key", "newpair", "-b", "2048", "-N", "bench", "-E", "bench@example.org", "-C", "", "-P", "")
	return err
}

// withKeys runs a command of ours with a keyring that only this run has.
func (b *bench) withKeys(ctx context.Context, args ...string) (sample, error) {
	c := b.command(ctx, append([]string{b.program("singularity")}, args...)...)
	c.Env = append(c.Env, "SINGULARITY_SYPGPDIR="+b.path("tmp/keys"))
	return b.once(c, "")
}

// unsigned remembers the beginning and the length of a SIF, which is all that a
// signature changes, and returns what puts them back.
func unsigned(path string) (func() error, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	head := make([]byte, 1<<16)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, err
	}
	return func() error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt(head, 0); err != nil {
			return err
		}
		return f.Truncate(st.Size())
	}, nil
}
