package conf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Limits of singularity.conf.
const (
	maxFileSize = 1 << 20 // bytes
	maxListSize = 4096    // words of one directive
)

// A SyntaxError is a line of singularity.conf that cannot be used.
type SyntaxError struct {
	Line   int // from 1
	Reason string
}

func (e *SyntaxError) Error() string { return "line " + strconv.Itoa(e.Line) + ": " + e.Reason }

// Load reads the file called path, opened by OpenSite. An error satisfies
// fs.ErrNotExist if there is none; the caller knows whether Default may take its
// place.
func Load(path string) (*Config, error) { return load(path, OpenSite) }

// LoadOwned reads it if it is a file that OpenOwned opens.
func LoadOwned(path string) (*Config, error) { return load(path, OpenOwned) }

func load(path string, open func(string) (*os.File, error)) (c *Config, err error) {
	f, err := open(path)
	if err == nil {
		defer f.Close()
		c, err = Read(f)
	}
	if pe, ok := err.(*os.PathError); ok {
		err = pe.Err // the file is named once
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't parse configuration file %s: %w", path, err)
	}
	return c, nil
}

// Read reads the text of a singularity.conf. A line that cannot be used gives a
// *SyntaxError. A directive that is left out has its default, but lists are empty
// then.
func Read(r io.Reader) (*Config, error) {
	c, rows := new(Config), Directives()
	table, seen := make(map[string]*Directive, len(rows)), map[string]int{}
	data, err := ReadAll(r, maxFileSize)
	for i := range rows {
		d := &rows[i]
		if table[d.Name] = d; d.Kind != List {
			err = errors.Join(err, d.set(c, d.Default))
		}
	}
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(data), "\n") {
		if reason := c.line(line, i+1, table, seen); reason != "" {
			return nil, &SyntaxError{Line: i + 1, Reason: reason}
		}
	}
	return c, nil
}

// line takes line number n of the file and returns what is wrong with it; seen has
// the line that set each directive.
func (c *Config) line(line string, n int, table map[string]*Directive, seen map[string]int) (reason string) {
	line = strings.TrimSpace(withoutComment(line))
	key, value, ok := strings.Cut(line, "=")
	key = strings.TrimSpace(key)
	d := table[key]
	switch {
	case line == "":
	case !ok:
		reason = fmt.Sprintf("%q is not of the form: directive = value", line)
	case strings.IndexByte(line, 0) >= 0:
		reason = "a zero byte"
	case d == nil: // of another version
	case seen[key] != 0 && d.Kind != List:
		reason = fmt.Sprintf("%q is set already in line %d", key, seen[key])
	default:
		seen[key] = n
		if err := d.set(c, strings.TrimSpace(value)); err != nil {
			reason = fmt.Sprintf("%q: %v", key, err)
		}
	}
	return reason
}

// Assignment returns the two sides of a line, without its comment; ok is false if
// it is none.
func Assignment(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(withoutComment(line), "=")
	return strings.TrimSpace(name), strings.TrimSpace(value), ok
}

// withoutComment cuts line at a # that begins it or follows a blank. A # within
// a word is part of a path.
func withoutComment(line string) string {
	for i := 0; i < len(line); i++ {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
	}
	return line
}

// set gives the field of d a value, and says what is wrong with that.
func (d *Directive) set(c *Config, value string) (err error) {
	ok := true
	switch field := d.Field(c).(type) {
	case *bool:
		*field = value == "yes"
		ok = *field || value == "no"
	case *int64:
		*field, err = strconv.ParseInt(value, 10, 64)
		ok = err == nil && *field >= 0
	case *string:
		*field, ok = value, d.allows(value)
	case *[]string:
		if *field = append(*field, SplitList(value)...); len(*field) > maxListSize {
			return errors.New("more than " + strconv.Itoa(maxListSize) + " words")
		}
	}
	if ok {
		return nil
	}
	return errors.New(strings.TrimSpace(strconv.Quote(value) + " " + string(d.Kind) + " " + strings.Join(d.Allowed, ", ")))
}

// SplitList splits value at commas and leaves out empty words.
func SplitList(value string) []string {
	words := strings.Split(value, ",")
	for i := range words {
		words[i] = strings.TrimSpace(words[i])
	}
	return slices.DeleteFunc(words, func(word string) bool { return word == "" })
}
