package action

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"singularity/conf"
)

func TestScheme(t *testing.T) {
	for ref, want := range map[string]string{
		"a.sif": "", "/x/y:z.sif": "", "a:b.img": "", "./docker:x": "", "x/y://z": "", "://x": "", ":x": "",
		"docker://debian": "docker", "docker-daemon:a:b": "docker-daemon", "oci:dir": "oci", "instance://i": "instance",
		"https://h/f": "https", "s3://b/k": "s3", "9p://x": "", "weird+1.0://x": "weird+1.0",
	} {
		if got := Scheme(ref); got != want {
			t.Errorf("Scheme(%q) = %q, want %q", ref, got, want)
		}
	}
}

func TestSetLog(t *testing.T) {
	tests := []struct {
		v     Invocation
		level Level
		env   string
		color bool
	}{
		{Invocation{}, DefaultLevel, "", true},
		{Invocation{Debug: true, Silent: true}, DebugLevel, "5", true},
		{Invocation{Verbose: true, Quiet: true}, VerboseLevel, "4", true},
		{Invocation{Quiet: true, Silent: true}, QuietLevel, "-1", true},
		{Invocation{Silent: true, NoColor: true}, SilentLevel, "-93", false},
		{Invocation{NoColor: true}, DefaultLevel, "91", false},
	}
	for _, tt := range tests {
		t.Setenv("SINGULARITY_MESSAGELEVEL", "")
		t.Setenv("SINGULARITY_DEBUG", "")
		log := &Log{Level: DefaultLevel, Color: true}
		tt.v.SetLog(log)
		if log.Level != tt.level || log.Color != tt.color || os.Getenv("SINGULARITY_MESSAGELEVEL") != tt.env {
			t.Errorf("%+v: level %d, colour %v, environment %q", tt.v, log.Level, log.Color, os.Getenv("SINGULARITY_MESSAGELEVEL"))
		}
		if again := NewLog(); again.Level != tt.level {
			t.Errorf("%+v: the next program has level %d", tt.v, again.Level)
		}
		if (os.Getenv("SINGULARITY_DEBUG") == "1") != tt.v.Debug {
			t.Errorf("%+v: SINGULARITY_DEBUG=%q", tt.v, os.Getenv("SINGULARITY_DEBUG"))
		}
	}
}

func TestReport(t *testing.T) {
	tests := []struct {
		err  error
		code int
		want string
	}{
		{nil, 0, ""},
		{errors.New("cannot do it"), 255, "FATAL:   cannot do it\n"},
		{Fatal(errors.New("bad\x1b[2J"), "do this"), 255, "FATAL:   bad\\x1b[2J\nhint: do this\n"},
		{&Failure{Err: errors.New("no instance found"), Code: 1}, 1, "ERROR:   no instance found\n"},
		{fmt.Errorf("cannot write: %w", syscall.ENOSPC), 255,
			"FATAL:   cannot write: no space left on device\nhint: free some space, or let SINGULARITY_TMPDIR name a directory on a larger file system\n"},
		{&conf.SyntaxError{Line: 3, Reason: "x"}, 255, "FATAL:   line 3: x\nhint: correct the file, or ask the administrator of this host to\n"},
		{&UsageError{Command: "run", Reason: "requires", Use: LookupVerb("run").UseLine()}, 1,
			"Error for command \"run\": requires\n\nUsage:\n  singularity [global options] run [options] <container> [args...]\n\n" +
				"Run 'singularity run --help' for more detailed usage information.\n"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		code := Report(&Log{Out: &out, Level: DefaultLevel}, tt.err)
		if code != tt.code || out.String() != tt.want {
			t.Errorf("%v: status %d, wrote\n%s", tt.err, code, out.String())
		}
	}
}

func TestUnknownFlagListsOptions(t *testing.T) {
	var v Invocation
	err := ParseVerb(&v, LookupVerb("exec"), []string{"--nope"}, environ())
	var out bytes.Buffer
	if code := Report(&Log{Out: &out, Level: SilentLevel}, err); code != 1 {
		t.Errorf("status %d", code)
	}
	got := out.String()
	for _, want := range []string{"Error for command \"exec\": unknown flag: --nope\n\nOptions for exec command:\n", "  -B, --bind spec", "      --env NAME=value "} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, line := range strings.Split(got, "\n") {
		if len(line) > Width {
			t.Errorf("wider than %d: %s", Width, line)
		}
	}
	if strings.Contains(got, "tmpdir") || strings.Contains(got, "--shell") {
		t.Errorf("lists an option that is hidden or of another verb:\n%s", got)
	}
}

// As root of a user namespace no group of the host is mapped, so none is named.
func TestGroupsInside(t *testing.T) {
	got := groupsInside([]int{os.Getgid(), 4, 100}, true)
	if len(got) != 1 || got[0].GID != 0 || got[0].Name != "root" {
		t.Errorf("fakeroot: %+v, want root alone", got)
	}
	found := false
	for _, g := range groupsInside([]int{0, 12345}, false) {
		found = found || g.GID == 0 && g.Name == "root"
	}
	if !found {
		t.Error("the group root of the host is not named outside of fakeroot")
	}
}
