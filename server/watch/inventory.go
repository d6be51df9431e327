package watch

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/sbom"
	"singularity/server/library"
	"singularity/server/store"
)

// inventory is what is known of the list of an image's packages, under the hash of
// the image. The list is a blob.
type inventory struct {
	Hash    string    `json:"hash"`
	Done    bool      `json:"done,omitempty"`
	Tries   int       `json:"tries,omitempty"`
	Next    time.Time `json:"next,omitzero"` // when to read the image; zero for not again
	Error   string    `json:"error,omitempty"`
	Made    time.Time `json:"made,omitzero"`
	Program string    `json:"program,omitempty"` // version that tried last
	Changed time.Time `json:"changed"`
}

var inventoryIndexes = []store.Index[inventory]{
	{Name: "due", Of: func(i *inventory) []string { return []string{stamp(i.Next)} }},
	{Name: "changed", Of: func(i *inventory) []string { return []string{stamp(i.Changed)} }},
}

// stamp is a time that sorts as text, empty for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("20060102T150405.000000000")
}

// blobName is where the list of an image's packages is.
func blobName(hash string) string { return "inventory/" + hash }

// The bounds of reading an image. A try is counted before it begins, so that an image
// that ends the server is not tried for ever.
const (
	maxTries    = 3
	readTime    = 15 * time.Minute
	leaseTime   = readTime + 5*time.Minute
	maxList     = 512 << 20 // bytes of a list of packages
	maxErrorLen = 300
)

// waits are the times after a try that failed.
var waits = [maxTries]time.Duration{time.Minute, 30 * time.Minute, 0}

// published notes an image that has come. A push never fails for it.
func (s *Service) published(ctx context.Context, hash string) {
	s.corpus.changed() // perhaps at a place that is new
	if err := s.note(context.WithoutCancel(ctx), hash); err != nil {
		s.missed.Store(true)
		s.log.Warn("an image is not read for its packages yet", "image", hash, "error", err.Error())
	}
}

// note has an image read if that was not done.
func (s *Service) note(ctx context.Context, hash string) error {
	_, err := s.inventories.Insert(ctx, hash, inventory{Hash: hash, Next: s.now().UTC(), Changed: s.now().UTC()})
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	if err == nil {
		s.rouse()
	}
	return err
}

func (s *Service) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// work reads images that are due until ctx ends.
func (s *Service) work(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		hash, err := s.claim(ctx)
		if hash != "" && err == nil {
			err = s.read(ctx, hash)
		}
		if hash != "" && err == nil {
			continue
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("cannot go on reading images", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
	}
}

var errTaken = errors.New("another one reads it")

// claim takes an image that is due, "" for none.
func (s *Service) claim(ctx context.Context) (string, error) {
	now := s.now().UTC()
	items, _, err := s.inventories.List(ctx, store.Query{Index: "due", To: stamp(now.Add(time.Nanosecond)), Limit: 20})
	for _, i := range items {
		_, err := s.inventories.Update(ctx, i.Key, func(v *inventory) error {
			if v.Next.IsZero() || v.Next.After(now) {
				return errTaken
			}
			if v.Tries++; v.Tries > maxTries {
				v.Next, v.Error, v.Changed = time.Time{}, cmp.Or(v.Error, "reading it ended the server"), now
				return nil
			}
			v.Next, v.Program = now.Add(leaseTime), conf.Version
			return nil
		})
		switch {
		case errors.Is(err, errTaken), missing(err):
		case err != nil:
			return "", err
		case i.Value.Tries < maxTries:
			return i.Key, nil
		}
	}
	return "", err
}

// read makes the list of an image. What is wrong with the image is in its record; only a
// fault of the storage is returned.
func (s *Service) read(ctx context.Context, hash string) error {
	inv, err := s.list(ctx, hash)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if missing(err) {
		return s.forget(ctx, hash) // it was deleted meanwhile
	}
	if err == nil {
		err = s.keep(ctx, hash, inv)
	}
	now := s.now().UTC()
	_, stored := s.inventories.Update(ctx, hash, func(v *inventory) error {
		v.Changed = now
		if err == nil {
			v.Done, v.Error, v.Made, v.Next = true, "", now, time.Time{}
			return nil
		}
		v.Error, v.Next = short(err), time.Time{}
		if wait := waits[min(max(v.Tries, 1), maxTries)-1]; wait > 0 {
			v.Next = now.Add(wait)
		}
		return nil
	})
	if missing(stored) { // deleted while it was read
		return s.forget(ctx, hash)
	}
	if err != nil {
		s.log.Warn("cannot list the packages of an image", "image", hash, "error", err.Error())
		return stored
	}
	if stored == nil {
		stored = s.corpus.add(ctx, hash, inv)
	}
	return stored
}

// short is an error as it is kept and shown.
func short(err error) string {
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(err.Error(), "?"))
	if len(text) > maxErrorLen {
		text = strings.ToValidUTF8(text[:maxErrorLen], "")
	}
	return text
}

// list reads an image.
func (s *Service) list(ctx context.Context, hash string) (*sbom.Inventory, error) {
	b, err := s.blobs.Open(ctx, library.BlobName(hash))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	f, err := s.file(b)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return s.o.Read(ctx, f)
}

