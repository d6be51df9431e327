// Package stepcache keeps root file systems as they were after a step of a
// build, so that a later build with the same step need not take it again.
//
// A key, the SHA-256 of all that the step depends on, and the bytes of a tree go
// in; an open file with the same bytes comes out. Each entry is one plain file:
//
//	content                     what Store's caller wrote, for example a squashfs
//	note                        a few bytes beside it
//	8 bytes  length of the note, big endian
//	32 bytes SHA-256 of all above
//	8 bytes  "SGSTEP01"
//
// An entry is written under another name, synced and renamed, so that one with
// its name is whole whenever a process or the machine dies. There is no lock
// and no index: entries may be removed at any time, also while they are read;
// of two builds that store the same key the later one wins. Entries that have
// not been used for longest go when the directory grows beyond its limit.
//
// The directory is private to its owner. What is found in it is checked anyway:
// owner, mode, form, and on Verify every byte.
package stepcache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	magic       = "SGSTEP01"
	trailerSize = 8 + sha256.Size + int64(len(magic))
	maxNoteSize = 1 << 20
	suffix      = ".step"
	tempPrefix  = "tmp_step-"
	staleAge    = 24 * time.Hour // of a file that is being written
)

// DefaultLimit is how large the directory may grow, in bytes.
const DefaultLimit = 20 << 30

// Key names an entry.
type Key [sha256.Size]byte

// NewKey returns the key of a step: one over the parts, which cannot be taken
// for others by shifting bytes between them.
func NewKey(parts ...string) Key {
	h := sha256.New()
	for _, p := range parts {
		writePart(h, p)
	}
	return Key(h.Sum(nil))
}

func writePart(h hash.Hash, p string) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(p)))
	h.Write(n[:])
	io.WriteString(h, p)
}

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Cache is a directory with entries.
type Cache struct {
	dir   string
	limit int64
	// Temporary, if not nil, gets the path of each file while it is written.
	Temporary func(path string)
}

// Open opens the cache in dir, which it makes if need be. A limit of 0 is
// DefaultLimit.
func Open(dir string, limit int64) (*Cache, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the step cache: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	// Security: who can write there decides what is in the images of this user.
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("cannot use the step cache %q: it must belong to you and be closed to others' writing", dir)
	}
	return &Cache{dir: dir, limit: limit}, nil
}

func (c *Cache) path(k Key) string { return filepath.Join(c.dir, k.String()+suffix) }

// Entry is an open entry.
type Entry struct {
	Size   int64 // of the content
	Note   []byte
	Digest [sha256.Size]byte // of content and note
	Made   time.Time

	f *os.File
}

// Content reads the content.
func (e *Entry) Content() *io.SectionReader { return io.NewSectionReader(e.f, 0, e.Size) }

// Close closes the entry.
func (e *Entry) Close() error { return e.f.Close() }

// Find opens the entry of a key and marks it as used; nil if there is none. One
// that is not of the right form is removed.
func (c *Cache) Find(k Key) *Entry {
	name := c.path(k)
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	e := &Entry{f: os.NewFile(uintptr(fd), name)}
	if err := e.read(); err != nil {
		e.f.Close()
		c.Remove(k)
		return nil
	}
	// Only the order of eviction depends on it.
	_ = os.Chtimes(name, time.Now(), time.Time{})
	return e
}

// read reads the trailer.
func (e *Entry) read() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(e.f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 || st.Size < trailerSize {
		return errors.New("not an entry")
	}
	var b [trailerSize]byte
	if _, err := e.f.ReadAt(b[:], st.Size-trailerSize); err != nil {
		return err
	}
	n := binary.BigEndian.Uint64(b[:])
	if string(b[8+sha256.Size:]) != magic || n > maxNoteSize || int64(n) > st.Size-trailerSize {
		return errors.New("not an entry")
	}
	copy(e.Digest[:], b[8:])
	e.Size = st.Size - trailerSize - int64(n)
	e.Made = time.Unix(st.Mtim.Sec, st.Mtim.Nsec)
	e.Note = make([]byte, n)
	_, err := e.f.ReadAt(e.Note, e.Size)
	return err
}

