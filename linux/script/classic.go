//go:build !starter

package script

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// classic carries out the calls by which mounts are made apart from the tree
// (Linux 5.2, mount_setattr 5.12) with mount(2), for kernels and for filters of
// system calls that do not have them.
//
// What is a mount without a place there is one on a numbered directory here, in
// a tmpfs, the stage. The first of the calls makes the stage the root of the
// mount namespace, with the host's tree in one of its directories, and changes
// the root to that directory: so paths mean what they did, nothing is covered,
// and the stage is reached by a descriptor. A pivot_root leaves both.
//
// Everything here runs where nothing may be allocated and no stack may grow.
type classic struct {
	attach, old uintptr // addresses of paths: where the stage is mounted at first, and the host's tree in it
	tree        uintptr // that of "/h"
	paths       [][]byte
	stage       uintptr // its descriptor; 0 before the first call
	next        uintptr // number of the next directory
	last        uintptr // no descriptor above this is open
	stat        syscall.Stat_t
	statfs      syscall.Statfs_t
	from, to    [48]byte
	name        [16]byte
	systems     [12]system
}

// system is a file system between fsopen and fsmount.
type system struct {
	fd      uintptr
	kind    uintptr // address of its name
	used    int
	options [256]byte
}

const (
	oPath     = unix.O_PATH | unix.O_CLOEXEC
	stageName = "h"
)

// NewMounts tells whether this kernel has the calls that make mounts apart from
// the tree.
func NewMounts() bool {
	_, _, e := syscall.RawSyscall6(unix.SYS_MOUNT_SETATTR, ^uintptr(0), 0, 0, 0, 0, 0)
	return e != syscall.ENOSYS
}

// Classic has the script do without the calls that NewMounts asks for. The
// directory attach is covered for a moment.
func (s *Script) Classic(attach string) {
	path := func(text string) uintptr { return s.at(Ref(s.Str(text).v)) }
	s.classic = &classic{attach: path(attach), old: path(attach + "/" + stageName), tree: path("/" + stageName), paths: s.Memory}
}

// IsClassic tells whether Classic was called.
func (s *Script) IsClassic() bool { return s.classic != nil }

// Continue has s go on where old ended, which failed: what old made is there.
func (s *Script) Continue(old *Script) {
	s.classic = old.classic
}

// bound notes which descriptors can be open, in this process and by the steps.
func (c *classic) bound(steps int) {
	names, _ := os.ReadDir("/proc/self/fd")
	for _, n := range names {
		if fd, err := strconv.Atoi(n.Name()); err == nil {
			c.last = max(c.last, uintptr(fd))
		}
	}
	c.last += uintptr(2 * steps)
}

// old makes the call nr with the arguments of the step, if it is one of those that
// are missing. The helper, whose steps raise capabilities, has none of these.
//
//go:norace
//go:nosplit
func (s *Script) old(nr uint16) (r uintptr, e syscall.Errno, ours bool) {
	c, a := s.classic, &s.args
	if c == nil {
		return 0, 0, false
	}
	switch nr {
	case unix.SYS_FSOPEN:
		r, e = c.fsopen(a[0])
	case unix.SYS_FSCONFIG:
		e = c.fsconfig(a)
	case unix.SYS_FSMOUNT:
		r, e = c.fsmount(a[0], a[2])
	case unix.SYS_OPEN_TREE:
		r, e = c.openTree(a)
	case unix.SYS_MOUNT_SETATTR:
		e = c.setattr(a)
	case unix.SYS_MOVE_MOUNT:
		e = c.moveMount(a)
	case unix.SYS_PIVOT_ROOT:
		e = c.pivotRoot(a)
	case unix.SYS_OPENAT2:
		r, e = c.openat2(a)
	case unix.SYS_CLOSE_RANGE:
		e = c.closeRange(a)
	default:
		return 0, 0, false
	}
	return r, e, true
}

