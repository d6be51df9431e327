package jsonread

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func Example() {
	r := New(`{"users": {"ada": ["CAP_CHOWN", "CAP_KILL"]}, "note": 1.5}`)
	r.Object(func(name string) {
		if name != "users" {
			r.Skip()
			return
		}
		r.Object(func(user string) { fmt.Println(user, r.Strings(64)) })
	})
	fmt.Println(r.End())
	// Output:
	// ada [CAP_CHOWN CAP_KILL]
	// <nil>
}

func TestValues(t *testing.T) {
	r := New(" [ \"a\\u00e9\\n\\ud83d\\ude00\\\"\\/\" , 18446744073709551615 , 0, null ] ")
	var s string
	var n []uint64
	r.Array(func() {
		switch r.peek() {
		case '"':
			s = r.Text()
		case 'n':
			if !r.Null() {
				t.Error("null is not seen")
			}
		default:
			n = append(n, r.Uint(1<<64-1))
		}
	})
	if err := r.End(); err != nil || s != "aé\n😀\"/" || !slices.Equal(n, []uint64{1<<64 - 1, 0}) {
		t.Errorf("got %q %d, error %v", s, n, err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		text, want string
		read       func(*Reader)
	}{
		{"", "expected a number", (*Reader).Skip},
		{"[1,]", "expected a number", (*Reader).Skip},
		{"[1 2]", "expected a comma", (*Reader).Skip},
		{`{"a":1,"a":2}`, `member "a" occurs twice`, (*Reader).Skip},
		{`{"a":1} x`, "goes on behind the end", (*Reader).Skip},
		{strings.Repeat("[", MaxDepth+1), "nested too deep", (*Reader).Skip},
		{"\"a\n\"", "control character", (*Reader).Skip},
		{"\"\xff\"", "not UTF-8", (*Reader).Skip},
		{`"\ud83dx"`, "half a surrogate", (*Reader).Skip},
		{`"abc`, "no end", (*Reader).Skip},
		{"truth", "unknown word", (*Reader).Skip},
		{"01", "goes on", (*Reader).Skip},
		{"\n\n-1", "line 3: \"-1\" is not a whole number", func(r *Reader) { r.Uint(9) }},
		{"10", "larger than 9", func(r *Reader) { r.Uint(9) }},
		{"18446744073709551616", "too large", func(r *Reader) { r.Uint(1<<64 - 1) }},
		{"1e3", "not a whole number", func(r *Reader) { r.Uint(9) }},
		{`["a","b","c"]`, "more than 2 elements", func(r *Reader) { r.Strings(2) }},
		{`"a"`, "expected an array", func(r *Reader) { r.Strings(2) }},
	} {
		r := New(c.text)
		c.read(r)
		if err := r.End(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.text, err, c.want)
		}
	}
}

// FuzzSkip compares what is JSON with the standard library's opinion.
func FuzzSkip(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e+3,true,false,null,"x\u0041\n"]}`, "[", `"\ud800"`, "0.", "{}", "  1 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := New(text)
		r.Skip()
		err := r.End()
		if valid := json.Valid([]byte(text)) && utf8.ValidString(text); err == nil && !valid {
			t.Errorf("%q is taken but is no JSON", text)
		} else if valid && err != nil && !strings.Contains(err.Error(), "twice") && !strings.Contains(err.Error(), "nested") && !strings.Contains(err.Error(), "surrogate") {
			t.Errorf("%q is refused: %v", text, err)
		}
		r = New(text)
		got := r.Text()
		var want string
		if r.End() == nil && (json.Unmarshal([]byte(text), &want) != nil || got != want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	})
}
