// Package translog is the transparency log: an append-only list of what every
// name meant since when, of which anybody can check that nothing was rewritten.
//
// Lines go in (Change); out come checkpoints, which are the signed size and root
// of a Merkle tree, tiles of its hashes, and proofs: that a line is in the tree,
// and that one tree goes on from another. A client that keeps the last checkpoint
// sees when it is shown another history than before; monitors read all lines.
//
// A line is public for ever: write nothing into it that some may not read. For a
// private name give a digest of it with a secret, and keep that with the name.
//
// A line is stored before its hashes, and those before the checkpoint, so that
// after a crash at any point the next Open completes what was begun. What is
// read of the own storage is checked against the checkpoint.
//
//   - translog.go: appending; tiles.go: hashes in the storage; http.go: calls
//
// Specs: RFC 6962 for hashes and proofs; c2sp.org/tlog-tiles, tlog-checkpoint and
// signed-note for what is served below /v1/log/.
package translog

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"singularity/api"
	"singularity/server/store"
)

// Log is an open log.
type Log struct {
	entries *store.Collection[line]
	tiles   *store.Collection[tile]
	heads   *store.Collection[head]
	signer  note.Signer
	key     string
	now     func() time.Time

	waiting sync.Mutex
	pending []*change

	writing sync.Mutex // held while the tree grows
	reading sync.RWMutex
	tree    tlog.Tree
	signed  []byte // the checkpoint of tree
}

type line struct {
	Data []byte `json:"data"`
}

// tile holds up to 256 neighbours of the tree, those of the checkpoint and
// perhaps some more.
type tile struct {
	Hashes []byte `json:"hashes"`
}

// head is the newest checkpoint, or the key.
type head struct {
	Size   int64  `json:"size,omitempty"`
	Root   []byte `json:"root,omitempty"`
	Signed []byte `json:"signed,omitempty"`
	Secret string `json:"secret,omitempty"`
	Public string `json:"public,omitempty"`
}

type change struct {
	data  []byte
	index int64
	err   error
	done  bool
}

// maxLine is what the format of tiles can hold in a line.
const maxLine = 1<<16 - 1

// Open opens the log in r, or begins one that is called by a name: the address
// of the server without its scheme.
func Open(ctx context.Context, r store.Records, name string) (*Log, error) {
	l := &Log{now: time.Now}
	var err error
	if l.entries, err = store.Open(ctx, r, "log_lines", store.Options[line]{Version: 1}); err != nil {
		return nil, err
	}
	if l.tiles, err = store.Open(ctx, r, "log_tiles", store.Options[tile]{Version: 1}); err != nil {
		return nil, err
	}
	if l.heads, err = store.Open(ctx, r, "log_heads", store.Options[head]{Version: 1}); err != nil {
		return nil, err
	}
	if err := l.openKey(ctx, name); err != nil {
		return nil, err
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	return l, l.load(ctx)
}

func (l *Log) openKey(ctx context.Context, name string) error {
	h, err := l.heads.Get(ctx, "key")
	if errors.Is(err, store.ErrNotFound) {
		var k head
		name = strings.Map(func(c rune) rune {
			if c <= ' ' || c == '+' || c >= 0x7f {
				return '-'
			}
			return c
		}, name)
		if k.Secret, k.Public, err = note.GenerateKey(rand.Reader, name); err != nil {
			return err
		}
		if _, err = l.heads.Insert(ctx, "key", k); err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
		h, err = l.heads.Get(ctx, "key")
	}
	if err != nil {
		return err
	}
	l.key = h.Value.Public
	l.signer, err = note.NewSigner(h.Value.Secret)
	return err
}

// Key returns the key by which checkpoints are verified.
func (l *Log) Key() string { return l.key }

// load reads the newest checkpoint, and completes what was stored after it.
func (l *Log) load(ctx context.Context) error {
	h, err := l.heads.Get(ctx, "head")
	if errors.Is(err, store.ErrNotFound) {
		h.Value, err = head{}, nil
		empty, _ := tlog.TreeHash(0, nil)
		h.Value.Root = empty[:]
		if h.Value.Signed, err = l.sign(tlog.Tree{N: 0, Hash: empty}); err != nil {
			return err
		}
		h, err = l.heads.Insert(ctx, "head", h.Value)
	}
	if err != nil {
		return err
	}
	if len(h.Value.Root) != tlog.HashSize {
		return errors.New("the transparency log has no valid checkpoint")
	}
	l.set(tlog.Tree{N: h.Value.Size, Hash: tlog.Hash(h.Value.Root)}, h.Value.Signed)
	for {
		var rest [][]byte
		items, _, err := l.entries.List(ctx, store.Query{From: lineKey(l.tree.N), Limit: 256})
		if err != nil {
			return err
		}
		for _, i := range items {
			if i.Key == lineKey(l.tree.N+int64(len(rest))) {
				rest = append(rest, i.Value.Data)
			}
		}
		if len(rest) == 0 {
			return nil
		}
		if err := l.grow(ctx, rest); err != nil {
			return err
		}
	}
}

func (l *Log) set(t tlog.Tree, signed []byte) {
	l.reading.Lock()
	l.tree, l.signed = t, signed
	l.reading.Unlock()
}

// head returns the newest tree and its checkpoint.
func (l *Log) head() (tlog.Tree, []byte) {
	l.reading.RLock()
	defer l.reading.RUnlock()
	return l.tree, l.signed
}

func lineKey(n int64) string { return fmt.Sprintf("%016x", n) }

// Change writes down that a name of a kind means a digest from now on. When it
// returns the line is in the tree of the newest checkpoint, durably. Lines that
// come at the same time are written together.
func (l *Log) Change(ctx context.Context, kind, name, digest string) (int64, error) {
	data, err := json.Marshal(api.LogEntry{Kind: kind, Name: name, Digest: digest, Time: l.now().UTC().Truncate(time.Millisecond)})
	if err != nil {
		return -1, err
	}
	if len(data) > maxLine {
		return -1, fmt.Errorf("%w: a line of the log has %d bytes", store.ErrInvalid, len(data))
	}
	c := &change{data: data}
	l.waiting.Lock()
	l.pending = append(l.pending, c)
	l.waiting.Unlock()
	l.writing.Lock()
	defer l.writing.Unlock()
	if c.done {
		return c.index, c.err
	}
	l.waiting.Lock()
	batch := l.pending
	l.pending = nil
	l.waiting.Unlock()
	// The lines of others must not fail because this caller goes away.
	l.append(context.WithoutCancel(ctx), batch)
	return c.index, c.err
}

func (l *Log) append(ctx context.Context, batch []*change) {
	err := l.store(ctx, batch)
	if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) {
		// Another process wrote, or an earlier write failed half-way.
		if err = l.load(ctx); err == nil {
			err = l.store(ctx, batch)
		}
	}
	for _, c := range batch {
		if c.done, c.err = true, err; err != nil {
			c.index = -1
		}
	}
}

