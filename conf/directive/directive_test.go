package directive

import (
	"testing"

	"singularity/conf"
)

// TestTexts: the rows are those of the table that the reader goes by.
func TestTexts(t *testing.T) {
	at := 0
	for _, text := range Texts {
		if text.Doc == "" {
			t.Errorf("%q has no text", text.Name)
		}
		if text.Name == "" {
			continue
		}
		if conf.Find(text.Name) == nil {
			t.Fatalf("%q is no directive", text.Name)
		}
		if Of(text.Name).Doc != text.Doc {
			t.Errorf("%q has two rows", text.Name)
		}
		at++
	}
	if at != len(conf.Directives()) {
		t.Errorf("%d directives, want %d", at, len(conf.Directives()))
	}
	if Of("") != nil {
		t.Error("a heading is taken for a directive")
	}
}
