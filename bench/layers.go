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
	"runtime"
	"strings"
	"time"
)

// buildLayers: the whole command, from an archive of docker save with the tree in
// several layers. The peer only packs the same entries: it takes no digest and
// merges nothing.
func (b *bench) buildLayers(ctx context.Context) error {
	const name = "`singularity build --compression zstd docker-archive:` / tar2sqfs of the same entries"
	if err := b.need("tar2sqfs"); err != nil {
		b.skip(name, err.Error())
		return nil
	}
	archive, out, temp := b.path("tmp/saved.tar"), b.path("tmp/tar2sqfs"), b.path("tmp/layers")
	defer os.Remove(archive)
	layers, err := b.cutLayers(b.path("tree.tar"))
	if err == nil {
		err = saveArchive(layers, archive)
	}
	for _, path := range layers {
		os.Remove(path)
	}
	if err != nil {
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

// layerCount is how many layers the tree is cut into.
const layerCount = 4

// cutLayers writes the entries of a tar archive, in their order, to layers of
// about the same size, and returns their paths.
func (b *bench) cutLayers(archive string) (paths []string, err error) {
	in, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	r := tar.NewReader(in)
	h, err := r.Next()
	for i := range layerCount {
		path := b.path(fmt.Sprintf("tmp/layer%d.tar", i))
		out, createErr := os.Create(path)
		if createErr != nil {
			return paths, createErr
		}
		paths = append(paths, path)
		w := tar.NewWriter(out)
		last := info.Size() * int64(i+1) / layerCount
		for err == nil {
			if at, seekErr := in.Seek(0, io.SeekCurrent); seekErr != nil || at > last && i < layerCount-1 {
				err = seekErr
				break
			}
			if err = w.WriteHeader(h); err == nil {
				_, err = io.Copy(w, r)
			}
			if err == nil {
				h, err = r.Next()
			}
		}
		if closeErr := errors.Join(w.Close(), out.Close()); closeErr != nil {
			return paths, closeErr
		}
	}
	if err == io.EOF {
		err = nil
	}
	return paths, err
}

// saveArchive wraps layers as docker save does it.
func saveArchive(layers []string, archive string) error {
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
	var ids, names []string
	for i, path := range layers {
		sum, hashErr := hashFile(path)
		in, openErr := os.Open(path)
		if err = errors.Join(err, hashErr, openErr); err != nil {
			break
		}
		info, statErr := in.Stat()
		if err = errors.Join(err, statErr); err == nil {
			names, ids = append(names, fmt.Sprintf("%d/layer.tar", i)), append(ids, fmt.Sprintf("sha256:%x", sum))
			add(names[i], info.Size(), in)
		}
		in.Close()
	}
	config := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]},"config":{"Cmd":["sh"]}}`, runtime.GOARCH, strings.Join(ids, `","`))
	manifest := fmt.Appendf(nil, `[{"Config":"config.json","RepoTags":["bench:1"],"Layers":["%s"]}]`, strings.Join(names, `","`))
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
