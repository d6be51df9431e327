package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFuseMounts(t *testing.T) {
	tests := []struct {
		in   string
		want []FuseMount
	}{
		{"", nil},
		{"host:sshfs a: /b", []FuseMount{{Host: true, Args: []string{"sshfs", "a:"}, Destination: "/b"}}},
		{"container-daemon:x /b/../c/", []FuseMount{{Daemon: true, Args: []string{"x"}, Destination: "/c"}}},
		{`host-daemon:x -o 'a b',"c\" d" e\ f  ''  /m`, []FuseMount{{Host: true, Daemon: true, Args: []string{"x", "-o", `a b,c" d`, "e f", ""}, Destination: "/m"}}},
		{"container:x -o ro,nosuid /a, host:y /b", []FuseMount{{Args: []string{"x", "-o", "ro,nosuid"}, Destination: "/a"}, {Host: true, Args: []string{"y"}, Destination: "/b"}}},
	}
	for _, tt := range tests {
		got, err := ParseFuseMounts(tt.in)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%q: %v, want - got +\n%s", tt.in, err, diff)
		}
	}
	for in, want := range map[string]string{
		"x /y": "not of the form", "Host:x /y": "not of the form", "host:x": "are wanted", "host:x y": "are wanted", "host:x /": "are wanted",
		"host:x 'y /z": "not closed", "host:": "are wanted", "host:x /..": "are wanted",
	} {
		if _, err := ParseFuseMounts(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", in, err, want)
		}
	}
}

func TestFuseArgv(t *testing.T) {
	f := FuseMount{Args: []string{"x", "y"}}
	if diff := cmp.Diff([]string{"x", "y", "-f", "/dev/fd/5"}, f.Argv(5)); diff != "" {
		t.Error(diff)
	}
	f.Daemon = true
	if diff := cmp.Diff([]string{"x", "y", "/dev/fd/5"}, f.Argv(5)); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseFuseMounts(f *testing.F) {
	f.Add("host:sshfs a: /b,container-daemon:x -o 'a,host:b' /c")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseFuseMounts(s)
		if err != nil {
			return
		}
		for _, m := range list {
			if len(m.Args) == 0 || m.Destination[0] != '/' || m.Destination == "/" {
				t.Errorf("%q: %+v", s, m)
			}
		}
	})
}

func TestFuse(t *testing.T) {
	for _, tt := range []struct {
		spec   []string
		change func(*Options, *Facts)
		want   string // of the error
	}{
		{[]string{"host:x /new"}, nil, ""},
		{[]string{"host:x /home/u/work/mnt"}, nil, ""},
		{[]string{"container:x /new", "host:y /mnt"}, nil, ""},
		{[]string{"container:x /new", "host:y /new"}, nil, "something else is mounted there"},
		{[]string{"host:x /tmp"}, nil, "something else is mounted there"},
		{[]string{"host:x"}, nil, "are wanted"},
		{[]string{"host:x /new"}, func(_ *Options, f *Facts) { f.Conf.Fusemount = false }, "enable fusemount = no"},
		{[]string{"host:x /new"}, func(o *Options, _ *Facts) { o.NoPID = true }, ""},
		{[]string{"container:x /new"}, func(o *Options, _ *Facts) { o.NoPID = true }, "without a PID namespace"},
		{[]string{"container:x /new"}, func(_ *Options, f *Facts) { f.Conf.AllowPID = false }, "without a PID namespace"},
	} {
		o, f := &Options{FuseMount: tt.spec}, facts()
		f.Conf.Fusemount = true
		if tt.change != nil {
			tt.change(o, f)
		}
		o.Imply()
		p, _, err := New("exec", o, []string{"true"}, f)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q: %v, want an error with %q", tt.spec, err, tt.want)
			}
			continue
		}
		if err != nil || len(p.Fuse) != len(tt.spec) {
			t.Errorf("%q: %v, %+v", tt.spec, err, p)
			continue
		}
		for i, want := range p.Fuse {
			m := p.Mounts[len(p.Mounts)-len(p.Fuse)+i]
			if m.Kind != FuseFS || m.Image != i || m.Destination != want.Destination || m.ReadOnly || m.Devices {
				t.Errorf("%q: mount %+v for %+v", tt.spec, m, want)
			}
		}
	}
}