// Verify reads all of the entry and tells whether it is as it was written.
func (e *Entry) Verify(ctx context.Context) error {
	h := sha256.New()
	if _, err := io.Copy(h, readerUntil{ctx, io.NewSectionReader(e.f, 0, e.Size+int64(len(e.Note))+8)}); err != nil {
		return err
	}
	if [sha256.Size]byte(h.Sum(nil)) != e.Digest {
		return fmt.Errorf("the entry %q of the step cache is damaged", filepath.Base(e.f.Name()))
	}
	return nil
}

// readerUntil reads until ctx is done.
type readerUntil struct {
	ctx context.Context
	r   io.Reader
}

func (r readerUntil) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// Remove removes the entry of a key, if there is one.
func (c *Cache) Remove(k Key) { _ = os.Remove(c.path(k)) }

// Store writes an entry and returns the digest of its content and note. write
// writes the content to f and returns its size.
func (c *Cache) Store(ctx context.Context, k Key, note []byte, write func(f *os.File) (int64, error)) (digest [sha256.Size]byte, err error) {
	if len(note) > maxNoteSize {
		return digest, fmt.Errorf("cannot store a step: a note of %d bytes is too long", len(note))
	}
	f, err := os.CreateTemp(c.dir, tempPrefix+"*"+suffix)
	if err != nil {
		return digest, err
	}
	if c.Temporary != nil {
		c.Temporary(f.Name())
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	// A file in use is not taken for one that was left over.
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	size, err := write(f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		digest, err = seal(ctx, f, size, note)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), c.path(k))
	}
	if err == nil {
		c.evict(k)
	}
	return digest, err
}

// seal writes what follows the content.
func seal(ctx context.Context, f *os.File, size int64, note []byte) (digest [sha256.Size]byte, err error) {
	tail := binary.BigEndian.AppendUint64(slices.Clone(note), uint64(len(note)))
	h := sha256.New()
	if _, err := io.Copy(h, readerUntil{ctx, io.NewSectionReader(f, 0, size)}); err != nil {
		return digest, err
	}
	h.Write(tail)
	digest = [sha256.Size]byte(h.Sum(nil))
	_, err = f.WriteAt(append(append(tail, digest[:]...), magic...), size)
	return digest, err
}

// evict removes the entries used longest ago until the rest, with that of keep,
// is within the limit; and files that a killed process left. What fails is
// tried again by the next one.
func (c *Cache) evict(keep Key) {
	names, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	type entry struct {
		name string
		used time.Time
		size int64
	}
	var list []entry
	var total int64
	for _, n := range names {
		info, err := n.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(n.Name(), suffix) {
			continue
		}
		if strings.HasPrefix(n.Name(), tempPrefix) {
			c.removeStale(n.Name(), info)
			continue
		}
		total += info.Size()
		if n.Name() != keep.String()+suffix {
			list = append(list, entry{n.Name(), used(filepath.Join(c.dir, n.Name())), info.Size()})
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return a.used.Compare(b.used) })
	for _, e := range list {
		if total <= c.room(total) {
			return
		}
		if os.Remove(filepath.Join(c.dir, e.name)) == nil {
			total -= e.size
		}
	}
}

// room is how large the directory may be now: its limit, and less where that
// would take more than half of what its file system has free.
func (c *Cache) room(total int64) int64 {
	var st unix.Statfs_t
	if unix.Statfs(c.dir, &st) != nil || st.Bavail > math.MaxInt64/uint64(max(st.Bsize, 1)) {
		return c.limit
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	return min(c.limit, (total+free)/2)
}

// used returns when an entry was last found or stored.
func used(name string) time.Time {
	var st unix.Stat_t
	if unix.Lstat(name, &st) != nil {
		return time.Time{}
	}
	return time.Unix(st.Atim.Sec, st.Atim.Nsec)
}

func (c *Cache) removeStale(name string, info fs.FileInfo) {
	if time.Since(info.ModTime()) < staleAge {
		return
	}
	f, err := os.OpenFile(filepath.Join(c.dir, name), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = os.Remove(f.Name())
	}
}

// IsTemporary tells whether path names a file of Store that is being written.
func IsTemporary(path string) bool {
	name := filepath.Base(path)
	return strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, suffix)
}
