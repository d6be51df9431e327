package image

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singularity/sif"
	"singularity/squashfs"
)

// squash returns a squashfs with the file /f.
func squash(t *testing.T) []byte {
	t.Helper()
	return pack(t, func(w *squashfs.Writer) {
		if err := w.Add(squashfs.Entry{Path: "f", Mode: 0o100644, Size: 4}, strings.NewReader("text")); err != nil {
			t.Fatal(err)
		}
	})
}

// pack returns the squashfs that fill makes.
func pack(t *testing.T, fill func(*squashfs.Writer)) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "sqfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := squashfs.NewWriter(f, squashfs.WriterOptions{Digest: sha256.Sum256})
	if err != nil {
		t.Fatal(err)
	}
	fill(w)
	size, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func makeSIF(t *testing.T, in ...sif.Input) *Image {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "i.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := sif.Create(f, sif.CreateOptions{}, in...); err != nil {
		t.Fatal(err)
	}
	im, err := OpenParts(f.Name(), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

func partition(kind sif.PartType, group uint32, data []byte) sif.Input {
	return sif.Input{Type: sif.DataPartition, Group: group, Extra: sif.Partition{FS: sif.FSSquashfs, Type: kind, Arch: "amd64"}.Extra(), Data: strings.NewReader(string(data))}
}

func blob(kind sif.DataType, data string) sif.Input {
	return sif.Input{Type: kind, Group: 1, Extra: sif.Digest("sha256:" + strings.Repeat("0", 64)).Extra(), Data: strings.NewReader(data)}
}

func readF(t *testing.T, im *Image, p Part) {
	t.Helper()
	files, _, err := im.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := files.ReadFile("/f", 10); err != nil || string(b) != "text" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestParts(t *testing.T) {
	sq := squash(t)
	im := makeSIF(t, partition(sif.PartPrimary, 1, sq), partition(sif.PartOverlay, 1, sq), partition(sif.PartOverlay, 2, sq), partition(sif.PartData, 1, []byte("no file system")))
	list, err := im.Overlays()
	if err != nil || len(list) != 1 || list[0].ID != 2 {
		t.Errorf("overlays %+v, %v: want the one of the root's group", list, err)
	}
	for _, id := range []uint32{0, 1, 2, 3} {
		p, err := im.Part(id)
		if err != nil {
			t.Fatal(err)
		}
		readF(t, im, p)
	}
	for _, id := range []uint32{4, 5} {
		if _, err := im.Part(id); err == nil {
			t.Errorf("object %d is a file system", id)
		}
	}
	if _, err := im.Data(); err == nil {
		t.Error("a SIF is a data container")
	}
}

func TestData(t *testing.T) {
	sq := string(squash(t))
	index, manifest := blob(sif.DataOCIRootIndex, "{}"), blob(sif.DataOCIBlob, "{}")
	im := makeSIF(t, blob(sif.DataOCIBlob, sq), manifest, index)
	p, err := im.Data()
	if err != nil {
		t.Fatal(err)
	}
	readF(t, im, p)
	for what, im := range map[string]*Image{
		"without a layer": makeSIF(t, manifest, index), "with two layers": makeSIF(t, blob(sif.DataOCIBlob, sq), blob(sif.DataOCIBlob, sq), index),
		"without an index": makeSIF(t, blob(sif.DataOCIBlob, sq)),
	} {
		if _, err := im.Data(); err == nil || !strings.Contains(err.Error(), "not a data container") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
