package oci

import (
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Environment returns the script env/10-docker2singularity.sh: the variables of
// the image, each unless the user gave another value. PATH is the image's own.
func Environment(c *v1.Config) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n")
	for _, e := range c.Env {
		name, value, _ := strings.Cut(e, "=")
		if !validName(name) || strings.ContainsRune(value, 0) {
			continue
		}
		if name == "PATH" {
			b.WriteString("export PATH=\"" + doubleQuoted(value, "") + "\"\n")
			continue
		}
		// In the inner quotes a brace would end the expansion for some shells.
		b.WriteString("export " + name + "=\"${" + name + ":-" + doubleQuoted(value, "}") + "}\"\n")
	}
	return b.String()
}

func validName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// doubleQuoted escapes what means something between double quotes, and more.
func doubleQuoted(s, more string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte("\\\"$`"+more, c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// singleQuoted is s as one word of a shell, nothing in it evaluated.
func singleQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// RunscriptMark is the second line of every runscript that Runscript makes.
const RunscriptMark = "# From ENTRYPOINT and CMD of an OCI image."

// runscriptTail is what every runscript does with its words.
//
// To be evaluated, an argument is put between double quotes: variables and
// commands in it are, blanks and other signs stay. A quote in it is escaped, and
// backslashes that would escape a quote are doubled. No program is needed for
// that but the shell.
const runscriptTail = `
__oci_quote() {
	__oci_word=$1 __oci_out=
	while :; do
		__oci_part=${__oci_word%%\"*} __oci_tail=
		while :; do
			case $__oci_part in
			*\\) __oci_part=${__oci_part%\\} __oci_tail="$__oci_tail\\\\" ;;
			*) break ;;
			esac
		done
		__oci_out=$__oci_out$__oci_part$__oci_tail
		case $__oci_word in
		*\"*) __oci_out="$__oci_out\\\"" __oci_word=${__oci_word#*\"} ;;
		*) break ;;
		esac
	done
	__oci_args="$__oci_args \"$__oci_out\""
}

__oci_args=
for __oci_a in "$@"; do __oci_quote "$__oci_a"; done
[ $# -gt 0 ] || __oci_args=$OCI_CMD
eval "set -- $OCI_ENTRYPOINT $__oci_args"
[ $# -gt 0 ] || set -- /bin/sh
exec "$@"
`

// Runscript returns the script that does what the image's ENTRYPOINT and CMD
// say: arguments take the place of CMD. Variables and commands in all words are
// evaluated, unless SINGULARITY_NO_EVAL is set.
func Runscript(c *v1.Config) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n" + RunscriptMark + "\n")
	b.WriteString("if [ -n \"${SINGULARITY_NO_EVAL-}\" ]; then\n")
	if len(c.Cmd) > 0 {
		b.WriteString("\t[ $# -gt 0 ] || set --" + words(c.Cmd, singleQuoted) + "\n")
	}
	b.WriteString("\tset --" + words(c.Entrypoint, singleQuoted) + " \"$@\"\n")
	b.WriteString("\t[ $# -gt 0 ] || set -- /bin/sh\n\texec \"$@\"\nfi\n\n")
	b.WriteString("OCI_ENTRYPOINT=" + singleQuoted(words(c.Entrypoint, evaluated)) + "\n")
	b.WriteString("OCI_CMD=" + singleQuoted(words(c.Cmd, evaluated)) + "\n")
	b.WriteString(runscriptTail)
	return b.String()
}

// words are arguments as text of a shell, a blank before each.
func words(list []string, quote func(string) string) string {
	var b strings.Builder
	for _, w := range list {
		b.WriteString(" " + quote(strings.ReplaceAll(w, "\x00", "")))
	}
	return b.String()
}

// evaluated is a word between double quotes, as __oci_quote makes it, but that
// only variables and commands are evaluated: a backslash in front of anything
// else stays one.
func evaluated(s string) string {
	var b strings.Builder
	slashes := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] == '\\' {
			slashes++
			continue
		}
		if i == len(s) || s[i] != '$' && s[i] != '`' {
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
