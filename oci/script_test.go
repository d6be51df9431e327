package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// shells are those at hand; the scripts run in the one of the image.
func shells(t *testing.T) [][]string {
	var list [][]string
	for _, s := range [][]string{{"dash"}, {"bash", "--posix"}, {"busybox", "sh"}, {"sh"}} {
		if p, err := exec.LookPath(s[0]); err == nil {
			list = append(list, append([]string{p}, s[1:]...))
		}
	}
	if len(list) < 2 {
		t.Skip("fewer than two shells are installed")
	}
	return list
}

func sh(t *testing.T, shell []string, env []string, args ...string) string {
	t.Helper()
	c := exec.Command(shell[0], append(shell[1:], args...)...)
	c.Env = env
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", shell, err, out)
	}
	return string(out)
}

func TestRunscript(t *testing.T) {
	show := filepath.Join(t.TempDir(), "show")
	if err := os.WriteFile(show, []byte("#!/bin/sh\nfor a; do printf '<%s>' \"$a\"; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		entry, cmd []string
		args       []string
		noEval     bool
		want       string
	}{
		{"both", []string{show, "e"}, []string{"c", "d"}, nil, false, "<e><c><d>"},
		{"arguments replace CMD", []string{show, "e"}, []string{"c"}, []string{"x", "y z"}, false, "<e><x><y z>"},
		{"an empty argument", []string{show}, []string{"c"}, []string{""}, false, "<>"},
		{"ENTRYPOINT alone", []string{show, "e"}, nil, []string{"x"}, false, "<e><x>"},
		{"CMD alone", nil, []string{show, "c"}, nil, false, "<c>"},
		{"arguments replace CMD whole", nil, []string{"/none"}, []string{show, "x"}, false, "<x>"},
		{"none", nil, nil, []string{show, "x"}, false, "<x>"},
		{"evaluated", []string{show, "$V"}, []string{"$(echo  a; echo b)", "`echo c`"}, nil, false, "<v w><a\nb><c>"},
		{"arguments evaluated", []string{show}, nil, []string{"$V", `\$V`, "a  b", "*"}, false, "<v w><$V><a  b><*>"},
		{"literal", []string{show, "$V"}, []string{"`echo c`", "it's"}, nil, true, "<$V><`echo c`><it's>"},
		{"literal arguments", []string{show}, []string{"c"}, []string{"$V", `\"`}, true, `<$V><\">`},
		{"quotes", []string{show, `a"b`, `it's`}, []string{`\`, `\\`, `x\"y`, `"`, `\\"`}, nil, false, `<a"b><it's><\><\\><x\"y><"><\\">`},
		{"backslashes", []string{show, `a\\b`, `a\b`, `\$V`, `\\`, `\n`}, nil, nil, false, `<a\\b><a\b><$V><\\><\n>`},
		{"quotes in arguments", []string{show}, nil, []string{`a"b`, `it's`, `\`, `\\`, `x\"y`, `"`, `\\"`, "a\nb"}, false, "<a\"b><it's><\\><\\\\><x\\\"y><\"><\\\\\"><a\nb>"},
		{"a shell command", []string{"/bin/sh", "-c"}, []string{`printf '%s' "a b"`}, nil, false, "a b"},
	} {
		text := Runscript(&v1.Config{Entrypoint: tt.entry, Cmd: tt.cmd})
		if !strings.HasPrefix(text, "#!/bin/sh\n"+RunscriptMark+"\n") {
			t.Fatalf("%s: begins with %q", tt.name, text[:40])
		}
		script := filepath.Join(t.TempDir(), "runscript")
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, s := range shells(t) {
			env := []string{"V=v w", "PATH=/usr/bin:/bin"}
			if tt.noEval {
				env = append(env, "SINGULARITY_NO_EVAL=1")
			}
			if got := sh(t, s, env, append([]string{script}, tt.args...)...); got != tt.want {
				t.Errorf("%s, %s: got %s, want %s", tt.name, s, got, tt.want)
			}
		}
	}
}

func TestEnvironment(t *testing.T) {
	odd := "a b\t$HOME `id` $(id) \"q\" it's {x} \\ \\n }\nsecond ä"
	text := Environment(&v1.Config{Env: []string{"PATH=/x:/y", "ODD=" + odd, "EMPTY=", "NOVALUE", "bad-name=1", "2X=1", "=v", "GIVEN=image", "F()=() { :; }", "NUL=a\x00b"}})
	for _, bad := range []string{"bad-name", "2X", "NUL", "F()"} {
		if strings.Contains(text, bad) {
			t.Errorf("the script has %q:\n%s", bad, text)
		}
	}
	file := filepath.Join(t.TempDir(), "10-docker2singularity.sh")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, s := range shells(t) {
		got := sh(t, s, []string{"PATH=/usr/bin:/bin", "GIVEN=user", "HOME=/h"}, "-c", ". "+file+`; printf '%s|%s|%s|%s|%s' "$PATH" "$ODD" "$EMPTY" "${NOVALUE+set}" "$GIVEN"`)
		if want := "/x:/y|" + odd + "||set|user"; got != want {
			t.Errorf("%s: got %q, want %q", s, got, want)
		}
	}
}
