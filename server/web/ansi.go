package web

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// run is a piece of a log in one colour. Class is of the style sheet, or empty.
type run struct {
	Class string `json:"c,omitempty"`
	Text  string `json:"t"`
}

// terminal reads what programs write to a terminal. It goes on where it stopped:
// a log comes in pieces.
//
// Security: a log is whatever a stranger's build prints. Colours of an allow list
// become classes of ours; every other sequence, control character and change of
// the direction of text goes, so that a line looks like what it says.
type terminal struct {
	state  byte   // 0 in text, or what began a sequence
	params []byte // of a CSI sequence
	length int    // of the sequence so far
	class  string
	strong bool
	cr     bool
	cut    []byte // a character of which the rest is to come
}

const maxSequence = 4096 // then it is text again: a title that never ends

// read gives the text of a piece, without what is not to be shown.
func (t *terminal) read(piece []byte) []run {
	if len(t.cut) > 0 {
		piece = append(t.cut, piece...)
		t.cut = nil
	}
	var out []run
	var text strings.Builder
	style := t.style()
	flush := func() {
		if text.Len() > 0 {
			out = append(out, run{style, text.String()})
			text.Reset()
		}
		style = t.style()
	}
	for len(piece) > 0 {
		r, n := utf8.DecodeRune(piece)
		if r == utf8.RuneError && n == 1 && len(piece) < utf8.UTFMax && !utf8.FullRune(piece) {
			t.cut = append(t.cut, piece...)
			break
		}
		piece = piece[n:]
		if t.state != 0 {
			t.length++
			if t.sequence(r) {
				flush()
			}
			continue
		}
		t.plain(r, &text)
	}
	flush()
	return out
}

// plain takes a character that is in no sequence.
func (t *terminal) plain(r rune, text *strings.Builder) {
	if t.cr && r != '\n' {
		text.WriteByte('\n') // a line that is written over is another line
	}
	t.cr = r == '\r'
	switch {
	case r == 0x1b:
		t.state, t.length, t.params = 0x1b, 0, t.params[:0]
	case r == 0x9b:
		t.state, t.length, t.params = '[', 0, t.params[:0]
	case r == 0x90 || r == 0x9d || r == 0x98 || r == 0x9e || r == 0x9f:
		t.state, t.length = ']', 0
	case r == '\n' || r == '\t':
		text.WriteRune(r)
	case unicode.In(r, unicode.Cc, unicode.Bidi_Control) || r == 0xfeff:
	default:
		text.WriteRune(r)
	}
}

// sequence takes a character of a sequence, and tells whether that was a whole one
// about colours.
func (t *terminal) sequence(r rune) bool {
	if t.length > maxSequence {
		t.state = 0
		return false
	}
	switch t.state {
	case 0x1b:
		switch r {
		case '[':
			t.state = '['
		case ']', 'P', 'X', '^', '_': // they end by BEL or ESC \
			t.state = ']'
		case ' ', '#', '%', '(', ')', '*', '+', '-', '.', '/':
			t.state = '(' // one more
		case 0x1b:
		default:
			t.state = 0
		}
	case '(':
		t.state = 0
	case ']':
		switch r {
		case 0x07, 0x9c:
			t.state = 0
		case 0x1b:
			t.state = '\\'
		}
	case '\\':
		t.state = ']'
		if r == '\\' {
			t.state = 0
		}
	case '[':
		switch {
		case r >= 0x40 && r <= 0x7e:
			t.state = 0
			if r == 'm' {
				t.colour()
				return true
			}
		case r >= 0x20 && r < 0x40 && len(t.params) < 64:
			t.params = append(t.params, byte(r))
		case r == 0x1b:
			t.state, t.length = 0x1b, 0
		case r < 0x20 || r > 0x7e:
			t.state = 0
		}
	}
	return false
}

// colours are those that a page has: of few, so that each can be read in light and
// dark.
var colours = map[string]string{"31": "t-bad", "91": "t-bad", "32": "t-good", "92": "t-good", "33": "t-warn", "93": "t-warn", "34": "t-accent", "94": "t-accent", "35": "t-accent", "95": "t-accent",
	"36": "t-accent", "96": "t-accent", "90": "t-soft", "2": "t-soft", "39": "", "22": "", "0": "", "": "", "00": ""}

// colour carries out a sequence that ends with m.
func (t *terminal) colour() {
	list := strings.Split(string(t.params), ";")
	for n := 0; n < len(list); n++ {
		switch p := strings.TrimPrefix(list[n], "0"); p {
		case "":
			t.class, t.strong = "", false
		case "1":
			t.strong = true
		case "22":
			t.strong = false
		case "38", "48": // a colour of a palette: its numbers are no others
			if n+1 < len(list) && list[n+1] == "5" {
				n += 2
			} else {
				n += 4
			}
		default:
			if class, ok := colours[p]; ok {
				t.class = class
			}
		}
	}
}

// style is the class of what follows.
func (t *terminal) style() string {
	if t.strong {
		return strings.TrimSpace("t-strong " + t.class)
	}
	return t.class
}
