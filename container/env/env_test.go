package env

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const stock99 = `if [ -z "${LD_LIBRARY_PATH-}" ]; then
    LD_LIBRARY_PATH="/.singularity.d/libs"
else
    LD_LIBRARY_PATH="$LD_LIBRARY_PATH:/.singularity.d/libs"
fi
PS1="Singularity> "
export LD_LIBRARY_PATH PS1
`

var cases = []struct {
	name    string
	scripts []Script
	user    []string
	host    []string
	clean   bool
	noEval  bool
	want    []string // must be in the result
	not     []string // names that must not be
	app     *App
}{
	{name: "nothing", host: []string{"FOO=bar", "HOME=/h", "PATH=/p", "LD_LIBRARY_PATH=/l", "SINGULARITY_X=1", "BASH_FUNC_x%%=() { :; }"},
		want: []string{"FOO=bar", "HOME=/home/u", "PATH=" + DefaultPath, "LD_LIBRARY_PATH=" + libs, "PS1=Singularity> "}, not: []string{"SINGULARITY_X"}},
	{name: "clean", host: []string{"FOO=bar", "TERM=xterm", "https_proxy=p", "LANG=de"}, clean: true,
		want: []string{"TERM=xterm", "https_proxy=p", "LANG=C"}, not: []string{"FOO"}},
	{name: "image wins", scripts: []Script{{"90-environment.sh", "export FOO=image\nBAR=hidden\nexport EMPTY=\n"}}, host: []string{"FOO=host", "BAR=host", "EMPTY=host", "OTHER=host"},
		want: []string{"FOO=image", "OTHER=host"}, not: []string{"EMPTY", "BAR"}},
	{name: "docker", scripts: []Script{{"10-docker2singularity.sh", "#!/bin/sh\nexport PATH=\"/opt/bin:/usr/bin\"\nexport X=\"${X:-\"a b\"}\"\nexport Y=\"${Y:-dflt}\"\n"}, {"99-base.sh", stock99}}, host: []string{"Y=host"},
		want: []string{"PATH=/opt/bin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin", "X=a b", "Y=dflt"}},
	{name: "quotes", scripts: []Script{{"90-environment.sh", `export A='x $HOME "y"' Z=$A
export B="tab	\"q\" \$z \\ $A" C=a\ b D="multi
line" E=$A
F="${NONE-default}" ; export F
export G=${F:+set}${NONE:+unset}
# comment with ' quote
: ignored $F
unset A`}}, want: []string{`B=tab	"q" $z \ x $HOME "y"`, "C=a b", "D=multi\nline", `E=x $HOME "y"`, "F=default", "G=set"}, not: []string{"A"}},
	{name: "user", scripts: []Script{{"90-environment.sh", "export A=1 LD_LIBRARY_PATH=/img"}, {"99-base.sh", stock99}},
		user: []string{"A=2", "B=$A-${C:-c}", "PREPEND_PATH=/pre", "APPEND_PATH=/app", "LD_LIBRARY_PATH=/u", "E=", `Q=say "hi" 'x'`, "N=two\nlines"}, host: []string{"B=host"},
		want: []string{"A=2", "B=2-c", "PATH=/pre:" + DefaultPath + ":/app", "LD_LIBRARY_PATH=/u:" + libs, "E=", `Q=say "hi" 'x'`, "N=two\nlines"}},
	{name: "no eval", user: []string{"B=$A-`x`", "C=$(touch /nonexistent)"}, noEval: true, want: []string{"B=$A-`x`", "C=$(touch /nonexistent)"}},
	{name: "condition", scripts: []Script{{"90-environment.sh", "if test -n \"${FOO:-}\" ; then export W=yes; else export W=no; fi\nif [ ! -z \"$W\" ]; then\n  X=1\n  export X\nfi"}}, want: []string{"W=no", "X=1"}},
	{name: "own 99", scripts: []Script{{"01-base.sh", "export PATH=\"/usr/bin:/bin\"\n"}, {"99-base.sh", "export LD_LIBRARY_PATH=\"${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs\"\nexport PS1=\"${PS1:-Singularity> }\"\n"}},
		want: []string{"PATH=/usr/bin:/bin", "LD_LIBRARY_PATH=" + libs, "PS1=Singularity> "}},
	{name: "app", scripts: []Script{{"90-environment.sh", "export A=image PATH=/img:/usr/bin:/bin"}, {"94-appsbase.sh", "SCIF_APPROOT_foo=/scif/apps/foo\nexport SCIF_APPROOT_foo"}, {"95-apps.sh", "exit 1"}, {"99-base.sh", stock99}},
		user: []string{"LATE=$SCIF_APPNAME"}, app: &App{Name: "foo", Scripts: []Script{{"90-environment.sh", "export A=app B=$SCIF_APPROOT"}, {"01-base.sh", "export B=base C=1"}, {"README", "exit 1"}}},
		want: []string{"A=app", "B=/scif/apps/foo", "C=1", "LATE=foo", "SCIF_APPROOT_foo=/scif/apps/foo", "PATH=/scif/apps/foo/bin:/scif/apps/foo:/img:/usr/bin:/bin",
			"LD_LIBRARY_PATH=/scif/apps/foo/lib:" + libs, "SCIF_APPNAME=foo", "SCIF_APPS=/scif/apps", "SCIF_DATA=/scif/data", "SCIF_APPROOT=/scif/apps/foo", "SCIF_APPMETA=/scif/apps/foo/scif",
			"SCIF_APPDATA=/scif/data/foo", "SCIF_APPINPUT=/scif/data/foo/input", "SCIF_APPOUTPUT=/scif/data/foo/output", "SINGULARITY_APPNAME=foo"}},
	{name: "app of an image without scripts", app: &App{Name: "a.b-c"}, want: []string{"SCIF_APPNAME=a.b-c", "PATH=/scif/apps/a.b-c/bin:/scif/apps/a.b-c:" + DefaultPath}},
	{name: "base 99", scripts: []Script{{"99-base.sh", stock99}}, want: []string{"LD_LIBRARY_PATH=" + libs, "PS1=Singularity> "}},
}

