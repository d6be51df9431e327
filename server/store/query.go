package store

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// last is greater than any character of a text.
const last = "\U0010FFFF"

// Check says whether a backend may answer the query.
func (q Query) Check(s Schema) error {
	switch {
	case q.Index != "" && !s.has(q.Index):
		return fmt.Errorf("%w: %s has no index %q", ErrInvalid, s.Name, q.Index)
	case q.Index == "" && (q.Equal != "" || q.Contains != ""):
		return fmt.Errorf("%w: a query for a value names no index", ErrInvalid)
	case q.Limit < 0 || q.Limit > MaxPage:
		return fmt.Errorf("%w: a page of %d documents, more than %d", ErrInvalid, q.Limit, MaxPage)
	}
	for _, text := range []string{q.Equal, q.Contains, q.Prefix, q.From, q.To} {
		if text == "" {
			continue
		}
		if err := checkText("value of a query", text, MaxValue); err != nil {
			return err
		}
	}
	return nil
}

// ByKey tells whether the answer is in the order of keys.
func (q Query) ByKey() bool { return q.Index == "" || q.Equal != "" || q.Contains != "" }

// Size is the number of documents of a page.
func (q Query) Size() int {
	if q.Limit == 0 {
		return MaxPage
	}
	return q.Limit
}

// Bounds returns the range from <= value < to of Prefix, From and To.
func (q Query) Bounds() (from, to string) {
	from, to = q.From, last
	if q.To != "" {
		to = q.To
	}
	if q.Prefix != "" {
		from, to = max(from, q.Prefix), min(to, q.Prefix+last)
	}
	return from, to
}

// Cursor makes the cursor of what comes after a document; value is that of the
// index, if the answer is in its order.
func (q Query) Cursor(value, key string) string {
	if q.ByKey() {
		value = ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(value + "\x00" + key))
}

// Position reads q.After.
func (q Query) Position() (value, key string, err error) {
	if q.After == "" {
		return "", "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(q.After)
	value, key, ok := strings.Cut(string(text), "\x00")
	if err != nil || !ok || len(text) > MaxKey+MaxValue+1 || strings.ContainsRune(key, 0) || q.ByKey() != (value == "") || key == "" {
		return "", "", fmt.Errorf("%w: %.40q is no place in the answer", ErrInvalid, q.After)
	}
	return value, key, nil
}
