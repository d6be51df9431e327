package embedded

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"singularity/server/store"
)

// upload is one upload that goes on: a file which parts are written into where
// they belong, and beside it a note of the parts that are whole and synced.
type upload struct {
	mu      sync.Mutex
	file    *os.File
	note    note
	running map[int]bool // parts that arrive now
	ended   bool
}

// note is what a new server has to know. Hashed is the state of the hash over
// the first Through parts: parts come in order as a rule, and then the whole
// need not be read again.
type note struct {
	Upload  store.Upload
	Through int
	Offset  int64
	Hashed  []byte
}

const maxParts = 100_000

// sortAsNames sorts as whole names compare: a directory as if it ended in "/".
func sortAsNames(entries []fs.DirEntry) {
	key := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(key(a), key(b)) })
}

// Start begins an upload.
func (b *Blobs) Start(ctx context.Context, p store.Plan) (store.Upload, error) {
	if p.PartSize < 0 || p.Size < -1 || p.PartSize > 0 && (p.Size <= 0 || (p.Size-1)/p.PartSize >= maxParts) {
		return store.Upload{}, fmt.Errorf("%w: an upload of %d bytes in parts of %d", store.ErrInvalid, p.Size, p.PartSize)
	}
	u := &upload{note: note{Upload: store.Upload{ID: store.NewID(), Plan: p, Started: time.Now().UTC()}}, running: map[int]bool{}}
	state, err := sha256.New().(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return store.Upload{}, err
	}
	u.note.Hashed = state
	path := filepath.Join(b.uploads, u.note.Upload.ID)
	if u.file, err = b.create(path); err != nil {
		return store.Upload{}, full(err)
	}
	if err := b.writeNote(&u.note); err != nil {
		u.file.Close()
		os.Remove(path)
		return store.Upload{}, full(err)
	}
	b.mu.Lock()
	b.open[u.note.Upload.ID] = u
	b.mu.Unlock()
	return u.note.Upload, nil
}

func (b *Blobs) writeNote(n *note) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	temp := filepath.Join(b.uploads, temporary+store.NewID())
	f, err := b.create(temp)
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(temp)
	if _, err := b.writer(f, 0).Write(text); err != nil {
		return err
	}
	return b.publish(f, temp, filepath.Join(b.uploads, n.Upload.ID+".json"))
}

