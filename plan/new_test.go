package plan

import (
	"slices"
	"strings"
	"testing"
)

// hostPaths is a small machine.
var hostPaths = map[string]PathKind{
	"/": Directory, "/dev": Directory, "/proc": Directory, "/sys": Directory, "/tmp": Directory, "/var/tmp": Directory,
	"/home/u": Directory, "/home/u/work": Directory, "/data": Directory, "/data/x": Directory, "/etc/hosts": Other, "/etc/localtime": Other,
	"/etc/resolv.conf": Other, "/data/file": Other, "/dev/null": Other, "/usr/share": Directory, "/devel": Directory, "/link/dir": Directory,
}

// image lacks a home directory and has links.
var imagePaths = map[string]PathKind{
	"/dev": Directory, "/proc": Directory, "/sys": Directory, "/tmp": Directory, "/var/tmp": Directory, "/etc/hosts": Other, "/etc/passwd": Other,
	"/etc/group": Other, "/bin/sh": Other, "/mnt": Directory, "/.singularity.d/runscript": Other, "/real": Directory,
}

func facts() *Facts {
	return &Facts{
		Host: HostFacts{UID: 1000, GID: 100, Home: "/home/u", Cwd: "/home/u/work", Path: func(p string) PathKind { return hostPaths[p] },
			Passwd: func(b []byte) ([]byte, error) { return b, nil }},
		Image: ImageFacts{Kind: ServedRoot, Path: "/img.sif", Resolve: func(p string) (string, PathKind) {
			if rest, ok := strings.CutPrefix(p, "/link"); ok {
				p = "/real" + rest
			}
			return p, imagePaths[p]
		}},
		Conf: Settings{MountProc: true, MountSys: true, MountDev: "yes", MountDevpts: true, MountHome: true, MountTmp: true, ConfigResolv: true, UserBinds: true,
			AllowPID: true, AllowIPC: true, AllowUTS: true, AllowUser: true, SessionSize: 64 << 20,
			BindPaths: []string{"/etc/localtime", "/etc/hosts"}},
		Env: []string{"PATH=/usr/bin:/bin"},
	}
}

func destinations(p *Plan) []string {
	var out []string
	for _, m := range p.Mounts {
		d := m.Destination
		if m.Source != d {
			d = m.Source + ":" + d
		}
		if m.ReadOnly {
			d += ":ro"
		}
		out = append(out, d)
	}
	return out
}

