package plan

import (
	"errors"
	"strings"
	"testing"
)

func TestNative(t *testing.T) {
	for _, tt := range []struct {
		o          Options
		ociDefault bool
		want, note string
	}{
		{Options{}, false, "", ""},
		{Options{NoOCI: true}, true, "", ""},
		{Options{}, true, ErrOCIMode.Error(), ""},
		{Options{OCI: true}, false, ErrOCIMode.Error(), ""},
		{Options{OCI: true, NoOCI: true}, false, "--oci and --no-oci cannot", ""},
		{Options{Compat: true, NoCompat: true}, false, "--compat and --no-compat cannot", ""},
		{Options{KeepLayers: true}, false, "--keep-layers is for OCI mode only", ""},
		{Options{ShareNS: true, NoSharedMount: true}, false, "--sharens and --no-shared-mount cannot", ""},
		{Options{NoCompat: true}, false, "", "--no-compat applies to --oci mode only, ignoring"},
	} {
		notes, err := Native(&tt.o, tt.ociDefault)
		if err == nil {
			err = errors.New("")
		}
		if !strings.HasPrefix(err.Error(), tt.want) || tt.want == "" && err.Error() != "" || strings.Join(notes, "") != tt.note {
			t.Errorf("%+v: got %q and %q", tt, err, notes)
		}
	}
}
