package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Collection is a collection of documents of one Go type.
type Collection[T any] struct {
	records Records
	name    string
	indexes []Index[T]
	expires func(*T) time.Time
}

// Index says which values a document has in an index; empty ones do not count.
type Index[T any] struct {
	Name   string
	Unique bool
	Of     func(*T) []string
}

// Options of a collection.
type Options[T any] struct {
	Version int                // another number makes the indexes anew
	Expires func(*T) time.Time // when a document ends by itself; nil for never
	Indexes []Index[T]
}

// Item is a document with its key and the revision that was read.
type Item[T any] struct {
	Key   string
	Rev   int64
	Value T
}

// Open declares a collection in r.
func Open[T any](ctx context.Context, r Records, name string, o Options[T]) (*Collection[T], error) {
	c := &Collection[T]{records: r, name: name, indexes: o.Indexes, expires: o.Expires}
	s := Schema{Name: name, Version: o.Version}
	for _, i := range o.Indexes {
		s.Indexes = append(s.Indexes, IndexSpec{i.Name, i.Unique})
	}
	err := r.Define(ctx, s, func(data []byte) (map[string][]string, error) {
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return nil, err
		}
		return c.index(&v), nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open the collection %q: %w", name, err)
	}
	return c, nil
}

func (c *Collection[T]) index(v *T) map[string][]string {
	m := map[string][]string{}
	for _, i := range c.indexes {
		seen := map[string]bool{"": true}
		for _, value := range i.Of(v) {
			if !seen[value] {
				seen[value] = true
				m[i.Name] = append(m[i.Name], value)
			}
		}
	}
	return m
}

func (c *Collection[T]) doc(key string, rev int64, v *T) (Doc, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return Doc{}, err
	}
	d := Doc{Key: key, Rev: rev, Data: data, Index: c.index(v)}
	if c.expires != nil {
		d.Expires = c.expires(v)
	}
	return d, nil
}

func (c *Collection[T]) item(d Doc) (Item[T], error) {
	i := Item[T]{Key: d.Key, Rev: d.Rev}
	if err := json.Unmarshal(d.Data, &i.Value); err != nil {
		return i, fmt.Errorf("the document %q of %s is damaged: %w", d.Key, c.name, err)
	}
	return i, nil
}

// Get returns the document with that key.
func (c *Collection[T]) Get(ctx context.Context, key string) (Item[T], error) {
	d, err := c.records.Get(ctx, c.name, key)
	if err != nil {
		return Item[T]{}, err
	}
	return c.item(d)
}

// Find returns the one document that has the value in a unique index.
func (c *Collection[T]) Find(ctx context.Context, index, value string) (Item[T], error) {
	if value == "" {
		return Item[T]{}, ErrNotFound
	}
	p, err := c.records.List(ctx, c.name, Query{Index: index, Equal: value, Limit: 1})
	if err != nil {
		return Item[T]{}, err
	}
	if len(p.Docs) == 0 {
		return Item[T]{}, ErrNotFound
	}
	return c.item(p.Docs[0])
}

// Insert adds a document under a key that is free.
func (c *Collection[T]) Insert(ctx context.Context, key string, v T) (Item[T], error) {
	d, err := c.doc(key, 0, &v)
	if err != nil {
		return Item[T]{}, err
	}
	rev, err := c.records.Insert(ctx, c.name, d)
	return Item[T]{key, rev, v}, err
}

// Replace writes i.Value if the document is still the one that was read.
func (c *Collection[T]) Replace(ctx context.Context, i Item[T]) (Item[T], error) {
	d, err := c.doc(i.Key, i.Rev, &i.Value)
	if err != nil {
		return i, err
	}
	i.Rev, err = c.records.Replace(ctx, c.name, d)
	return i, err
}

// Update reads the document, lets change alter it and writes it, again and
// again while others write it meanwhile. An error of change ends it unwritten.
func (c *Collection[T]) Update(ctx context.Context, key string, change func(*T) error) (Item[T], error) {
	for {
		i, err := c.Get(ctx, key)
		if err != nil {
			return i, err
		}
		if err := change(&i.Value); err != nil {
			return i, err
		}
		if i, err = c.Replace(ctx, i); !errors.Is(err, ErrConflict) {
			return i, err
		}
		if err := ctx.Err(); err != nil {
			return i, err
		}
	}
}

// Delete removes the document; with a revision only if it is still that one.
func (c *Collection[T]) Delete(ctx context.Context, key string, rev int64) error {
	return c.records.Delete(ctx, c.name, key, rev)
}

// List returns a page of documents and the cursor of the next page.
func (c *Collection[T]) List(ctx context.Context, q Query) ([]Item[T], string, error) {
	p, err := c.records.List(ctx, c.name, q)
	if err != nil {
		return nil, "", err
	}
	items := make([]Item[T], 0, len(p.Docs))
	for _, d := range p.Docs {
		i, err := c.item(d)
		if err != nil {
			return nil, "", err
		}
		items = append(items, i)
	}
	return items, p.Next, nil
}

// All gives every document of the query, page by page.
func (c *Collection[T]) All(ctx context.Context, q Query) iter.Seq2[Item[T], error] {
	return func(yield func(Item[T], error) bool) {
		for {
			items, next, err := c.List(ctx, q)
			if err != nil {
				yield(Item[T]{}, err)
				return
			}
			for _, i := range items {
				if !yield(i, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			q.After = next
		}
	}
}

// Count tells how many documents the query has.
func (c *Collection[T]) Count(ctx context.Context, q Query) (int64, error) {
	return c.records.Count(ctx, c.name, q)
}
