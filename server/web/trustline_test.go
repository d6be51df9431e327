package web

import (
	"html"
	"regexp"
	"strings"
	"testing"

	"singularity/trustline/trustlinetest"
)

// TestTrustLine: the page of an image says of 500 images, with the same facts,
// the words of the command line.
func TestTrustLine(t *testing.T) {
	tag := regexp.MustCompile(`<[^>]*>`)
	different := map[string]bool{}
	for i, f := range trustlinetest.Corpus(500) {
		var b strings.Builder
		if err := templates.ExecuteTemplate(&b, "trustline", f.Line()); err != nil {
			t.Fatal(err)
		}
		words := html.UnescapeString(tag.ReplaceAllString(b.String(), ""))
		if words != f.Line().String() {
			t.Fatalf("image %d: %+v\npage %s\nline %s", i, f, words, f.Line())
		}
		if strings.ContainsAny(b.String(), "\x1b\n") || strings.Contains(b.String(), "<script") {
			t.Errorf("image %d: %q", i, b.String())
		}
		different[words] = true
	}
	if len(different) < 400 {
		t.Errorf("only %d of 500 sentences differ", len(different))
	}
}
