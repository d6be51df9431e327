package deffile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var variable = regexp.MustCompile(`\{\{[ \t]*(\w+)[ \t]*\}\}`)

// substitute replaces the variables of a stage and adds the result to the text
// of the definition. A value is not searched for further variables.
func (p *parser) substitute(lines []line) ([]line, error) {
	defaults := p.arguments(lines)
	out := make([]line, 0, len(lines))
	size := len(p.def.Text)
	for _, l := range lines {
		text, err := p.expand(l, defaults)
		if err != nil {
			return nil, err
		}
		// Security: a short file of many long values would fill the memory.
		if size += len(text) + 1; size > MaxSize+1 {
			return nil, p.err(l.num, fmt.Sprintf("the file with its variables replaced is larger than %d bytes", MaxSize), "")
		}
		p.def.Text = append(append(p.def.Text, text...), '\n')
		for t := range strings.SplitSeq(text, "\n") {
			out = append(out, line{t, l.num})
		}
	}
	return out, nil
}

func (p *parser) expand(l line, defaults map[string]string) (string, error) {
	if !strings.Contains(l.text, "{{") {
		return l.text, nil
	}
	var b strings.Builder
	end := 0
	for _, m := range variable.FindAllStringSubmatchIndex(l.text, -1) {
		name := l.text[m[2]:m[3]]
		value, ok := p.vars[name]
		if ok {
			p.used[name] = true
		} else if value, ok = defaults[name]; !ok {
			return "", &Error{File: p.file, Line: l.num, Column: m[0] + 1,
				Msg:  fmt.Sprintf("build variable %q has no value", name),
				Hint: fmt.Sprintf("give --build-arg %s=VALUE, or a line %s=VALUE in %%arguments", name, name)}
		}
		if b.Len()+len(value) > MaxSize {
			return "", p.err(l.num, fmt.Sprintf("the file with its variables replaced is larger than %d bytes", MaxSize), "")
		}
		b.WriteString(l.text[end:m[0]])
		b.WriteString(value)
		end = m[1]
	}
	b.WriteString(l.text[end:])
	return b.String(), nil
}

// arguments collects the %arguments of a stage whose variables are not yet
// replaced.
func (p *parser) arguments(lines []line) map[string]string {
	values := map[string]string{}
	inside := false
	for _, l := range lines {
		if name, _, ok := sectionName(l.text); ok {
			inside = strings.EqualFold(name, "arguments")
			continue
		}
		if !inside {
			continue
		}
		k, v, ok, bad := argument(l.text)
		if bad {
			p.def.Warnings = skipped(p.def.Warnings, p.file, l.num, l.text)
		}
		if ok {
			values[k] = v
		}
	}
	return values
}

// argument reads a line NAME=VALUE. ok is false for an empty line, a comment
// and a line that is bad.
func argument(s string) (name, value string, ok, bad bool) {
	s = strings.TrimSpace(s)
	if s == "" || s[0] == '#' {
		return "", "", false, false
	}
	name, value, ok = strings.Cut(s, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || !isVariable(name) {
		return "", "", false, true
	}
	return name, value, true, false
}

// skipped adds the warning about a line that is skipped, but not to very many.
func skipped(warnings []string, file string, num int, text string) []string {
	if len(warnings) >= maxWarnings {
		return warnings
	}
	return append(warnings, fmt.Sprintf("%s:%d: skipping %q, which is not NAME=VALUE", file, num, cut(text)))
}

func isVariable(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// ParseArguments reads the lines NAME=VALUE of a file of build variables.
// Lines of another form are skipped, each with a warning that names file.
func ParseArguments(file string, data []byte) (values map[string]string, warnings []string, err error) {
	if len(data) > MaxSize {
		return nil, nil, &Error{File: file, Msg: fmt.Sprintf("file of %d bytes is larger than the %d allowed", len(data), MaxSize)}
	}
	values = map[string]string{}
	num := 0
	for s := range strings.Lines(string(data)) {
		num++
		k, v, ok, bad := argument(s)
		if bad {
			warnings = skipped(warnings, file, num, strings.TrimSpace(s))
		}
		if ok {
			values[k] = v
		}
	}
	return values, warnings, nil
}

// ParseArgument reads one NAME=VALUE of the command line.
func ParseArgument(s string) (name, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || !isVariable(name) {
		return "", "", &Error{Msg: fmt.Sprintf("build variable %q is not NAME=VALUE", s)}
	}
	return name, value, nil
}

// Label is a line of %labels.
type Label struct{ Key, Value string }

// Labels reads "key value" lines. Empty lines and comments are left out.
func Labels(text string) []Label {
	var list []Label
	for s := range strings.Lines(text) {
		s = strings.TrimSpace(s)
		if s == "" || s[0] == '#' {
			continue
		}
		i := strings.IndexAny(s, " \t")
		if i < 0 {
			i = len(s)
		}
		list = append(list, Label{s[:i], strings.TrimSpace(s[i:])})
	}
	return list
}

func (p *parser) warnUnused() {
	var names []string
	for n := range p.vars {
		if !p.used[n] {
			names = append(names, n)
		}
	}
	if names != nil {
		p.def.Warnings = append(p.def.Warnings, "Unused build variables: "+strings.Join(sorted(names), ", "))
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
