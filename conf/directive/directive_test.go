package directive

import (
	"testing"

	"singularity/conf"
)

// TestTexts: the rows are those of the table that the reader goes by, in its order.
func TestTexts(t *testing.T) {
	at := 0
	for _, text := range Texts {
		if text.Doc == "" {
			t.Errorf("%q has no text", text.Name)
		}
		if text.Name == "" {
			continue
		}
		if at == len(conf.Directives) || conf.Directives[at].Name != text.Name {
			t.Fatalf("row %d is %q, and conf.Directives has another there", at, text.Name)
		}
		if Of(text.Name).Doc != text.Doc {
			t.Errorf("%q has two rows", text.Name)
		}
		at++
	}
	if at != len(conf.Directives) {
		t.Errorf("%d directives, want %d", at, len(conf.Directives))
	}
	if Of("") != nil {
		t.Error("a heading is taken for a directive")
	}
}
