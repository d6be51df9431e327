package source

import (
	"context"
	"errors"
	"testing"
)

func TestOCI(t *testing.T) {
	for _, tt := range [][2]string{
		{"Bootstrap: docker-archive\nFrom: dir/x.tar:a/b:1\n", "docker-archive:dir/x.tar:a/b:1"},
		{"Bootstrap: oci\nFrom: dir:tag\n", "oci:dir:tag"},
		{"Bootstrap: docker-daemon\nFrom: a:1\n", "docker-daemon:a:1"},
		{"Bootstrap: docker\nFrom: debian:12\n", "docker://debian:12"},
		{"Bootstrap: docker\nRegistry: r.example:5000\nNamespace: n\nFrom: a/b@sha256:00\n", "docker://r.example:5000/n/a/b@sha256:00"},
	} {
		got := ""
		src, err := New(stage(t, tt[0]), Config{Registries: true, OCI: func(_ context.Context, ref, rootfs string) error {
			got = ref + " in " + rootfs
			return nil
		}})
		if err != nil {
			t.Errorf("%q: %v", tt[0], err)
			continue
		}
		if err := src.Fetch(context.Background(), "root"); err != nil || got != tt[1]+" in root" {
			t.Errorf("%q: got %q, error %v", tt[0], got, err)
		}
	}
	if _, err := New(stage(t, "Bootstrap: oci\nFrom: x\nFingerprints: 0123\n"), Config{}); err == nil {
		t.Error("Fingerprints: no error")
	}
	var unsupported *UnsupportedError
	if _, err := New(stage(t, "Bootstrap: docker\nFrom: x\n"), Config{}); !errors.As(err, &unsupported) {
		t.Errorf("docker without registries: got error %v", err)
	}
}
