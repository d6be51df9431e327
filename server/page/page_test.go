package page

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

// TestSC164Visible: what a stranger wrote drives neither the page nor the terminal
// that somebody copies it into.
func TestSC164Visible(t *testing.T) {
	pages := Parse(fstest.MapFS{"x.html": {Data: []byte("<p title=\"{{.}}\">{{.}}</p>\n<pre>{{.}}</pre>")}}, "x.html", nil)
	hostile := "a\x1b]52;c;cm0gLXJm\x07\x1b[31mb\rc\u202ed\u2066e\u0085f\x7f\tg\nh<i>ä中"
	w := httptest.NewRecorder()
	if err := Write(w, pages, http.StatusOK, "x.html", hostile); err != nil {
		t.Fatal(err)
	}
	got := w.Body.String()
	if i := strings.IndexFunc(got, func(r rune) bool { return strings.ContainsRune("\x1b\x07\r\u202e\u2066\u0085\x7f", r) }); i >= 0 {
		t.Errorf("the page has %q", got[i:])
	}
	const want = `a\x1b]52;c;cm0gLXJm\a\x1b[31mbc\u202ed\u2066e\u0085f\x7f` + "\tg\nh&lt;i&gt;ä中"
	if strings.Count(got, want) != 3 {
		t.Errorf("got %q, want three times %q", got, want)
	}
}
