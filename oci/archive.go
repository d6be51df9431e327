package oci

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"singularity/oci/document"
	"singularity/oci/unpack"
)

// Limits on an archive that holds an image.
const (
	maxMembers    = 1 << 16
	maxMemberName = 4096
	maxHops       = 8 // links from member to member
)

// store is where the documents and layers of an image lie, under names such as
// "index.json".
type store interface {
	// open returns a member and its size. Where it can be read at any place the
	// result is an io.ReaderAt.
	open(name string) (io.ReadCloser, int64, error)
	// size returns the size of a member without opening it.
	size(name string) (int64, error)
}

// readDocument reads a member that is a document. Security: one that is too large
// is not read at all (SC-071).
func readDocument(s store, name string) ([]byte, error) {
	r, size, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > document.MaxSize {
		return nil, fmt.Errorf("%q has %d bytes, more than %d: %w", name, size, document.MaxSize, unpack.ErrLimit)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", name, err)
	}
	return b, nil
}

// dirStore is a directory. Links in it are followed: what they lead to is
// believed only if its digest is right.
type dirStore struct{ dir string }

func (d dirStore) open(name string) (io.ReadCloser, int64, error) {
	// Not to wait for the other end of a FIFO.
	fd, err := unix.Open(filepath.Join(d.dir, name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: filepath.Join(d.dir, name), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.dir, name))
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is no regular file: %w", f.Name(), ErrFormat)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func (d dirStore) size(name string) (int64, error) {
	info, err := os.Stat(filepath.Join(d.dir, name))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// member is a file in an archive.
type member struct {
	off, size int64
	link      string // another member that it stands for
	twice     bool
}

// tarStore is a tar archive, plain or compressed.
type tarStore struct {
	f       *os.File
	members map[string]member
	plain   bool
	limits  unpack.Limits

	mu     sync.Mutex
	idle   *forward // a reader of a compressed archive that nobody uses
	pieces *io.SectionReader
}

// forward reads the bytes of a compressed archive.
type forward struct {
	r   io.ReadCloser
	pos int64
}

func (f *forward) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	f.pos += int64(n)
	return n, err
}

// openTar makes the index of an archive.
func openTar(ctx context.Context, f *os.File, limits unpack.Limits) (*tarStore, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is no regular file", f.Name())
	}
	s := &tarStore{f: f, members: map[string]member{}, limits: limits, pieces: io.NewSectionReader(f, 0, info.Size())}
	z, packed, err := unpack.Decompress(io.NewSectionReader(f, 0, info.Size()), limits)
	if err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", f.Name(), err)
	}
	defer z.Close()
	s.plain = !packed
	if s.plain {
		// archive/tar seeks over contents, and the place tells where it is.
		r := io.NewSectionReader(f, 0, info.Size())
		return s, s.index(ctx, r, func() int64 { n, _ := r.Seek(0, io.SeekCurrent); return n })
	}
	in := &forward{r: io.NopCloser(bufio.NewReaderSize(z, 256<<10))}
	return s, s.index(ctx, in, func() int64 { return in.pos })
}

func (s *tarStore) index(ctx context.Context, r io.Reader, pos func() int64) error {
	tr := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("cannot read the archive %q: %w", s.f.Name(), err)
		}
		if n >= maxMembers || len(h.Name) > maxMemberName {
			return fmt.Errorf("the archive %q has more than %d members or a name of more than %d bytes: %w", s.f.Name(), maxMembers, maxMemberName, unpack.ErrLimit)
		}
		s.add(h, pos())
	}
	if len(s.members) == 0 {
		return fmt.Errorf("the archive %q is empty: %w", s.f.Name(), ErrFormat)
	}
	return nil
}

func (s *tarStore) add(h *tar.Header, pos int64) {
	name := path.Clean("/" + h.Name)[1:]
	_, twice := s.members[name]
	switch h.Typeflag {
	case tar.TypeReg:
		if h.PAXRecords["GNU.sparse.major"] == "" && h.PAXRecords["GNU.sparse.map"] == "" { // others lie elsewhere
			s.members[name] = member{off: pos, size: h.Size, twice: twice}
		}
	case tar.TypeSymlink:
		s.members[name] = member{link: path.Join("/", path.Dir(name), h.Linkname)[1:], twice: twice}
	case tar.TypeLink:
		s.members[name] = member{link: path.Join("/", h.Linkname)[1:], twice: twice}
	}
}

// find follows links inside the archive.
func (s *tarStore) find(name string) (member, error) {
	at := path.Clean("/" + name)[1:]
	for range maxHops {
		m, ok := s.members[at]
		switch {
		case !ok:
			return m, fmt.Errorf("the archive %q holds no %q: %w", s.f.Name(), name, fs.ErrNotExist)
		case m.twice && strings.HasSuffix(at, ".json"):
			// Security: programs differ in which of the two they read.
			return m, fmt.Errorf("the archive %q holds %q twice: %w", s.f.Name(), name, ErrFormat)
		case m.link == "":
			return m, nil
		}
		at = m.link
	}
	return member{}, fmt.Errorf("the archive %q leads from link to link at %q: %w", s.f.Name(), name, ErrFormat)
}

func (s *tarStore) size(name string) (int64, error) {
	m, err := s.find(name)
	return m.size, err
}

func (s *tarStore) open(name string) (io.ReadCloser, int64, error) {
	m, err := s.find(name)
	if err != nil {
		return nil, 0, err
	}
	if s.plain {
		if m.size > s.pieces.Size()-m.off {
			return nil, 0, fmt.Errorf("the archive %q is cut off in %q: %w", s.f.Name(), name, io.ErrUnexpectedEOF)
		}
		return pieceReader{io.NewSectionReader(s.f, m.off, m.size)}, m.size, nil
	}
	r, err := s.seek(m.off)
	if err != nil {
		return nil, 0, err
	}
	return &streamed{s, r, io.LimitedReader{R: r, N: m.size}}, m.size, nil
}

// seek returns a reader at a place of a compressed archive. One that is not
// there yet goes on; to go back means to begin again.
func (s *tarStore) seek(off int64) (*forward, error) {
	s.mu.Lock()
	r := s.idle
	s.idle = nil
	s.mu.Unlock()
	if r != nil && r.pos > off {
		r.r.Close()
		r = nil
	}
	if r == nil {
		z, _, err := unpack.Decompress(io.NewSectionReader(s.f, 0, s.pieces.Size()), s.limits)
		if err != nil {
			return nil, err
		}
		r = &forward{r: z}
	}
	if _, err := io.CopyN(io.Discard, r, off-r.pos); err != nil {
		r.r.Close()
		return nil, fmt.Errorf("cannot read the archive %q: %w", s.f.Name(), err)
	}
	return r, nil
}

// Close closes the archive.
func (s *tarStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.idle != nil {
		err = s.idle.r.Close()
		s.idle = nil
	}
	return errors.Join(err, s.f.Close())
}

// pieceReader reads a member of a plain archive.
type pieceReader struct{ *io.SectionReader }

func (pieceReader) Close() error { return nil }

// streamed reads a member of a compressed archive.
type streamed struct {
	s *tarStore
	r *forward
	l io.LimitedReader
}

func (m *streamed) Read(b []byte) (int, error) {
	n, err := m.l.Read(b)
	if err == io.EOF && m.l.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close keeps the reader for the next member.
func (m *streamed) Close() error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.s.idle != nil {
		return m.r.r.Close()
	}
	m.s.idle = m.r
	return nil
}
