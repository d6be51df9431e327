package cli

import (
	"bytes"
	"io"
	"unicode/utf8"

	"singularity/action"
)

// terminalLog writes a log of a builder to a terminal.
//
// Security: a log is what a server sends, and what a build printed there. Colours
// and the clearing of a line stay; every other sequence and character that acts on
// a terminal goes: titles, clipboards, answers that are typed for the user.
type terminalLog struct {
	w   io.Writer
	cut []byte // what began at the end of the last piece and is not whole
}

const maxSequence = 64 // bytes; a longer one is no colour

func (t *terminalLog) Write(p []byte) (int, error) {
	text := append(t.cut, p...)
	var out bytes.Buffer
	for len(text) > 0 {
		n := t.next(&out, text)
		if n == 0 {
			break
		}
		text = text[n:]
	}
	t.cut = bytes.Clone(text)
	if _, err := t.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// next takes what comes first, and returns its length; 0 if more has to come.
func (t *terminalLog) next(out *bytes.Buffer, text []byte) int {
	switch c := text[0]; {
	case c == 0x1b:
		return escape(out, text)
	case c == '\n' || c == '\t' || c == '\r':
		out.WriteByte(c)
		return 1
	case !utf8.FullRune(text):
		return 0
	}
	r, n := utf8.DecodeRune(text)
	if string(r) == action.Printable(string(r)) {
		out.WriteRune(r)
	}
	return n
}

// escape takes a sequence: one that is let through, or the two characters by which
// another begins. What follows those is text then, and seen.
func escape(out *bytes.Buffer, text []byte) int {
	if len(text) == 1 {
		return 0
	}
	if text[1] != '[' {
		return 1
	}
	for i, c := range text[2:min(len(text), maxSequence)] {
		switch {
		case c >= '0' && c <= '9' || c == ';' || c == ':':
		case c == 'm' || c == 'K':
			out.Write(text[:i+3])
			return i + 3
		default:
			return 2
		}
	}
	if len(text) < maxSequence {
		return 0
	}
	return 2
}
