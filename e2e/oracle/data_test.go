package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	reference "github.com/sylabs/sif/v2/pkg/sif"
)

// TestDataContainer reads a data container with the reference library for the
// file and with the OCI types of another project for what is in it.
func TestDataContainer(t *testing.T) {
	ours, siftool := tools(t)
	dir := t.TempDir()
	src, image := filepath.Join(dir, "tree"), filepath.Join(dir, "out.oci.sif")
	must(t, os.MkdirAll(filepath.Join(src, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(src, "sub/file"), []byte("data"), 0o644))
	if out, err := exec.Command(ours[0], "data", "package", src, image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := run(t, ours, "list", image)+run(t, ours, "header", image), run(t, siftool, "list", image)+run(t, siftool, "header", image); got != want {
		t.Errorf("list: got\n%s\nwant\n%s", got, want)
	}
	f, err := reference.LoadContainerFromPath(image, reference.OptLoadWithFlag(os.O_RDONLY))
	must(t, err)
	defer f.UnloadContainer()
	blob := func(h v1.Hash) []byte {
		t.Helper()
		d, err := f.GetDescriptor(reference.WithOCIBlobDigest(h))
		must(t, err)
		b, err := io.ReadAll(d.GetReader())
		must(t, err)
		return b
	}
	root, err := f.GetDescriptor(reference.WithDataType(reference.DataOCIRootIndex))
	must(t, err)
	b, err := io.ReadAll(root.GetReader())
	must(t, err)
	var index v1.IndexManifest
	must(t, json.Unmarshal(b, &index))
	if len(index.Manifests) != 1 || !index.MediaType.IsIndex() || !index.Manifests[0].MediaType.IsImage() {
		t.Fatalf("index %s", b)
	}
	var manifest v1.Manifest
	b = blob(index.Manifests[0].Digest)
	must(t, json.Unmarshal(b, &manifest))
	if int64(len(b)) != index.Manifests[0].Size || len(manifest.Layers) != 1 {
		t.Fatalf("manifest %s", b)
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		data := blob(d.Digest)
		h, size, err := v1.SHA256(bytes.NewReader(data))
		must(t, err)
		if h != d.Digest || size != d.Size {
			t.Errorf("blob %s of %d bytes, want %s of %d", h, size, d.Digest, d.Size)
		}
	}
	if id := fmt.Sprint(f.ID()); id != "00000000-0000-0000-0000-000000000000" {
		t.Errorf("id %s, want none", id)
	}
}
