package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"singularity/build/deffile"
)

// busybox makes a system of one program, which MirrorURL is the address of.
type busybox struct {
	url string
	c   Config
}

// maxBusybox bounds the program, in bytes.
const maxBusybox = 64 << 20

func newBusybox(s *deffile.Stage, c Config) (Source, error) {
	u, err := mirrorURL(s, "mirrorurl", "http", "https", "file")
	return &busybox{u, c}, err
}

// Fetch implements Source.
func (b *busybox) Fetch(ctx context.Context, rootfs string) error {
	for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "tmp", "root", "usr/bin", "usr/sbin", "sbin", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\n", "group": "root:x:0:\n", "hosts": "127.0.0.1\tlocalhost\n",
	} {
		if err := os.WriteFile(filepath.Join(rootfs, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(rootfs, "bin/busybox"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	digest, err := download(ctx, b.c.Log, b.url, f, maxBusybox)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	// Security: the program comes from elsewhere, so it runs in a container.
	if out, err := b.c.Run(ctx, "/bin/busybox", "--install", "-s"); err != nil {
		return fmt.Errorf("cannot install the program at %q as busybox: %w\n%s", b.url, err, out)
	}
	if _, err := os.Lstat(filepath.Join(rootfs, "bin/sh")); err != nil {
		return fmt.Errorf("the program at %q did not install itself as busybox does: there is no /bin/sh", b.url)
	}
	b.c.Record(Origin{Agent: "busybox", URI: b.url, Digest: "sha256:" + digest})
	return nil
}
