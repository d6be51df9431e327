package shell

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"singularity/container/env"
)

// files are environment files that every shell understands alike. Each may ask
// for arguments "one" and "two words" and a host with HOSTV and EMPTY.
var files = []struct {
	name, text string
	plain      bool   // container/env evaluates it too
	not        string // a shell that is known to differ
}{
	{"assignments", "A=1\nB=two\nexport C=3\nD=\n", true, ""},
	{"quotes", "A='x $HOSTV \"y\"'\nB=\"q $HOSTV \\\" \\$ \\\\ '\"\nC=a\\ b'c'\"d\"\nD=\"multi\nline\"\n", true, ""},
	{"comments", "# A=no\nA=1 # B=no\nB=x#y\n\n   \t\nC=2;D=3 ; E=4\n", true, ""},
	{"defaults", "A=${NONE-d}\nB=${EMPTY:-e}\nC=${EMPTY-f}\nD=${HOSTV:+g}\nE=${NONE+h}i\nF=\"${NONE:-a b}\"\nG=${NONE:-${EMPTY:-in}}", true, ""},
	{"order", "A=1\nB=$A$A\nA=2\nC=\"$A-$B\"", true, ""},
	{"host", "A=$HOSTV\nHOSTV=changed\nB=$HOSTV\nPATH=/first:$PATH", true, ""},
	{"condition", "if [ -n \"$HOSTV\" ]; then A=yes; else A=no; fi\nif test -z \"$HOSTV\"\nthen B=yes\nfi\n: ignored $A\n", true, ""},
	{"unset", "A=1\nB=2\nunset A", true, ""},
	{"dollars", "A=a$ B=$/c\nC=\"$\"\nD=\"5 $ %\"", true, ""},
	{"continued", "A=1\\\n2\nB=\"x\\\ny\"\n", true, ""},
	{"crlf", "A=1\r\nB='x'\r\n", true, "bash dash"},
	{"export later", "A=1\nexport A HOSTV", true, ""},
	{"export order", "A=1\nexport A=2 B=$A", true, "mvdan"},
	{"special bytes", "A='é\x01*?[a]{b,c}~'\nB=*\nC={x,y}\nD=[a-z]\n", true, ""},

	{"substitution", "A=$(printf 'x\\ny')\nB=`printf z`\nC=\"$(printf '%s' \"$HOSTV\")\"\n", false, ""},
	{"loop", "for i in 1 2 3; do A=\"$A$i\"; done\nwhile [ ${#B} -lt 3 ]; do B=${B}x; done\n", false, ""},
	{"function", "f() { A=\"$1\"; }\nf 'by f'\n", false, ""},
	{"arithmetic", "A=$((6 * 7))\nB=$((A + 1))\n", false, ""},
	{"case", "case $HOSTV in h*) A=match;; *) A=none;; esac\n", false, ""},
	{"arguments", "A=$#\nB=$1\nC=\"$2\"\nD=\"$*\"\n", false, ""},
	{"expansions", "A=${HOSTV#h}\nB=${HOSTV%e}\nC=${#HOSTV}\nD=${HOSTV##*o}\n: ${E:=set}\n", false, ""},
	{"here document", "A=$(cat <<X\nin $HOSTV\nX\n)\n", false, ""},
	{"and or", "[ -z \"$HOSTV\" ] && A=no || A=yes\nfalse || B=1\ntrue && C=2\n", false, ""},
	{"command prefix", "A=tmp sh -c 'true'\nB=1\n", false, ""},
	{"subshell", "A=1\n(A=2; B=3)\nC=$(A=4; printf %s $A)\n", false, ""},
	{"last fails", "A=1\n[ -f /nonexistent/file ] && B=2\n", false, ""},
	{"exit", "A=1\nexit 0\nA=2\n", false, "bash dash"},
	{"source", "printf 'A=sourced\\n' > \"$TMP/f\"\n. \"$TMP/f\"\nB=$A\n", false, ""},
	{"eval", "N=A\neval \"$N='by eval'\"\n", false, ""},
	{"pipe", "A=$(printf 'b\\na\\n' | sort | head -n 1)\n", false, ""},
	{"tilde", "A=~\nB=~/x:~/y\n", false, ""},
	{"backslashes", "A=a\\ b\nB=\\'\\\"\\$x\nexport C=x\\é D=\\\\\nE=${NONE:-a\\ b}\nF=\"${NONE:-a\\ b}\"\ncase a\\ b in a\\ b) G=1;; esac\nH=$(printf %s a\\ b)\n: \"$(true)\"\n", false, ""},
	{"backslashes in eval", "eval 'A=a\\ b'\nprintf '%s\\n' 'B=c\\ d' 'C=~' > \"$TMP/f\"\n. \"$TMP/f\"\necho x > \"$TMP/a b\"; D=$(cat < $TMP/a\\ b)\n", false, ""},
	{"set -u", "set -u\nA=${NONE-ok}\n", false, ""},
	{"functions of bash", "A=${HOSTV/o/0}\nB=${HOSTV:1:2}\nC=${HOSTV^^}\n[[ $HOSTV == h* ]] && D=yes\nE=$'a\\tb'\n((F = 1 + 1))\n", false, "dash"},
}

