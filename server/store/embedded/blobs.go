package embedded

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/server/store"
)

// Blobs keeps blobs in files.
type Blobs struct {
	root    string // of the names
	uploads string

	mu   sync.Mutex
	open map[string]*upload

	// fault stands before each change of the disk; tests fail one of them.
	fault func(step string) error
}

var _ store.Blobs = (*Blobs)(nil)

// OpenBlobs opens or makes the directories of blobs in dir.
func OpenBlobs(dir string) (*Blobs, error) {
	b := &Blobs{root: filepath.Join(dir, "blobs"), uploads: filepath.Join(dir, "uploads"), open: map[string]*upload{}, fault: func(string) error { return nil }}
	for _, d := range []string{b.root, b.uploads} {
		if err := OwnDir(d); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// temporary is the beginning of names of files that no upload knows.
const temporary = "put-"

// clean removes what a dead server was writing and no upload knows.
func (b *Blobs) clean() error {
	names, err := os.ReadDir(b.uploads)
	if err != nil {
		return err
	}
	for _, e := range names {
		// An upload is a file and a note; one without the other is a rest.
		other, isNote := strings.CutSuffix(e.Name(), ".json")
		if !isNote {
			other += ".json"
		}
		_, err := os.Lstat(filepath.Join(b.uploads, other))
		lost := strings.HasPrefix(e.Name(), temporary) || errors.Is(err, fs.ErrNotExist)
		if lost {
			if err := os.Remove(filepath.Join(b.uploads, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Blobs) path(name string) (string, error) {
	if err := store.CheckName(name); err != nil {
		return "", err
	}
	return filepath.Join(b.root, name), nil
}

// Put writes a blob.
func (b *Blobs) Put(ctx context.Context, name string, r io.Reader, want store.Content) (store.Info, error) {
	path, err := b.path(name)
	if err != nil {
		return store.Info{}, err
	}
	temp := filepath.Join(b.uploads, temporary+store.NewID())
	f, err := b.create(temp)
	if err != nil {
		return store.Info{}, full(err)
	}
	defer f.Close()
	defer os.Remove(temp) // after a rename there is nothing left to remove
	h := sha256.New()
	n, err := receive(ctx, b.writer(f, 0), h, r, want)
	if err != nil {
		return store.Info{}, full(err)
	}
	if err := b.publish(f, temp, path); err != nil {
		return store.Info{}, full(err)
	}
	return store.Info{Name: name, Size: n, SHA256: hex.EncodeToString(h.Sum(nil)), Modified: time.Now()}, nil
}

func (b *Blobs) create(path string) (*os.File, error) {
	if err := b.fault("create"); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
}

// publish makes the synced file temp the blob at path.
func (b *Blobs) publish(f *os.File, temp, path string) error {
	if err := b.fault("sync"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := b.makeDirs(filepath.Dir(path)); err != nil {
		return err
	}
	if err := b.fault("rename"); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return b.syncDir(filepath.Dir(path))
}

// makeDirs makes the directories of a name and sees to it that they last.
func (b *Blobs) makeDirs(dir string) error {
	if _, err := os.Lstat(dir); err == nil || dir == b.root {
		return err
	}
	if err := b.makeDirs(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := b.fault("mkdir"); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return b.syncDir(filepath.Dir(dir))
}

func (b *Blobs) syncDir(dir string) error {
	if err := b.fault("syncdir"); err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type faultyWriter struct {
	b *Blobs
	w io.Writer
}

func (f faultyWriter) Write(p []byte) (int, error) {
	if err := f.b.fault("write"); err != nil {
		n, _ := f.w.Write(p[:len(p)/2])
		return n, err
	}
	return f.w.Write(p)
}

func (b *Blobs) writer(f *os.File, off int64) io.Writer {
	return faultyWriter{b, &behind{f: f, at: off, begun: off}}
}

// writeBack is after how many bytes the kernel begins to write them to the disk,
// so that little is left to do when they are synced.
const writeBack = 8 << 20

// behind writes to a file, with the disk not far behind.
type behind struct {
	f         *os.File
	at, begun int64
}

func (b *behind) Write(p []byte) (int, error) {
	n, err := b.f.WriteAt(p, b.at)
	b.at += int64(n)
	if b.at-b.begun >= writeBack {
		// Only a hint: what matters is the sync that follows.
		unix.SyncFileRange(int(b.f.Fd()), b.begun, b.at-b.begun, unix.SYNC_FILE_RANGE_WRITE)
		b.begun = b.at
	}
	return n, err
}

// receive copies what was declared from r to w, hashes it, and refuses what is
// shorter, longer or other. The hash runs beside the writing, a block behind.
func receive(ctx context.Context, w io.Writer, h hash.Hash, r io.Reader, want store.Content) (int64, error) {
	limit := want.Size
	if limit < 0 {
		limit = 1 << 62
	}
	blocks, free, hashed := make(chan []byte, 2), make(chan []byte, 3), make(chan struct{})
	for range cap(free) {
		free <- nil
	}
	go func() {
		defer close(hashed)
		for p := range blocks {
			h.Write(p)
			free <- p
		}
	}()
	total, err := copyBlocks(ctx, w, io.LimitReader(r, limit), blocks, free)
	close(blocks)
	<-hashed
	if err != nil {
		return total, err
	}
	if want.Size >= 0 && total != want.Size {
		return total, fmt.Errorf("%w: %d bytes came, not %d", store.ErrContent, total, want.Size)
	}
	if want.Size >= 0 {
		var more [1]byte
		if n, _ := io.ReadFull(r, more[:]); n > 0 {
			return total, fmt.Errorf("%w: more than %d bytes came", store.ErrContent, want.Size)
		}
	}
	if have := hex.EncodeToString(h.Sum(nil)); want.SHA256 != "" && have != want.SHA256 {
		return total, fmt.Errorf("%w: the SHA-256 is %s, not %s", store.ErrContent, have, want.SHA256)
	}
	return total, nil
}

const blockSize = 256 << 10

func copyBlocks(ctx context.Context, w io.Writer, r io.Reader, blocks chan<- []byte, free <-chan []byte) (total int64, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		p := <-free
		if p == nil {
			p = make([]byte, blockSize)
		}
		n, err := io.ReadFull(r, p[:blockSize])
		if n > 0 {
			blocks <- p[:n]
			if _, err := w.Write(p[:n]); err != nil {
				return total, err
			}
			total += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("%w: %w", store.ErrContent, err)
		}
	}
}

type blob struct {
	*os.File
	info store.Info
}

func (b blob) Info() store.Info { return b.info }

// Open opens a blob.
func (b *Blobs) Open(ctx context.Context, name string) (store.Blob, error) {
	path, err := b.path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, missing(err)
	}
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, store.ErrNotFound)
	}
	return blob{f, store.Info{Name: name, Size: st.Size(), Modified: st.ModTime()}}, nil
}

func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
		return store.ErrNotFound
	}
	return err
}

// Stat tells the size of a blob.
func (b *Blobs) Stat(ctx context.Context, name string) (store.Info, error) {
	path, err := b.path(name)
	if err != nil {
		return store.Info{}, err
	}
	st, err := os.Lstat(path)
	if err != nil {
		return store.Info{}, missing(err)
	}
	if !st.Mode().IsRegular() {
		return store.Info{}, store.ErrNotFound
	}
	return store.Info{Name: name, Size: st.Size(), Modified: st.ModTime()}, nil
}

var errStop = errors.New("stop")

// List walks the names in order.
func (b *Blobs) List(ctx context.Context, prefix string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		err := b.walk(ctx, "", prefix, func(i store.Info) error {
			if !yield(i, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && err != errStop {
			yield(store.Info{}, err)
		}
	}
}

func (b *Blobs) walk(ctx context.Context, dir, prefix string, give func(store.Info) error) error {
	entries, err := os.ReadDir(filepath.Join(b.root, dir))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	sortAsNames(entries)
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := dir + e.Name()
		if e.IsDir() {
			if sub := name + "/"; strings.HasPrefix(sub, prefix) || strings.HasPrefix(prefix, sub) {
				if err := b.walk(ctx, sub, prefix, give); err != nil {
					return err
				}
			}
			continue
		}
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		if err := give(store.Info{Name: name, Size: st.Size(), Modified: st.ModTime()}); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes a blob.
func (b *Blobs) Delete(ctx context.Context, name string) error {
	path, err := b.path(name)
	if err != nil {
		return err
	}
	if _, err := b.Stat(ctx, name); err != nil {
		return err
	}
	if err := b.fault("remove"); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return missing(err)
	}
	return b.syncDir(filepath.Dir(path))
}

// Presign has nothing to offer: files are served by the program itself.
func (b *Blobs) Presign(context.Context, store.Access) (string, error) {
	return "", store.ErrUnsupported
}

// Ping looks whether the directory is there.
func (b *Blobs) Ping(context.Context) error {
	_, err := os.Stat(b.root)
	return err
}

// Close closes uploads that have a file open; they go on after the next start.
func (b *Blobs) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, u := range b.open {
		u.file.Close()
		delete(b.open, id)
	}
	return nil
}
