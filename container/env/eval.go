package env

import (
	"sort"
	"strings"
)

// limits of one script and of all variables together, in bytes.
const (
	maxScript = 1 << 20
	maxTotal  = 4 << 20
)

type variable struct {
	value    string
	set      bool // false: unset, or never set
	exported bool
	touched  bool // the image gave it a value or took it away
}

// state is the variables while scripts are evaluated.
type state struct {
	vars  map[string]*variable
	total int
	file  bool // an environment file is evaluated, for a user of the host's shell
	// changed are the user's variables whose value is not what was given.
	changed []string
}

func newState(fixed []string) *state {
	st := &state{vars: map[string]*variable{}}
	for _, f := range fixed {
		k, v, _ := strings.Cut(f, "=")
		st.set(k, v, true)
		st.vars[k].touched = false
	}
	return st
}

func (st *state) at(name string) *variable {
	v := st.vars[name]
	if v == nil {
		v = new(variable)
		st.vars[name] = v
	}
	return v
}

func (st *state) set(name, value string, export bool) {
	v := st.at(name)
	v.value, v.set, v.touched = value, true, true
	v.exported = v.exported || export
	st.total += len(value)
}

func (st *state) get(name string) (string, bool) {
	v := st.vars[name]
	if v == nil || !v.set {
		return "", false
	}
	return v.value, true
}

// script evaluates one file, with what surrounds it by its name. It returns
// false if the file holds something that is not known here.
func (st *state) script(s Script) bool {
	if s.Name >= "90-" {
		st.defaultPath()
	}
	if len(s.Text) > maxScript {
		return false
	}
	p := &parser{st: st, in: s.Text}
	if !p.list("") || st.total > maxTotal {
		return false
	}
	if strings.HasPrefix(s.Name, "10-docker") {
		st.completePath()
	}
	return true
}

func (st *state) defaultPath() {
	if v, ok := st.get("PATH"); !ok || v == "" {
		st.set("PATH", DefaultPath, true)
	}
}

// completePath appends the default directories that PATH lacks.
func (st *state) completePath() {
	path, ok := st.get("PATH")
	if !ok {
		return
	}
	have := map[string]bool{}
	for _, d := range strings.Split(path, ":") {
		have[d] = true
	}
	for _, d := range strings.Split(DefaultPath, ":") {
		if !have[d] {
			path += ":" + d
		}
	}
	st.set("PATH", path, true)
}

// user applies the user's variables, each evaluated once as the inside of
// double quotes unless literal is set.
func (st *state) user(list []string, literal bool) bool {
	st.defaultPath()
	for _, u := range list {
		name, value, _ := strings.Cut(u, "=")
		if !literal {
			p := &parser{st: st, in: value}
			result, ok := p.quoted(true)
			if !ok {
				return false
			}
			if result != value {
				st.changed = append(st.changed, name)
			}
			value = result
		}
		path, _ := st.get("PATH")
		switch name {
		case "PREPEND_PATH":
			st.set("PATH", value+":"+path, true)
		case "APPEND_PATH":
			st.set("PATH", path+":"+value, true)
		case "LD_LIBRARY_PATH":
			st.set(name, value+":"+libs, true)
		default:
			st.set(name, value, true)
		}
	}
	return st.total <= maxTotal
}

// finish restores the host's variables that the image left alone, and removes
// those that it emptied.
func (st *state) finish(host map[string]string) {
	for k, v := range host {
		if h := st.vars[k]; h == nil || !h.touched {
			st.set(k, v, true)
		}
	}
	for k, v := range st.vars {
		if _, fromHost := host[k]; fromHost && v.set && v.value == "" {
			v.set = false
		}
	}
	for _, d := range []struct{ name, value string }{
		{"PS1", "Singularity> "}, {"LD_LIBRARY_PATH", libs}, {"PATH", DefaultPath},
		{"PROMPT_COMMAND", promptCommand},
	} {
		if _, ok := st.get(d.name); !ok {
			st.set(d.name, d.value, true)
		}
	}
}

// promptCommand puts the prompt back once, after a shell's own start files.
const promptCommand = `PS1="Singularity> "; unset PROMPT_COMMAND`

func (st *state) environ() []string {
	var out []string
	for k, v := range st.vars {
		if v.set && v.exported {
			out = append(out, k+"="+v.value)
		}
	}
	sort.Strings(out)
	return out
}

// parser reads a script and carries out what it reads. All its methods return
// false at the first thing that they do not know.
type parser struct {
	st   *state
	in   string
	pos  int
	off  bool // inside a branch that is not taken: nothing is set
	deep int
	dq   int // inside double quotes, where other rules hold for what stands in braces
}

func (p *parser) peek() byte {
	if p.pos < len(p.in) {
		return p.in[p.pos]
	}
	return 0
}

