// Package store keeps what the services know: records and blobs.
//
// Records are documents of JSON in collections, each under a key, with indexes
// that the collection declares; a write touches one document and is whole or
// absent. Blobs are streams of bytes under a name, checked while they arrive.
// Both are interfaces: package embedded keeps them in SQLite and files, and
// another backend only has to pass the tests of package storetest.
//
// No operation spans two documents, so that any document database will do. A
// service orders its writes instead: first what is named, then what names it,
// and a collector frees what nothing names.
//
// Keys, names and values of indexes are checked here for form and length, never
// for meaning: who may read a document is the service's question. A backend
// trusts its own disk to keep what it acknowledged, and nothing else.
//
//   - records.go: the interface of records
//   - collection.go: typed collections on top of it
//   - blobs.go: the interface of blobs
//   - errors.go: what callers tell apart
package store

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what is stored, the same for every backend.
const (
	MaxKey      = 512
	MaxValue    = 1024    // of an index
	MaxDocument = 4 << 20 // its JSON
	MaxPage     = 1000
)

// NewID returns 24 random hexadecimal digits, which no one can guess: the form
// of ids that clients know.
func NewID() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// CheckDoc says whether a backend may store the document.
func CheckDoc(s Schema, d Doc) error {
	if err := checkText("key", d.Key, MaxKey); err != nil {
		return err
	}
	if len(d.Data) > MaxDocument {
		return fmt.Errorf("%w: the document %q of %s has %d bytes, more than %d", ErrInvalid, d.Key, s.Name, len(d.Data), MaxDocument)
	}
	for name, values := range d.Index {
		if !s.has(name) {
			return fmt.Errorf("%w: %s has no index %q", ErrInvalid, s.Name, name)
		}
		for _, v := range values {
			if err := checkText("value of the index "+name, v, MaxValue); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkText(what, text string, limit int) error {
	switch {
	case text == "":
		return fmt.Errorf("%w: empty %s", ErrInvalid, what)
	case len(text) > limit:
		return fmt.Errorf("%w: a %s of %d bytes, more than %d", ErrInvalid, what, len(text), limit)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return fmt.Errorf("%w: a %s that is no text: %q", ErrInvalid, what, text)
	}
	return nil
}

// CheckName says whether name may name a blob: up to eight parts of lower-case
// letters, digits, ".", "_" and "-", separated by slashes. None begins with a
// dot, so that no name leaves its directory.
func CheckName(name string) error {
	parts := strings.Split(name, "/")
	if len(name) > MaxKey || len(parts) > 8 {
		return fmt.Errorf("%w: the name of a blob is too long", ErrInvalid)
	}
	for _, p := range parts {
		if p == "" || len(p) > 128 || p[0] == '.' {
			return fmt.Errorf("%w: %q does not name a blob", ErrInvalid, name)
		}
		for _, c := range []byte(p) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
				return fmt.Errorf("%w: %q does not name a blob", ErrInvalid, name)
			}
		}
	}
	return nil
}
