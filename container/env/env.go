// Package env makes the environment of the program in a container.
//
// In: the environment scripts of the image (/.singularity.d/env/*.sh), the
// host's environment, and the variables that the user set for the container.
// Out: the variables, ready for execve, or, where a script does more than
// assign variables, the words of a command that lets the image's own /bin/sh
// finish the work inside the confined container. The scripts come from the
// image, so nothing of them ever runs on the host: the evaluator here knows
// comments, assignments, export, unset, conditions on empty variables, quotes
// and the parameter expansions, and no more.
//
// Both ways give the same result: first the scripts in the order of their
// names, with a default PATH present before 90-environment.sh, then the user's
// variables behind 99-base.sh, then those of the host that the image neither
// set nor emptied. 99-runtimevars.sh of an image is never used: its work is
// done here.
//
// Environment files (--env-file) are the user's own scripts and are evaluated on
// the host, the plain ones by the same evaluator.
//
// Files: env.go (the order of things), eval.go (the evaluator), file.go
// (environment files), app.go (the active app), wrap.go (the command for
// /bin/sh).
package env

import (
	"sort"
	"strings"
)

// DefaultPath is the PATH of a container whose image sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const libs = "/.singularity.d/libs"

// Script is an environment script of the image.
type Script struct {
	Name string // file name without directory, e.g. "90-environment.sh"
	Text string
}

// Input is all that the environment is made from.
type Input struct {
	Scripts []Script
	Host    []string // the caller's environment
	Clean   bool     // import nothing of it but the terminal and the proxies
	User    []string // NAME=value from SINGULARITYENV_, --env-file and --env, later wins
	NoEval  bool     // user values are literal
	App     *App     // the active app, or nil
	Fixed   []string // what the runtime sets; no script or user changes it
}

// Result is the environment. If Shell is not nil, the program must be started
// as Shell followed by its own arguments, by the image's /bin/sh.
type Result struct {
	Env      []string
	Shell    []string
	Warnings []string
	// Changed are the names of user variables whose values the evaluation
	// changes, or, where a shell does it, may change.
	Changed []string
}

// reserved are the names that a user may not set.
var reserved = map[string]bool{"HOME": true, "SINGULARITY_SHELL": true, "SINGULARITY_APPNAME": true}

// Make evaluates in.
func Make(in Input) Result {
	host := importHost(in.Host, in.Clean)
	user, warnings := splitUser(in.User)
	scripts := withApp(order(in.Scripts), in.App)
	st := newState(in.Fixed)
	ok := true
	for i := range scripts {
		if ok = st.script(scripts[i]); !ok {
			break
		}
	}
	if ok {
		ok = st.user(user, in.NoEval)
	}
	if !ok {
		r := wrap(in, user, host)
		r.Warnings, r.Changed = warnings, mayChange(user, in.NoEval)
		return r
	}
	st.finish(host)
	for _, f := range in.Fixed {
		k, v, _ := strings.Cut(f, "=")
		st.set(k, v, true)
	}
	return Result{Env: st.environ(), Warnings: warnings, Changed: st.changed}
}

// order sorts scripts by name and drops those that the runtime replaces.
func order(list []Script) []Script {
	var out []Script
	for _, s := range list {
		if strings.HasSuffix(s.Name, ".sh") && s.Name != "99-runtimevars.sh" && s.Name != "98-singularityenv.sh" {
			out = append(out, s)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// splitUser checks the names of user variables; a later one replaces an
// earlier.
func splitUser(list []string) (out []string, warnings []string) {
	at := map[string]int{}
	for _, v := range list {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case reserved[name]:
			warnings = append(warnings, "Overriding "+name+" environment variable with SINGULARITYENV_"+name+" is not permitted")
			continue
		case !validName(name):
			continue
		}
		if i, ok := at[name]; ok {
			out[i] = v
			continue
		}
		at[name] = len(out)
		out = append(out, v)
	}
	return out, warnings
}

// UserVariables returns the variables of a host environment that are meant for
// the container: those named SINGULARITYENV_X, and APPTAINERENV_X where no
// other says X.
func UserVariables(host []string) []string {
	var own, fork []string
	seen := map[string]bool{}
	for _, v := range host {
		if rest, ok := strings.CutPrefix(v, "SINGULARITYENV_"); ok {
			own = append(own, rest)
			name, _, _ := strings.Cut(rest, "=")
			seen[name] = true
		}
	}
	for _, v := range host {
		if rest, ok := strings.CutPrefix(v, "APPTAINERENV_"); ok {
			if name, _, _ := strings.Cut(rest, "="); !seen[name] {
				fork = append(fork, rest)
			}
		}
	}
	return append(fork, own...)
}

// importHost returns what of the caller's environment may come in where the
// image does not set it.
func importHost(list []string, clean bool) map[string]string {
	host := map[string]string{}
	for _, v := range list {
		name, value, ok := strings.Cut(v, "=")
		switch {
		case !ok || !validName(name) || strings.HasPrefix(name, "SINGULARITY") || strings.HasPrefix(name, "APPTAINER"):
		case name == "HOME" || name == "PATH" || name == "LD_LIBRARY_PATH" || name == "PWD" || name == "OLDPWD" || name == "SHLVL" || name == "_":
		case alwaysImported(name):
			host[name] = value
		case !clean:
			host[name] = value
		}
	}
	if clean {
		host["LANG"] = "C"
	}
	return host
}

func alwaysImported(name string) bool {
	switch strings.ToLower(name) {
	case "http_proxy", "https_proxy", "no_proxy", "all_proxy", "ftp_proxy":
		return true
	}
	return name == "TERM"
}

func validName(s string) bool {
	for i := range len(s) {
		if !nameByte(s[i], i == 0) {
			return false
		}
	}
	return s != ""
}

func nameByte(c byte, first bool) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || !first && c >= '0' && c <= '9'
}
