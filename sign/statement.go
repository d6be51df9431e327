package sign

import (
	"bytes"
	"crypto"
	_ "crypto/sha256" // links the hashes that crypto.Hash.New makes
	_ "crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// maxStatementSize bounds a statement, in bytes: some 5000 objects.
const maxStatementSize = 1 << 20

// hashNames are the digests that a statement may use.
//
// Security: any other name is refused; a weak hash would let an object be
// replaced although its signature verifies.
var hashNames = map[string]crypto.Hash{
	"sha224":     crypto.SHA224,
	"sha256":     crypto.SHA256,
	"sha384":     crypto.SHA384,
	"sha512":     crypto.SHA512,
	"sha512_224": crypto.SHA512_224,
	"sha512_256": crypto.SHA512_256,
}

// digest is a hash of something.
type digest struct {
	hash crypto.Hash
	sum  []byte
}

// digestOf returns the digest of data.
func digestOf(h crypto.Hash, data []byte) digest {
	w := h.New()
	w.Write(data)
	return digest{hash: h, sum: w.Sum(nil)}
}

func (d digest) equal(sum []byte) bool { return subtle.ConstantTimeCompare(d.sum, sum) == 1 }

func (d digest) String() string {
	for name, h := range hashNames {
		if h == d.hash {
			return name + ":" + hex.EncodeToString(d.sum)
		}
	}
	return "unknown:" + hex.EncodeToString(d.sum)
}

func parseDigest(s string) (digest, error) {
	name, text, found := strings.Cut(s, ":")
	h, known := hashNames[name]
	if !found || !known {
		return digest{}, fmt.Errorf("digest %q is not of an accepted kind", s)
	}
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != h.Size() || strings.ToLower(text) != text {
		return digest{}, fmt.Errorf("digest %q is not %d lower-case hexadecimal digits", s, 2*h.Size())
	}
	return digest{hash: h, sum: sum}, nil
}

// statement is the text that is signed.
type statement struct {
	header  digest
	objects []objectDigests
}

// objectDigests are the digests of one object. Its id counts from the smallest
// id of the group, so that a group keeps its signature when it is renumbered.
type objectDigests struct {
	relativeID       uint32
	descriptor, data digest
}

// encode returns the one form in which statements are written.
func (s *statement) encode() []byte {
	b := []byte(`{"version":1,"header":{"digest":"` + s.header.String() + `"},"objects":[`)
	for i, o := range s.objects {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"relativeId":`...)
		b = strconv.AppendUint(b, uint64(o.relativeID), 10)
		b = append(b, `,"descriptorDigest":"`+o.descriptor.String()+`","objectDigest":"`+o.data.String()+`"}`...)
	}
	return append(b, "]}"...)
}

// decodeStatement reads a statement.
//
// Security: JSON with a key twice, or in two spellings, reads differently from
// one program to the next; so keys are taken literally and only once. Unknown
// keys are skipped, an unknown version is not.
func decodeStatement(data []byte) (*statement, error) {
	if len(data) > maxStatementSize {
		return nil, fmt.Errorf("statement has %d bytes, the limit is %d", len(data), maxStatementSize)
	}
	var s statement
	d := decoder{json.NewDecoder(bytes.NewReader(data))}
	version := uint32(0)
	err := d.object(map[string]func() error{
		"version": func() (err error) { version, err = d.number(); return err },
		"header": func() error {
			return d.object(map[string]func() error{
				"digest": func() (err error) { s.header, err = d.digest(); return err },
			})
		},
		"objects": func() error { return d.array(func() error { return d.objectDigests(&s) }) },
	})
	if err == nil {
		if _, err2 := d.Token(); err2 != io.EOF {
			err = errors.New("text after the statement")
		}
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("statement not valid: %w", err)
	case version != 1:
		return nil, fmt.Errorf("statement has version %d, want 1", version)
	case len(s.objects) == 0:
		return nil, errors.New("statement not valid: it names no objects")
	}
	slices.SortFunc(s.objects, func(a, b objectDigests) int {
		return int(int64(a.relativeID) - int64(b.relativeID))
	})
	for i := 1; i < len(s.objects); i++ {
		if s.objects[i].relativeID == s.objects[i-1].relativeID {
			return nil, fmt.Errorf("statement not valid: relativeId %d twice", s.objects[i].relativeID)
		}
	}
	return &s, nil
}

// decoder reads JSON value by value.
type decoder struct{ *json.Decoder }

// object reads an object. Each of fields must be there, and reads its value.
func (d decoder) object(fields map[string]func() error) error { return d.objectWith(fields, nil) }

// objectWith reads an object with fields that must be there and others that may.
func (d decoder) objectWith(fields, optional map[string]func() error) error {
	if err := d.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if seen[key] {
			return fmt.Errorf("key %q twice", key)
		}
		seen[key] = true
		read := fields[key]
		if read == nil {
			read = optional[key]
		}
		if read == nil {
			var skipped json.RawMessage
			read = func() error { return d.Decode(&skipped) }
		}
		if err := read(); err != nil {
			return err
		}
	}
	for key := range fields {
		if !seen[key] {
			return fmt.Errorf("no key %q", key)
		}
	}
	return d.delim('}')
}

func (d decoder) array(read func() error) error {
	if err := d.delim('['); err != nil {
		return err
	}
	for d.More() {
		if err := read(); err != nil {
			return err
		}
	}
	return d.delim(']')
}

func (d decoder) delim(want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("found %v, want %v", t, want)
	}
	return nil
}

func (d decoder) number() (uint32, error) {
	var n *uint32
	if err := d.Decode(&n); err != nil {
		return 0, err
	}
	if n == nil {
		return 0, errors.New("found null, want a number")
	}
	return *n, nil
}

func (d decoder) digest() (digest, error) {
	var s string
	if err := d.Decode(&s); err != nil {
		return digest{}, err
	}
	return parseDigest(s)
}

func (d decoder) objectDigests(s *statement) error {
	var o objectDigests
	err := d.object(map[string]func() error{
		"relativeId":       func() (err error) { o.relativeID, err = d.number(); return err },
		"descriptorDigest": func() (err error) { o.descriptor, err = d.digest(); return err },
		"objectDigest":     func() (err error) { o.data, err = d.digest(); return err },
	})
	s.objects = append(s.objects, o)
	return err
}
