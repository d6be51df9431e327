package env

import "strings"

// What a runscript from the ENTRYPOINT and CMD of an OCI image begins with; the
// package oci writes it.
const (
	ociMark    = "#!/bin/sh\n# From ENTRYPOINT and CMD of an OCI image.\n"
	literalCmd = "\n\t[ $# -gt 0 ] || set --"
	literalAll = "\n\tset --"
	argsEnd    = ` "$@"`
)

// Program returns the program that a runscript made from an OCI image starts,
// for an image without /bin/sh; ok is false for any other script. As the script
// does, it puts args in the place of CMD and evaluates variables in all words
// unless literal is set. What only a shell could evaluate stays literal.
func Program(script string, args, environ []string, literal bool) (words []string, ok bool) {
	if !strings.HasPrefix(script, ociMark) || len(script) > maxScript {
		return nil, false
	}
	st := newState(environ)
	if !literal {
		words, ok = st.evaluate(script, args)
	}
	if !ok {
		words, ok = st.literal(script, args)
	}
	return words, ok && len(words) > 0
}

// evaluate takes the words from the variables of the script.
func (st *state) evaluate(script string, args []string) ([]string, bool) {
	entry, ok := st.ociWords(script, "\nOCI_ENTRYPOINT=")
	if !ok {
		return nil, false
	}
	if len(args) == 0 {
		cmd, ok := st.ociWords(script, "\nOCI_CMD=")
		return append(entry, cmd...), ok
	}
	for _, a := range args {
		p := &parser{st: st, in: betweenQuotes(a)}
		w, ok := p.word("")
		if !ok || p.pos < len(p.in) {
			return nil, false
		}
		entry = append(entry, w)
	}
	return entry, true
}

// betweenQuotes puts an argument between double quotes as the script does it:
// quotes are escaped, and backslashes doubled that would escape one.
func betweenQuotes(s string) string {
	var b strings.Builder
	slashes := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] == '\\' {
			slashes++
			continue
		}
		if i == len(s) || s[i] == '"' {
			slashes *= 2
		}
		if i < len(s) && s[i] == '"' {
			slashes++
		}
		b.WriteString(strings.Repeat(`\`, slashes))
		if slashes = 0; i < len(s) {
			b.WriteByte(s[i])
		}
	}
	return `"` + b.String() + `"`
}

// ociWords reads the words that a variable of the script holds as text.
func (st *state) ociWords(script, name string) ([]string, bool) {
	_, rest, found := strings.Cut(script, name)
	if !found {
		return nil, false
	}
	p := &parser{st: st, in: rest}
	text, ok := p.word("")
	if !ok || st.total > maxTotal {
		return nil, false
	}
	return st.words(text)
}

// words expands text that is words and blanks.
func (st *state) words(text string) ([]string, bool) {
	var list []string
	p := &parser{st: st, in: text}
	for p.blank(false); p.pos < len(p.in); p.blank(false) {
		w, ok := p.word("")
		if !ok || p.end() && p.pos < len(p.in) {
			return nil, false
		}
		list = append(list, w)
	}
	return list, true
}

// literal takes the words from the part of the script that evaluates nothing.
func (st *state) literal(script string, args []string) ([]string, bool) {
	head, rest, found := strings.Cut(script, literalAll)
	if _, cmd, has := strings.Cut(head, literalCmd); has && len(args) == 0 {
		var ok bool
		if args, ok = st.words(cmd); !ok {
			return nil, false
		}
	}
	text, _, ended := strings.Cut(rest, argsEnd+"\n")
	if !found || !ended {
		return nil, false
	}
	entry, ok := st.words(text)
	return append(entry, args...), ok
}
