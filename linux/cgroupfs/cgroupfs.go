// Package cgroupfs reads and writes control groups.
//
// In go names below an open directory, out come files that are certainly those
// of the kernel. Every file and directory is opened beneath the directory of its
// group by openat2, without following links or crossing mounts, and its file
// system must say that it is cgroup or cgroup2: a tmpfs or a bind mount that
// somebody put in its place is refused before a byte is written. The same holds
// for the two files of /proc that tell where groups are.
//
// It knows no controller and no limit. What it reads is bounded.
package cgroupfs

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotCgroup says that a path does not lie in a cgroup file system.
var ErrNotCgroup = errors.New("it is not on a cgroup file system")

// ErrNotProc says that a path does not lie in the kernel's procfs.
var ErrNotProc = errors.New("it is not on a procfs")

// maxFile bounds what is read from one file, in bytes.
const maxFile = 4 << 20

// procRootIno is the inode of the root of every procfs.
const procRootIno = 1

// Dir is an open group.
type Dir struct {
	f  *os.File
	v2 bool
}

// OpenMount opens the group at path, which is where a hierarchy is mounted.
func OpenMount(mount string) (*Dir, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, mount, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: mount, Err: err}
	}
	return newDir(fd, mount)
}

// newDir takes the descriptor over.
func newDir(fd int, name string) (*Dir, error) {
	kind, err := magic(fd)
	if err == nil && kind != unix.CGROUP_SUPER_MAGIC && kind != unix.CGROUP2_SUPER_MAGIC {
		err = ErrNotCgroup
	}
	if err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return &Dir{f: os.NewFile(uintptr(fd), name), v2: kind == unix.CGROUP2_SUPER_MAGIC}, nil
}

func magic(fd int) (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(fd, &st)
		if err != unix.EINTR {
			return int64(st.Type), err
		}
	}
}

