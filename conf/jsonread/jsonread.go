// Package jsonread reads JSON (RFC 8259) without reflection, for the few small
// files that a container's start must read: linking encoding/json would make
// every start slower.
//
// In goes a whole text in memory; the caller walks through it with one method
// call per value and says what it expects. The text is not trusted: values
// nest at most MaxDepth deep, a member must not occur twice in an object,
// invalid UTF-8 and what is no JSON are errors, and the first error is kept, so
// that a caller may check once, at the end, with End. Numbers are whole and not
// negative, because no file read here has others; Skip takes any number.
package jsonread

import (
	"errors"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest.
const MaxDepth = 32

// Reader stands at a place in a text.
type Reader struct {
	text  string
	at    int
	depth int
	err   error
}

// New returns a reader at the beginning of text.
func New(text string) *Reader {
	r := &Reader{text: text}
	if !utf8.ValidString(text) {
		r.Fail("text is not UTF-8")
	}
	return r
}

// Fail makes the reader fail with msg and the line it stands in, unless it has
// failed before. Callers report with it what they find wrong with a value.
func (r *Reader) Fail(msg string) {
	if r.err != nil {
		return
	}
	line := 1
	for i := 0; i < r.at && i < len(r.text); i++ {
		if r.text[i] == '\n' {
			line++
		}
	}
	r.err = errors.New("line " + strconv.Itoa(line) + ": " + msg)
}

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// End returns the first error; that something follows the value is one.
func (r *Reader) End() error {
	r.space()
	if r.err == nil && r.at != len(r.text) {
		r.Fail("text goes on behind the end")
	}
	return r.err
}

func (r *Reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// peek returns the byte that the next value begins with, 0 at the end and after
// an error.
func (r *Reader) peek() byte {
	r.space()
	if r.err != nil || r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

// take passes over c and tells whether it was there.
func (r *Reader) take(c byte) bool {
	if r.peek() != c || c == 0 {
		return false
	}
	r.at++
	return true
}

// Null passes over a null and tells whether there was one.
func (r *Reader) Null() bool { return r.peek() == 'n' && r.word("null") }

func (r *Reader) word(w string) bool {
	if len(r.text)-r.at < len(w) || r.text[r.at:r.at+len(w)] != w {
		r.Fail("unknown word")
		return false
	}
	r.at += len(w)
	return true
}

// Object reads an object: member is called with the name of each member and
// must read its value.
func (r *Reader) Object(member func(name string)) {
	if !r.open('{', "an object") {
		return
	}
	seen := map[string]bool{}
	for first := true; !r.closed('}', first); first = false {
		name := r.Text()
		if r.err == nil && !r.take(':') {
			r.Fail("expected a colon")
		}
		if seen[name] {
			r.Fail("member " + strconv.Quote(name) + " occurs twice")
		}
		if r.err != nil {
			return
		}
		seen[name] = true
		member(name)
	}
}

// Array reads an array: element is called for each element and must read it.
func (r *Reader) Array(element func()) {
	if !r.open('[', "an array") {
		return
	}
	for first := true; !r.closed(']', first); first = false {
		element()
	}
}

func (r *Reader) open(c byte, what string) bool {
	if !r.take(c) {
		r.Fail("expected " + what)
		return false
	}
	if r.depth++; r.depth > MaxDepth {
		r.Fail("values are nested too deep")
	}
	return r.err == nil
}

// closed tells whether an array or object ends here, or cannot go on; if not,
// it passes over the comma between two elements.
func (r *Reader) closed(c byte, first bool) bool {
	switch {
	case r.err != nil:
		return true
	case r.take(c):
		r.depth--
		return true
	case !first && !r.take(','):
		r.Fail("expected a comma or " + string(rune(c)))
	}
	return r.err != nil
}

// Strings reads an array of strings with at most limit elements; null is an
// empty one.
func (r *Reader) Strings(limit int) []string {
	var list []string
	if r.Null() {
		return nil
	}
	r.Array(func() {
		if len(list) == limit {
			r.Fail("more than " + strconv.Itoa(limit) + " elements")
		}
		list = append(list, r.Text())
	})
	return list
}

// Text reads a string.
func (r *Reader) Text() string {
	if !r.take('"') {
		r.Fail("expected a string")
		return ""
	}
	begin := r.at
	var out []byte // nil until an escape makes a copy necessary
	for r.at < len(r.text) {
		c := r.text[r.at]
		switch {
		case c == '"':
			r.at++
			if out == nil {
				return r.text[begin : r.at-1]
			}
			return string(out)
		case c < ' ':
			r.Fail("control character in a string")
			return ""
		case c == '\\':
			if out == nil {
				out = append(make([]byte, 0, 64), r.text[begin:r.at]...)
			}
			if out = r.escape(out); r.err != nil {
				return ""
			}
			continue
		case out != nil:
			out = append(out, c)
		}
		r.at++
	}
	r.Fail("string has no end")
	return ""
}

func (r *Reader) escape(out []byte) []byte {
	if r.at+1 == len(r.text) {
		r.Fail("string has no end")
		return out
	}
	c := r.text[r.at+1]
	r.at += 2
	switch c {
	case '"', '\\', '/':
		return append(out, c)
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		u := r.unit()
		if !utf16.IsSurrogate(u) {
			return utf8.AppendRune(out, u)
		}
		if len(r.text)-r.at > 2 && r.text[r.at:r.at+2] == `\u` {
			r.at += 2
			if both := utf16.DecodeRune(u, r.unit()); both != utf8.RuneError {
				return utf8.AppendRune(out, both)
			}
		}
		r.Fail("half a surrogate pair")
		return out
	}
	r.Fail("unknown escape")
	return out
}

// unit reads the four digits of a \u escape.
func (r *Reader) unit() rune {
	if len(r.text)-r.at < 4 {
		r.Fail("string has no end")
		return 0
	}
	u := rune(0)
	for _, c := range []byte(r.text[r.at : r.at+4]) {
		switch {
		case c >= '0' && c <= '9':
			u = u<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			u = u<<4 | rune(c|0x20-'a'+10)
		default:
			r.Fail("escape without four hexadecimal digits")
			return 0
		}
	}
	r.at += 4
	return u
}

// Uint reads a whole number of at most max.
func (r *Reader) Uint(max uint64) uint64 {
	text := r.number()
	if r.err != nil {
		return 0
	}
	var n uint64
	for i := 0; i < len(text); i++ {
		d := uint64(text[i] - '0')
		if text[i] < '0' || text[i] > '9' {
			r.Fail(strconv.Quote(text) + " is not a whole number")
			return 0
		}
		if n > (math.MaxUint64-d)/10 {
			n = math.MaxUint64
			r.Fail("number is too large")
			return 0
		}
		n = n*10 + d
	}
	if n > max {
		r.Fail("number is larger than " + strconv.FormatUint(max, 10))
		return 0
	}
	return n
}

// number passes over a number of any form and returns its text.
func (r *Reader) number() string {
	r.space()
	begin := r.at
	digits := func() bool {
		from := r.at
		for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
			r.at++
		}
		return r.at > from
	}
	next := func(set string) bool {
		if r.at < len(r.text) {
			for i := 0; i < len(set); i++ {
				if r.text[r.at] == set[i] {
					r.at++
					return true
				}
			}
		}
		return false
	}
	next("-")
	ok := next("0") || digits()
	if ok && next(".") {
		ok = digits()
	}
	if ok && next("eE") {
		next("+-")
		ok = digits()
	}
	if !ok {
		r.Fail("expected a number")
	}
	return r.text[begin:r.at]
}

// Skip passes over a value of any kind.
func (r *Reader) Skip() {
	switch r.peek() {
	case '{':
		r.Object(func(string) { r.Skip() })
	case '[':
		r.Array(r.Skip)
	case '"':
		r.Text()
	case 't':
		r.word("true")
	case 'f':
		r.word("false")
	case 'n':
		r.word("null")
	default:
		r.number()
	}
}

// Raw passes over a value of any kind and returns its text, for those who hand
// it on.
func (r *Reader) Raw() string {
	r.space()
	begin := r.at
	r.Skip()
	return r.text[begin:r.at]
}
