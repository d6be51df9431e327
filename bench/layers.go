package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// buildLayers: the whole command, from an archive of docker save with the tree as
// its one layer. The peer only packs: it takes no digest.
func (b *bench) buildLayers(ctx context.Context) error {
	const name = "`singularity build --compression zstd docker-archive:` / tar2sqfs of the same layer"
	if err := b.need("tar2sqfs"); err != nil {
		b.skip(name, err.Error())
		return nil
	}
	archive, out, temp := b.path("tmp/saved.tar"), b.path("tmp/tar2sqfs"), b.path("tmp/layers")
	defer os.Remove(archive)
	if err := saveArchive(b.path("tree.tar"), archive); err != nil {
		return err
	}
	if err := b.makeDir(temp); err != nil {
		return err
	}
	argv := []string{b.program("singularity"), "build", "-F", "--compression", "zstd", "--tmpdir", temp, b.path("tmp/layers.sif"), "docker-archive:" + archive}
	got, err := rounds(ctx, b.packRuns(), []side{
		b.runs("build", "", argv...),
		b.runs("tar2sqfs", b.path("tree.tar"), b.peers["tar2sqfs"], "-c", "zstd", "-X", "level=3", "-f", "-q", out),
	})
	if err != nil {
		b.skip(name, err.Error())
		return nil
	}
	b.compare(row{Name: name, Goal: 1.2, Unit: "ms"}, walls(got[0]), walls(got[1]))
	b.compare(row{Name: "CPU of the same", Unit: "ms"}, cpus(got[0]), cpus(got[1]))
	b.memoryOf("zstd, from layers", got[0])
	peak, err := peakWhile(temp, func() error {
		_, err := b.runs("build", "", argv...).run(ctx)
		return err
	})
	if err != nil {
		return err
	}
	b.absolute(row{Name: "temporary disk of a build from layers", Goal: 64, Unit: "MB"}, []float64{float64(peak) / 1e6})
	return nil
}

// saveArchive wraps a tar archive as docker save does it.
func saveArchive(layer, archive string) error {
	sum, err := hashFile(layer)
	if err != nil {
		return err
	}
	in, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(archive)
	if err != nil {
		return err
	}
	w := tar.NewWriter(out)
	add := func(name string, size int64, r io.Reader) {
		if err == nil {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644})
		}
		if err == nil {
			_, err = io.Copy(w, r)
		}
	}
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%x"]},"config":{"Cmd":["sh"]}}`, sum)
	manifest := []byte(`[{"Config":"config.json","RepoTags":["bench:1"],"Layers":["layer.tar"]}]`)
	add("layer.tar", info.Size(), in)
	add("config.json", int64(len(config)), bytes.NewReader(config))
	add("manifest.json", int64(len(manifest)), bytes.NewReader(manifest))
	return errors.Join(err, w.Close(), out.Close())
}

// peakWhile returns the most bytes that were on disk below dir while do ran.
func peakWhile(dir string, do func() error) (peak int64, err error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return peak, err
		case <-tick.C:
			size := int64(0)
			// Files come and go while this looks at them.
			_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
				if err == nil {
					if info, err := d.Info(); err == nil {
						size += info.Size()
					}
				}
				return nil
			})
			peak = max(peak, size)
		}
	}
}
