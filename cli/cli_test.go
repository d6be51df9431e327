package cli

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/conf"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// call runs the command tree and returns its output, its messages and its exit
// status.
func call(args ...string) (stdout, stderr string, code int) {
	var out, messages bytes.Buffer
	log := &action.Log{Out: &messages, Level: action.DefaultLevel}
	root := newRoot(log)
	root.SetOut(&out)
	root.SetErr(&messages)
	root.SetArgs(append([]string{}, args...))
	code = action.Report(log, root.Execute())
	return out.String(), messages.String(), code
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: want - got +\n%s", name, diff)
	}
}

func TestHelpGolden(t *testing.T) {
	for _, name := range []string{"exec", "shell", "inspect", "run-help", "completion"} {
		stdout, stderr, code := call(name, "--help")
		if stderr != "" || code != 0 {
			t.Errorf("%s: status %d, %s", name, code, stderr)
		}
		golden(t, "help-"+name+".txt", stdout)
		if again, _, _ := call("help", name); again != stdout {
			t.Errorf("help %s differs from %s --help", name, name)
		}
	}
}

// TestHelpOfAll holds every command to the layout: wrapped, with a short line
// and no tab.
func TestHelpOfAll(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		c.InitDefaultHelpFlag()
		text := helpText(c)
		for _, line := range strings.Split(text, "\n") {
			if len(line) > action.Width && !strings.Contains(text, "\nUsage:\n"+line) {
				t.Errorf("%s: wider than %d: %s", c.CommandPath(), action.Width, line)
			}
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || strings.Contains(text, "\t") {
			t.Errorf("%s: bad help\n%s", c.CommandPath(), text)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&action.Log{}))
}

func TestUsageErrors(t *testing.T) {
	tests := []struct {
		args []string
		want string // how the messages begin
	}{
		{nil, "Usage:\n  singularity [global options] <command>\n\nAvailable Commands:\n"},
		{[]string{"nope"}, "Error for command \"singularity\": unknown command \"nope\" for \"singularity\"\n\nUsage:\n"},
		{[]string{"inspekt", "x"}, "Error for command \"singularity\": unknown command \"inspekt\" for \"singularity\", did you mean \"inspect\"?\n"},
		{[]string{"help", "nope"}, "Error for command \"singularity\": unknown command \"nope\" for \"singularity\"\n"},
		{[]string{"inspect", "--nope", "x"}, "Error for command \"inspect\": unknown flag: --nope\n\nOptions for inspect command:\n\n      --all "},
		{[]string{"inspect"}, "Error for command \"inspect\": accepts 1 arg(s), received 0\n\nUsage:\n  singularity [global options] inspect [options] <image>\n"},
		{[]string{"inspect", "x", "--all"}, "Error for command \"inspect\": accepts 1 arg(s), received 2\n"},
		{[]string{"docs", "man"}, "Error for command \"docs man\": accepts 1 arg(s), received 0\n\nUsage:\n  singularity [global options] docs man <directory>\n"},
		{[]string{"completion", "tcsh"}, "Error for command \"completion\": no completion for \"tcsh\""},
		{[]string{"exec", "--nope"}, "Error for command \"exec\": unknown flag: --nope\n\nOptions for exec command:\n\n      --add-caps list"},
		{[]string{"buildcfg", "NOPE"}, "ERROR:   no variable named \"NOPE\"\n"},
	}
	for _, tt := range tests {
		stdout, stderr, code := call(tt.args...)
		if code != 1 || stdout != "" || !strings.HasPrefix(stderr, tt.want) {
			t.Errorf("%q: status %d, output %q, messages\n%s", tt.args, code, stdout, stderr)
		}
	}
}

func TestRemoteImageIsRefused(t *testing.T) {
	_, stderr, code := call("exec", "s3://bucket/image", "true")
	if code != 255 || !strings.Contains(stderr, "FATAL:   cannot start \"s3://bucket/image\"") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("status %d, %s", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	if out, _, code := call("version"); out != conf.Version+"\n" || code != 0 {
		t.Errorf("version: %q, %d", out, code)
	}
	if out, _, code := call("--version"); out != "singularity-ce version "+conf.Version+"\n" || code != 0 {
		t.Errorf("--version: %q, %d", out, code)
	}
}

func TestBuildcfg(t *testing.T) {
	out, _, _ := call("buildcfg")
	if n := strings.Count(out, "\n"); n != 25 || !strings.HasPrefix(out, "PACKAGE_NAME=singularity-ce\n") {
		t.Errorf("%d lines:\n%s", n, out)
	}
	if out, _, _ := call("buildcfg", "SINGULARITY_CONF_FILE"); out != conf.Path()+"\n" {
		t.Errorf("got %q", out)
	}
}

func TestDefaultConfiguration(t *testing.T) {
	if out, _, code := call("docs", "conf"); out != defaultConfig() || code != 0 {
		t.Errorf("status %d, %d bytes", code, len(out))
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		script, stderr, code := call("completion", shell)
		if code != 0 || stderr != "" || !strings.Contains(script, "__complete") {
			t.Errorf("%s: status %d, %d bytes, %s", shell, code, len(script), stderr)
		}
		if shell == "powershell" {
			continue
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("script for %s not parsed: needs %s", shell, shell)
			continue
		}
		check := exec.Command(path, "-n")
		check.Stdin = strings.NewReader(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
	out, _, _ := call("__complete", "exec", "--no-m")
	if !strings.HasPrefix(out, "--no-mount\tleave out mounts") {
		t.Errorf("completion of --no-m: %s", out)
	}
}

func TestManuals(t *testing.T) {
	dir := t.TempDir()
	if _, stderr, code := call("docs", "man", dir); code != 0 {
		t.Fatal(stderr)
	}
	page, err := os.ReadFile(filepath.Join(dir, "singularity-exec.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH \"SINGULARITY\\-EXEC\" \"1\"", ".TP\n\\fB\\-B\\fR, \\fB\\-\\-bind\\fR \\fIspec\\fR\n", "\\fBsingularity\\fR(1)"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "singularity-buildcfg.1")); err == nil {
		t.Error("a hidden command has a page")
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("needs groff")
	}
	pages, _ := filepath.Glob(filepath.Join(dir, "*.1"))
	for _, p := range pages {
		out, err := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z", p).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("groff %s: %v\n%s", filepath.Base(p), err, out)
		}
	}
}

func TestRoffEscapes(t *testing.T) {
	if got, want := roffLines(".x \\n \"y\" a-b\n'z"), "\\&.x \\en \\(dqy\\(dq a\\-b\n\\&'z\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]syscall.Signal{"INT": 2, "sigterm": 15, "9": 9, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMIN+31": 0, "RTMIN-1": 0, "RTMIN3": 0, "0": 0, "": 0, "NOPE": 0} {
		got, err := parseSignal(in)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
}
