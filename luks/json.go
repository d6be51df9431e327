package luks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	maxDepth  = 8     // of arrays and objects in each other
	maxValues = 20000 // in one header; 32 key slots and tokens have some hundreds
)

// object is a JSON object: its values are object, []any, string, json.Number,
// bool and nil. Unlike in encoding/json's structs, a member's name is matched
// letter by letter.
type object map[string]any

// parseJSON reads the one object in a JSON area, of which the rest is zero.
func parseJSON(area []byte) (object, error) {
	text, rest, ok := bytes.Cut(area, []byte{0})
	if !ok {
		return nil, errors.New("the text does not end")
	}
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return nil, errors.New("something follows the text")
	}
	p := jsonParser{d: json.NewDecoder(bytes.NewReader(text))}
	p.d.UseNumber()
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := p.d.Token(); err != io.EOF {
		return nil, errors.New("something follows the object")
	}
	o, ok := v.(object)
	if !ok {
		return nil, errors.New("the text is not an object")
	}
	return o, nil
}

type jsonParser struct {
	d      *json.Decoder
	values int
}

// token returns the next token. Decoder.Token alone would take as much memory
// as a text of brackets asks for.
func (p *jsonParser) token() (json.Token, error) {
	if p.values++; p.values > maxValues {
		return nil, fmt.Errorf("more than %d values", maxValues)
	}
	t, err := p.d.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return t, err
}

func (p *jsonParser) value(depth int) (any, error) {
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("more than %d levels", maxDepth)
	}
	if open == '[' {
		return p.array(depth + 1)
	}
	return p.object(depth + 1)
}

func (p *jsonParser) array(depth int) (any, error) {
	a := []any{}
	for p.d.More() {
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	_, err := p.token()
	return a, err
}

func (p *jsonParser) object(depth int) (any, error) {
	o := object{}
	for p.d.More() {
		key, err := p.token()
		if err != nil {
			return nil, err
		}
		name := key.(string)
		if _, twice := o[name]; twice {
			return nil, fmt.Errorf("%q occurs twice", name)
		}
		if o[name], err = p.value(depth); err != nil {
			return nil, err
		}
	}
	_, err := p.token()
	return o, err
}

// fields takes an object apart and keeps the first error.
type fields struct {
	o   object
	at  string // where the object is, for messages
	err *error
}

// of returns the fields of v, which must be an object without other members
// than known ones, if any are named.
func of(v any, at string, err *error, known ...string) fields {
	o, ok := v.(object)
	f := fields{o, at, err}
	if !ok {
		f.fail("%s is not an object", at)
		return f
	}
	for name := range o {
		if !contains(known, name) {
			f.fail("%s has an unknown member %q", at, name)
		}
	}
	return f
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return len(list) == 0
}

func (f fields) fail(format string, args ...any) {
	if *f.err == nil {
		*f.err = refuse(format, args...)
	}
}

func (f fields) object(name string, known ...string) fields {
	return of(f.o[name], f.at+" "+name, f.err, known...)
}

// text returns a text, and text without members is a fault.
func (f fields) text(name string) string {
	s, ok := f.o[name].(string)
	if !ok {
		f.fail("%s has no text %q", f.at, name)
	}
	return s
}

// word returns a text that is one of allowed.
func (f fields) word(name string, allowed ...string) string {
	s := f.text(name)
	if !contains(allowed, s) {
		f.fail("%s has %s %q", f.at, name, s)
	}
	return s
}

// size returns a number that is written as text, as all numbers of bytes are.
func (f fields) size(name string) int64 {
	s := f.text(name)
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != s {
		f.fail("%s has %s %q", f.at, name, s)
	}
	return int64(n)
}

// number returns a number from low to high.
func (f fields) number(name string, low, high int64) int {
	n, ok := f.o[name].(json.Number)
	i, err := n.Int64()
	if !ok || err != nil || i < low || i > high {
		f.fail("%s has %s %v, not a number from %d to %d", f.at, name, f.o[name], low, high)
		return int(low)
	}
	return int(i)
}

// bytes returns base64 of low to high bytes.
func (f fields) bytes(name string, low, high int) []byte {
	b, err := base64.StdEncoding.Strict().DecodeString(f.text(name))
	if err != nil || len(b) < low || len(b) > high {
		f.fail("%s has no %s of %d to %d bytes", f.at, name, low, high)
	}
	return b
}

// texts returns a list of texts.
func (f fields) texts(name string) []string {
	list, ok := f.o[name].([]any)
	if !ok {
		f.fail("%s has no list %q", f.at, name)
	}
	var texts []string
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			f.fail("%s has a list %s of other things than texts", f.at, name)
		}
		texts = append(texts, s)
	}
	return texts
}

// number reads an id, the decimal name of a member.
func number(id string, high int) (int, bool) {
	n, err := strconv.Atoi(id)
	return n, err == nil && n >= 0 && n < high && strconv.Itoa(n) == id
}