func TestMounts(t *testing.T) {
	all := []string{"/dev", "/etc/localtime", "/etc/hosts", "/proc", "/sys", "/home/u", "/tmp", "/var/tmp", "/etc/resolv.conf"}
	without := func(drop ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(drop, s) })
	}
	for _, c := range []struct {
		name string
		edit func(*Options, *Facts)
		want []string
		note string
	}{
		{"default", func(*Options, *Facts) {}, all, ""},
		{"cwd elsewhere", func(_ *Options, f *Facts) { f.Host.Cwd = "/data/x" }, append(slices.Clone(all), "/data/x"), ""},
		{"cwd in a system directory", func(_ *Options, f *Facts) { f.Host.Cwd = "/usr" }, all, ""},
		{"cwd below a system directory", func(_ *Options, f *Facts) { f.Host.Cwd = "/usr/share" }, append(slices.Clone(all), "/usr/share"), ""},
		{"cwd with the name of /dev before it", func(_ *Options, f *Facts) { f.Host.Cwd = "/devel" }, append(slices.Clone(all), "/devel"), ""},
		{"cwd below /proc", func(_ *Options, f *Facts) { f.Host.Cwd = "/proc/1" }, all, ""},
		{"cwd unknown", func(_ *Options, f *Facts) { f.Host.Cwd = "" }, all, "No current working directory set"},
		{"cwd through a link of the image", func(_ *Options, f *Facts) { f.Host.Cwd = "/link/dir" }, all, ""},
		{"no home", func(o *Options, _ *Facts) { o.NoHome = true }, append(without("/home/u"), "/home/u/work"), ""},
		{"no mounts", func(o *Options, _ *Facts) {
			o.NoMount = []string{"proc", "sys", "dev", "tmp", "home", "cwd", "bind-paths"}
		}, []string{"/etc/resolv.conf"}, ""},
		{"no single bind path", func(o *Options, _ *Facts) { o.NoMount = []string{"/etc/hosts"} }, without("/etc/hosts"), ""},
		{"unknown mount", func(o *Options, _ *Facts) { o.NoMount = []string{"xyz"} }, all, "Ignoring unknown mount type 'xyz'"},
		{"custom home", func(o *Options, _ *Facts) { o.Home = "/data:/home/v" }, append(slices.Concat(all[:5], []string{"/data:/home/v"}, all[6:]), "/home/u/work"), ""},
		{"fakeroot home", func(o *Options, _ *Facts) { o.Fakeroot = true }, append(slices.Concat(all[:5], []string{"/home/u:/root"}, all[6:]), "/home/u/work"), ""},
		{"binds", func(o *Options, _ *Facts) { o.Bind = []string{"/data:/mnt:ro,/data/file", "../work"} },
			append(slices.Clone(all), "/data:/mnt:ro", "/data/file", "/home/u/work"), ""},
		{"duplicate", func(o *Options, _ *Facts) { o.Bind = []string{"/data:/mnt", "/tmp:/mnt/"} }, append(slices.Clone(all), "/data:/mnt"), "destination is already in the mount point list"},
		{"duplicate through a link", func(o *Options, _ *Facts) { o.Bind = []string{"/data:/link/a", "/tmp:/real/a"} }, append(slices.Clone(all), "/data:/real/a"), "already in the mount point list"},
		{"binds forbidden", func(o *Options, f *Facts) { o.Bind, f.Conf.UserBinds = []string{"/data"}, false }, all, "Ignoring /data bind mount: user bind control disabled"},
		{"no home on this host", func(_ *Options, f *Facts) { f.Host.Home = "/home/gone" }, append(without("/home/u"), "/home/u/work"), "no such directory on this host"},
		{"home is the root", func(_ *Options, f *Facts) { f.Host.Home = "/" }, append(without("/home/u"), "/home/u/work"), "Not mounting a home directory"},
	} {
		o, f := &Options{}, facts()
		c.edit(o, f)
		p, notes, err := New("exec", o, []string{"true"}, f)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := destinations(p); !slices.Equal(got, c.want) {
			t.Errorf("%s: got mounts\n%q, want\n%q", c.name, got, c.want)
		}
		if all := strings.Join(notes, "; "); c.note == "" && all != "" || !strings.Contains(all, c.note) {
			t.Errorf("%s: got notes %q, want %q", c.name, all, c.note)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		edit func(*Options)
		want string
	}{
		{func(o *Options) { o.Bind = []string{"/nothing"} }, "mount source /nothing doesn't exist"},
		{func(o *Options) { o.Bind = []string{"/data:relative"} }, "absolute path"},
		{func(o *Options) { o.Home = "/nothing" }, "home source /nothing doesn't exist"},
		{func(o *Options) { o.Home = "/data:rel" }, "absolute path"},
		{func(o *Options) { o.Writable = true }, "no SIF writable overlay partition found in /img.sif"},
		{func(o *Options) { o.KeepPrivs = true }, "requires root privileges"},
	} {
		o := &Options{}
		c.edit(o)
		if _, _, err := New("exec", o, []string{"true"}, facts()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestMountPoints(t *testing.T) {
	o, f := &Options{Bind: []string{"/data/file:/new/file", "/data:/home/u/sub"}}, facts()
	p, _, err := New("exec", o, []string{"true"}, f)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range p.Files {
		s := x.Path
		if x.Dir {
			s += "/"
		}
		if x.Load != nil {
			s += "=generated"
		}
		got = append(got, s)
	}
	// /home/u/sub is made on the host's home, not in the image.
	want := []string{"/etc/localtime", "/home/u/", "/etc/passwd=generated", "/etc/resolv.conf", "/new/file"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIDs(t *testing.T) {
	ranges := []Map{{Inside: 1, Outside: 100000, Count: 65536}}
	for _, c := range []struct {
		name   string
		o      Options
		uid    int
		ranges []Map
		mode   IDMode
		inside int
		fake   bool
	}{
		{"user", Options{}, 1000, nil, SingleID, 1000, false},
		{"root", Options{}, 0, nil, HostIDs, 0, false},
		{"root in a user namespace", Options{Userns: true}, 0, nil, SingleID, 0, false},
		{"fakeroot with ranges", Options{Fakeroot: true}, 1000, ranges, Ranges, 0, false},
		{"fakeroot without", Options{Fakeroot: true}, 1000, nil, SingleID, 0, true},
		{"fakeroot as root", Options{Fakeroot: true}, 0, nil, HostIDs, 0, false},
	} {
		f := facts()
		f.Host.UID, f.Host.UIDRanges, f.Host.GIDRanges = c.uid, c.ranges, c.ranges
		p, _, err := New("exec", &c.o, []string{"true"}, f)
		if err != nil || p.IDs.Mode != c.mode || p.IDs.InsideUID != c.inside || p.IDs.FakeOwners != c.fake {
			t.Errorf("%s: got %+v, %v", c.name, p.IDs, err)
		}
	}
}

func TestProcess(t *testing.T) {
	for _, c := range []struct {
		verb  string
		o     Options
		shell []string
		args  []string
		want  []string
		paths []string
		dirs  []string
	}{
		{"exec", Options{}, nil, []string{"ls", "-l"}, []string{"ls", "-l"}, []string{"/usr/bin/ls", "/bin/ls"}, []string{"/home/u/work", "/home/u", "/"}},
		{"exec", Options{Cwd: "/x"}, nil, []string{"./a"}, []string{"./a"}, []string{"./a"}, []string{"/x", "/home/u", "/"}},
		{"run", Options{}, nil, []string{"a"}, []string{"/.singularity.d/runscript", "a"}, []string{"/.singularity.d/runscript"}, nil},
		{"test", Options{}, nil, nil, []string{"/bin/sh"}, []string{"/bin/sh"}, nil},
		{"shell", Options{}, nil, []string{"-c", "x"}, []string{"/bin/sh", "-c", "x"}, []string{"/bin/sh"}, nil},
		{"shell", Options{Shell: "/bin/zsh"}, nil, nil, []string{"/bin/zsh"}, []string{"/bin/zsh"}, nil},
		{"exec", Options{}, []string{"/bin/sh", "-c", "prog", "sh", "--"}, []string{"ls"}, []string{"/bin/sh", "-c", "prog", "sh", "--", "ls"}, []string{"/bin/sh"}, nil},
	} {
		f := facts()
		f.Shell = c.shell
		p, _, err := New(c.verb, &c.o, c.args, f)
		if err != nil {
			t.Errorf("%s: %v", c.verb, err)
			continue
		}
		if !slices.Equal(p.Process.Args, c.want) || !slices.Equal(p.Process.Paths, c.paths) {
			t.Errorf("%s: got %q from %q, want %q from %q", c.verb, p.Process.Args, p.Process.Paths, c.want, c.paths)
		}
		if c.dirs != nil && !slices.Equal(p.Process.Dirs, c.dirs) {
			t.Errorf("%s: got directories %q, want %q", c.verb, p.Process.Dirs, c.dirs)
		}
	}
}

// SC-039: power meters are hidden where the kernel itself would show them.
func TestPowerMeters(t *testing.T) {
	for _, c := range []struct {
		uid  int
		edit func(*Options)
		want bool
	}{
		{0, func(o *Options) { o.Contain = true }, true},
		{0, func(*Options) {}, false},
		{0, func(o *Options) { o.Contain, o.Userns = true, true }, false},
		{1000, func(o *Options) { o.Contain = true }, false},
	} {
		o, f := &Options{}, facts()
		f.Host.UID, f.Conf.MountSys = c.uid, true
		on := f.Host.Path
		f.Host.Path = func(p string) PathKind {
			if p == powerMeters || p == "/sys" {
				return Directory
			}
			return on(p)
		}
		c.edit(o)
		p, _, err := New("exec", o, []string{"true"}, f)
		if err != nil {
			t.Fatal(err)
		}
		found := slices.ContainsFunc(p.Mounts, func(m Mount) bool { return m.Destination == powerMeters && m.Kind == SessionDir && m.ReadOnly })
		if found != c.want {
			t.Errorf("uid %d, %+v: hidden %v", c.uid, o, found)
		}
	}
}
