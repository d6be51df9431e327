package env_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"singularity/container/env"
	"singularity/oci"
)

// TestProgram compares the words with those that the script itself starts.
func TestProgram(t *testing.T) {
	show := filepath.Join(t.TempDir(), "show")
	if err := os.WriteFile(show, []byte("#!/bin/sh\nprintf '%s\\n' \"$0\"; for a; do printf '<%s>\\n' \"$a\"; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	environ := []string{"V=v w", "PATH=/usr/bin:/bin"}
	odd := []string{"$V", `\$V`, `a"b`, "it's", `\`, `\\`, `x\"y`, "", "a  b", "*", "${V:-x} ${NONE:-y}", "#", ";", "two\nlines", "$(echo x)", "`echo y`"}
	for _, c := range []v1.Config{
		{Entrypoint: []string{show, "e"}, Cmd: []string{"c", "d e"}},
		{Entrypoint: append([]string{show}, odd[:14]...), Cmd: odd[:14]},
		{Cmd: append([]string{show}, odd[:14]...)},
		{Entrypoint: []string{show}},
		{Entrypoint: append([]string{show}, odd...), Cmd: odd},
	} {
		script := oci.Runscript(&c)
		file := filepath.Join(t.TempDir(), "runscript")
		if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{nil, {show, "x"}, append([]string{show}, odd[:14]...), append([]string{show}, odd...)} {
			for _, literal := range []bool{false, true} {
				words, ok := env.Program(script, args, environ, literal)
				if !ok {
					t.Errorf("%+v with %q: not known", c, args)
					continue
				}
				commands := !literal && slices.ContainsFunc(slices.Concat(c.Entrypoint, c.Cmd, args), func(s string) bool { return strings.Contains(s, "echo") })
				if commands {
					continue // literal here, as there is no shell
				}
				sh := exec.Command("/bin/sh", append([]string{file}, args...)...)
				if sh.Env = environ; literal {
					sh.Env = append(slices.Clone(environ), "SINGULARITY_NO_EVAL=1")
				}
				want, err := sh.CombinedOutput()
				if err != nil {
					t.Fatal(err)
				}
				got, err := exec.Command(words[0], words[1:]...).CombinedOutput()
				if err != nil || string(got) != string(want) {
					t.Errorf("%+v with %q, literal %v: got %q, error %v, want %q", c, args, literal, got, err, want)
				}
			}
		}
	}
	for _, script := range []string{"", "#!/bin/sh\necho hello\n", oci.Runscript(&v1.Config{})} {
		if words, ok := env.Program(script, nil, environ, false); ok {
			t.Errorf("%q: got %q", script, words)
		}
	}
}

func FuzzProgram(f *testing.F) {
	f.Add(oci.Runscript(&v1.Config{Entrypoint: []string{"a", "$B"}, Cmd: []string{"c"}}), "x")
	f.Fuzz(func(t *testing.T, script, arg string) {
		env.Program(script, nil, []string{"B=1"}, false)
		env.Program(script, []string{arg}, []string{"B=1"}, false)
	})
}
