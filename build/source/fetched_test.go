package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singularity/sif"
)

func TestFetched(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image.sif")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = sif.Create(f, sif.CreateOptions{}, sif.Input{Type: sif.DataPartition, Group: 1, Data: strings.NewReader("hsqs" + strings.Repeat("\x00", 200)),
		Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra()})
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	config := Config{
		Log: &testLog{},
		FetchImage: func(_ context.Context, ref string) (string, func(), error) {
			steps = append(steps, ref)
			return image, func() { steps = append(steps, "done") }, nil
		},
		Verify: func(_ context.Context, path string, require []string) ([]string, error) {
			steps = append(steps, "verify")
			return require, nil
		},
		Digest: func(context.Context, string) (string, error) { return "sha256:x", nil },
		Record: func(o Origin) { steps = append(steps, o.Agent+" "+o.Digest) },
		Extract: func(_ context.Context, path, rootfs string) error {
			steps = append(steps, "to "+rootfs)
			return nil
		},
	}
	for _, tt := range [][2]string{
		{"Bootstrap: oras\nFrom: h.org:5000/a/b:1\n", "oras://h.org:5000/a/b:1"},
		{"Bootstrap: library\nFrom: //lab/tools/tool:1\n", "library://lab/tools/tool:1"},
		{"Bootstrap: library\nLibrary: https://l.org\nFrom: lab/tools/tool\n", "library://l.org/lab/tools/tool"},
		{"Bootstrap: shub\nFrom: u/n\nFingerprints: " + strings.Repeat("AB", 20) + "\n", "shub://u/n"},
	} {
		steps = nil
		s := stage(t, tt[0])
		src, err := New(s, config)
		if err != nil {
			t.Errorf("%q: %v", tt[0], err)
			continue
		}
		err = src.Fetch(context.Background(), "root")
		if got := strings.Join(steps, ", "); err != nil || got != tt[1]+", verify, "+s.Agent()+" sha256:x, to root, done" {
			t.Errorf("%q: got %q, %v", tt[0], got, err)
		}
		key, err := src.(Keyed).Key(context.Background())
		if err != nil || key != "sha256:x" {
			t.Errorf("%q: key %q, %v", tt[0], key, err)
		}
	}
	broken := errors.New("broken")
	config.Verify = func(context.Context, string, []string) ([]string, error) { return nil, broken }
	src, err := New(stage(t, "Bootstrap: oras\nFrom: h.org/a\nFingerprints: "+strings.Repeat("AB", 20)+"\n"), config)
	if err != nil {
		t.Fatal(err)
	}
	steps = nil
	if err := src.Fetch(context.Background(), "root"); !errors.Is(err, broken) || steps[len(steps)-1] != "done" {
		t.Errorf("a signature that is missing: %v, %q", err, steps)
	}
	if _, err := src.(Keyed).Key(context.Background()); !errors.Is(err, broken) {
		t.Errorf("the key of an image without the signature: %v", err)
	}
	config.FetchImage = func(context.Context, string) (string, func(), error) { return "", nil, broken }
	if src, err = New(stage(t, "Bootstrap: shub\nFrom: u/n\n"), config); err != nil {
		t.Fatal(err)
	}
	if err := src.Fetch(context.Background(), "root"); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"Bootstrap: library\nLibrary: l.org\nFrom: tool\n", "Bootstrap: oras\nFrom: h.org/a\nFingerprints: 0123\n"} {
		if _, err := New(stage(t, bad), config); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
