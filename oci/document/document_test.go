package document

import (
	"strings"
	"testing"
)

// TestCheck: SC-068, a document has one kind, and it is the one that its
// descriptor names.
func TestCheck(t *testing.T) {
	const manifest = `{"schemaVersion":2,"mediaType":"m","config":{},"layers":[]}`
	const index = `{"schemaVersion":2,"mediaType":"i","manifests":[]}`
	for _, c := range []struct {
		text, mediaType string
		index, good     bool
	}{
		{manifest, "m", false, true}, {manifest, "", false, true}, {index, "i", true, true}, {`{"schemaVersion":2,"manifests":[]}`, "i", true, true},
		{manifest, "i", true, false}, {index, "m", false, false}, {manifest, "other", false, false},
		{`{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`, "", false, false},
		{`{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`, "", true, false},
		{`{"schemaVersion":1,"fsLayers":[],"config":{}}`, "", false, false}, {"null", "", false, false}, {"", "", true, false},
		{manifest + strings.Repeat(" ", MaxSize), "m", false, false},
	} {
		if err := Check([]byte(c.text), c.mediaType, c.index); (err == nil) != c.good {
			t.Errorf("%.60s as %q, index %t: got %v", c.text, c.mediaType, c.index, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if Check(data, "", true) == nil && Check(data, "", false) == nil {
			t.Error("it is a manifest and an index at once")
		}
	})
}
