package plan

import (
	"slices"
	"strings"
	"testing"

	"singularity/host"
)

func TestDrivers(t *testing.T) {
	drivers := host.Drivers{Vendor: "nv",
		Libraries: []host.Library{
			{Name: "libcuda.so.1", Path: "/l/libcuda.so.1", Glibc: "2.17"}, {Name: "libGL.so.1", Path: "/l/libGL.so.1", Glibc: "2.34", IfMissing: true},
			{Name: "libnew.so.1", Path: "/l/libnew.so.1", Glibc: "2.38"}},
		Programs: []host.Program{{Name: "nvidia-smi", Path: "/opt/bin/nvidia-smi"}},
		Devices:  []string{"/dev/nvidia0"}, Sockets: []string{"/var/run/nvidia-persistenced/socket"}}
	cuda, gl, late := "/l/libcuda.so.1:/.singularity.d/libs/libcuda.so.1:ro", "/l/libGL.so.1:/.singularity.d/libs/libGL.so.1:ro", "/l/libnew.so.1:/.singularity.d/libs/libnew.so.1:ro"
	smi, socket := "/opt/bin/nvidia-smi:/usr/bin/nvidia-smi:ro", "/var/run/nvidia-persistenced/socket"
	for _, c := range []struct {
		name string
		edit func(*Options, *Facts)
		want []string
		note string // "-" for none
	}{
		{"all", func(_ *Options, f *Facts) { f.Image.Glibc = func() string { return "2.39" } }, []string{cuda, gl, late, smi, socket}, "-"},
		{"older image", func(_ *Options, f *Facts) { f.Image.Glibc = func() string { return "2.31" } }, []string{cuda, late, smi, socket},
			"Libraries of the host need glibc 2.38 and the image has 2.31: programs cannot load libnew.so.1;"},
		{"image has its own", func(_ *Options, f *Facts) { f.Image.Library = func(n string) bool { return n != "x" } }, []string{cuda, late, smi, socket}, "-"},
		{"no glibc", func(_ *Options, f *Facts) { f.Image.Glibc = func() string { return "" } }, []string{cuda, gl, late, smi, socket}, "no GNU C library"},
		{"nothing found", func(_ *Options, f *Facts) { f.Host.Drivers = host.Drivers{Vendor: "rocm"} }, nil, "Could not find any rocm libraries on this host!"},
		{"no driver", func(_ *Options, f *Facts) { f.Host.Drivers.Libraries = drivers.Libraries[1:2] }, []string{smi, socket}, "Could not find any nv libraries"},
		{"no host /dev", func(_ *Options, f *Facts) { f.Conf.MountDev = "no" }, []string{cuda, gl, late, smi, socket, "/dev/nvidia0"}, "-"},
		{"/dev is off", func(o *Options, f *Facts) { o.NoMount = []string{"dev"} }, []string{cuda, gl, late, smi, socket}, "-"},
		{"writable", func(o *Options, f *Facts) { o.Writable, f.Image.Kind = true, DirRoot }, nil, "Not showing 4 files of the host"},
		{"not asked", func(_ *Options, f *Facts) { f.Host.Drivers = host.Drivers{} }, nil, "-"},
		{"containlibs", func(o *Options, f *Facts) {
			f.Host.Drivers, o.ContainLibs = host.Drivers{}, []string{"/data/file"}
		}, []string{"/data/file:/.singularity.d/libs/file:ro"}, "-"},
		{"devices", func(_ *Options, f *Facts) {
			f.Host.Drivers, f.Host.Edits = host.Drivers{}, &host.Edits{
				Mounts:    []host.EditMount{{Source: "/l/a", Destination: "/opt/a", ReadOnly: true}},
				Nodes:     []host.EditNode{{Source: "/dev/x", Destination: "/dev/x"}, {Source: "/dev/x", Destination: "/dev/y"}},
				Libraries: []host.Library{{Name: "libc.so.1", Path: "/l/libc.so.1.2"}}}
		}, []string{"/l/a:/opt/a:ro", "/dev/x:/dev/y", "/l/libc.so.1.2:/.singularity.d/libs/libc.so.1:ro"}, "-"},
	} {
		o, f := &Options{}, facts()
		f.Host.Drivers = drivers
		c.edit(o, f)
		p, notes, err := New("exec", o, []string{"x"}, f)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		bare := facts()
		bare.Conf = f.Conf
		before, _, err := New("exec", &Options{NoMount: o.NoMount}, []string{"x"}, bare)
		if err != nil {
			t.Fatal(err)
		}
		got := slices.DeleteFunc(destinations(p), func(d string) bool { return slices.Contains(destinations(before), d) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if text := strings.Join(notes, "\n"); c.note == "-" && text != "" || c.note != "-" && !strings.Contains(text, c.note) {
			t.Errorf("%s: notes %q, want %q", c.name, text, c.note)
		}
	}
	if _, _, err := New("exec", &Options{ContainLibs: []string{"/nowhere"}}, []string{"x"}, facts()); err == nil || err.Error() != "mount source /nowhere doesn't exist" {
		t.Errorf("missing library: %v", err)
	}
}

// TestDeviceMounts checks that nodes work as devices, and nothing else does.
func TestDeviceMounts(t *testing.T) {
	f := facts()
	f.Conf.MountDev = "no"
	f.Host.Drivers = host.Drivers{Vendor: "nv", Devices: []string{"/dev/nvidia0"}, Libraries: []host.Library{{Name: "l", Path: "/l"}}, Programs: []host.Program{{Name: "p", Path: "/p"}}}
	f.Host.Edits = &host.Edits{Mounts: []host.EditMount{{Source: "/a", Destination: "/b"}}, Nodes: []host.EditNode{{Source: "/dev/q", Destination: "/dev/q"}}}
	p, _, err := New("exec", &Options{}, []string{"x"}, f)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range p.Mounts {
		if want := m.Source == "/dev/nvidia0" || m.Source == "/dev/q"; m.Devices != want {
			t.Errorf("%s: devices %v", m.Source, m.Devices)
		}
	}
}
