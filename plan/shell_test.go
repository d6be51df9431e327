package plan

import (
	"slices"
	"testing"
)

func TestOwnShell(t *testing.T) {
	image := map[string]PathKind{"/usr/bin/tool": Other, "/bin/script": Other, "/opt/script": Other, "/.singularity.d/runscript": Other, "/bin": Directory}
	script := map[string]bool{"/bin/script": true, "/opt/script": true, "/.singularity.d/runscript": true}
	for _, c := range []struct {
		name, verb string
		args       []string
		edit       func(*Options, *Facts)
		want       []string
	}{
		{"a program", "exec", []string{"tool", "-c"}, nil, nil},
		{"a missing program", "exec", []string{"none"}, nil, nil},
		{"a script by name", "exec", []string{"script", "a"}, nil, []string{"/bin/script", "a"}},
		{"a script by path", "exec", []string{"/opt/script"}, nil, []string{"/opt/script"}},
		{"a script by a relative path", "exec", []string{"./script"}, nil, nil},
		{"sh", "exec", []string{"sh", "-c", "x"}, nil, []string{"-c", "x"}},
		{"run", "run", []string{"a"}, nil, []string{"/.singularity.d/runscript", "a"}},
		{"shell", "shell", nil, nil, []string{}},
		{"another shell", "shell", nil, func(o *Options, _ *Facts) { o.Shell = "/bin/zsh" }, nil},
		{"scripts of the environment", "exec", []string{"tool", "x"}, func(_ *Options, f *Facts) { f.Shell = []string{"/bin/sh", "-c", "text", "sh"} }, []string{"-c", "text", "sh", "tool", "x"}},
		{"an image with a shell", "run", nil, func(_ *Options, f *Facts) {
			resolve := f.Image.Resolve
			f.Image.Resolve = func(p string) (string, PathKind) {
				if p == "/bin/sh" {
					return p, Other
				}
				return resolve(p)
			}
		}, nil},
	} {
		f := facts()
		f.Image.Resolve = func(p string) (string, PathKind) { return p, image[p] }
		f.Image.Script = func(p string) bool { return script[p] }
		o := new(Options)
		if c.edit != nil {
			c.edit(o, f)
		}
		p, _, err := New(c.verb, o, c.args, f)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Process.OwnShell; !slices.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