// hostEnv is the environment that the files see.
func hostEnv(t *testing.T) []string {
	return []string{"PATH=/usr/bin:/bin", "HOME=/home/h", "HOSTV=hostvalue", "EMPTY=", "LC_ALL=C", "TMP=" + t.TempDir()}
}

var fileArgs = []string{"one", "two words"}

// by evaluates text with a real shell: what differs from the environment is
// what the file sets.
func by(t *testing.T, shell, text string, environ []string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// dash passes no arguments to a sourced script, so it is the text itself.
	cmd := exec.Command(shell, append([]string{"-c", "set -a\n" + text + "\n/usr/bin/env -0", "x"}, fileArgs...)...)
	cmd.Env, cmd.Dir, cmd.Stderr = environ, t.TempDir(), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", shell, err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

// changes returns those of list that are not in environ and tell nothing of the
// shell, in order.
func changes(list, environ []string) []string {
	var out []string
	for _, v := range env.FromFiles(list) {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains(environ, v) && name != "_" && name != "SHLVL" && name != "OLDPWD" {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

func TestFilesAsOtherShells(t *testing.T) {
	shells := []string{}
	for _, name := range []string{"bash", "dash"} {
		if path, err := exec.LookPath(name); err == nil {
			shells = append(shells, path)
		} else {
			t.Log("not compared: " + err.Error())
		}
	}
	if len(shells) == 0 {
		t.Skip("neither bash nor dash is here")
	}
	for _, f := range files {
		t.Run(f.name, func(t *testing.T) {
			environ := hostEnv(t)
			got := map[string][]string{}
			vars, plain := env.File(f.text, environ)
			if plain != f.plain {
				t.Errorf("plain is %v", plain)
			}
			if plain {
				got["env"] = changes(vars, environ)
			}
			var errs bytes.Buffer
			vars, err := (&Files{Output: &errs}).Variables(f.name, env.FileText(f.text), environ, fileArgs)
			if err != nil || errs.Len() > 0 {
				t.Fatalf("%v %s", err, errs.String())
			}
			got["mvdan"] = changes(vars, environ)
			for _, path := range shells {
				if !strings.Contains(f.not, filepath.Base(path)) {
					got[filepath.Base(path)] = changes(by(t, path, f.text, environ), environ)
				}
			}
			first := ""
			for _, name := range []string{"bash", "dash", "env", "mvdan"} {
				list, ok := got[name]
				switch {
				case !ok || f.not == name:
				case first == "":
					first = name
				case !slices.Equal(list, got[first]):
					t.Errorf("%s says\n%q\n%s says\n%q", first, got[first], name, list)
				}
			}
			if len(got[first]) == 0 {
				t.Error("nothing was set: the test compares nothing")
			}
		})
	}
}

func TestFileTakesWhatItSets(t *testing.T) {
	environ := append(hostEnv(t), "SINGULARITY_IMAGE=some.sif")
	vars, err := new(Files).Variables("f", "A=plain\nexport B=exported\nHOSTV=hostvalue\nexport EMPTY\ndeclare -a L=(x y)\nf() { local INNER=1; OUTER=2; }\nf\nIMG=$SINGULARITY_IMAGE; :", environ, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := env.FromFiles(vars)
	slices.Sort(got)
	if want := []string{"A=plain", "B=exported", "EMPTY=", "HOSTV=hostvalue", "IMG=some.sif", "OUTER=2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFileErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"A=1\nif x\n", "line 2, column 1: "},
		{"A='x\n", "line 1, column 3: "},
		{"A=1\n\nexit 3\n", "line 3: the script ended with exit status 3"},
		{"set -e\nfalse\nA=1\n", "the script ended with exit status 1"},
		{"f() {\n f\n}\nf\n", "line 2: calls are nested too deeply"},
		{"eval() { builtin eval \"$@\"; }\nf() { eval f; }\nf", "calls are nested too deeply"},
		{"A=x\nwhile :; do A=$A$A; done\n", "line 2: it uses more than 256 MiB of memory"},
		{strings.Repeat("(", 2000), "line 1: brackets are nested more than 1000 deep"},
		{strings.Repeat("a && ", 20000) + "a", "line 1: commands are nested too deeply"},
		{strings.Repeat("#\n", 200000), "a file that needs a shell may have 256 KiB, and it has 390"},
	} {
		_, err := new(Files).Variables("f", c.text, hostEnv(t), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: error %v, want %q", c.text, err, c.want)
		}
	}
}

func TestFileTakesTooLong(t *testing.T) {
	for _, text := range []string{"A=1\nsleep 600\n", "A=1\nwhile :; do :; done\n", "A=1\nB=$(sleep 600 | cat)\n"} {
		begin := time.Now()
		_, err := (&Files{Limit: 300 * time.Millisecond}).Variables("f", text, hostEnv(t), nil)
		if err == nil || err.Error() != "line 2: it has not ended after 300ms" {
			t.Errorf("%q: error %v", text, err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%q ended after %v", text, took)
		}
	}
}

func TestFileReportsMissingCommands(t *testing.T) {
	var out bytes.Buffer
	vars, err := (&Files{Output: &out}).Variables("my.env", "echo noise\n\nnosuchcommand\n/nonexistent/x\n/etc\nA=$(echo x; cat)", hostEnv(t), nil)
	want := "noise\nmy.env: line 3: nosuchcommand: command not found\nmy.env: line 4: /nonexistent/x: no such file or directory\nmy.env: line 5: /etc: is a directory\n"
	if err != nil || !slices.Contains(vars, "A=x") || out.String() != want {
		t.Errorf("%v, %q, output %q", err, vars, out.String())
	}
}

// FuzzFile: what container/env takes for plain is what the shell makes of it.
func FuzzFile(f *testing.F) {
	for _, c := range files {
		if c.not != "mvdan" {
			f.Add(c.text)
		}
	}
	environ := []string{"PATH=/nonexistent", "HOME=/home/h", "HOSTV=hostvalue", "EMPTY="}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.Contains(text, "export") && strings.Contains(text, "$") {
			return // this shell exports each word before it expands the next
		}
		if strings.Contains(text, `\\`+"\\\n") {
			return // and does not continue a line behind an escaped backslash
		}
		vars, plain := env.File(text, environ)
		if !plain {
			return
		}
		want, err := new(Files).Variables("f", env.FileText(text), environ, nil)
		if err != nil {
			t.Fatalf("%q is plain, and the shell says: %v", text, err)
		}
		a, b := changes(vars, environ), changes(want, environ)
		if !slices.Equal(a, b) {
			t.Fatalf("%q sets %q, by the shell %q", text, a, b)
		}
	})
}
