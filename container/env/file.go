package env

import (
	"sort"
	"strings"
)

// MaxFile bounds the text of an environment file, in bytes.
const MaxFile = maxScript

// File evaluates an environment file of the user, which may use the variables
// of host and runs on their side: only the variables that it sets are returned,
// in the order of their names. It knows what scripts of an image may hold here;
// plain is false if the file holds anything else, which is left to a shell.
func File(text string, host []string) (vars []string, plain bool) {
	text = FileText(text)
	if len(text) > MaxFile || strings.ContainsAny(text, "\r\x00") {
		return nil, false
	}
	st := newState(host)
	for _, v := range st.vars {
		v.exported = false
	}
	st.total, st.file = 0, true
	p := &parser{st: st, in: text}
	if !p.list("") || st.total > maxTotal {
		return nil, false
	}
	for name, v := range st.vars {
		if v.set && (v.touched || v.exported) {
			vars = append(vars, name+"="+v.value)
		}
	}
	sort.Strings(vars)
	return vars, true
}

// FileText returns the text of an environment file as a shell is to read it:
// with the line ends of this system.
func FileText(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }

// FromFiles puts together what environment files set, each a list of NAME=value
// in the order of the files: a later one wins. What a shell keeps for itself is
// left out.
func FromFiles(lists ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, list := range lists {
		for _, v := range list {
			name, _, ok := strings.Cut(v, "=")
			if !ok || !validName(name) || kept(name) {
				continue
			}
			if i, ok := at[name]; ok {
				out[i] = v
				continue
			}
			at[name] = len(out)
			out = append(out, v)
		}
	}
	return out
}

// kept tells whether a variable of a shell says something about the shell or
// its user, and nothing that a container wants to know.
func kept(name string) bool {
	switch name {
	case "EUID", "GID", "HOME", "IFS", "OPTIND", "PWD", "UID":
		return true
	}
	return false
}

// magic tells whether shells give the variable a value, or forbid one, by
// themselves.
func magic(name string) bool {
	switch name {
	case "UID", "EUID", "GID", "IFS", "OPTIND", "OPTARG", "OPTERR", "PWD", "OLDPWD", "PPID", "RANDOM", "SRANDOM", "LINENO", "SECONDS", "HOSTNAME", "HOSTTYPE",
		"MACHTYPE", "OSTYPE", "SHLVL", "SHELL", "SHELLOPTS", "DIRSTACK", "FUNCNAME", "GROUPS", "PIPESTATUS", "HISTCMD", "EPOCHSECONDS", "EPOCHREALTIME", "TERM", "_", "PS4", "POSIXLY_CORRECT":
		return true
	}
	return strings.HasPrefix(name, "BASH") || strings.HasPrefix(name, "COMP_")
}
