package env

import (
	"sort"
	"strings"
)

// program is what /bin/sh runs inside the container when a script does more
// than the evaluator knows. Its arguments are, each group ended by "--": the
// user's variables, the host's, the fixed ones; then the program's own.
//
// Values come as arguments and are never part of the text, so that no value
// can become a command; only a user's value that is to be evaluated is given
// to eval, as the inside of double quotes, with its own quotes escaped (inside).
const program = `unset PS1 PS2 PS4
__app() {
	[ -n "${SINGULARITY_APPNAME-}" ] && [ -z "${__a-}" ] || return 0
	__a=1
	[ -n "${PATH-}" ] || export PATH="$__default"
	` + activate + `
	for __g in /scif/apps/"$SINGULARITY_APPNAME"/scif/env/*.sh; do
		[ -f "$__g" ] && . "$__g" || :
	done
}
__run() {
	__default="` + DefaultPath + `"
	for __f in /.singularity.d/env/*.sh; do
		case "$__f" in
		*/99-runtimevars.sh | */98-singularityenv.sh) continue ;;
		esac
		case "${__f##*/}" in
		95-apps.sh) __app && [ -z "${__a-}" ] || continue ;;
		9[6-9]* | [!0-9]*) __app ;;
		esac
		[ -f "$__f" ] || continue
		case "${__f##*/}" in
		9*) [ -n "${PATH-}" ] || export PATH="$__default" ;;
		esac
		. "$__f" || :
		case "${__f##*/}" in
		10-docker*)
			for __d in $(IFS=:; echo $__default); do
				case ":$PATH:" in *":$__d:"*) ;; *) PATH="$PATH:$__d" ;; esac
			done ;;
		esac
	done
	__app
}
__run >&2 </dev/null
[ -n "${PATH-}" ] || export PATH="$__default"
while [ "$1" != -- ]; do
	__n="${1%%=*}" __v="${1#*=}"
	shift
	if [ -z "${SINGULARITY_NO_EVAL-}" ]; then eval "__v=\"$__v\""; fi
	case "$__n" in
	PREPEND_PATH) export PATH="$__v:$PATH" ;;
	APPEND_PATH) export PATH="$PATH:$__v" ;;
	LD_LIBRARY_PATH) export LD_LIBRARY_PATH="$__v:` + libs + `" ;;
	*) export "$__n=$__v" ;;
	esac
done
shift
while [ "$1" != -- ]; do
	eval "__s=\${${1%%=*}+set} __v=\${${1%%=*}-}"
	if [ -z "$__s" ]; then export "$1"; elif [ -z "$__v" ]; then unset "${1%%=*}"; fi
	shift
done
shift
export PS1="${PS1-Singularity> }" LD_LIBRARY_PATH="${LD_LIBRARY_PATH-` + libs + `}" PATH
[ -n "${PROMPT_COMMAND+set}" ] || export PROMPT_COMMAND='` + promptCommand + `'
while [ "$1" != -- ]; do
	export "$1"
	shift
done
shift
unset __f __g __a __d __n __v __s __default OLDPWD
unset -f __run __app
exec "$@"
`

// wrap returns the command for /bin/sh.
func wrap(in Input, user []string, host map[string]string) Result {
	words := []string{"/bin/sh", "-c", program, "sh"}
	for _, u := range user {
		name, value, _ := strings.Cut(u, "=")
		if !in.NoEval {
			value = inside(value)
		}
		words = append(words, name+"="+value)
	}
	words = append(words, "--")
	for _, k := range sorted(host) {
		words = append(words, k+"="+host[k])
	}
	words = append(words, "--")
	words = append(words, in.Fixed...)
	words = append(words, "--")
	env := append([]string(nil), in.Fixed...)
	if in.NoEval {
		env = append(env, "SINGULARITY_NO_EVAL=1")
	}
	return Result{Env: env, Shell: words}
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// inside makes value the inside of double quotes: a quote is a plain character,
// but one that stands in a substitution belongs to that.
func inside(value string) string {
	var b strings.Builder
	var open []byte // what ends the substitutions and quotes around
	top := byte(0)
	push := func(end byte) { open, top = append(open, end), end }
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case c == '\\' && top != '\'':
			b.WriteByte(c) // twice at the end, where it would escape the quote that closes
			if i++; i < len(value) {
				c = value[i]
			}
		case c == '"' && top == 0:
			b.WriteByte('\\')
		case top != 0 && c == top:
			open, top = open[:len(open)-1], 0
			if len(open) > 0 {
				top = open[len(open)-1]
			}
		case c == '\'' && top == ')':
			push('\'')
		case top == '\'':
		case c == '"' || c == '`':
			push(c)
		case c == '$' && i+1 < len(value) && (value[i+1] == '(' || value[i+1] == '{'):
			b.WriteByte(c)
			i++
			if c = value[i]; c == '(' {
				push(')')
			} else {
				push('}')
			}
		case c == '(' && top == ')':
			push(')')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// mayChange returns the names of those variables whose value means something to
// a shell.
func mayChange(user []string, literal bool) []string {
	var out []string
	for _, u := range user {
		if name, value, _ := strings.Cut(u, "="); !literal && strings.ContainsAny(value, "$`\\") {
			out = append(out, name)
		}
	}
	return out
}