func (l *Log) store(ctx context.Context, batch []*change) error {
	var list [][]byte
	for i, c := range batch {
		c.index = l.tree.N + int64(i)
		if _, err := l.entries.Insert(ctx, lineKey(c.index), line{c.data}); err != nil {
			return err
		}
		list = append(list, c.data)
	}
	return l.grow(ctx, list)
}

// grow puts lines that are stored into the tree.
func (l *Log) grow(ctx context.Context, list [][]byte) error {
	fresh := map[int64]tlog.Hash{}
	old := tlog.TileHashReader(l.tree, reader{ctx, l})
	hashes := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) { return readBoth(indexes, fresh, old) })
	n := l.tree.N
	for _, data := range list {
		more, err := tlog.StoredHashes(n, data, hashes)
		if err != nil {
			return err
		}
		for i, h := range more {
			fresh[tlog.StoredHashIndex(0, n)+int64(i)] = h
		}
		n++
	}
	for _, t := range tlog.NewTiles(tileHeight, l.tree.N, n) {
		data, err := tlog.ReadTileData(t, hashes)
		if err != nil {
			return err
		}
		if err := l.writeTile(ctx, t, data); err != nil {
			return err
		}
	}
	root, err := tlog.TreeHash(n, hashes)
	if err != nil {
		return err
	}
	t := tlog.Tree{N: n, Hash: root}
	signed, err := l.sign(t)
	if err != nil {
		return err
	}
	before := l.tree.N
	_, err = l.heads.Update(ctx, "head", func(h *head) error {
		if h.Size != before {
			return store.ErrConflict
		}
		h.Size, h.Root, h.Signed = n, root[:], signed
		return nil
	})
	if err != nil {
		return err
	}
	l.set(t, signed)
	return nil
}

// readBoth reads hashes that were just made, or that are stored.
func readBoth(indexes []int64, fresh map[int64]tlog.Hash, old tlog.HashReader) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	var ask []int64
	var at []int
	for i, x := range indexes {
		if h, ok := fresh[x]; ok {
			out[i] = h
		} else {
			ask, at = append(ask, x), append(at, i)
		}
	}
	if len(ask) == 0 {
		return out, nil
	}
	got, err := old.ReadHashes(ask)
	if err != nil {
		return nil, err
	}
	for i, h := range got {
		out[at[i]] = h
	}
	return out, nil
}

// sign makes the checkpoint of a tree.
func (l *Log) sign(t tlog.Tree) ([]byte, error) {
	return note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", l.signer.Name(), t.N, t.Hash)}, l.signer)
}

// Prove proves that a line is in the log, by the newest checkpoint; and, if from
// is above 0, that the tree goes on from the one of that size. Where there is
// no such tree, the checkpoint alone tells the caller that lines were lost.
func (l *Log) Prove(ctx context.Context, index, from int64) (api.LogProof, error) {
	t, signed := l.head()
	p := api.LogProof{Key: l.key, Checkpoint: string(signed), Index: index}
	if index < 0 || index >= t.N || from < 0 {
		return p, fmt.Errorf("%w: the log has %d lines", store.ErrNotFound, t.N)
	}
	i, err := l.entries.Get(ctx, lineKey(index))
	if err != nil {
		return p, err
	}
	p.Entry = i.Value.Data
	hashes := tlog.TileHashReader(t, reader{ctx, l})
	proof, err := tlog.ProveRecord(t.N, index, hashes)
	if err != nil {
		return p, err
	}
	p.Hashes = raw(proof)
	if from > 0 && from <= t.N {
		c, err := tlog.ProveTree(t.N, from, hashes)
		if err != nil {
			return p, err
		}
		p.Consistency = raw(c)
	}
	return p, nil
}

func raw(list []tlog.Hash) [][]byte {
	out := [][]byte{}
	for _, h := range list {
		out = append(out, h[:])
	}
	return out
}
