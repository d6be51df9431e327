package main

import (
	"context"
	"os"
	"time"
)

// allowance is what sign and verify may take besides the hash of the file.
const allowance = 5 * time.Millisecond

// trust: sign and verify of a whole image, against the hash of its file.
func (b *bench) trust(ctx context.Context) error {
	if _, err := b.output(ctx, b.program("singularity"), "help", "sign"); err != nil {
		b.skip("sign and verify", "no command sign")
		return nil
	}
	if err := b.need("openssl"); err != nil {
		b.skip("sign and verify", err.Error())
		return nil
	}
	file := b.path("tmp/signed.sif")
	if err := copyProgram(b.sif("gzip"), file); err != nil {
		return err
	}
	if err := os.Chown(file, b.user.uid, b.user.gid); err != nil {
		return err
	}
	if _, err := b.withKeys(ctx, "key", "newpair", "-b", "2048", "-N", "bench", "-E", "bench@example.org", "-C", "", "-P", ""); err != nil {
		return err
	}
	restore, err := unsigned(file)
	if err != nil {
		return err
	}
	openssl := b.runs("openssl", "", b.peers["openssl"], "dgst", "-sha256", file)
	sign := side{"sign", func(ctx context.Context) (sample, error) {
		if err := restore(); err != nil {
			return sample{}, err
		}
		return b.withKeys(ctx, "sign", file)
	}}
	verify := side{"verify", func(ctx context.Context) (sample, error) { return b.withKeys(ctx, "verify", "--local", file) }}
	got, err := rounds(ctx, b.longRuns(), []side{sign, verify, openssl})
	if err != nil {
		return err
	}
	for i, name := range []string{"sign", "verify"} {
		less := values(got[i], func(s sample) float64 { return ms(s.wall - allowance) })
		b.compare(row{Name: name + ", less 5 ms / `openssl dgst -sha256` of the file", Goal: 1.05, Unit: "ms"}, less, walls(got[2]))
	}
	return nil
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