// blank passes over spaces, continued lines and comments, and, if lines is set,
// over line ends.
func (p *parser) blank(lines bool) {
	for p.pos < len(p.in) {
		switch c := p.in[p.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
			p.pos++
		case c == '\\' && strings.HasPrefix(p.in[p.pos:], "\\\n"):
			p.pos += 2
		case c == '#':
			if i := strings.IndexByte(p.in[p.pos:], '\n'); i >= 0 {
				p.pos += i
			} else {
				p.pos = len(p.in)
			}
		case lines && c == '\n':
			p.pos++
		default:
			return
		}
	}
}

// end tells whether a command ends here.
func (p *parser) end() bool {
	c := p.peek()
	return p.pos >= len(p.in) || c == '\n' || c == ';'
}

// list reads commands up to one of the words in until, separated by spaces, or
// to the end of the text if until is empty. The word is left unread.
func (p *parser) list(until string) bool {
	for some := false; ; some = true {
		p.blank(true)
		if p.pos >= len(p.in) {
			return until == ""
		}
		if w := p.name(); w != "" && until != "" && strings.Contains(" "+until+" ", " "+w+" ") {
			return some // shells want a command here
		}
		if !p.command() {
			return false
		}
		p.blank(false)
		if !p.end() {
			return false
		}
		if p.peek() == ';' {
			p.pos++
		}
	}
}

// name returns the name that stands here, without reading it.
func (p *parser) name() string {
	i := p.pos
	for i < len(p.in) && nameByte(p.in[i], i == p.pos) {
		i++
	}
	return p.in[p.pos:i]
}

// bare reads name as a whole word.
func (p *parser) bare(name string) bool {
	if p.name() != name {
		return false
	}
	if i := p.pos + len(name); i < len(p.in) && !strings.ContainsRune(" \t\r\n;", rune(p.in[i])) {
		return false
	}
	p.pos += len(name)
	return true
}

func (p *parser) command() bool {
	switch {
	case p.peek() == ':' && (p.pos+1 == len(p.in) || strings.IndexByte(" \t\n;", p.in[p.pos+1]) >= 0):
		p.pos++
		return p.noop()
	case p.bare("true"):
		return p.noop()
	case p.bare("export"):
		return p.names(true, func(name, value string, has bool) {
			if has {
				p.st.set(name, value, true)
			} else {
				p.st.at(name).exported = true
			}
		})
	case p.bare("unset"):
		return p.names(false, func(name, _ string, _ bool) {
			v := p.st.at(name)
			v.set, v.value, v.touched = false, "", true
		})
	case p.bare("if"):
		return p.condition()
	}
	if p.end() {
		return false
	}
	for !p.end() {
		name := p.name()
		if name == "" || !strings.HasPrefix(p.in[p.pos+len(name):], "=") || p.st.file && magic(name) {
			return false // an assignment before a command, or none
		}
		p.pos += len(name) + 1
		value, ok := p.word("")
		if !ok {
			return false
		}
		if !p.off {
			p.st.set(name, value, false)
		}
		p.blank(false)
	}
	return true
}

// noop reads the words of a command that does nothing.
func (p *parser) noop() bool {
	for p.blank(false); !p.end(); p.blank(false) {
		if _, ok := p.word(""); !ok {
			return false
		}
	}
	return true
}

// names reads the words of export and unset, with values or without. All are
// expanded before the first takes effect.
func (p *parser) names(values bool, do func(name, value string, has bool)) bool {
	var effects []func()
	p.blank(false)
	for !p.end() {
		name := p.name()
		if name == "" || p.st.file && magic(name) {
			return false
		}
		p.pos += len(name)
		value, has := "", false
		if p.peek() == '=' && values {
			p.pos++
			var ok bool
			if value, ok = p.word(""); !ok {
				return false
			}
			has = true
		} else if c := p.peek(); p.pos < len(p.in) && strings.IndexByte(" \t\r\n;", c) < 0 {
			return false
		}
		effects = append(effects, func() { do(name, value, has) })
		p.blank(false)
	}
	if !p.off {
		for _, f := range effects {
			f()
		}
	}
	return true
}

// condition reads the rest of: if TEST; then LIST [else LIST] fi.
func (p *parser) condition() bool {
	if p.deep++; p.deep > 16 {
		return false
	}
	defer func() { p.deep-- }()
	yes, ok := p.test()
	if !ok {
		return false
	}
	if p.peek() == ';' {
		p.pos++
	}
	p.blank(true)
	outer := p.off
	defer func() { p.off = outer }()
	if !p.bare("then") {
		return false
	}
	p.off = outer || !yes
	if !p.list("else fi elif") {
		return false
	}
	if p.bare("elif") {
		return false
	}
	if p.bare("else") {
		p.off = outer || yes
		if !p.list("fi") {
			return false
		}
	}
	return p.bare("fi")
}