// find returns the upload, if need be from the disk.
func (b *Blobs) find(id string) (*upload, error) {
	if len(id) != 24 || store.CheckName(id) != nil || strings.ContainsRune(id, '/') {
		return nil, store.ErrNotFound
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if u, ok := b.open[id]; ok {
		return u, nil
	}
	u := &upload{running: map[int]bool{}}
	text, err := os.ReadFile(filepath.Join(b.uploads, id+".json"))
	if err != nil {
		return nil, missing(err)
	}
	if err := json.Unmarshal(text, &u.note); err != nil {
		return nil, fmt.Errorf("the upload %s is damaged: %w", id, err)
	}
	if u.file, err = os.OpenFile(filepath.Join(b.uploads, id), os.O_RDWR, 0); err != nil {
		return nil, missing(err)
	}
	b.open[id] = u
	return u, nil
}

// place returns where a part goes and what size it must have, -1 for any.
func (n *note) place(number int) (off, size int64, err error) {
	p := n.Upload.Plan
	switch {
	case p.PartSize > 0 && number >= 1 && number <= p.Parts():
		return int64(number-1) * p.PartSize, p.Part(number), nil
	case p.PartSize == 0 && number == len(n.Upload.Parts)+1 && number <= maxParts:
		return n.Upload.Size, -1, nil
	}
	return 0, 0, fmt.Errorf("%w: there is no part %d to come", store.ErrInvalid, number)
}

// PutPart writes one part.
func (b *Blobs) PutPart(ctx context.Context, id string, number int, r io.Reader, want store.Content) (store.Part, error) {
	u, err := b.find(id)
	if err != nil {
		return store.Part{}, err
	}
	off, h, err := b.begin(u, number, &want)
	if err != nil {
		return store.Part{}, full(err)
	}
	n, whole, err := b.receivePart(ctx, u, off, h, r, want)
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.running, number)
	if u.ended {
		return store.Part{}, store.ErrNotFound
	}
	if err != nil {
		return store.Part{}, full(err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	part := store.Part{Number: number, Size: n, SHA256: sum, Tag: sum}
	changed := u.note
	changed.Upload.Parts = append(slices.Clone(u.note.Upload.Parts), part)
	changed.Upload.Size += n
	if whole != nil && number == changed.Through+1 {
		changed.Through, changed.Offset, changed.Hashed = number, off+n, whole
	}
	if err := b.writeNote(&changed); err != nil {
		return store.Part{}, full(err)
	}
	u.note = changed
	return part, nil
}

// begin takes the place of a part, and forgets an older one there before its
// bytes change.
func (b *Blobs) begin(u *upload, number int, want *store.Content) (int64, hash.Hash, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return 0, nil, store.ErrNotFound
	}
	off, size, err := u.note.place(number)
	if err != nil {
		return 0, nil, err
	}
	if size >= 0 && want.Size >= 0 && want.Size != size {
		return 0, nil, fmt.Errorf("%w: part %d has %d bytes, not %d", store.ErrContent, number, size, want.Size)
	}
	if size >= 0 {
		want.Size = size
	}
	if limit := u.note.Upload.Plan.Size; limit >= 0 && size < 0 && want.Size > limit-off {
		return 0, nil, fmt.Errorf("%w: more than %d bytes", store.ErrContent, limit)
	}
	if u.running[number] {
		return 0, nil, fmt.Errorf("part %d: %w", number, store.ErrBusy)
	}
	if at := slices.IndexFunc(u.note.Upload.Parts, func(p store.Part) bool { return p.Number == number }); at >= 0 {
		changed := u.note
		changed.Upload.Size -= changed.Upload.Parts[at].Size
		changed.Upload.Parts = slices.Delete(slices.Clone(changed.Upload.Parts), at, at+1)
		if number <= changed.Through {
			changed.Through, changed.Offset, changed.Hashed = 0, 0, nil
		}
		if err := b.writeNote(&changed); err != nil {
			return 0, nil, err
		}
		u.note = changed
	}
	u.running[number] = true
	return off, sha256.New(), nil
}

// receivePart writes and syncs the bytes of a part. If it is the next of the
// running hash of the whole, that goes on and its new state is returned.
func (b *Blobs) receivePart(ctx context.Context, u *upload, off int64, h hash.Hash, r io.Reader, want store.Content) (int64, []byte, error) {
	u.mu.Lock()
	var whole hash.Hash
	both := h
	switch {
	case u.note.Hashed == nil || u.note.Offset != off:
	case off == 0:
		whole = h // the first part is the whole so far
	default:
		whole = sha256.New()
		if both = (twice{h, whole}); whole.(encoding.BinaryUnmarshaler).UnmarshalBinary(u.note.Hashed) != nil {
			whole, both = nil, h
		}
	}
	u.mu.Unlock()
	n, err := receive(ctx, b.writer(u.file, off), both, r, want)
	if err != nil {
		return 0, nil, err
	}
	if err := b.fault("sync"); err != nil {
		return 0, nil, err
	}
	if err := u.file.Sync(); err != nil {
		return 0, nil, err
	}
	if whole == nil {
		return n, nil, nil
	}
	state, err := whole.(encoding.BinaryMarshaler).MarshalBinary()
	return n, state, err
}

// twice hashes a part, and the whole beside it.
type twice struct {
	hash.Hash
	whole hash.Hash
}

func (t twice) Write(p []byte) (int, error) {
	done := make(chan struct{})
	go func() {
		t.whole.Write(p)
		close(done)
	}()
	n, err := t.Hash.Write(p)
	<-done
	return n, err
}

// Complete makes the upload a blob.
func (b *Blobs) Complete(ctx context.Context, id, name string, want store.Content) (store.Info, error) {
	path, err := b.path(name)
	if err != nil {
		return store.Info{}, err
	}
	u, err := b.find(id)
	if err != nil {
		return store.Info{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return store.Info{}, store.ErrNotFound
	}
	if len(u.running) > 0 {
		return store.Info{}, fmt.Errorf("a part arrives: %w", store.ErrBusy)
	}
	sum, err := u.check(ctx, want)
	if err != nil {
		return store.Info{}, err
	}
	size := u.note.Upload.Size
	// What a part that broke off has left behind the last one is no content.
	if err := u.file.Truncate(size); err != nil {
		return store.Info{}, err
	}
	if err := b.publish(u.file, filepath.Join(b.uploads, id), path); err != nil {
		return store.Info{}, full(err)
	}
	b.forget(u)
	os.Remove(filepath.Join(b.uploads, id+".json"))
	return store.Info{Name: name, Size: size, SHA256: sum, Modified: time.Now()}, nil
}

// check says whether all parts are there and the whole is what was declared.
func (u *upload) check(ctx context.Context, want store.Content) (string, error) {
	n := &u.note
	if parts := n.Upload.Plan.Parts(); parts > 0 && len(n.Upload.Parts) != parts {
		return "", fmt.Errorf("%w: %d of %d parts have come", store.ErrContent, len(n.Upload.Parts), parts)
	}
	for _, size := range []int64{n.Upload.Plan.Size, want.Size} {
		if size >= 0 && size != n.Upload.Size {
			return "", fmt.Errorf("%w: %d bytes came, not %d", store.ErrContent, n.Upload.Size, size)
		}
	}
	h := sha256.New()
	if n.Hashed != nil {
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(n.Hashed); err != nil {
			return "", err
		}
	}
	if rest := n.Upload.Size - n.Offset; rest > 0 {
		if _, err := receive(ctx, io.Discard, h, io.NewSectionReader(u.file, n.Offset, rest), store.Content{Size: rest}); err != nil {
			return "", err
		}
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if want.SHA256 != "" && want.SHA256 != sum {
		return "", fmt.Errorf("%w: the SHA-256 is %s, not %s", store.ErrContent, sum, want.SHA256)
	}
	return sum, nil
}

func (b *Blobs) forget(u *upload) {
	u.ended = true
	u.file.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, u.note.Upload.ID)
}

// Abort removes an upload. A part that arrives then ends with an error.
func (b *Blobs) Abort(ctx context.Context, id string) error {
	u, err := b.find(id)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return store.ErrNotFound
	}
	if err := b.fault("remove"); err != nil {
		return err
	}
	// The note goes first: a file without one is removed at the next start.
	if err := os.Remove(filepath.Join(b.uploads, id+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.forget(u)
	return missing(os.Remove(filepath.Join(b.uploads, id)))
}

// Upload tells how far an upload is.
func (b *Blobs) Upload(ctx context.Context, id string) (store.Upload, error) {
	u, err := b.find(id)
	if err != nil {
		return store.Upload{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return store.Upload{}, store.ErrNotFound
	}
	up := u.note.Upload
	up.Parts = slices.Clone(up.Parts)
	slices.SortFunc(up.Parts, func(a, b store.Part) int { return a.Number - b.Number })
	return up, nil
}

// Uploads gives all uploads.
func (b *Blobs) Uploads(ctx context.Context) iter.Seq2[store.Upload, error] {
	return func(yield func(store.Upload, error) bool) {
		entries, err := os.ReadDir(b.uploads)
		if err != nil {
			yield(store.Upload{}, err)
			return
		}
		for _, e := range entries {
			id, isNote := strings.CutSuffix(e.Name(), ".json")
			if !isNote {
				continue
			}
			u, err := b.Upload(ctx, id)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if !yield(u, err) || err != nil {
				return
			}
		}
	}
}
