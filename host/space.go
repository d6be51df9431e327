package host

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Use says what a directory is for, and so how to choose another one.
type Use int

// The uses of space.
const (
	Target    Use = iota // somebody named it
	Temporary            // see TempDir
	Cached               // the cache of images
)

// SpaceError says that a file system has or had no room for something.
type SpaceError struct {
	Dir  string // a directory on it
	Kind string // such as "tmpfs"
	Size int64  // of the file system, in bytes
	Free int64  // bytes
	Need int64  // bytes at least; 0 if that is not known
	Use  Use
	// Limit tells that the process may not write such large files: ulimit -f.
	Limit bool
	Err   error // may be nil
}

func (e *SpaceError) Error() string {
	var b strings.Builder
	switch {
	case e.Limit:
		fmt.Fprintf(&b, "a file in %q gets larger than the limit of this process for files", e.Dir)
	case errors.Is(e.Err, unix.EDQUOT):
		fmt.Fprintf(&b, "the quota is used up on the file system of %q (%s)", e.Dir, e.Kind)
	default:
		fmt.Fprintf(&b, "no space left on the file system of %q (%s, %d MiB, %d KiB free)", e.Dir, e.Kind, e.Size>>20, e.Free>>10)
	}
	if e.Need > 0 {
		fmt.Fprintf(&b, ": at least %d MiB are needed", e.Need>>20+1)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *SpaceError) Unwrap() error { return e.Err }

// CheckRoom refuses at once what cannot fit into dir: need is what it takes at
// least, in bytes. Where nobody knows how much is free it may be enough.
func CheckRoom(use Use, dir string, need int64) error {
	e := spaceOf(use, dir)
	if e == nil || e.Free >= need {
		return nil
	}
	e.Need = need
	return e
}

// CheckFile is CheckRoom for one file, which a limit of the process may forbid.
func CheckFile(use Use, dir string, need int64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err == nil && need > 0 && limit.Cur < uint64(need) {
		return &SpaceError{Dir: dir, Need: need, Use: use, Limit: true}
	}
	return CheckRoom(use, dir, need)
}

// ExplainSpace adds to err where and how much space is missing, if that is what
// it is about.
func ExplainSpace(err error, use Use, dir string, need int64) error {
	_, known := errors.AsType[*SpaceError](err)
	full, large := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG)
	if known || !full && !large {
		return err
	}
	e := spaceOf(use, dir)
	if e == nil {
		return err
	}
	e.Need, e.Limit, e.Err = need, large, err
	return e
}

// spaceOf looks at the file system of dir; nil if it does not tell.
func spaceOf(use Use, dir string) *SpaceError {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Bsize == 0 || st.Blocks == 0 {
		return nil
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return &SpaceError{Dir: dir, Kind: fileSystemName(int64(st.Type)), Size: int64(st.Blocks) * int64(st.Bsize), Free: int64(st.Bavail) * int64(st.Bsize), Use: use}
}