// file is a blob as a file: a descriptor of the storage's own, or a copy without a name.
func (s *Service) file(b store.Blob) (*os.File, error) {
	if own, ok := b.(interface{ Fd() uintptr }); ok {
		fd, err := unix.FcntlInt(own.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), "image"), nil
	}
	f, err := os.CreateTemp(s.o.Dir, "image-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := io.Copy(f, b); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot copy the image: %w", err)
	}
	return f, nil
}

// keep stores a list of packages.
func (s *Service) keep(ctx context.Context, hash string, inv *sbom.Inventory) error {
	var text bytes.Buffer
	z, _ := gzip.NewWriterLevel(&text, gzip.BestSpeed)
	if err := errors.Join(json.NewEncoder(z).Encode(inv), z.Close()); err != nil {
		return err
	}
	_, err := s.blobs.Put(ctx, blobName(hash), &text, store.Unknown)
	return err
}

// kept reads a list of packages.
func (s *Service) kept(ctx context.Context, hash string) (*sbom.Inventory, error) {
	b, err := s.blobs.Open(ctx, blobName(hash))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, err
	}
	var inv sbom.Inventory
	err = json.NewDecoder(io.LimitReader(z, maxList)).Decode(&inv)
	return &inv, err
}

// forget removes what is known of an image that is no more.
func (s *Service) forget(ctx context.Context, hash string) error {
	s.corpus.remove(hash)
	s.ids.forget(hash)
	for i, err := range s.told.All(ctx, store.Query{Index: "hash", Equal: hash}) {
		if err == nil {
			err = s.told.Delete(ctx, i.Key, 0)
		}
		if err != nil && !missing(err) {
			return err
		}
	}
	err := s.inventories.Delete(ctx, hash, 0)
	if e := s.blobs.Delete(ctx, blobName(hash)); e != nil && !missing(e) {
		return e
	}
	if missing(err) {
		return nil
	}
	return err
}

// load brings the lists of all images into memory.
func (s *Service) load(ctx context.Context) error {
	hashes := make(chan string)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for hash := range hashes {
				if err := s.loadOne(ctx, hash); err != nil && ctx.Err() == nil {
					s.log.Error("cannot load the packages of an image", "image", hash, "error", err.Error())
				}
			}
		})
	}
	defer workers.Wait()
	defer close(hashes)
	for i, err := range s.inventories.All(ctx, store.Query{}) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if i.Value.Done {
			hashes <- i.Key
		}
	}
	return nil
}

// loadOne brings one list into memory. A list that is lost is made again.
func (s *Service) loadOne(ctx context.Context, hash string) error {
	inv, err := s.kept(ctx, hash)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return s.corpus.add(ctx, hash, inv)
	}
	_, again := s.inventories.Update(ctx, hash, func(v *inventory) error {
		v.Done, v.Tries, v.Next, v.Changed = false, 0, s.now().UTC(), s.now().UTC()
		return nil
	})
	return cmp.Or(again, err)
}

// follow takes over what other processes have done.
func (s *Service) follow(ctx context.Context) error {
	since := s.now().Add(-2 * time.Minute)
	for i, err := range s.inventories.All(ctx, store.Query{Index: "changed", From: stamp(since)}) {
		if err != nil {
			return err
		}
		if i.Value.Done && !s.corpus.has(i.Key) {
			if err := s.loadOne(ctx, i.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// tidy notes images that nobody has written down, such as those from before, has tried
// again what another version of this program could not read, and forgets what is gone.
func (s *Service) tidy(ctx context.Context) error {
	there := map[string]bool{}
	for hash, err := range s.lib.Contents(ctx) {
		if err != nil {
			return err
		}
		there[hash] = true
	}
	known := map[string]bool{}
	for i, err := range s.inventories.All(ctx, store.Query{}) {
		if err != nil {
			return err
		}
		known[i.Key] = true
		if err := s.tidyOne(ctx, i.Value, there[i.Key]); err != nil {
			return err
		}
	}
	for _, hash := range s.corpus.hashes() {
		if known[hash] {
			continue
		}
		if _, err := s.inventories.Get(ctx, hash); missing(err) { // another process has forgotten it
			s.corpus.remove(hash)
		}
	}
	for hash := range there {
		if !known[hash] {
			if err := s.note(ctx, hash); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) tidyOne(ctx context.Context, v inventory, there bool) error {
	switch {
	case !there:
		// Its content may be kept for a while, to be restored.
		if _, err := s.blobs.Stat(ctx, library.BlobName(v.Hash)); missing(err) {
			return s.forget(ctx, v.Hash)
		}
	case v.Done && s.loaded.Load() && !s.corpus.has(v.Hash):
		return s.loadOne(ctx, v.Hash)
	case !v.Done && v.Next.IsZero() && v.Program != conf.Version:
		_, err := s.inventories.Update(ctx, v.Hash, func(v *inventory) error {
			v.Tries, v.Next, v.Changed = 0, s.now().UTC(), s.now().UTC()
			return nil
		})
		if err == nil {
			s.rouse()
		}
		return err
	}
	return nil
}
