package build

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestDrivers shows files of the host in %post, without a trace in the image.
func TestDrivers(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	lib := h.write("libx.so.1", "driver")
	def := busybox(t) + "    mkdir -p $SINGULARITY_ROOTFS/usr/lib; touch $SINGULARITY_ROOTFS/usr/lib/libcommon.so\n%post\ntest -n \"$LD_LIBRARY_PATH\"; test -e /.singularity.d/libs/libx.so.1; test -e /usr/bin/smi\n"
	var got []Bind
	err := h.build("out.sif", def, func(o *Options) {
		o.Drivers = Drivers{Vendor: "nv", Binds: []Bind{
			{Source: lib, Dest: "/.singularity.d/libs/libx.so.1"}, {Source: lib, Dest: "/usr/bin/smi"},
			{Source: lib, Dest: "/.singularity.d/libs/libcommon.so", IfMissing: true}, {Source: lib, Dest: "/.singularity.d/libs/libother.so", IfMissing: true},
		}}
		run := o.Run
		o.Run = func(ctx context.Context, s RunSpec) error {
			got = s.Binds
			for _, b := range s.Binds {
				if _, err := os.Stat(filepath.Join(s.Rootfs, b.Dest)); err != nil {
					t.Errorf("no mount point: %v", err)
				}
			}
			return run(ctx, s)
		}
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, h.out.String())
	}
	var names []string
	for _, b := range got {
		names = append(names, b.Dest)
	}
	if want := []string{"/.singularity.d/libs/libx.so.1", "/usr/bin/smi", "/.singularity.d/libs/libother.so"}; !slices.Equal(names, want) {
		t.Errorf("got binds %q, want %q", names, want)
	}
	_, r := h.image("out.sif")
	for _, name := range names {
		if _, err := r.Walk(name, true); err == nil {
			t.Errorf("%s stayed in the image", name)
		}
	}
}