var fixed = []string{"HOME=/home/u", "SINGULARITY_NAME=x.sif"}

// shell finishes r with the host's sh on scripts in a temporary directory.
func shell(t *testing.T, r Result, scripts []Script, app *App) []string {
	t.Helper()
	dir := t.TempDir()
	for _, s := range scripts {
		if err := os.WriteFile(filepath.Join(dir, s.Name), []byte(s.Text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	apps := t.TempDir()
	if app != nil {
		scif := filepath.Join(apps, app.Name, "scif/env")
		if err := os.MkdirAll(scif, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, s := range app.Scripts {
			if err := os.WriteFile(filepath.Join(scif, s.Name), []byte(s.Text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	words := slices.Clone(r.Shell)
	words[2] = strings.ReplaceAll(words[2], "/.singularity.d/env", dir)
	words[2] = strings.ReplaceAll(words[2], "/scif/apps", apps)
	words = append(words, "/usr/bin/env", "-0")
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = r.Env
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Split(strings.ReplaceAll(strings.TrimSuffix(string(out), "\x00"), apps, "/scif/apps"), "\x00")
	list = slices.DeleteFunc(list, func(s string) bool {
		return strings.HasPrefix(s, "PWD=") || strings.HasPrefix(s, "SINGULARITY_NO_EVAL=")
	})
	slices.Sort(list)
	return list
}

func TestMakeBothWays(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			in := Input{Scripts: c.scripts, Host: c.host, Clean: c.clean, User: c.user, NoEval: c.noEval, Fixed: fixed, App: c.app}
			if c.app != nil {
				in.Fixed = append(slices.Clone(fixed), "SINGULARITY_APPNAME="+c.app.Name)
			}
			r := Make(in)
			if r.Shell != nil {
				t.Fatal("the evaluator gave up")
			}
			for _, w := range c.want {
				if !slices.Contains(r.Env, w) {
					t.Errorf("missing %q in %q", w, r.Env)
				}
			}
			for _, n := range c.not {
				for _, v := range r.Env {
					if strings.HasPrefix(v, n+"=") {
						t.Errorf("unwanted %q", v)
					}
				}
			}
			user, _ := splitUser(in.User)
			got := shell(t, wrap(in, user, importHost(in.Host, in.Clean)), c.scripts, c.app)
			if !slices.Equal(got, r.Env) {
				t.Errorf("the shell made\n%q\nthe evaluator\n%q", got, r.Env)
			}
		})
	}
}

func TestComplexScriptsGoToShell(t *testing.T) {
	for _, text := range []string{
		"export A=$(echo hi)", "A=`id`", "for i in a b; do export X=$i; done", "f() { :; }", "A=1 echo x", "export A=~/x",
		"case x in x) A=1;; esac", ". /etc/profile", "export A=$((1+2))", "export A=${B%%x}", "echo hello", "export \"A=1\"", "A=1 > /tmp/x",
		"if [ -f /x ]; then A=1; fi", "export A=\"unterminated", "A=$1", "export A=$*", "A=\"${B:-'q'}\"",
	} {
		r := Make(Input{Scripts: []Script{{"90-environment.sh", text}}, Fixed: fixed})
		if r.Shell == nil {
			t.Errorf("%q was evaluated: %q", text, r.Env)
		}
	}
	in := Input{Scripts: []Script{{"90-environment.sh", "export A=$(echo hi)\nfalse\nexport B=after"}}, Host: []string{"H=host"}, User: []string{"U=$(echo user) \"q\"", "V=$A"}, Fixed: fixed}
	got := shell(t, Make(in), in.Scripts, nil)
	for _, w := range []string{"A=hi", "B=after", "H=host", `U=user "q"`, "V=hi", "HOME=/home/u"} {
		if !slices.Contains(got, w) {
			t.Errorf("missing %q in %q", w, got)
		}
	}
}

func TestUserVariables(t *testing.T) {
	got := UserVariables([]string{"SINGULARITYENV_A=1", "APPTAINERENV_A=2", "APPTAINERENV_B=3", "X=4"})
	if !slices.Equal(got, []string{"B=3", "A=1"}) {
		t.Errorf("got %q", got)
	}
	r := Make(Input{User: []string{"HOME=/x", "bad-name=1", "OK=1"}, Fixed: fixed})
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "SINGULARITYENV_HOME is not permitted") || !slices.Contains(r.Env, "HOME=/home/u") {
		t.Errorf("warnings %q, env %q", r.Warnings, r.Env)
	}
}

func FuzzMake(f *testing.F) {
	for _, c := range cases {
		for _, s := range c.scripts {
			f.Add(s.Text)
		}
	}
	f.Add("A=${B:-${C:-${D}}}")
	f.Fuzz(func(t *testing.T, text string) {
		Make(Input{Scripts: []Script{{"90-environment.sh", text}}, User: []string{"X=" + text}})
	})
}

func TestValidApp(t *testing.T) {
	for name, want := range map[string]bool{"foo": true, "a.b-c_D+9": true, "": false, ".": false, "..": false, "a/b": false, "a b": false, "$x": false, "a\n": false, "a\"b": false} {
		if ValidApp(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestInside(t *testing.T) {
	for value, want := range map[string]string{
		`a "b"`: `a "b"`, `\"`: `"`, `a\\"`: `a\"`, `$(printf "%s" "x y")`: "x y", `"$(printf "%s" ")")"`: "\")\"", "`printf \"%s\" q`\"": `q"`,
		`${NONE:-"z"}`: "z", `end\`: `end\`, `$(printf %s 'a\')"`: `a\"`, `$((1+(2)))"`: `3"`, "two\nlines\n": "two\nlines\n", `\$x`: "$x", `$`: "$", `"; exit 3; "`: `"; exit 3; "`,
	} {
		in := Input{User: []string{"V=" + value}, Fixed: fixed}
		user, _ := splitUser(in.User)
		got := shell(t, wrap(in, user, nil), nil, nil)
		if !slices.Contains(got, "V="+want) {
			t.Errorf("%q: want %q in %q", value, want, got)
		}
	}
}

func TestChanged(t *testing.T) {
	in := Input{User: []string{"A=plain", "B=$A", `C=\\`, `D="q"`}, Fixed: fixed}
	if r := Make(in); !slices.Equal(r.Changed, []string{"B", "C"}) {
		t.Errorf("changed %q", r.Changed)
	}
	in.NoEval = true
	if r := Make(in); r.Changed != nil {
		t.Errorf("changed %q without evaluation", r.Changed)
	}
	in = Input{User: []string{"A=plain", "B=$(id)"}, Fixed: fixed}
	if r := Make(in); r.Shell == nil || !slices.Equal(r.Changed, []string{"B"}) {
		t.Errorf("changed %q", r.Changed)
	}
}

func TestIsScript(t *testing.T) {
	for head, want := range map[string]bool{
		"#!/bin/sh\n": true, "#! /bin/bash -e\necho": true, "#!/usr/bin/env sh\n": true, "#!/usr/bin/dash": true, "echo plain\n": true, "": true,
		"#!/usr/bin/python3\n": false, "#!/usr/bin/env python3\n": false, "#!\n": false, "#!/usr/bin/env\n": false, "\x7fELF\x02\x01\x01\x00\x00\n": false, "#!/bin/zsh\n": false,
	} {
		if IsScript([]byte(head)) != want {
			t.Errorf("%q: %v", head, !want)
		}
	}
}

func TestFromFiles(t *testing.T) {
	got := FromFiles([]string{"A=1", "B=2", "UID=3", "HOME=/x"}, []string{"B=4", "bad-name=5", "C", "PWD=/"})
	if !slices.Equal(got, []string{"A=1", "B=4"}) {
		t.Errorf("got %q", got)
	}
}
