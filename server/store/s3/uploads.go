package s3

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/minio/minio-go/v7"

	"singularity/server/store"
)

// going is the record of an upload. Hashed is the state of the hash over the
// first Through parts: if parts come in order nothing is read again, whichever
// servers they came to.
type going struct {
	Plan    store.Plan `json:"plan"`
	Started time.Time  `json:"started"`
	Parts   []arrived  `json:"parts"`
	Through int        `json:"through"`
	Offset  int64      `json:"offset"`
	Hashed  []byte     `json:"hashed,omitempty"`
	Untidy  bool       `json:"untidy,omitempty"` // a part came twice
	Ending  string     `json:"ending,omitempty"` // the name that it becomes
	Since   time.Time  `json:"since,omitzero"`   // of the ending
}

type arrived struct {
	Number int    `json:"number"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Key    string `json:"key,omitempty"`
}

// maxParts keeps the record of an upload far below what a document may have.
const maxParts = 10_000

// endingTime is how long who completes an upload has it for itself.
const endingTime = 10 * time.Minute

func (g *going) size() (n int64) {
	for _, p := range g.Parts {
		n += p.Size
	}
	return n
}

func (g *going) at(number int) int {
	return slices.IndexFunc(g.Parts, func(p arrived) bool { return p.Number == number })
}

// drop forgets a part and returns its object.
func (g *going) drop(number int) string {
	at := g.at(number)
	if at < 0 {
		return ""
	}
	key := g.Parts[at].Key
	g.Parts = slices.Delete(g.Parts, at, at+1)
	g.Untidy = true
	if number <= g.Through {
		g.Through, g.Offset, g.Hashed = 0, 0, newHash()
	}
	return key
}

func newHash() []byte {
	state, _ := sha256.New().(encoding.BinaryMarshaler).MarshalBinary()
	return state
}

func (g *going) upload(id string) store.Upload {
	u := store.Upload{ID: id, Plan: g.Plan, Size: g.size(), Started: g.Started}
	for _, p := range g.Parts {
		u.Parts = append(u.Parts, store.Part{Number: p.Number, Size: p.Size, SHA256: p.SHA256, Tag: p.SHA256})
	}
	return u
}

// place returns where a part begins and what size it must have, -1 for any.
func (g *going) place(number int) (off, size int64, err error) {
	p := g.Plan
	switch {
	case p.PartSize > 0 && number >= 1 && number <= p.Parts():
		return int64(number-1) * p.PartSize, p.Part(number), nil
	case p.PartSize == 0 && number == len(g.Parts)+1 && number <= maxParts:
		return g.size(), -1, nil
	}
	return 0, 0, fmt.Errorf("%w: there is no part %d to come", store.ErrInvalid, number)
}

// Start begins an upload.
func (b *Blobs) Start(ctx context.Context, p store.Plan) (store.Upload, error) {
	if p.PartSize < 0 || p.Size < -1 || p.PartSize > 0 && (p.Size <= 0 || (p.Size-1)/p.PartSize >= maxParts) {
		return store.Upload{}, fmt.Errorf("%w: an upload of %d bytes in parts of %d", store.ErrInvalid, p.Size, p.PartSize)
	}
	id, g := store.NewID(), going{Plan: p, Started: b.now().UTC(), Hashed: newHash()}
	if _, err := b.uploads.Insert(ctx, id, g); err != nil {
		return store.Upload{}, err
	}
	return g.upload(id), nil
}

func (b *Blobs) find(ctx context.Context, id string) (store.Item[going], error) {
	if len(id) != 24 || store.CheckName(id) != nil {
		return store.Item[going]{}, store.ErrNotFound
	}
	return b.uploads.Get(ctx, id)
}

// PutPart stores one part.
func (b *Blobs) PutPart(ctx context.Context, id string, number int, r io.Reader, want store.Content) (store.Part, error) {
	i, err := b.find(ctx, id)
	if err != nil {
		return store.Part{}, err
	}
	off, err := i.Value.expect(number, &want)
	if err != nil {
		return store.Part{}, err
	}
	if i.Value.at(number) >= 0 {
		// Whoever sends a part again does not want the older one, whatever comes.
		if i, err = b.change(ctx, id, func(g *going) (string, error) { return g.drop(number), nil }); err != nil {
			return store.Part{}, err
		}
	}
	whole := i.Value.follow(off)
	in := newIntake(r, whole, want)
	key := b.key(id, strconv.Itoa(number), store.NewID())
	if err := b.send(ctx, key, in); err != nil {
		return store.Part{}, err
	}
	part := arrived{Number: number, Size: in.n, SHA256: in.sum(), Key: key}
	if in.n == 0 {
		part.Key = ""
	}
	_, err = b.change(ctx, id, func(g *going) (string, error) {
		if again, _, err := g.place(number); g.Plan.PartSize == 0 && (err != nil || again != off) {
			return "", fmt.Errorf("part %d: %w", number, store.ErrBusy)
		}
		old := g.drop(number)
		g.Parts = append(g.Parts, part)
		slices.SortFunc(g.Parts, func(a, b arrived) int { return a.Number - b.Number })
		if whole != nil && g.Through == number-1 && g.Offset == off {
			state, err := whole.(encoding.BinaryMarshaler).MarshalBinary()
			if err != nil {
				return "", err
			}
			g.Through, g.Offset, g.Hashed = number, off+part.Size, state
		}
		return old, nil
	})
	if err != nil {
		return store.Part{}, errors.Join(err, b.removeObject(context.WithoutCancel(ctx), key))
	}
	return store.Part{Number: number, Size: part.Size, SHA256: part.SHA256, Tag: part.SHA256}, nil
}

// expect says whether a part may come, and completes what is known of it.
func (g *going) expect(number int, want *store.Content) (int64, error) {
	if g.Ending != "" {
		return 0, store.ErrNotFound
	}
	off, size, err := g.place(number)
	switch {
	case err != nil:
		return 0, err
	case size >= 0 && want.Size >= 0 && want.Size != size:
		return 0, fmt.Errorf("%w: part %d has %d bytes, not %d", store.ErrContent, number, size, want.Size)
	case size >= 0:
		want.Size = size
	case g.Plan.Size >= 0 && want.Size > g.Plan.Size-off:
		return 0, fmt.Errorf("%w: more than %d bytes", store.ErrContent, g.Plan.Size)
	}
	return off, nil
}

// follow returns the hash of the whole if it has come to this place.
func (g *going) follow(off int64) hash.Hash {
	if g.Hashed == nil || g.Offset != off {
		return nil
	}
	h := sha256.New()
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(g.Hashed); err != nil {
		return nil
	}
	return h
}

// change changes the record of an upload that goes on, and then removes the
// object that it no longer has.
func (b *Blobs) change(ctx context.Context, id string, f func(*going) (string, error)) (store.Item[going], error) {
	var old string
	i, err := b.uploads.Update(ctx, id, func(g *going) (err error) {
		if g.Ending != "" {
			return store.ErrNotFound
		}
		old, err = f(g)
		return err
	})
	if err == nil && old != "" {
		b.removeObject(ctx, old) // else the end of the upload does
	}
	return i, err
}

// Complete makes the upload a blob.
func (b *Blobs) Complete(ctx context.Context, id, name string, want store.Content) (store.Info, error) {
	if err := store.CheckName(name); err != nil {
		return store.Info{}, err
	}
	i, err := b.find(ctx, id)
	if err != nil {
		return store.Info{}, err
	}
	g := &i.Value
	// Who completes it under the same name again, as the answer was lost, or the
	// server, makes the same blob of the same objects.
	if g.Ending != "" && g.Ending != name && b.now().Sub(g.Since) < endingTime {
		return store.Info{}, fmt.Errorf("the upload is being completed: %w", store.ErrBusy)
	}
	sum, err := b.check(ctx, g, want)
	if err != nil {
		return store.Info{}, err
	}
	g.Ending, g.Since = name, b.now().UTC()
	if i, err = b.uploads.Replace(ctx, i); err != nil {
		if errors.Is(err, store.ErrConflict) {
			err = fmt.Errorf("a part arrives: %w", store.ErrBusy)
		}
		return store.Info{}, err
	}
	g = &i.Value
	n := named{ID: id, Size: g.size(), SHA256: sum, Modified: b.now().UTC()}
	for _, p := range g.Parts {
		if p.Size > 0 {
			n.Pieces = append(n.Pieces, piece{p.Key, p.Size})
		}
	}
	if b.o.Direct {
		if err := b.join(ctx, id, g, &n); err != nil {
			return store.Info{}, errors.Join(err, b.reopen(ctx, i))
		}
	}
	if g.Untidy {
		if err := b.note(ctx, id, rest{Name: name, Prefix: b.key(id), Due: b.now().Add(readLife).UTC()}); err != nil {
			return store.Info{}, errors.Join(err, b.reopen(ctx, i))
		}
	}
	if err := b.publish(ctx, name, n); err != nil {
		return store.Info{}, err // it may have happened: the upload is not opened again
	}
	return n.info(name), b.ended(ctx, i, name, n)
}

// ended removes the record of an upload that has become a blob. If somebody
// aborted it meanwhile, after endingTime, the objects may be gone.
func (b *Blobs) ended(ctx context.Context, i store.Item[going], name string, n named) error {
	err := b.uploads.Delete(ctx, i.Key, i.Rev)
	if err == nil || !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
		return nil // the abort of old uploads finds the blob and removes the record
	}
	for _, p := range n.Pieces {
		if _, err := b.core.StatObject(ctx, b.o.Bucket, p.Key, minio.StatObjectOptions{}); err != nil {
			now, e := b.names.Get(ctx, name)
			if e == nil && now.Value.ID == n.ID {
				e = b.names.Delete(ctx, name, now.Rev)
			}
			return errors.Join(store.ErrNotFound, e)
		}
	}
	return nil
}

// reopen lets an upload go on that could not be completed.
func (b *Blobs) reopen(ctx context.Context, i store.Item[going]) error {
	i.Value.Ending, i.Value.Since = "", time.Time{}
	_, err := b.uploads.Replace(context.WithoutCancel(ctx), i)
	return err
}

// minCopy is what the protocol copies as a part that is not the last.
const minCopy = 5 << 20

// join makes one object of the parts, inside the storage, as an address for
// clients is of one object. Parts that are too small for it stay as they are.
func (b *Blobs) join(ctx context.Context, id string, g *going, n *named) error {
	if len(n.Pieces) < 2 || slices.ContainsFunc(n.Pieces[:len(n.Pieces)-1], func(p piece) bool { return p.Size < minCopy }) {
		return nil
	}
	var from []minio.CopySrcOptions
	for _, p := range n.Pieces {
		from = append(from, minio.CopySrcOptions{Bucket: b.o.Bucket, Object: p.Key})
	}
	key := b.key(id, "whole", store.NewID())
	if _, err := b.core.ComposeObject(ctx, minio.CopyDestOptions{Bucket: b.o.Bucket, Object: key, Encryption: b.sse}, from...); err != nil {
		return full(err)
	}
	n.Pieces, g.Untidy = []piece{{key, n.Size}}, true
	return nil
}

// check says whether all parts are there and the whole is what was declared.
func (b *Blobs) check(ctx context.Context, g *going, want store.Content) (string, error) {
	if parts := g.Plan.Parts(); parts > 0 && len(g.Parts) != parts {
		return "", fmt.Errorf("%w: %d of %d parts have come", store.ErrContent, len(g.Parts), parts)
	}
	have := g.size()
	for _, size := range []int64{g.Plan.Size, want.Size} {
		if size >= 0 && size != have {
			return "", fmt.Errorf("%w: %d bytes came, not %d", store.ErrContent, have, size)
		}
	}
	h := g.follow(g.Offset)
	if h == nil {
		return "", errors.New("the record of an upload is damaged")
	}
	o := &object{b: b, ctx: ctx, info: store.Info{Name: "that arrives", Size: have}, off: g.Offset}
	for _, p := range g.Parts {
		o.pieces = append(o.pieces, piece{p.Key, p.Size})
	}
	defer o.Close()
	if n, err := io.Copy(h, o); err != nil || n != have-g.Offset {
		return "", errors.Join(err, ctx.Err())
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if want.SHA256 != "" && want.SHA256 != sum {
		return "", fmt.Errorf("%w: the SHA-256 is %s, not %s", store.ErrContent, sum, want.SHA256)
	}
	return sum, nil
}

// Abort removes an upload. A part that arrives then ends with an error.
func (b *Blobs) Abort(ctx context.Context, id string) error {
	i, err := b.find(ctx, id)
	if err != nil {
		return err
	}
	if name := i.Value.Ending; name != "" {
		if b.now().Sub(i.Value.Since) < endingTime {
			return fmt.Errorf("the upload is being completed: %w", store.ErrBusy)
		}
		// It ended in a crash, perhaps behind the write that counts.
		n, err := b.names.Get(ctx, name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if n.Value.ID == id {
			return b.uploads.Delete(ctx, id, i.Rev)
		}
	}
	// What is not removed here at once the sweep finds.
	if err := b.note(ctx, id, rest{Name: i.Value.Ending, Prefix: b.key(id), Due: b.now().Add(readLife).UTC()}); err != nil {
		return err
	}
	if err := b.uploads.Delete(ctx, id, i.Rev); err != nil {
		if errors.Is(err, store.ErrConflict) {
			return b.Abort(ctx, id)
		}
		return err
	}
	for _, p := range i.Value.Parts {
		if p.Key != "" {
			b.removeObject(ctx, p.Key)
		}
	}
	return nil
}

// Upload tells how far an upload is.
func (b *Blobs) Upload(ctx context.Context, id string) (store.Upload, error) {
	i, err := b.find(ctx, id)
	if err != nil {
		return store.Upload{}, err
	}
	return i.Value.upload(id), nil
}

// Uploads gives all uploads.
func (b *Blobs) Uploads(ctx context.Context) iter.Seq2[store.Upload, error] {
	return func(yield func(store.Upload, error) bool) {
		for i, err := range b.uploads.All(ctx, store.Query{}) {
			if err != nil {
				yield(store.Upload{}, err)
				return
			}
			if !yield(i.Value.upload(i.Key), nil) {
				return
			}
		}
	}
}