// openat opens name beneath d and checks that it belongs to the same kind of
// file system.
//
// Security: the walk follows no link and crosses no mount, and the opened
// descriptor is the one that is checked and used.
func (d *Dir) openat(name string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	var fd int
	var err error
	for {
		if fd, err = unix.Openat2(int(d.f.Fd()), name, &how); err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	if err == nil {
		var kind int64
		if kind, err = magic(fd); err == nil && (kind == unix.CGROUP2_SUPER_MAGIC) != d.v2 || kind != unix.CGROUP2_SUPER_MAGIC && kind != unix.CGROUP_SUPER_MAGIC {
			err = ErrNotCgroup
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: d.join(name), Err: err}
	}
	return fd, nil
}

func (d *Dir) join(name string) string { return path.Join(d.f.Name(), name) }

// Name returns the path of the group in the host's tree, for messages.
func (d *Dir) Name() string { return d.f.Name() }

// V2 tells whether the group belongs to the unified hierarchy.
func (d *Dir) V2() bool { return d.v2 }

// File returns the open directory; it stays d's.
func (d *Dir) File() *os.File { return d.f }

// Close closes the directory. The group stays.
func (d *Dir) Close() error { return d.f.Close() }

// Open opens the group at rel, a path below d; "." is d itself.
func (d *Dir) Open(rel string) (*Dir, error) {
	rel = path.Clean("./" + strings.TrimLeft(rel, "/"))
	fd, err := d.openat(rel, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return newDir(fd, d.join(rel))
}

// Mkdir makes the group name in d, unless it is there, and opens it. It reports
// whether it made it.
func (d *Dir) Mkdir(name string) (*Dir, bool, error) {
	err := unix.Mkdirat(int(d.f.Fd()), name, 0o755)
	if err != nil && err != unix.EEXIST {
		return nil, false, &os.PathError{Op: "mkdir", Path: d.join(name), Err: err}
	}
	sub, e := d.Open(name)
	return sub, err == nil, e
}

// Rmdir removes the group name in d, which must have no process and no group.
func (d *Dir) Rmdir(name string) error {
	if err := unix.Unlinkat(int(d.f.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return &os.PathError{Op: "rmdir", Path: d.join(name), Err: err}
	}
	return nil
}

// Same tells whether the group that is called name in d now is sub.
func (d *Dir) Same(name string, sub *Dir) bool {
	var a, b unix.Stat_t
	return unix.Fstatat(int(d.f.Fd()), name, &a, unix.AT_SYMLINK_NOFOLLOW) == nil && unix.Fstat(int(sub.f.Fd()), &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev
}

// Groups returns the names of the groups in d.
func (d *Dir) Groups() ([]string, error) {
	sub, err := d.Open(".")
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	list, err := sub.f.ReadDir(-1)
	var names []string
	for _, e := range list {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Has tells whether d has a file called name.
func (d *Dir) Has(name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(int(d.f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// Writable tells whether the caller may make groups in d and move processes to
// and from it.
func (d *Dir) Writable() bool {
	fd := int(d.f.Fd())
	return unix.Faccessat(fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil &&
		unix.Faccessat(fd, "cgroup.procs", unix.W_OK, unix.AT_EACCESS) == nil
}

// Read returns the content of the file name without white space at its ends.
func (d *Dir) Read(name string) (string, error) {
	fd, err := d.openat(name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), d.join(name))
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return strings.TrimSpace(string(b)), err
}

// Write writes value to the file name, by one call.
func (d *Dir) Write(name, value string) error {
	f, err := d.OpenWrite(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return write(f, value)
}

func write(f *os.File, value string) error {
	for {
		n, err := syscall.Write(int(f.Fd()), []byte(value))
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return &os.PathError{Op: "write", Path: f.Name(), Err: err}
		case n != len(value):
			return &os.PathError{Op: "write", Path: f.Name(), Err: io.ErrShortWrite}
		}
		return nil
	}
}

// OpenWrite opens the file name for writing.
func (d *Dir) OpenWrite(name string) (*os.File, error) {
	fd, err := d.openat(name, unix.O_WRONLY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.join(name)), nil
}

// Lock takes the lock of the group d, shared or for the caller alone, and tells
// whether it has it. The lock ends with d, and with the process.
func (d *Dir) Lock(alone bool) bool {
	how := unix.LOCK_SH
	if alone {
		how = unix.LOCK_EX
	}
	return unix.Flock(int(d.f.Fd()), how|unix.LOCK_NB) == nil
}

// WaitEmpty waits until no process is in d or below it, at most for limit, and
// tells whether that is so. Only the unified hierarchy knows.
func (d *Dir) WaitEmpty(limit time.Duration) bool {
	fd, err := d.openat("cgroup.events", unix.O_RDONLY)
	if err != nil {
		return errors.Is(err, unix.ENOENT)
	}
	defer unix.Close(fd)
	end := time.Now().Add(limit)
	b := make([]byte, 256)
	for {
		n, err := unix.Pread(fd, b, 0)
		if err != nil || strings.Contains(string(b[:n]), "populated 0") {
			return true
		}
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, int(left.Milliseconds())+1)
	}
}

// ReadProc returns the content of the file name of /proc, such as
// "self/mountinfo".
func ReadProc(name string) (string, error) {
	root, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	defer unix.Close(root)
	fail := func(err error) (string, error) {
		return "", &os.PathError{Op: "open", Path: "/proc/" + name, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return fail(err)
	}
	if kind, err := magic(root); err != nil || kind != unix.PROC_SUPER_MAGIC || st.Ino != procRootIno {
		return fail(errors.Join(ErrNotProc, err))
	}
	// Security: "self" is a link of the kernel, so links are followed; but a
	// mount on the way, or on the file itself, is refused.
	fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(fd), "/proc/"+name)
	defer f.Close()
	if kind, err := magic(fd); err != nil || kind != unix.PROC_SUPER_MAGIC {
		return fail(errors.Join(ErrNotProc, err))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(b), err
}
