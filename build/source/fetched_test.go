package source

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestFetched(t *testing.T) {
	for _, tt := range [][2]string{
		{"Bootstrap: oras\nFrom: h.org:5000/a/b:1\n", "oras://h.org:5000/a/b:1"},
		{"Bootstrap: library\nFrom: //lab/tools/tool:1\n", "library://lab/tools/tool:1"},
		{"Bootstrap: library\nLibrary: https://l.org\nFrom: lab/tools/tool\n", "library://l.org/lab/tools/tool"},
		{"Bootstrap: shub\nFrom: u/n\n", "shub://u/n"},
	} {
		var steps []string
		src, err := New(stage(t, tt[0]), Config{
			FetchImage: func(_ context.Context, ref string) (string, func(), error) {
				steps = append(steps, ref)
				return "/image", func() { steps = append(steps, "done") }, nil
			},
			Extract: func(_ context.Context, path, rootfs string) error {
				steps = append(steps, path+" in "+rootfs)
				return nil
			},
		})
		if err != nil {
			t.Errorf("%q: %v", tt[0], err)
			continue
		}
		err = src.Fetch(context.Background(), "root")
		if got := strings.Join(steps, ", "); err != nil || got != tt[1]+", /image in root, done" {
			t.Errorf("%q: got %q, %v", tt[0], got, err)
		}
	}
	broken := errors.New("broken")
	src, err := New(stage(t, "Bootstrap: shub\nFrom: u/n\n"), Config{FetchImage: func(context.Context, string) (string, func(), error) { return "", nil, broken }})
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Fetch(context.Background(), "root"); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"Bootstrap: library\nLibrary: l.org\nFrom: tool\n", "Bootstrap: oras\nFrom: h.org/a\nFingerprints: 0123\n"} {
		if _, err := New(stage(t, bad), Config{}); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
