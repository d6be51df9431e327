package web

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// logText is the text of a log as a page shows it, with the classes in brackets.
func logText(pieces ...string) string {
	var t terminal
	var list []run
	for _, p := range pieces {
		for _, r := range t.read([]byte(p)) {
			if n := len(list); n > 0 && list[n-1].Class == r.Class {
				list[n-1].Text += r.Text
			} else {
				list = append(list, r)
			}
		}
	}
	var b strings.Builder
	for _, r := range list {
		if r.Class != "" {
			r.Text = "{" + r.Class + ":" + r.Text + "}"
		}
		b.WriteString(r.Text)
	}
	return b.String()
}

func TestTerminal(t *testing.T) {
	for name, c := range map[string]struct {
		in   []string
		want string
	}{
		"plain":            {[]string{"a\tb\n"}, "a\tb\n"},
		"colours":          {[]string{"\x1b[31mbad\x1b[0m good"}, "{t-bad:bad} good"},
		"strong":           {[]string{"\x1b[1;32mok\x1b[22m.\x1b[m!"}, "{t-strong t-good:ok}{t-good:.}!"},
		"in two pieces":    {[]string{"\x1b[3", "1mbad\x1b", "[0mx"}, "{t-bad:bad}x"},
		"palette":          {[]string{"\x1b[38;5;31mx\x1b[38;2;31;32;33my"}, "xy"},
		"a title":          {[]string{"\x1b]0;owned\x07a\x1b]2;owned\x1b\\b"}, "ab"},
		"moves the cursor": {[]string{"a\x1b[2J\x1b[1;1Hb\x1b[999D"}, "ab"},
		"a link":           {[]string{"\x1b]8;;http://192.0.2.1/\x07x\x1b]8;;\x07"}, "x"},
		"controls":         {[]string{"a\x00\x08\x07b\u009b31mc\u0085"}, "ab{t-bad:c}"},
		"over the line":    {[]string{"10 %\r20 %\r\n"}, "10 %\n20 %\n"},
		"direction":        {[]string{"a\u202eb\u2066c\u200fd"}, "abcd"},
		"charset":          {[]string{"\x1b(0a\x1b=b"}, "ab"},
		"half a character": {[]string{"a\xc3", "\xa9b"}, "aéb"},
		"no character":     {[]string{"a\xff", "b\xc3("}, "a\ufffdb\ufffd("},
		"never ends":       {[]string{"\x1b]" + strings.Repeat("x", maxSequence) + "text"}, "text"},
	} {
		if got := logText(c.in...); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// FuzzTerminal: nothing that a terminal obeys is left (SC-164), the classes are ours, and
// it does not matter how a log is cut.
func FuzzTerminal(f *testing.F) {
	f.Add("\x1b[31mbad\x1b[0m\r\n\x1b]0;t\x07é", 3)
	f.Add("\x1b[1;38;5;3;32m\x1bP\x1b\\\u009bm", 1)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		ours := map[string]bool{"": true}
		for _, c := range colours {
			ours[c] = true
		}
		var one terminal
		for _, r := range one.read([]byte(text)) {
			if class := strings.TrimSpace(strings.TrimPrefix(r.Class, "t-strong")); !ours[class] {
				t.Fatalf("class %q", r.Class)
			}
			if i := strings.IndexFunc(r.Text, func(c rune) bool {
				return c != '\n' && c != '\t' && unicode.IsControl(c) || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069
			}); i >= 0 {
				t.Fatalf("%q at %d of %q", r.Text[i:], i, r.Text)
			}
		}
		if cut < 0 || cut > len(text) || !utf8.ValidString(text) {
			return
		}
		if got, want := logText(text[:cut], text[cut:]), logText(text); got != want {
			t.Fatalf("cut at %d: %q, want %q", cut, got, want)
		}
	})
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{-1: "0.0 s", 1500 * time.Millisecond: "1.5 s", 10 * time.Second: "10 s", 70 * time.Second: "1m10s", 10 * time.Minute: "10m0s", time.Hour: "1 h", 70 * time.Minute: "1h10m"} {
		if got := clock(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

// TestFault: the line that a fault names is found, and no other.
func TestFault(t *testing.T) {
	text := "one\ntwo\nthree"
	for message, want := range map[string]check{"definition:2: no": {Message: "no", Line: 2, Text: "two"}, "definition:3:7: no": {Message: "no", Line: 3, Text: "three"}, "definition:9: no": {Message: "no", Line: 9}, "definition: no": {Message: "no"}, "none: 2: x": {Message: "none: 2: x"}} {
		if got := fault(message, text); got.Message != want.Message || got.Line != want.Line || got.Text != want.Text || got.Good {
			t.Errorf("%s: %+v", message, got)
		}
	}
}
