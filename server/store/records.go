package store

import (
	"context"
	"slices"
	"time"
)

// Schema declares a collection: its name, one word of lower-case letters and
// underscores, and its indexes.
type Schema struct {
	Name    string
	Version int // another number makes the indexes anew
	Indexes []IndexSpec
}

// IndexSpec declares an index. In a unique one no two documents have a value
// in common.
type IndexSpec struct {
	Name   string
	Unique bool
}

func (s Schema) has(index string) bool {
	return slices.ContainsFunc(s.Indexes, func(i IndexSpec) bool { return i.Name == index })
}

// Doc is one document.
type Doc struct {
	Key     string
	Rev     int64               // chosen by the backend at every write, never used twice for a key
	Data    []byte              // JSON
	Index   map[string][]string // the document's values in each index; not read back
	Expires time.Time           // from then on it is not there; zero means never
}

// Query selects documents of a collection.
//
// Without Index it ranges over keys, in their order. With Index and Equal or
// Contains it gives the documents one of whose values equals or contains the
// text, once each, in the order of keys. With Index alone, or Prefix, From and
// To, it ranges over the values of the index, in the order of value and key: a
// document comes once for each of its values there.
type Query struct {
	Index    string
	Equal    string
	Contains string
	Prefix   string
	From, To string // From <= value < To
	Reverse  bool
	After    string // the cursor of the page before
	Limit    int    // at most and by default MaxPage
}

// Page is a part of the answer to a query.
type Page struct {
	Docs []Doc
	Next string // the cursor of the next page; empty on the last
}

// Records keeps documents. Every write is durable when it returns, and touches
// one document. If the context ends before an answer the write may or may not
// happen.
type Records interface {
	// Define makes the collection, or brings its indexes up to date: index
	// tells the values of a document.
	Define(ctx context.Context, s Schema, index func(data []byte) (map[string][]string, error)) error
	// Get returns the document, or ErrNotFound.
	Get(ctx context.Context, collection, key string) (Doc, error)
	// Insert adds a document and returns its revision. ErrExists: the key or
	// the value of a unique index is taken.
	Insert(ctx context.Context, collection string, d Doc) (int64, error)
	// Replace writes the document if its revision is still d.Rev, and returns
	// the new one. ErrConflict: it is not; ErrNotFound; ErrExists as above.
	Replace(ctx context.Context, collection string, d Doc) (int64, error)
	// Delete removes the document if its revision is still rev, or whatever it
	// is if rev is 0. ErrConflict, ErrNotFound.
	Delete(ctx context.Context, collection, key string, rev int64) error
	// List returns a page of documents.
	List(ctx context.Context, collection string, q Query) (Page, error)
	// Count tells how many documents List would give in all.
	Count(ctx context.Context, collection string, q Query) (int64, error)
	// Sweep removes documents that have expired and tells how many.
	Sweep(ctx context.Context) (int64, error)
	// Ping tells whether the storage answers.
	Ping(ctx context.Context) error
	Close() error
}
