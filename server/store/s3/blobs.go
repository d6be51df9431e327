package s3

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"time"

	"singularity/server/store"
)

// named is the record of a blob.
type named struct {
	ID       string    `json:"id"` // of what was stored: another for each time
	Size     int64     `json:"size"`
	SHA256   string    `json:"sha256"`
	Modified time.Time `json:"modified"`
	Pieces   []piece   `json:"pieces"`
}

func (n *named) keys() []string {
	var keys []string
	for _, p := range n.Pieces {
		keys = append(keys, p.Key)
	}
	return keys
}

func (n *named) info(name string) store.Info {
	return store.Info{Name: name, Size: n.Size, SHA256: n.SHA256, Modified: n.Modified}
}

// Put writes a blob.
func (b *Blobs) Put(ctx context.Context, name string, r io.Reader, want store.Content) (store.Info, error) {
	if err := store.CheckName(name); err != nil {
		return store.Info{}, err
	}
	id := store.NewID()
	key := b.key(id, "whole")
	if err := b.discard(ctx, name, id, []string{key}, putLife); err != nil {
		return store.Info{}, err
	}
	in := newIntake(r, nil, want)
	if err := b.send(ctx, key, in); err != nil {
		return store.Info{}, err // the rest is swept
	}
	n := named{ID: id, Size: in.n, SHA256: in.sum(), Modified: b.now().UTC()}
	if in.n > 0 {
		n.Pieces = []piece{{key, in.n}}
	}
	if err := b.publish(ctx, name, n); err != nil {
		return store.Info{}, err
	}
	b.kept(ctx, id)
	return n.info(name), nil
}

// publish makes objects that are there the blob name.
func (b *Blobs) publish(ctx context.Context, name string, n named) error {
	for {
		old, err := b.names.Get(ctx, name)
		switch {
		case errors.Is(err, store.ErrNotFound):
			_, err = b.names.Insert(ctx, name, n)
		case err == nil && old.Value.ID == n.ID:
			return nil
		case err == nil:
			if err = b.discard(ctx, name, old.Value.ID, old.Value.keys(), readLife); err == nil {
				old.Value = n
				_, err = b.names.Replace(ctx, old)
			}
		}
		if !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) || ctx.Err() != nil {
			return err
		}
	}
}

// Open opens a blob.
func (b *Blobs) Open(ctx context.Context, name string) (store.Blob, error) {
	if err := store.CheckName(name); err != nil {
		return nil, err
	}
	i, err := b.names.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	return &object{b: b, ctx: ctx, info: i.Value.info(name), pieces: i.Value.Pieces}, nil
}

// Stat tells the size of a blob.
func (b *Blobs) Stat(ctx context.Context, name string) (store.Info, error) {
	if err := store.CheckName(name); err != nil {
		return store.Info{}, err
	}
	i, err := b.names.Get(ctx, name)
	if err != nil {
		return store.Info{}, err
	}
	return i.Value.info(name), nil
}

// List gives the names in order.
func (b *Blobs) List(ctx context.Context, prefix string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for i, err := range b.names.All(ctx, store.Query{Prefix: prefix}) {
			if err != nil {
				yield(store.Info{}, err)
				return
			}
			if !yield(i.Value.info(i.Key), nil) {
				return
			}
		}
	}
}

// Delete removes a blob.
func (b *Blobs) Delete(ctx context.Context, name string) error {
	if err := store.CheckName(name); err != nil {
		return err
	}
	for {
		i, err := b.names.Get(ctx, name)
		if err != nil {
			return err
		}
		if err := b.discard(ctx, name, i.Value.ID, i.Value.keys(), readLife); err != nil {
			return err
		}
		if err := b.names.Delete(ctx, name, i.Rev); !errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// Presign makes an address of the storage for reading a blob, if clients may see
// such. What they send always comes through this program, which looks at it
// while it arrives.
func (b *Blobs) Presign(ctx context.Context, a store.Access) (string, error) {
	if !b.o.Direct || a.Method != http.MethodGet || a.Upload != "" {
		return "", store.ErrUnsupported
	}
	if err := store.CheckName(a.Name); err != nil {
		return "", err
	}
	i, err := b.names.Get(ctx, a.Name)
	if err != nil {
		return "", err
	}
	if len(i.Value.Pieces) != 1 {
		return "", store.ErrUnsupported // an address is of one object
	}
	return b.presign(ctx, i.Value.Pieces[0].Key, a.Expires)
}
