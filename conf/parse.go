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

// Default returns the configuration that holds where there is no file.
func Default() *Config { return defaults(true) }

// defaults returns what holds for directives that a file leaves out: lists are
// empty then.
func defaults(lists bool) *Config {
	c := new(Config)
	for _, d := range Directives() {
		if d.Kind == List && !lists {
			continue
		}
		if err := d.set(c, d.Default); err != nil {
			panic("conf: default of " + d.Name + ": " + err.Error())
		}
	}
	return c
}

// Load reads the file called path, opened by OpenSite. An error satisfies
// fs.ErrNotExist if there is none; the caller knows whether Default may take its
// place.
func Load(path string) (*Config, error) { return load(path, OpenSite) }

// LoadOwned reads it if it is a file that OpenOwned opens.
func LoadOwned(path string) (*Config, error) { return load(path, OpenOwned) }

func load(path string, open func(string) (*os.File, error)) (*Config, error) {
	f, err := open(path)
	if err != nil {
		return nil, configError(path, err)
	}
	defer f.Close()
	c, err := Read(f)
	if err != nil {
		return nil, configError(path, err)
	}
	return c, nil
}

// configError names the file once.
func configError(path string, err error) error {
	if pe, ok := err.(*os.PathError); ok {
		err = pe.Err
	}
	return fmt.Errorf("couldn't parse configuration file %s: %w", path, err)
}

// Read reads the text of a singularity.conf. A line that cannot be used gives a
// *SyntaxError.
func Read(r io.Reader) (*Config, error) {
	data, err := ReadAll(r, maxFileSize)
	if err != nil {
		return nil, err
	}
	p := parser{config: defaults(false), table: Directives(), seen: map[string]int{}}
	n := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		n++
		if reason := p.line(line, n); reason != "" {
			return nil, &SyntaxError{Line: n, Reason: reason}
		}
	}
	return p.config, nil
}

type parser struct {
	config *Config
	table  []Directive
	seen   map[string]int // line that set each directive
}

// line takes line number n of the file and returns what is wrong with it.
func (p *parser) line(line string, n int) (reason string) {
	line = strings.TrimSpace(withoutComment(line))
	key, value, ok := strings.Cut(line, "=")
	switch {
	case line == "":
		return ""
	case !ok:
		return fmt.Sprintf("%q is not of the form: directive = value", line)
	case strings.IndexByte(line, 0) >= 0:
		return "a zero byte"
	}
	i := slices.IndexFunc(p.table, func(d Directive) bool { return d.Name == strings.TrimSpace(key) })
	if i < 0 {
		return "" // of another version
	}
	d := &p.table[i]
	if p.seen[d.Name] != 0 && d.Kind != List {
		return fmt.Sprintf("%q is set already in line %d", d.Name, p.seen[d.Name])
	}
	p.seen[d.Name] = n
	if err := d.set(p.config, strings.TrimSpace(value)); err != nil {
		return fmt.Sprintf("%q: %v", d.Name, err)
	}
	return ""
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

// wants says what is wrong with a value of each kind.
var wants = [...]string{YesNo: "is neither yes nor no", Number: "is not a whole number from 0 to 9223372036854775807",
	AbsPath: "is not an absolute path", Size: "is not a size such as 512M or 2G"}

func (d *Directive) set(c *Config, value string) (err error) {
	ok, reason, n := true, wants[d.Kind], int64(0)
	switch d.Kind {
	case YesNo:
		ok = value == "yes" || value == "no"
	case Number:
		n, err = strconv.ParseInt(value, 10, 64)
		ok = err == nil && n >= 0
	case Choice:
		ok, reason = slices.Contains(d.Allowed, value), "is not one of "+strings.Join(d.Allowed, ", ")
	case AbsPath:
		ok = value == "" || value[0] == '/'
	case Size:
		_, ok = ParseSize(value)
		ok = ok || value == ""
	}
	if !ok {
		return errors.New(strconv.Quote(value) + " " + reason)
	}
	switch field := d.Field(c).(type) {
	case *bool:
		*field = value == "yes"
	case *int64:
		*field = n
	case *string:
		*field = value
	case *[]string:
		if *field = append(*field, SplitList(value)...); len(*field) > maxListSize {
			return errors.New("more than " + strconv.Itoa(maxListSize) + " words")
		}
	}
	return nil
}

// SplitList splits value at commas and leaves out empty words.
func SplitList(value string) []string {
	var words []string
	for w := range strings.SplitSeq(value, ",") {
		if w = strings.TrimSpace(w); w != "" {
			words = append(words, w)
		}
	}
	return words
}
