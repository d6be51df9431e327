package shell

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"singularity/container"
	"singularity/container/env"
)

// TestMain lets the test program be the shell.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == container.ShellVerb {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// ownShell is the test program as the shell of a container.
func ownShell(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{container.ShellVerb}, args...)...)
	cmd.Args[0] = "sh"
	return cmd
}

func TestMainAsOtherShells(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"script": "#!/bin/sh -e\necho \"$0:$#:$1\" | sed s,.*/,,\nfalse\necho no\n", "plain": "echo plain \"$@\"; exit 4\n",
		"env.sh": "#!/usr/bin/env sh\necho by env\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args  []string
		input string
	}{
		{[]string{"-c", `echo "$0|$1|$#"`, "name", "a b"}, ""},
		{[]string{"-c", "exit 7"}, ""},
		{[]string{"-ec", "false; echo no"}, ""},
		{[]string{"-c", "-u", "echo ${NONE-ok} $#", "x", "y"}, ""},
		{[]string{"-c", "set -- 1 2 3; shift; echo $*; exec echo replaced $1"}, ""},
		{[]string{"-c", "trap 'echo at the end' EXIT; echo x; (exec true)"}, ""},
		{[]string{"-c", "umask; umask 027; umask; (exec kill -0 $$); kill -0 1 2>/dev/null; kill -s TERM $$"}, ""},
		{[]string{"-c", "(exec echo inner); echo outer; exec echo $(echo computed)"}, ""},
		{[]string{"-c", "kill -9 $$"}, ""},
		{[]string{"-c", "sh -c 'kill -TERM $$'; echo $?"}, ""},
		{[]string{"-c", "cat; echo end"}, "from input\n"},
		{[]string{"-c", "echo out; echo err >&2; ls /nonexistent 2>/dev/null || echo failed"}, ""},
		{[]string{"-c", "cd /; pwd; /bin/pwd; (cd /tmp; /bin/pwd); exec pwd"}, ""},
		{[]string{"-c", "X=1 env | grep ^X=; export Y=2; env | grep ^Y=; unset Y; env | grep ^Y= || echo gone"}, ""},
		{[]string{dir + "/plain", "one", "two"}, ""},
		{[]string{"-c", dir + "/script a; " + dir + "/plain b; echo $?; " + dir + "/env.sh"}, ""},
		{nil, "echo from input\nif true\nthen echo lines; fi\nexit 3\necho no\n"},
		{nil, "trap 'echo at the end' EXIT\necho $#\nfalse; echo $?\n"},
		{[]string{"-s"}, "echo $((1+1))\nfalse\n"},
	} {
		got, want := ownShell(c.args...), exec.Command("/bin/sh", c.args...)
		var out [2]bytes.Buffer
		var status [2]syscall.WaitStatus
		for i, cmd := range []*exec.Cmd{got, want} {
			cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = strings.NewReader(c.input), &out[i], io.Discard, "/usr"
			if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			status[i] = cmd.ProcessState.Sys().(syscall.WaitStatus)
		}
		if status[0] != status[1] || out[0].String() != out[1].String() {
			t.Errorf("%q: status %v, output %q; /bin/sh says %v, %q", c.args, status[0], out[0].String(), status[1], out[1].String())
		}
	}
}

// TestWholeEnvironment: what env gives to a shell comes out the same by ours.
func TestWholeEnvironment(t *testing.T) {
	dir := t.TempDir()
	scripts := []env.Script{
		{Name: "01-base.sh", Text: "export PATH=/usr/local/bin:/usr/bin:/bin\nexport X=$(echo computed)\n"},
		{Name: "10-docker2singularity.sh", Text: "export A=\"${A:-\"a b\"}\"\nexport B=c\\ d\n"},
		{Name: "90-environment.sh", Text: "false\nif [ -d / ]; then export D=1; fi\nfor i in 1 2; do L=\"$L$i\"; done; export L\nexport EMPTY=\nHIDDEN=1\n"},
		{Name: "99-base.sh", Text: "export LD_LIBRARY_PATH=\"${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs\"\n"},
	}
	for _, s := range scripts {
		if err := os.WriteFile(filepath.Join(dir, s.Name), []byte(s.Text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, literal := range []bool{false, true} {
		r := env.Make(env.Input{Scripts: scripts, Host: []string{"HOST=1", "EMPTY=host", "L=host", "TERM=dumb"}, NoEval: literal,
			User:  []string{"U=$(echo \"by  user\") \"q\" \\$x", "V=two\nlines\n", "PREPEND_PATH=/pre", "W='single' `echo back`"},
			Fixed: []string{"HOME=/home/u", "SINGULARITY_NAME=x.sif"}})
		if r.Shell == nil {
			t.Fatal("no shell is needed: the test compares nothing")
		}
		words := append(slices.Clone(r.Shell[1:]), "/usr/bin/env", "-0")
		words[1] = strings.ReplaceAll(words[1], "/.singularity.d/env", dir)
		var lists [2][]string
		for i, cmd := range []*exec.Cmd{ownShell(words...), exec.Command("/bin/sh", words...)} {
			cmd.Env, cmd.Stderr = r.Env, os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			lists[i] = slices.DeleteFunc(strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), func(v string) bool { return strings.HasPrefix(v, "PWD=") })
			slices.Sort(lists[i])
		}
		if !slices.Equal(lists[0], lists[1]) {
			t.Errorf("literal %v: our shell\n%q\n/bin/sh\n%q", literal, lists[0], lists[1])
		}
		if !slices.Contains(lists[0], "X=computed") || !slices.Contains(lists[0], "B=c d") || !slices.Contains(lists[0], "V=two\nlines\n") {
			t.Errorf("got %q", lists[0])
		}
	}
}

// TestSignals: the shell ends as its program was told to.
func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		cmd := ownShell("-c", "echo ready; sleep 600; echo no")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 6)
		if _, err := io.ReadFull(out, line); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		cmd.Process.Signal(sig)
		rest, _ := io.ReadAll(out)
		cmd.Wait()
		ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !ws.Signaled() || ws.Signal() != sig || len(rest) > 0 || time.Since(begin) > 30*time.Second {
			t.Errorf("%v: status %v, output %q", sig, ws, rest)
		}
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		`A=a\ b`: `A=a' 'b`, `A=\'`: `A="'"`, `echo a\ b`: `echo a\ b`, `A="a\ b"`: `A="a\ b"`, `A=x:~:~/y:~z`: `A=x:"${HOME}":"${HOME}"/y:~z`,
		"A=`echo \\\\`": "A=`echo \\\\`", `A=${B:-\ }`: `A=${B:-' '}`, `A=${B#\ }`: `A=${B#\ }`, "A=a\\\nb": "A=a\\\nb", "if \\ ": "if \\ ",
		"cat <<X\na\\ b\nX\n": "cat <<X\na\\ b\nX\n", `A=\é`: `A='é'`, "x > a\\ b": "x > a' 'b",
	} {
		if got := quote(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// FuzzQuote: what could be parsed still can be, and lines stay where they are.
func FuzzQuote(f *testing.F) {
	for _, c := range files {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := syntax.NewParser().Parse(strings.NewReader(text), ""); err != nil {
			return
		}
		got := quote(text)
		if _, err := syntax.NewParser().Parse(strings.NewReader(got), ""); err != nil {
			t.Errorf("%q became %q: %v", text, got, err)
		}
		if strings.Count(got, "\n") != strings.Count(text, "\n") {
			t.Errorf("%q became %q: lines are lost", text, got)
		}
	})
}