// begin makes the stage.
//
//go:norace
//go:nosplit
func (c *classic) begin() syscall.Errno {
	if c.stage != 0 {
		return 0
	}
	cwd, e := open(atCwd, dot(), oPath)
	if e != 0 {
		return e
	}
	tmpfs := uintptr(unsafe.Pointer(&nameTmpfs[0]))
	if e = mount(tmpfs, c.attach, tmpfs, unix.MS_NOSUID|unix.MS_NODEV, 0); e != 0 {
		return e
	}
	if _, _, e = syscall.RawSyscall6(unix.SYS_MKDIRAT, atCwd, c.old, 0o755, 0, 0, 0); e != 0 {
		return e
	}
	if _, _, e = syscall.RawSyscall6(unix.SYS_PIVOT_ROOT, c.attach, c.old, 0, 0, 0, 0); e != 0 {
		return e
	}
	if c.stage, e = open(atCwd, uintptr(unsafe.Pointer(&nameRoot[0])), oPath|unix.O_DIRECTORY); e != 0 {
		return e
	}
	if _, _, e = syscall.RawSyscall6(unix.SYS_CHROOT, c.tree, 0, 0, 0, 0, 0); e != 0 {
		return e
	}
	_, _, e = syscall.RawSyscall6(unix.SYS_FCHDIR, cwd, 0, 0, 0, 0, 0)
	shut(cwd)
	return e
}

var (
	nameNone  = [...]byte{'n', 'o', 'n', 'e', 0} // as fsopen names what has no source
	nameTmpfs = [...]byte{'t', 'm', 'p', 'f', 's', 0}
	nameRoot  = [...]byte{'/', 0}
	nameDot   = [...]byte{'.', 0}
	nameProc  = [...]byte{'/', 'p', 'r', 'o', 'c', '/', 's', 'e', 'l', 'f', '/', 'f', 'd', '/'}
)

//go:norace
//go:nosplit
func dot() uintptr { return uintptr(unsafe.Pointer(&nameDot[0])) }

//go:norace
//go:nosplit
func open(dir, path, flags uintptr) (uintptr, syscall.Errno) {
	fd, _, e := syscall.RawSyscall6(unix.SYS_OPENAT, dir, path, flags, 0o644, 0, 0)
	return fd, e
}

//go:norace
//go:nosplit
func shut(fd uintptr) { syscall.RawSyscall6(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0) }

//go:norace
//go:nosplit
func mount(source, target, kind, flags, data uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall6(unix.SYS_MOUNT, source, target, kind, flags, data, 0)
	return e
}

// number writes n and a NUL to buf.
//
//go:norace
//go:nosplit
func number(buf *byte, n uintptr) int {
	digits := 1
	for k := n; k >= 10; k /= 10 {
		digits++
	}
	*(*byte)(unsafe.Add(unsafe.Pointer(buf), digits)) = 0
	for i := digits - 1; i >= 0; i-- {
		*(*byte)(unsafe.Add(unsafe.Pointer(buf), i)) = byte('0' + n%10)
		n /= 10
	}
	return digits
}

// path writes the path of the file that fd refers to, or of one numbered n in it.
// It indexes nothing: a check of bounds takes more of the small stack than there is
// where a fuzzer counts branches.
//
//go:norace
//go:nosplit
func path(buf *[48]byte, fd, n uintptr) uintptr {
	at := unsafe.Pointer(buf)
	for i := range nameProc {
		*(*byte)(unsafe.Add(at, i)) = nameProc[i]
	}
	end := unsafe.Add(at, len(nameProc))
	end = unsafe.Add(end, number((*byte)(end), fd))
	if n != 0 {
		*(*byte)(end) = '/'
		number((*byte)(unsafe.Add(end, 1)), n)
	}
	return uintptr(at)
}

// point makes the next place on the stage, a directory or a file. Its path is
// path(&c.to, c.stage, c.next).
//
//go:norace
//go:nosplit
func (c *classic) point(dir bool) syscall.Errno {
	c.next++
	number(&c.name[0], c.next)
	name := uintptr(unsafe.Pointer(&c.name[0]))
	if dir {
		_, _, e := syscall.RawSyscall6(unix.SYS_MKDIRAT, c.stage, name, 0o755, 0, 0, 0)
		return e
	}
	fd, e := open(c.stage, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC)
	if e == 0 {
		shut(fd)
	}
	return e
}

//go:norace
//go:nosplit
func (c *classic) find(fd uintptr) *system {
	for i := range c.systems {
		if c.systems[i].fd == fd {
			return &c.systems[i]
		}
	}
	return nil
}

//go:norace
//go:nosplit
func (c *classic) fsopen(kind uintptr) (uintptr, syscall.Errno) {
	if e := c.begin(); e != 0 {
		return 0, e
	}
	f := c.find(0)
	if f == nil {
		return 0, syscall.ENFILE
	}
	fd, e := open(c.stage, dot(), oPath|unix.O_DIRECTORY)
	if e == 0 {
		f.fd, f.kind, f.used = fd, kind, 0
	}
	return fd, e
}

