// Package blocked reads and writes the list of images that a host does not run.
//
// The list is text. Its first line is a comment that says when and from what it was
// made; each line that is not a comment is
//
//	IMAGE-ID DATE SEVERITY ADVISORY TEXT
//
// with the id in the header of a SIF, the date (RFC 3339) from which on the image
// does not run, the severity and the name of a fault, and words for people. A start
// reads the list once and keeps nothing of it.
//
// Security: an image is blocked by what the whole list says, so a list that is
// broken anywhere is refused as a whole.
package blocked

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The bounds of a list and of a line of it, in bytes.
const (
	MaxSize = 4 << 20
	MaxLine = 512
)

// idLen is the length of an id as text: 32 hexadecimal digits with four dashes.
const idLen = 36

// Entry is a line of the list.
type Entry struct {
	ID       string    // of the image, as sif.ID writes it
	From     time.Time // when it does not run any more
	Severity string
	Advisory string
	Text     string // for people
}

// List is a whole list.
type List struct {
	Made    string // the first line: when, and from what
	Entries []Entry
}

// Find returns the entry of the image id with the earliest date, nil if there is none,
// and the first line of the list.
func Find(r io.Reader, id string) (made string, e *Entry, err error) {
	if !isID(id) {
		return "", nil, fmt.Errorf("%q is no id of an image", id)
	}
	err = scan(r, id, func(n int, line []byte) error {
		if line[0] == '#' {
			if n == 1 {
				made = comment(line)
			}
			return nil
		}
		got, err := parse(line)
		if err == nil && (e == nil || got.From.Before(e.From)) {
			e = &got
		}
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return made, e, nil
}

// Read reads a whole list.
func Read(r io.Reader) (*List, error) {
	l := &List{}
	err := scan(r, "", func(n int, line []byte) error {
		if line[0] == '#' {
			if n == 1 {
				l.Made = comment(line)
			}
			return nil
		}
		e, err := parse(line)
		l.Entries = append(l.Entries, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// comment is the text of a comment, fit for people.
func comment(line []byte) string { return clean(strings.TrimLeft(string(line), "# ")) }

// scan calls f for each line that is not empty, after a look at its shape alone: a start
// has no time for more. f gets those that begin with prefix, and comments.
func scan(r io.Reader, prefix string, f func(n int, line []byte) error) error {
	buf := make([]byte, 64<<10)
	size, begin, end := 0, 0, 0
	for n, last := 1, false; ; n++ {
		length := bytes.IndexByte(buf[begin:end], '\n')
		for length < 0 && !last {
			if end-begin > MaxLine+1 {
				return tooLong(n)
			}
			end, begin = copy(buf, buf[begin:end]), 0
			got, err := r.Read(buf[end:])
			if size, end = size+got, end+got; size > MaxSize {
				return fmt.Errorf("it is larger than %d bytes", MaxSize)
			}
			if last = err == io.EOF; err != nil && !last {
				return err
			}
			length = bytes.IndexByte(buf[begin:end], '\n')
		}
		if length < 0 {
			length = end - begin
		}
		line := buf[begin : begin+length]
		begin = min(begin+length+1, end)
		if len(line) > 0 && line[len(line)-1] == '\r' {
			line = line[:len(line)-1]
		}
		if len(line) > MaxLine {
			return tooLong(n)
		}
		if len(line) > 0 {
			if line[0] != '#' && (len(line) <= idLen || line[idLen] != ' ' || line[8] != '-' || line[23] != '-') {
				return fmt.Errorf("line %d: it does not begin with the id of an image and a space", n)
			}
			if line[0] == '#' || string(line[:len(prefix)]) == prefix {
				if err := f(n, line); err != nil {
					return fmt.Errorf("line %d: %w", n, err)
				}
			}
		}
		if last && begin == end {
			return nil
		}
	}
}

func tooLong(n int) error { return fmt.Errorf("line %d: it has more than %d bytes", n, MaxLine) }

func parse(line []byte) (e Entry, err error) {
	words := strings.SplitN(string(line), " ", 5)
	if len(words) < 4 || !isID(words[0]) || words[2] == "" || words[3] == "" {
		return e, errors.New("it is not ID DATE SEVERITY ADVISORY TEXT")
	}
	e = Entry{ID: words[0], Severity: words[2], Advisory: words[3]}
	if len(words) == 5 {
		e.Text = words[4]
	}
	if e.From, err = time.Parse(time.RFC3339, words[1]); err != nil {
		return e, errors.New("its date is not like 2026-01-31T12:00:00Z")
	}
	if clean(string(line)) != string(line) {
		return e, errors.New("it has characters that are no text")
	}
	return e, nil
}

// isID tells whether text is an id. That of an image without one, all zeros, is none.
func isID(text string) bool {
	if len(text) != idLen || strings.Trim(text, "0-") == "" {
		return false
	}
	for i, c := range []byte(text) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// clean makes text fit for a line and a terminal.
func clean(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 || c == utf8.RuneError || c >= 0x200b && c <= 0x200f || c >= 0x2028 && c <= 0x202e || c >= 0x2060 && c <= 0x206f {
			return '?'
		}
		return c
	}, text)
}

// word makes text fit for a field.
func word(text string) string {
	if text = strings.ReplaceAll(clean(text), " ", "_"); text == "" {
		return "-"
	}
	return cut(text, 100)
}

// cut shortens text to n bytes.
func cut(text string, n int) string {
	for len(text) > n {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// Encode writes a list, in the order of ids. What strangers wrote is made fit for it.
func (l *List) Encode() ([]byte, error) {
	var b strings.Builder
	b.WriteString(cut("# "+clean(l.Made), MaxLine) + "\n")
	sorted := slices.SortedStableFunc(slices.Values(l.Entries), func(a, b Entry) int { return strings.Compare(a.ID, b.ID) })
	for _, e := range sorted {
		if !isID(e.ID) || e.From.Year() < 1970 || e.From.Year() > 9999 {
			return nil, fmt.Errorf("%q from %s cannot be in a list of blocked images", e.ID, e.From)
		}
		line := e.ID + " " + e.From.UTC().Format(time.RFC3339) + " " + word(e.Severity) + " " + word(e.Advisory) + " " + clean(e.Text)
		b.WriteString(strings.TrimRight(cut(line, MaxLine), " ") + "\n")
	}
	if b.Len() > MaxSize {
		return nil, fmt.Errorf("%d images make a list of more than %d bytes", len(l.Entries), MaxSize)
	}
	return []byte(b.String()), nil
}
