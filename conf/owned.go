package conf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// oPath is O_PATH of Linux, the same number on every processor.
const oPath = 0x200000

// An OwnerError says which path on the way to a file of the administrator could
// be changed by somebody else than root.
type OwnerError struct {
	Path   string // the file, or a directory above it
	Reason string
}

func (e *OwnerError) Error() string { return e.Path + " must be owned by root: " + e.Reason }

// OpenOwned opens a file of the administrator for reading.
//
// Security: who can write to such a file, or put another in its place, is root
// (SC-013). So the file and each directory above it must belong to root and be
// writable by nobody else, none may be a link, and what was looked at is what is
// opened. A directory higher up may be one like /tmp, where only its owner can
// rename an entry.
func OpenOwned(path string) (*os.File, error) {
	return openOwned(path, func(uid uint32) bool { return uid == 0 })
}

// OpenRule opens a file that must be root's whoever reads it, as it is a rule for them.
//
// Security: a user namespace shows every owner whom it does not know as nobody. There,
// what is left to tell is that the file is not the caller's.
func OpenRule(path string) (*os.File, error) {
	if realRoot() {
		return OpenOwned(path)
	}
	const nobody = 65534
	known := sync.OnceValue(func() bool { text, err := os.ReadFile("/proc/self/uid_map"); return err != nil || wholeMap(text) })
	f, err := openOwned(path, func(uid uint32) bool { return uid == 0 || uid == nobody && !known() })
	if err != nil || known() {
		return f, err
	}
	// The kernel lets only the owner read without a mark of the time.
	fd, err := syscall.Open("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), syscall.O_RDONLY|syscall.O_NOATIME|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err == nil {
		syscall.Close(fd)
		f.Close()
		return nil, &OwnerError{path, "it belongs to the caller"}
	}
	return f, nil
}

// openOwned opens a file that belongs, with all above it, to those whom owns allows.
func openOwned(path string, owns func(uid uint32) bool) (*os.File, error) {
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if !strings.HasPrefix(path, "/") || len(names) == 0 || slices.Contains(names, ".") || slices.Contains(names, "..") {
		return nil, &OwnerError{path, "the path is not absolute, or has . or .. in it"}
	}
	dir, err := syscall.Open("/", oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	at := "/"
	for i, name := range names {
		last, flags := i == len(names)-1, oPath
		if last {
			flags = syscall.O_RDONLY | syscall.O_NONBLOCK
		}
		if err = cmp.Or(err, owned(dir, at, syscall.S_IFDIR, !last, owns)); err != nil {
			break
		}
		above := dir
		at = strings.TrimSuffix(at, "/") + "/" + name
		dir, err = syscall.Openat(above, name, flags|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
		syscall.Close(above)
		if err == syscall.ELOOP {
			err = &OwnerError{at, "it is a link"}
		}
	}
	if err = cmp.Or(err, owned(dir, at, syscall.S_IFREG, false, owns)); err == nil {
		return os.NewFile(uintptr(dir), path), nil
	}
	syscall.Close(dir)
	if _, ok := err.(*OwnerError); !ok {
		err = &os.PathError{Op: "open", Path: path, Err: err}
	}
	return nil, err
}

// owned checks one file of the given type. A sticky directory may be writable by
// others where sticky is set.
func owned(fd int, path string, kind uint32, sticky bool, owns func(uid uint32) bool) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	switch {
	case st.Mode&syscall.S_IFMT == syscall.S_IFLNK:
		return &OwnerError{path, "it is a link"}
	case st.Mode&syscall.S_IFMT != kind:
		return &OwnerError{path, map[uint32]string{syscall.S_IFDIR: "it is not a directory", syscall.S_IFREG: "it is not a regular file"}[kind]}
	case !owns(st.Uid):
		return &OwnerError{path, fmt.Sprintf("it belongs to uid %d", st.Uid)}
	case mode&0o022 != 0 && !(sticky && mode&syscall.S_ISVTX != 0):
		return &OwnerError{path, fmt.Sprintf("others may write to it (mode %04o)", mode)}
	}
	return nil
}

// OpenSite opens a file of the administrator for this process: for root, whose
// acts it decides, by OpenOwned, if it is one of the installation. Others harm
// nobody but themselves, and their own installation is theirs.
func OpenSite(path string) (*os.File, error) {
	if mustBeOwned(path) {
		return OpenOwned(path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, errors.New(path + " is not a regular file")
	}
	return f, nil
}

// CheckSite returns why OpenSite would not take the file for root's, nil if
// nothing speaks against it or there is none. It is for those who open the file
// themselves: once it is root's, nobody else can change what the path leads to.
func CheckSite(path string) error {
	if !mustBeOwned(path) {
		return nil
	}
	f, err := OpenOwned(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		f.Close()
	}
	return err
}

func mustBeOwned(path string) bool { return strings.HasPrefix(path, Dir()+"/") && realRoot() }

// realRoot tells whether this process is root of the machine, not of a user
// namespace.
func realRoot() bool {
	if os.Geteuid() != 0 {
		return false
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || wholeMap(text)
}

// wholeMap tells whether a map of a user namespace is that of the machine.
func wholeMap(text []byte) bool {
	return strings.Join(strings.Fields(string(text)), " ") == "0 0 4294967295"
}

// ReadAll reads the whole of a file of at most limit bytes.
func ReadAll(f io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = errors.New("it is larger than " + fmt.Sprint(limit) + " bytes")
	}
	return text, err
}