// fsconfig adds an option.
//
//go:norace
//go:nosplit
func (c *classic) fsconfig(a *[6]uintptr) syscall.Errno {
	f := c.find(a[0])
	switch {
	case f == nil:
		return syscall.EBADF
	case a[1] == unix.FSCONFIG_CMD_CREATE:
		return 0
	case a[1] != unix.FSCONFIG_SET_STRING && a[1] != unix.FSCONFIG_SET_FLAG:
		return syscall.EINVAL
	}
	if f.used > 0 {
		f.put(',')
	}
	e := f.text(a[2])
	if e == 0 && a[1] == unix.FSCONFIG_SET_STRING {
		f.put('=')
		e = f.text(a[3])
	}
	return e
}

//go:norace
//go:nosplit
func (f *system) put(b byte) {
	f.options[f.used] = b
	f.used++
}

// text adds a string. A comma in it would begin another option.
//
//go:norace
//go:nosplit
func (f *system) text(at uintptr) syscall.Errno {
	for ; ; at++ {
		b := *(*byte)(unsafe.Add(unsafe.Pointer(nil), at))
		switch {
		case b == 0:
			f.options[f.used] = 0
			return 0
		case b == ',':
			return syscall.EINVAL
		case f.used >= len(f.options)-3:
			return syscall.E2BIG
		}
		f.put(b)
	}
}

