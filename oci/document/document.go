// Package document checks the documents that describe OCI images: manifests and
// indexes, wherever they come from.
//
// In go the bytes of a document and what its descriptor or its server says it
// is; out comes an error if it is something else, or several things at once.
// Nothing of it is believed: a document is an enemy's until its digest was
// compared, which the caller does.
//
// It follows the image specification 1.1.1
// (https://github.com/opencontainers/image-spec).
package document

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MaxSize bounds a manifest, an index and a configuration, in bytes.
const MaxSize = 8 << 20

// ErrFormat is wrapped by the error of an image that is malformed.
var ErrFormat = errors.New("not a valid image")

// shape is what of a document tells its kind.
type shape struct {
	Schema    int             `json:"schemaVersion"`
	MediaType string          `json:"mediaType"`
	Manifests json.RawMessage `json:"manifests"`
	Layers    json.RawMessage `json:"layers"`
	Config    json.RawMessage `json:"config"`
	FSLayers  json.RawMessage `json:"fsLayers"`
}

// Check refuses a document that is not of the kind of its descriptor, or of two
// kinds at once. mediaType is empty where nobody names one.
//
// Security: otherwise two programs could see two images under one digest (SC-068).
func Check(data []byte, mediaType string, index bool) error {
	if len(data) > MaxSize {
		return fmt.Errorf("it has %d bytes, more than %d: %w", len(data), MaxSize, ErrFormat)
	}
	var s shape
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("%w: %w", err, ErrFormat)
	}
	switch {
	case s.FSLayers != nil || s.Schema != 2:
		return fmt.Errorf("it is of schema version %d, not 2: %w", s.Schema, ErrFormat)
	case index && (s.Layers != nil || s.Config != nil || s.Manifests == nil), !index && (s.Manifests != nil || s.Config == nil):
		return fmt.Errorf("it is not what it is said to be, or a manifest and an index at once: %w", ErrFormat)
	case mediaType != "" && s.MediaType != "" && s.MediaType != mediaType:
		return fmt.Errorf("it is of type %q, not %q: %w", s.MediaType, mediaType, ErrFormat)
	}
	return nil
}