// test reads [ -z WORD ], [ -n WORD ], test -z WORD and their negations.
func (p *parser) test() (result, ok bool) {
	p.blank(false)
	bracket := false
	switch {
	case strings.HasPrefix(p.in[p.pos:], "[ "):
		bracket = true
		p.pos += 2
	case !p.bare("test"):
		return false, false
	}
	not := false
	for {
		p.blank(false)
		if !strings.HasPrefix(p.in[p.pos:], "! ") {
			break
		}
		not = !not
		p.pos += 2
	}
	empty := false
	switch {
	case strings.HasPrefix(p.in[p.pos:], "-z "):
		empty = true
	case strings.HasPrefix(p.in[p.pos:], "-n "):
	default:
		return false, false
	}
	p.pos += 3
	p.blank(false)
	if p.peek() != '"' {
		return false, false // an unquoted expansion may split into words
	}
	w, ok := p.word("")
	if !ok {
		return false, false
	}
	p.blank(false)
	if bracket {
		if p.peek() != ']' {
			return false, false
		}
		p.pos++
		p.blank(false)
	}
	return ((w == "") == empty) != not, p.end()
}

// word reads one word with its quotes and expansions. It ends at white space, a
// line end or a semicolon, or at one of the bytes in stop.
func (p *parser) word(stop string) (string, bool) {
	var b strings.Builder
	for p.pos < len(p.in) {
		c := p.in[p.pos]
		switch {
		case strings.IndexByte(stop, c) >= 0:
			return b.String(), true
		case stop == "" && strings.IndexByte(" \t\r\n;", c) >= 0:
			return b.String(), true
		case p.dq > 0 && (c == '\'' || c == '\\' || c == '~'):
			return "", false
		case c == '\'':
			i := strings.IndexByte(p.in[p.pos+1:], '\'')
			if i < 0 {
				return "", false
			}
			b.WriteString(p.in[p.pos+1 : p.pos+1+i])
			p.pos += i + 2
		case c == '"':
			p.pos++
			s, ok := p.quoted(false)
			if !ok {
				return "", false
			}
			b.WriteString(s)
		case c == '\\':
			if p.pos+1 >= len(p.in) {
				return "", false
			}
			if p.in[p.pos+1] != '\n' {
				b.WriteByte(p.in[p.pos+1])
			}
			p.pos += 2
		case c == '$':
			s, ok := p.expand()
			if !ok {
				return "", false
			}
			b.WriteString(s)
		case c == '~' && (b.Len() == 0 || strings.HasSuffix(b.String(), ":")):
			return "", false // the home of somebody
		case c == '`' || p.dq == 0 && strings.IndexByte("|&<>()", c) >= 0:
			return "", false
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
	return b.String(), stop == ""
}

// quoted reads the inside of double quotes: to the closing one, or, for a value
// that stands alone, to its end, where a quote is a plain character.
func (p *parser) quoted(alone bool) (string, bool) {
	p.dq++
	defer func() { p.dq-- }()
	var b strings.Builder
	for p.pos < len(p.in) {
		c := p.in[p.pos]
		switch {
		case c == '"' && !alone:
			p.pos++
			return b.String(), true
		case c == '\\' && p.pos+1 < len(p.in) && strings.IndexByte("$`\"\\\n", p.in[p.pos+1]) >= 0:
			if p.in[p.pos+1] != '\n' {
				b.WriteByte(p.in[p.pos+1])
			}
			p.pos += 2
		case c == '$':
			s, ok := p.expand()
			if !ok {
				return "", false
			}
			b.WriteString(s)
		case c == '`':
			return "", false
		default:
			b.WriteByte(c)
			p.pos++
		}
		if b.Len() > maxTotal {
			return "", false
		}
	}
	return b.String(), alone
}

// expand reads $NAME, ${NAME} and ${NAME[:](-|+)WORD}; a lone $ is itself.
func (p *parser) expand() (string, bool) {
	p.pos++
	if name := p.name(); name != "" {
		p.pos += len(name)
		v, _ := p.st.get(name)
		if strings.HasPrefix(p.in[p.pos:], "\\\n") {
			return "", false // the name goes on in the next line
		}
		return v, !p.st.file || !magic(name)
	}
	c := p.peek()
	if c == '"' && p.dq == 0 {
		return "", false // a string that some shells translate
	}
	if p.pos >= len(p.in) || strings.IndexByte(" \t\n\"/:.,;%=]}", c) >= 0 {
		return "$", true
	}
	if c != '{' {
		return "", false
	}
	p.pos++
	name := p.name()
	if name == "" || p.st.file && magic(name) {
		return "", false
	}
	p.pos += len(name)
	v, set := p.st.get(name)
	if p.peek() == ':' {
		p.pos++
		set = set && v != ""
		if c := p.peek(); c != '-' && c != '+' {
			return "", false
		}
	}
	op := p.peek()
	p.pos++
	if op == '}' {
		return v, true
	}
	if op != '-' && op != '+' {
		return "", false
	}
	if p.deep++; p.deep > 16 {
		return "", false
	}
	w, ok := p.word("}")
	p.deep--
	if !ok {
		return "", false
	}
	p.pos++
	switch {
	case op == '-' && !set, op == '+' && set:
		return w, true
	case op == '-':
		return v, true
	}
	return "", true
}
