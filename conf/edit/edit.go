// Package edit changes the text of a singularity.conf.
//
// In goes a text and one change of one directive, out comes a text that was read
// again and says just that. Every other line stays as it is, comments too. The text
// may be anything; one that cannot be read is an error, with its line, unless
// the change itself cures it.
package edit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"singularity/conf"
)

// A Change is what is done with a directive.
type Change int

// The changes. Set adds to a list, in front; Unset takes values out of one, all if
// none are named. Otherwise Unset and Reset bring the default back.
const (
	Set Change = iota
	Unset
	Reset
)

// Value returns the value of d in c as it stands in a file.
func Value(d *conf.Directive, c *conf.Config) string {
	switch v := d.Field(c).(type) {
	case *bool:
		if *v {
			return "yes"
		}
		return "no"
	case *int64:
		return strconv.FormatInt(*v, 10)
	case *string:
		return *v
	case *[]string:
		return strings.Join(*v, ",")
	}
	return ""
}

// Text returns the text of a singularity.conf with one change. Every
// other line stays as it is.
func Text(text string, d *conf.Directive, change Change, values []string) (string, error) {
	for _, v := range values {
		if strings.ContainsAny(v, "\n\r\x00") {
			return "", fmt.Errorf("cannot set %q to %q: a value is one line", d.Name, v)
		}
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	var wanted string
	var err error
	if d.Kind == conf.List {
		var words []string
		for _, v := range values {
			words = append(words, conf.SplitList(v)...)
		}
		lines, err = changeList(lines, d, change, words)
	} else {
		if wanted = strings.Join(values, ","); change != Set {
			wanted = d.Default
		}
		lines = assign(lines, d, wanted)
	}
	if err != nil {
		return "", err
	}
	text = strings.Join(lines, "\n") + "\n"
	c, err := conf.Read(strings.NewReader(text))
	if err != nil {
		return "", fmt.Errorf("cannot change %q: the file would be wrong in %w", d.Name, err)
	}
	if d.Kind != conf.List && Value(d, c) != wanted {
		return "", fmt.Errorf("cannot set %q to %q: it would be read as %q", d.Name, wanted, Value(d, c))
	}
	return text, nil
}

// assigns tells whether line assigns to d.
func assigns(line string, d *conf.Directive) bool {
	name, _, ok := conf.Assignment(line)
	return ok && name == d.Name
}

// assign puts one assignment in the place of those that there are, or of the
// comment that stands for it. A comment behind the value stays.
func assign(lines []string, d *conf.Directive, value string) []string {
	line := d.Name + " = " + value
	if value == "" {
		line = "# " + d.Name + " ="
	}
	var out []string
	done := false
	for _, l := range lines {
		switch {
		case !assigns(l, d):
			out = append(out, l)
		case !done:
			done = true
			out = append(out, line+commentOf(l))
		}
	}
	if done {
		return out
	}
	return insert(out, d, []string{line})
}

// commentOf returns the comment behind an assignment, with a blank before it.
func commentOf(line string) string {
	name, value, _ := conf.Assignment(line)
	for i := range line {
		if line[i] != '#' {
			continue
		}
		if n, v, ok := conf.Assignment(line[:i]); ok && n == name && v == value && i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			return " " + strings.TrimRight(line[i:], " \t\r")
		}
	}
	return ""
}

// insert puts lines for d before its first assignment, or where a comment of the
// default file stands for one, or at the end.
func insert(lines []string, d *conf.Directive, add []string) []string {
	at := slices.IndexFunc(lines, func(l string) bool { return assigns(l, d) })
	if at < 0 {
		at = slices.IndexFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "# "+d.Name+" =" })
		if at < 0 {
			return append(lines, add...)
		}
		lines = slices.Delete(lines, at, at+1)
	}
	return slices.Insert(lines, at, add...)
}

// changeList changes the lines of a list.
func changeList(lines []string, d *conf.Directive, change Change, words []string) ([]string, error) {
	have := map[string]bool{}
	for _, l := range lines {
		if assigns(l, d) {
			_, value, _ := conf.Assignment(l)
			for _, w := range conf.SplitList(value) {
				have[w] = true
			}
		}
	}
	switch change {
	case Set:
		words = slices.DeleteFunc(words, func(w string) bool { return have[w] })
		for _, w := range words {
			if _, value, _ := conf.Assignment(d.Name + " = " + w); value != w {
				return nil, fmt.Errorf("cannot add %q to %q: it would be read as %q", w, d.Name, value)
			}
		}
		if len(words) == 0 {
			return lines, nil
		}
		return insert(lines, d, assignments(d, words)), nil
	case Unset:
		for _, w := range words {
			if !have[w] {
				return nil, fmt.Errorf("cannot take %q out of %q: it is not there", w, d.Name)
			}
		}
		return dropWords(lines, d, words), nil
	}
	first := slices.IndexFunc(lines, func(l string) bool { return assigns(l, d) })
	if first < 0 {
		return insert(lines, d, Defaults(d)), nil
	}
	rest := dropWords(lines[first:], d, nil)
	return slices.Concat(lines[:first], Defaults(d), slices.DeleteFunc(rest, func(l string) bool { return l == "# "+d.Name+" =" })), nil
}

// dropWords takes words out of the lines of a list, all if there are none. Where
// nothing is left a comment of the default file takes the place.
func dropWords(lines []string, d *conf.Directive, words []string) []string {
	var out []string
	first, kept := -1, false
	for _, l := range lines {
		if !assigns(l, d) {
			out = append(out, l)
			continue
		}
		if first < 0 {
			first = len(out)
		}
		_, value, _ := conf.Assignment(l)
		all := conf.SplitList(value)
		left := slices.DeleteFunc(slices.Clone(all), func(w string) bool { return len(words) == 0 || slices.Contains(words, w) })
		switch {
		case len(left) == 0:
			continue
		case len(left) < len(all):
			l = d.Name + " = " + strings.Join(left, ", ") + commentOf(l)
		}
		kept = true
		out = append(out, l)
	}
	if first >= 0 && !kept {
		out = slices.Insert(out, first, "# "+d.Name+" =")
	}
	return out
}

// Defaults are the assignments of the default, one comment where there is
// nothing to set.
func Defaults(d *conf.Directive) []string {
	if d.Default == "" {
		return []string{"# " + d.Name + " ="}
	}
	values := []string{d.Default}
	if d.Kind == conf.List {
		values = conf.SplitList(d.Default)
	}
	return assignments(d, values)
}

func assignments(d *conf.Directive, values []string) []string {
	var lines []string
	for _, v := range values {
		lines = append(lines, d.Name+" = "+v)
	}
	return lines
}
