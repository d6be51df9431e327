package blocked

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	idA = "6f1d2a30-0000-4000-8000-00000000000a"
	idB = "6f1d2a30-0000-4000-8000-00000000000b"
)

var day = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestFind(t *testing.T) {
	text := "# made 2026-11-26T04:00:00Z from 12 advisories\n\n# more\n" +
		idA + " 2026-11-21T00:00:00+01:00 critical CVE-2026-1 libssl3 3.0.8-1, corrected in 3.0.9-1\r\n" +
		idB + " 2026-11-25T00:00:00Z high CVE-2026-2\n" +
		idA + " 2026-11-20T12:00:00Z high CVE-2026-3 zlib1g 1\n"
	made, e, err := Find(strings.NewReader(text), idA)
	want := &Entry{idA, day, "high", "CVE-2026-3", "zlib1g 1"}
	if diff := cmp.Diff(want, e); err != nil || diff != "" || made != "made 2026-11-26T04:00:00Z from 12 advisories" {
		t.Errorf("%q, %v, want - got +\n%s", made, err, diff)
	}
	if _, e, err := Find(strings.NewReader(text), idB); err != nil || e == nil || e.Text != "" {
		t.Errorf("%+v, %v", e, err)
	}
	if _, e, err := Find(strings.NewReader(text), strings.Replace(idB, "a", "c", 1)); err != nil || e != nil {
		t.Errorf("not in the list: %+v, %v", e, err)
	}
	if made, e, err := Find(strings.NewReader(""), idB); err != nil || e != nil || made != "" {
		t.Errorf("an empty list: %q, %+v, %v", made, e, err)
	}
}

// TestRefused: a list that is broken blocks by guess, so it is none.
func TestRefused(t *testing.T) {
	good := idA + " 2026-11-20T12:00:00Z high CVE-2026-3 x\n"
	for _, c := range []struct{ text, want string }{
		{good + "deny everything\n", "line 2: it does not begin with the id"},
		{good + idB[:35] + "\n", "line 2: it does not begin"},
		{idB + " tomorrow high CVE-1 x\n", "line 1: its date"},
		{idB + " 2026-11-20T12:00:00Z high\n", "line 1: it is not ID DATE"},
		{idB + " 2026-11-20T12:00:00Z  CVE-1\n", "line 1: it is not ID DATE"},
		{strings.ToUpper(idB) + " 2026-11-20T12:00:00Z high CVE-1 x\n", "line 1: it is not ID DATE"},
		{"00000000-0000-0000-0000-000000000000 2026-11-20T12:00:00Z high CVE-1 x\n", "line 1: it is not ID DATE"},
		{idB + " 2026-11-20T12:00:00Z high CVE-1 \x1b[2J\n", "characters that are no text"},
		{idB + " 2026-11-20T12:00:00Z high CVE-1 \xff\n", "characters that are no text"},
		{good + "#" + strings.Repeat("x", MaxLine) + "\n", "line 2: it has more than 512 bytes"},
		{good + strings.Repeat("x", 100<<10), "line 2: it has more than 512 bytes"},
		{strings.Repeat("#\n", MaxSize/2) + "#", "larger than 4194304 bytes"},
	} {
		if l, err := Read(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80q: %+v, %v, want %q", c.text, l, err, c.want)
		}
		if strings.Contains(c.text, strings.ToUpper(idB)) || strings.HasPrefix(c.text, "0000") {
			continue // no image is called so
		}
		if _, e, err := Find(strings.NewReader(c.text), idB); err == nil || e != nil {
			t.Errorf("found in %.80q: %+v, %v", c.text, e, err)
		}
	}
	if _, err := Read(strings.NewReader(strings.Repeat("#\n", MaxSize/2))); err != nil {
		t.Errorf("a list of the size that is allowed: %v", err)
	}
}

func TestEncode(t *testing.T) {
	l := &List{Made: "now\nfrom \x1b[2Jthere", Entries: []Entry{
		{idB, day.In(time.FixedZone("", 3600)), "", "two words", strings.Repeat("ä", 400)},
		{idA, day, "high", "CVE-1\n" + idB, ""},
	}}
	text, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if len(got.Entries) != 2 || got.Made != "now?from ?[2Jthere" || got.Entries[0].Advisory != "CVE-1?"+idB || !got.Entries[1].From.Equal(day) || got.Entries[1].Advisory != "two_words" || got.Entries[1].Severity != "-" {
		t.Errorf("%+v", got)
	}
	for _, bad := range []Entry{{ID: "x", From: day}, {ID: idA}, {ID: idA + "\n", From: day}} {
		bad.From = bad.From.Add(-time.Hour)
		if text, err := (&List{Entries: []Entry{bad}}).Encode(); err == nil {
			t.Errorf("%q", text)
		}
	}
	many := &List{}
	for range MaxSize/len(idA) + 1 {
		many.Entries = append(many.Entries, l.Entries[1])
	}
	if _, err := many.Encode(); err == nil {
		t.Error("a list without bounds")
	}
}

// full is a list of nearly the largest size.
func full(tb testing.TB) []byte {
	l := &List{Made: "for a measurement"}
	for i := range 30_000 {
		l.Entries = append(l.Entries, Entry{fmt.Sprintf("6f1d2a30-0000-4000-8000-%012x", i), day, "critical", fmt.Sprintf("CVE-2026-%d", i), "libssl3 3.0.8-1, corrected in 3.0.9-1"})
	}
	text, err := l.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func BenchmarkFind(b *testing.B) {
	text := full(b)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, e, err := Find(bytes.NewReader(text), "6f1d2a30-0000-4000-8000-000000007000"); err != nil || e == nil {
			b.Fatal(e, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("# made\n"+idA+" 2026-11-20T12:00:00Z high CVE-2026-3 x\n"), idA)
	f.Add([]byte(idB+" 2026-11-20T12:00:00+01:00 high CVE-2026-3\r\n\n#"), idA)
	f.Fuzz(func(t *testing.T, text []byte, id string) {
		l, err := Read(bytes.NewReader(text))
		_, e, findErr := Find(bytes.NewReader(text), id)
		if err != nil || !isID(id) {
			return
		}
		if findErr != nil {
			t.Fatalf("a list that can be read cannot be searched: %v", findErr)
		}
		listed := false
		for _, x := range l.Entries {
			listed = listed || x.ID == id
			if clean(x.Text) != x.Text || x.Severity == "" || x.Advisory == "" {
				t.Fatalf("%+v", x)
			}
		}
		if listed != (e != nil) {
			t.Fatalf("listed %v, found %+v", listed, e)
		}
		again, err := l.Encode()
		if err != nil {
			return // a date that no list has
		}
		if got, err := Read(bytes.NewReader(again)); err != nil || len(got.Entries) != len(l.Entries) {
			t.Fatalf("%v: %q became %q", err, text, again)
		}
	})
}
