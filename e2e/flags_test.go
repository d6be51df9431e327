package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestIgnoredFlags is the part of e2e/flags that runs scripts: for each line "FLAG
// SCRIPT" of the file SINGULARITY_E2E_FLAGS the script must pass, and fail when
// the programs ignore the flag. It prints "proven FLAG" or "unproven FLAG".
func TestIgnoredFlags(t *testing.T) {
	list := os.Getenv("SINGULARITY_E2E_FLAGS")
	if list == "" {
		t.Skip("needs programs that can ignore a flag: run e2e/flags")
	}
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	p := params(t)
	passes := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		flag, script, _ := strings.Cut(strings.TrimSpace(line), " ")
		p.Files = []string{"testdata/" + script + ".txtar"}
		if !passes[script] {
			r := runScript(p, "")
			if r.failed {
				t.Errorf("%s fails with no flag ignored:\n%s", script, r.log.String())
			}
			passes[script] = true
		}
		r := runScript(p, flag)
		switch {
		case r.failed:
			fmt.Printf("proven %s: %s, %s\n", flag, script, place.FindString(r.log.String()))
		default:
			fmt.Printf("unproven %s: %s passes without it\n", flag, script)
		}
	}
}

// place is where a script failed.
var place = regexp.MustCompile(`txtar:\d+: [^\n]*`)

// scriptTime bounds a script: one that waits for what a flag does would not end
// without the flag.
const scriptTime = time.Minute

// result is a testscript.T that notes what became of a script.
type result struct {
	log    strings.Builder
	failed bool
}

type failure struct{}

// runScript runs the script of p while the programs ignore flag.
func runScript(p testscript.Params, flag string) *result {
	os.Setenv("E2E_IGNORE_FLAG", flag)
	p.Deadline = time.Now().Add(scriptTime)
	r := new(result)
	r.Run("", func(t testscript.T) { testscript.RunT(t, p) })
	return r
}

func (r *result) Skip(a ...any)  { panic(failure{}) }
func (r *result) Fatal(a ...any) { r.Log(a...); r.FailNow() }
func (r *result) Log(a ...any)   { fmt.Fprintln(&r.log, a...) }
func (r *result) FailNow()       { r.failed = true; panic(failure{}) }
func (r *result) Parallel()      {}
func (r *result) Verbose() bool  { return false }

func (r *result) Run(_ string, f func(testscript.T)) {
	defer func() {
		if e := recover(); e != nil && e != (failure{}) {
			panic(e)
		}
	}()
	f(r)
}