// flags turns attributes of a mount into flags of mount(2).
//
//go:norace
//go:nosplit
func flags(attr uintptr) uintptr {
	// The four oldest have the same bits.
	f := attr & (unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
	if attr&unix.MOUNT_ATTR_NOSYMFOLLOW != 0 {
		f |= unix.MS_NOSYMFOLLOW
	}
	return f
}

//go:norace
//go:nosplit
func (c *classic) fsmount(fd, attr uintptr) (uintptr, syscall.Errno) {
	f := c.find(fd)
	if f == nil {
		return 0, syscall.EBADF
	}
	if e := c.point(true); e != 0 {
		return 0, e
	}
	at := path(&c.to, c.stage, c.next)
	data := uintptr(unsafe.Pointer(&f.options[0]))
	if f.used == 0 {
		data = 0
	}
	f.fd = 0
	if e := mount(uintptr(unsafe.Pointer(&nameNone[0])), at, f.kind, flags(attr), data); e != 0 {
		return 0, e
	}
	return open(atCwd, at, oPath)
}

// openTree binds what it clones to the stage.
//
//go:norace
//go:nosplit
func (c *classic) openTree(a *[6]uintptr) (uintptr, syscall.Errno) {
	if e := c.begin(); e != 0 {
		return 0, e
	}
	fd, e := c.resolve(a[0], a[1])
	if e != 0 {
		return 0, e
	}
	r, e := c.bind(fd, a[2])
	if fd != a[0] {
		shut(fd)
	}
	return r, e
}

// resolve opens a path below a directory; fd itself if there is no path.
//
//go:norace
//go:nosplit
func (c *classic) resolve(fd, path uintptr) (uintptr, syscall.Errno) {
	if *(*byte)(unsafe.Add(unsafe.Pointer(nil), path)) == 0 {
		return fd, 0
	}
	return open(fd, path, oPath)
}

//go:norace
//go:nosplit
func (c *classic) bind(fd, how uintptr) (uintptr, syscall.Errno) {
	if _, _, e := syscall.RawSyscall6(unix.SYS_FSTAT, fd, uintptr(unsafe.Pointer(&c.stat)), 0, 0, 0, 0); e != 0 {
		return 0, e
	}
	if e := c.point(c.stat.Mode&unix.S_IFMT == unix.S_IFDIR); e != 0 {
		return 0, e
	}
	at := path(&c.to, c.stage, c.next)
	kind := uintptr(unix.MS_BIND)
	if how&unix.AT_RECURSIVE != 0 {
		kind |= unix.MS_REC
	}
	if e := mount(path(&c.from, fd, 0), at, 0, kind, 0); e != 0 {
		return 0, e
	}
	return open(atCwd, at, oPath)
}

// setattr restricts one mount; what lies below it has steps of its own. What was
// applied is read back.
//
//go:norace
//go:nosplit
func (c *classic) setattr(a *[6]uintptr) syscall.Errno {
	fd, e := c.resolve(a[0], a[1])
	if e != 0 {
		return e
	}
	e = c.restrict(path(&c.from, fd, 0), flags(uintptr(*(*uint64)(unsafe.Add(unsafe.Pointer(nil), a[3])))))
	if fd != a[0] {
		shut(fd)
	}
	return e
}

// Flags that statfs tells by the bits of mount(2), and by others.
const (
	sameBits    = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
	stRelatime  = 0x1000
	stNoSymlink = 0x2000
)

//go:norace
//go:nosplit
func (c *classic) has(at uintptr) uintptr {
	c.statfs.Flags = 0
	syscall.RawSyscall6(unix.SYS_STATFS, at, uintptr(unsafe.Pointer(&c.statfs)), 0, 0, 0, 0)
	f := uintptr(c.statfs.Flags) & sameBits
	if c.statfs.Flags&stRelatime != 0 {
		f |= unix.MS_RELATIME
	}
	if c.statfs.Flags&stNoSymlink != 0 {
		f |= unix.MS_NOSYMFOLLOW
	}
	return f
}

//go:norace
//go:nosplit
func (c *classic) restrict(at, want uintptr) syscall.Errno {
	if e := mount(0, at, 0, unix.MS_REMOUNT|unix.MS_BIND|want|c.has(at), 0); e != 0 {
		return e
	}
	if c.has(at)&want != want {
		return syscall.EPERM
	}
	return 0
}

//go:norace
//go:nosplit
func (c *classic) moveMount(a *[6]uintptr) syscall.Errno {
	to, e := c.resolve(a[2], a[3])
	if e != 0 {
		return e
	}
	e = mount(path(&c.from, a[0], 0), path(&c.to, to, 0), 0, unix.MS_MOVE, 0)
	if to != a[2] {
		shut(to)
	}
	return e
}

// pivotRoot goes back to the stage first, so that what is dropped next is the
// stage with the host's tree in it.
//
//go:norace
//go:nosplit
func (c *classic) pivotRoot(a *[6]uintptr) syscall.Errno {
	if c.stage != 0 {
		if e := c.root(c.stage); e != 0 {
			return e
		}
		shut(c.stage)
		c.stage = 0
	}
	_, _, e := syscall.RawSyscall6(unix.SYS_PIVOT_ROOT, a[0], a[1], 0, 0, 0, 0)
	return e
}

// root changes the root to a directory; the working directory stays.
//
//go:norace
//go:nosplit
func (c *classic) root(fd uintptr) syscall.Errno {
	cwd, e := open(atCwd, dot(), oPath)
	if e != 0 {
		return e
	}
	if _, _, e = syscall.RawSyscall6(unix.SYS_FCHDIR, fd, 0, 0, 0, 0, 0); e == 0 {
		_, _, e = syscall.RawSyscall6(unix.SYS_CHROOT, dot(), 0, 0, 0, 0, 0)
	}
	if _, _, back := syscall.RawSyscall6(unix.SYS_FCHDIR, cwd, 0, 0, 0, 0, 0); e == 0 {
		e = back
	}
	shut(cwd)
	return e
}

// openat2 resolves a path inside of a directory as if that were the root, by
// making it the root for a moment.
//
//go:norace
//go:nosplit
func (c *classic) openat2(a *[6]uintptr) (uintptr, syscall.Errno) {
	r, _, e := syscall.RawSyscall6(unix.SYS_OPENAT2, a[0], a[1], a[2], a[3], 0, 0)
	how := (*[3]uint64)(unsafe.Add(unsafe.Pointer(nil), a[2])) // flags, mode, resolve
	if e != syscall.ENOSYS || how[2]&unix.RESOLVE_IN_ROOT == 0 {
		return r, e
	}
	old, e := open(atCwd, uintptr(unsafe.Pointer(&nameRoot[0])), oPath)
	if e != 0 {
		return 0, e
	}
	if e = c.root(a[0]); e == 0 {
		// From "/" of the new root, wherever this process is.
		if r, e = open(a[0], a[1], uintptr(how[0])); e != 0 && *(*byte)(unsafe.Add(unsafe.Pointer(nil), a[1])) == 0 {
			r, e = open(a[0], dot(), uintptr(how[0]))
		}
		if back := c.root(old); back != 0 {
			e = back
		}
	}
	shut(old)
	return r, e
}

// closeRange closes descriptors one by one, or has execve close them.
//
//go:norace
//go:nosplit
func (c *classic) closeRange(a *[6]uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, a[0], a[1], a[2], 0, 0, 0)
	if e != syscall.ENOSYS {
		return e
	}
	for fd := a[0]; fd <= min(a[1], c.last); fd++ {
		if a[2]&unix.CLOSE_RANGE_CLOEXEC != 0 {
			syscall.RawSyscall6(unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC, 0, 0, 0)
		} else {
			shut(fd)
		}
	}
	return 0
}
