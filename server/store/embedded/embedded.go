// Package embedded keeps records in SQLite and blobs in files, in one directory
// of one machine: the storage of a server that was told of no other.
//
//	DIR/lock            held by the one server of this directory
//	DIR/records.db      SQLite in WAL mode, every commit synced
//	DIR/blobs/NAME...   one file a blob, mode 0600
//	DIR/uploads/ID      what has arrived of an upload; ID.json its parts
//
// A blob is written under a name in uploads, synced, renamed, and its directory
// synced: a name in blobs is always a whole blob. Everything is 0700 or 0600 and
// the server's own. Nobody else writes here; names of files come from
// store.CheckName and random ids, never from a client.
//
// It follows the interfaces of package store and passes package storetest,
// which also kills it in the middle and fails its system calls one by one.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Store is the storage of one directory.
type Store struct {
	Records *Records
	Blobs   *Blobs
	lock    *os.File
}

// ErrLocked means that another process serves the directory.
var ErrLocked = errors.New("another server uses it")

// Open opens or makes the storage in dir, for one server at a time.
func Open(dir string) (*Store, error) {
	if err := OwnDir(dir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot use the data directory %q: %w", dir, ErrLocked)
	}
	s, err := Attach(dir)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s.lock = lock
	if err := s.Blobs.clean(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Attach opens the storage beside the server that may be using it: for
// administration, which takes care itself not to disturb.
func Attach(dir string) (*Store, error) {
	r, err := OpenRecords(context.Background(), filepath.Join(dir, "records.db"))
	if err != nil {
		return nil, err
	}
	b, err := OpenBlobs(dir)
	if err != nil {
		r.Close()
		return nil, err
	}
	return &Store{Records: r, Blobs: b}, nil
}

// Close closes both halves and gives the directory free.
func (s *Store) Close() error {
	err := errors.Join(s.Records.Close(), s.Blobs.Close())
	if s.lock != nil {
		s.lock.Close()
	}
	return err
}

// OwnDir makes dir, or checks that it is the caller's alone.
func OwnDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the data directory %q: %w", dir, errors.Unwrap(err))
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	// Security: others who may write here could put links and databases of
	// their own in our place.
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("cannot use the data directory %q: it belongs to another user", dir)
	}
	if st.Mode().Perm() != 0o700 {
		return fmt.Errorf("cannot use the data directory %q: its mode is %04o, not 0700", dir, st.Mode().Perm())
	}
	return nil
}
