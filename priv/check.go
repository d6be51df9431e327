package priv

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/linux/script"
)

// The capabilities that single steps are made with.
const (
	capMounts  = 1 << unix.CAP_SYS_ADMIN
	capChroot  = 1 << unix.CAP_SYS_CHROOT
	capNetwork = 1 << unix.CAP_NET_ADMIN
	capOverlay = 1 << unix.CAP_DAC_OVERRIDE // of a working directory that nobody may enter
)

// kind is what the result of a step is.
type kind uint8

const (
	nothing kind = iota
	file         // a descriptor of a file or directory
	inside       // the same, in a file system that the script made
	fsys         // a file system that is being made
	tree         // a detached mount
	socket       // a socket of the script's own network namespace
)

// result is what is known of the result of a step.
type result struct {
	kind       kind
	fs         string            // of fsys and tree: the type
	recursive  bool              // of tree: it has more mounts below
	restricted bool              // of tree: nosuid
	nosymlinks bool              // of tree: no link in it is followed
	options    map[string]string // of fsys, if it is an overlay
	image      bool              // of file: it is an image of the request, by comparison
}

// memory tells whether r is a file system that is empty when the script makes it.
func (r *result) memory() bool { return r.fs == "tmpfs" || r.fs == "ramfs" }

// checker looks at the steps of a request before any is made.
//
// Security: a script comes from the caller, who may have written every bit of it.
// Until the mark (script.OpDrop) its process has the caller's ids and no effective
// capability, so a call can do no more than the caller's own processes can;
// which calls there are, and what memory they touch, is checked all the same,
// since the process still has capabilities to raise. They are raised for the
// single calls below, whose every argument is a constant, or the result of a
// step that is known. No two threads share the process's memory, what a call
// writes to is never read as an argument of another, and results that are no
// descriptor are -1. Behind the mark everything is given up and the steps are the
// caller's own business.
type checker struct {
	*helper
	*script.Listing
	pid     bool
	joins   bool        // a container that runs: nothing is to be made
	strict  bool        // every image must be one that was checked
	listed  bool        // by the execution control list, too
	kernel  int         // the number of the kernel's mount, or -1
	images  [][2]uint64 // device and inode
	res     []result
	skipped []bool
	output  []bool // memory that calls write to
	stat    map[int]int
	unshare uint64           // the namespaces that are the container's own
	placed  map[place]result // what was mounted where in a file system of the script
	dir     int              // the step whose result is the working directory, or -1
}

// place is a name in the directory that is the result of a step.
type place struct {
	step uint64
	name string
}

// refuse is the answer that a step is refused.
func refuse(step int, reason string) error {
	return &Answer{Step: step + 1, Refusal: "step " + strconv.Itoa(step) + " is refused: " + reason}
}

// check returns the number of the mark.
func (c *checker) check() (drop int, err error) {
	c.res, c.skipped, c.output = make([]result, len(c.Steps)), make([]bool, len(c.Steps)), make([]bool, len(c.Memory))
	c.stat, c.placed, c.dir = map[int]int{}, map[place]result{}, -1
	if drop, err = c.shape(); err != nil {
		return 0, err
	}
	for i := range c.Steps[:drop] {
		if reason := c.step(i); reason != "" {
			return 0, refuse(i, reason)
		}
	}
	return drop, nil
}

// room tells whether n bytes at r lie in the memory.
func (c *checker) room(r script.Ref, n int) bool {
	return r.Mem() < len(c.Memory) && r.Off()+n <= len(c.Memory[r.Mem()])
}

// shape checks what holds for all steps: that references lie in the memory, slots
// before their step, and that none skips the mark. It notes which steps may be
// skipped, and what is written to before the mark.
func (c *checker) shape() (drop int, err error) {
	drop = -1
	words := func(n int, list ...script.Ref) bool {
		return !slices.ContainsFunc(list, func(r script.Ref) bool { return r.Off()%8 != 0 || !c.room(r, 8*n) })
	}
	for _, k := range c.Links {
		if !words(1, k.At) || !c.room(k.To, 1) {
			return 0, refuse(0, "an address lies outside of its memory")
		}
		c.output[k.At.Mem()] = true // holds addresses: no constant
	}
	if p := c.Program; p != nil && (slices.ContainsFunc(p.Paths, func(r script.Ref) bool { return !c.room(r, 1) }) ||
		!words(1, p.Argv, p.Envp) || p.Shell != 0 && !words(2, p.Shell) || p.Other != 0 && !words(1, p.Other)) {
		return 0, refuse(0, "its program is not well formed")
	}
	for i := range c.Steps {
		s := &c.Steps[i]
		skips := int(max(s.SkipOK, s.SkipNo))
		ok := s.Refs&s.Slots == 0 && i+1+skips <= len(c.Steps)
		for k, a := range s.Args {
			ok = ok && (s.Refs&(1<<k) == 0 || c.room(script.Ref(a), 1)) && (s.Slots&(1<<k) == 0 || a < uint64(i))
		}
		switch s.Op {
		case script.OpCall, script.OpInit, script.OpIdle:
		case script.OpEqual:
			ok = ok && s.Refs == 1<<2|1<<3 && words(1, script.Ref(s.Args[2]), script.Ref(s.Args[3]))
		case script.OpStore:
			ok = ok && s.Refs == 1<<1 && s.Slots == 1 && words(1, script.Ref(s.Args[1]))
		case script.OpExec:
			ok = ok && c.Program != nil && i == len(c.Steps)-1
		case script.OpDrop:
			ok = ok && drop < 0 && !c.skipped[i]
			drop = i
		default:
			ok = false
		}
		if !ok {
			return 0, refuse(i, "it is not well formed")
		}
		for k := range skips {
			c.skipped[i+1+k] = true
		}
		if drop < 0 && writes(s) && s.Refs&2 != 0 {
			c.output[script.Ref(s.Args[1]).Mem()] = true
		}
	}
	if drop < 0 {
		return 0, refuse(0, "no step gives up the privileges")
	}
	return drop, nil
}

// writes tells whether a step is a call that writes to its second argument.
func writes(s *script.Step) bool {
	return s.Op == script.OpCall && (s.Nr == unix.SYS_FSTAT || s.Nr == unix.SYS_FSTATFS || s.Nr == unix.SYS_PREAD64)
}

// in returns the n bytes of argument k, which no call writes to.
func (c *checker) in(i, k, n int) []byte {
	s := &c.Steps[i]
	r := script.Ref(s.Args[k])
	if s.Refs&(1<<k) == 0 || c.output[r.Mem()] || n < 0 || n > len(c.Memory[r.Mem()])-r.Off() {
		return nil
	}
	return c.Memory[r.Mem()][r.Off():]
}

// statSize is the size of struct stat; that of struct statfs is less.
const statSize = 144

// maxText bounds a text: a path, or the layers of an overlay.
const maxText = 1 << 16

// text is argument k as a string; ok is false if it is none.
func (c *checker) text(i, k int) (string, bool) {
	b := c.in(i, k, 1)
	t, _, ok := strings.Cut(string(b[:min(len(b), maxText)]), "\x00")
	return t, ok
}

// is tells whether argument k is the string want.
func (c *checker) is(i, k int, want string) bool {
	t, ok := c.text(i, k)
	return ok && t == want
}

// words are the n words at argument k, nil if it does not have them.
func (c *checker) words(i, k, n int) []uint64 {
	w := make([]uint64, n)
	if _, err := binary.Decode(c.in(i, k, 8*n), binary.NativeEndian, w); err != nil {
		return nil
	}
	return w
}

// out tells whether argument k has room for n bytes that nothing else uses.
func (c *checker) out(i, k int, n uint64) bool {
	s := &c.Steps[i]
	r := script.Ref(s.Args[k])
	return s.Refs&(1<<k) != 0 && n <= uint64(len(c.Memory[r.Mem()])-r.Off())
}

// num is argument k, a plain number; anything else is the largest one.
func (c *checker) num(i, k int) uint64 {
	s := &c.Steps[i]
	if (s.Refs|s.Slots)&(1<<k) != 0 {
		return 1<<64 - 1
	}
	return s.Args[k]
}

// slot is what is known of argument k if it is the result of a step; else nothing.
func (c *checker) slot(i, k int) *result {
	if s := &c.Steps[i]; s.Slots&(1<<k) != 0 {
		return &c.res[s.Args[k]]
	}
	return new(result)
}

const cwd = ^uint64(99) // AT_FDCWD

// fd tells whether argument k is a descriptor: the working directory, one of the
// request, or the result of a step.
func (c *checker) fd(i, k int) bool {
	n := c.num(i, k)
	return c.slot(i, k).kind != nothing || n == cwd || n < 3 || n < maxNumber && c.fds[int(n)] != 0
}

// surely tells whether step i is made whatever happens, and ends the script if it
// fails.
func (c *checker) surely(i int) bool { return !c.skipped[i] && !c.Steps[i].Ignore }

// notAllowed is why most steps are refused.
const notAllowed = "its arguments are not allowed"

// step checks step i, and notes what it raises and what its result is. It returns why
// the step is refused.
func (c *checker) step(i int) string {
	switch c.Steps[i].Op {
	case script.OpEqual:
		c.compare(i)
		return ""
	case script.OpCall:
		return c.call(i)
	}
	return "it must come behind the mark"
}

// compare notes that a file was found to be an image of the request.
func (c *checker) compare(i int) {
	s := &c.Steps[i]
	a, b := script.Ref(s.Args[2]), script.Ref(s.Args[3])
	if of, ok := c.stat[a.Mem()]; ok && a.Mem() == b.Mem() && a.Off() == 0 && b.Off() == 8 && c.surely(i) && slices.Contains(c.images, [2]uint64(s.Args[:2])) {
		c.res[of].image = true
	}
}

// args tells whether the first arguments are descriptors (f) and texts (t).
func (c *checker) args(i int, shape string) bool {
	for k, what := range shape {
		if _, text := c.text(i, k); what == 't' && !text || what == 'f' && !c.fd(i, k) {
			return false
		}
	}
	return true
}

// call checks the calls that need no privilege: what they do is done with the
// caller's rights. It has the others checked.
func (c *checker) call(i int) string {
	s, r, ok := &c.Steps[i], &c.res[i], false
	switch s.Nr {
	case unix.SYS_OPENAT:
		ok, r.kind = c.args(i, "ft"), file
		if name, _ := c.text(i, 1); c.made(i, 0) && !strings.Contains(name, "/") && name != ".." {
			r.kind = inside
		}
	case unix.SYS_OPENAT2:
		how := c.words(i, 2, 3)
		ok, r.kind = c.args(i, "ft") && how != nil && c.num(i, 3) == 24, file
		if ok && c.made(i, 0) && how[2]&(unix.RESOLVE_IN_ROOT|unix.RESOLVE_BENEATH) != 0 {
			r.kind = inside
		}
	case unix.SYS_MKDIRAT:
		ok = c.args(i, "ft")
	case unix.SYS_SYMLINKAT:
		ok = c.args(i, "tft")
	case unix.SYS_WRITE:
		n := c.num(i, 2)
		ok = c.args(i, "f") && n < 1<<31 && c.in(i, 1, int(n)) != nil
	case unix.SYS_CLOSE, unix.SYS_FCHDIR:
		ok = c.args(i, "f")
		if of := c.slot(i, 0); s.Nr == unix.SYS_FCHDIR {
			if c.dir = -1; of.kind == tree && c.surely(i) {
				c.dir = int(s.Args[0])
			}
		}
	case unix.SYS_FSTAT, unix.SYS_FSTATFS:
		ok = c.args(i, "f") && c.out(i, 1, statSize)
		if ok && s.Nr == unix.SYS_FSTAT && c.slot(i, 0).kind == file && c.surely(i) {
			c.stat[script.Ref(s.Args[1]).Mem()] = int(s.Args[0])
		}
	case unix.SYS_PREAD64:
		ok = c.args(i, "f") && c.out(i, 1, c.num(i, 2))
	case unix.SYS_DUP:
		ok, r.kind = c.args(i, "f"), file
		if c.kernel >= 0 && c.num(i, 0) == uint64(c.kernel) {
			*r = result{kind: tree, fs: "squashfs", restricted: true}
		}
	case unix.SYS_SOCKET:
		ok, r.kind = c.num(i, 0) == unix.AF_INET, file
		if c.unshare&unix.CLONE_NEWNET != 0 {
			r.kind = socket
		}
	case unix.SYS_UMASK, unix.SYS_DUP3: // which could take what a join is made by
		ok = s.Refs == 0 && !(c.joins && s.Nr == unix.SYS_DUP3)
	default:
		return cmp.Or(unless(!c.joins, "nobody needs it who joins a container"), c.privileged(i))
	}
	return unless(ok, notAllowed)
}

// made tells whether argument k is in a file system that the script made.
func (c *checker) made(i, k int) bool {
	r := c.slot(i, k)
	return r.kind == inside || r.kind == tree && r.fs != ""
}

// privileged checks the calls that need a capability. It returns why one is refused.
func (c *checker) privileged(i int) string {
	s, ok := &c.Steps[i], false
	s.Raise(capMounts)
	switch s.Nr {
	case unix.SYS_UNSHARE:
		return c.namespaces(i)
	case unix.SYS_FSOPEN:
		return c.fsopen(i)
	case unix.SYS_FSCONFIG:
		return c.fsconfig(i)
	case unix.SYS_OPEN_TREE:
		return c.openTree(i)
	case unix.SYS_FSMOUNT:
		ok = c.fsmount(i)
	case unix.SYS_MOUNT_SETATTR:
		ok = c.setattr(i)
	case unix.SYS_SETHOSTNAME:
		n := c.num(i, 1)
		ok = c.unshare&unix.CLONE_NEWUTS != 0 && n <= 64 && c.in(i, 0, int(n)) != nil
	case unix.SYS_IOCTL:
		s.Raise(capNetwork)
		w := c.words(i, 2, 5)
		ok = c.slot(i, 0).kind == socket && c.num(i, 1) == unix.SIOCSIFFLAGS && w != nil && w[0] == 'l'|'o'<<8 && w[1] == 0 && w[2]&(1<<16-1) == unix.IFF_UP|unix.IFF_RUNNING
	case unix.SYS_MOVE_MOUNT:
		from := c.slot(i, 0)
		name, named := c.text(i, 3)
		if at := (place{s.Args[2], name}); c.slot(i, 2).kind == tree && c.surely(i) {
			c.placed[at] = *from
		} else {
			delete(c.placed, at)
		}
		ok = from.kind == tree && from.restricted && c.is(i, 1, "") && c.fd(i, 2) && named && c.num(i, 4)&^(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH) == 0
	case unix.SYS_PIVOT_ROOT:
		next := c.Steps[i+1]
		ok = c.is(i, 0, ".") && c.is(i, 1, ".") && c.surely(i) && next.Op == script.OpCall && next.Nr == unix.SYS_UMOUNT2
	case unix.SYS_UMOUNT2:
		// What an unmount lays bare might have been covered with intent.
		last := &c.Steps[max(i-1, 0)]
		ok = last.Nr == unix.SYS_PIVOT_ROOT && last.Op == script.OpCall && c.surely(i) && c.is(i, 0, ".") && c.num(i, 1) == unix.MNT_DETACH
	case unix.SYS_CHROOT:
		s.Raise(capChroot)
		_, ok = c.text(i, 0)
	default:
		return "system call " + strconv.Itoa(int(s.Nr)) + " is none that the helper makes"
	}
	return unless(ok, notAllowed)
}

// unless returns the reason if something does not hold.
func unless(ok bool, reason string) string {
	if ok {
		return ""
	}
	return reason
}

// says is the reason that the administrator's configuration is.
func says(ok bool, directive, value string) string {
	return unless(ok, "singularity.conf says: "+directive+" = "+value)
}

func (c *checker) namespaces(i int) string {
	flags := c.num(i, 0)
	c.unshare |= flags
	return cmp.Or(unless(flags&^(unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWNET) == 0 && c.surely(i), "its namespaces are not allowed"),
		says(flags&unix.CLONE_NEWIPC == 0 || c.conf.AllowIPCNS, "allow ipc ns", "no"), says(flags&unix.CLONE_NEWUTS == 0 || c.conf.AllowUTSNS, "allow uts ns", "no"))
}

func (c *checker) fsopen(i int) string {
	r := &c.res[i]
	r.kind, r.options = fsys, map[string]string{}
	r.fs, _ = c.text(i, 0)
	switch r.fs {
	case "tmpfs", "devpts":
		return ""
	case "ramfs": // which has no limits
		return says(c.conf.MemoryFSType == "ramfs", "memory fs type", "tmpfs")
	case "fuse":
		return unless(!c.strict, strictly)
	case "proc":
		return unless(c.pid, "it shows the processes of the host")
	case "mqueue":
		return unless(c.unshare&unix.CLONE_NEWIPC != 0, "it shows the message queues of the host")
	case "overlay":
		return says(c.conf.EnableOverlay != "no", "enable overlay", "no")
	}
	return "the file system " + strconv.Quote(r.fs) + " is not allowed"
}

func (c *checker) fsconfig(i int) string {
	r := c.slot(i, 0)
	key, _ := c.text(i, 2)
	value, isText := c.text(i, 3)
	switch cmd := c.num(i, 1); {
	case r.kind != fsys:
		return "it is no file system"
	case cmd == unix.FSCONFIG_CMD_CREATE:
		if _, ok := r.options["userxattr"]; r.fs == "overlay" && !ok {
			return "an overlay must have userxattr"
		}
		if r.options["upperdir"] != "" {
			if !c.inMemory(r) {
				return "only a layer in memory can be written to"
			}
			c.Steps[i].Raise(capMounts | capOverlay)
		}
		return unless(c.num(i, 2) == 0 && c.num(i, 3) == 0, notAllowed)
	case (cmd != unix.FSCONFIG_SET_FLAG || c.num(i, 3) != 0) && (cmd != unix.FSCONFIG_SET_STRING || !isText):
		return notAllowed
	case r.fs == "overlay" && !c.surely(i):
		return "an option of an overlay must not be left out"
	}
	r.options[key] = value
	return unless(c.option(r.fs, key, value), "the option "+key+"="+value+" is not allowed for "+r.fs)
}

// inMemory tells whether the overlay r writes to memory alone, and all its layers
// are mounts that the script placed in the working directory.
//
// Security: the kernel makes the overlay with the right to pass by permissions,
// since it keeps files in a directory that has none. With that right it must walk
// no path that the caller could lead elsewhere.
func (c *checker) inMemory(r *result) bool {
	if c.dir < 0 || !c.res[c.dir].memory() {
		return false
	}
	upper, work := r.options["upperdir"], r.options["workdir"]
	for _, name := range append(strings.Split(r.options["lowerdir"], ":"), upper, work) {
		first, rest, deep := strings.Cut(name, "/")
		at, ok := c.placed[place{uint64(c.dir), first}]
		written := name == upper || name == work
		if !ok || first == "" || first == "." || first == ".." || strings.Contains(rest, "..") || deep && !at.nosymlinks || written && !at.memory() {
			return false
		}
	}
	return true
}

// option tells whether a file system may have an option.
//
// Security (SC-062): allow_other would show a file system that the caller serves
// to others.
func (c *checker) option(fs, key, value string) bool {
	name := fs + " " + key
	want, only := map[string]string{"devpts gid": "5", "fuse rootmode": "40000", "fuse user_id": strconv.Itoa(c.uid), "fuse group_id": strconv.Itoa(c.gid)}[name]
	if name == "fuse fd" {
		n, err := strconv.Atoi(value)
		return err == nil && c.fds[n] != 0
	}
	return only && value == want || slices.Contains([]string{"tmpfs mode", "tmpfs size", "ramfs mode", "devpts newinstance", "devpts ptmxmode", "devpts mode",
		"fuse default_permissions", "overlay lowerdir", "overlay upperdir", "overlay workdir", "overlay userxattr"}, name)
}

func (c *checker) fsmount(i int) bool {
	from := c.slot(i, 0)
	attr := c.num(i, 2)
	want := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if from.fs == "devpts" {
		want = unix.MOUNT_ATTR_NOSUID
	}
	if from.fs == "fuse" && !c.conf.EnableFusemount {
		want |= unix.MOUNT_ATTR_RDONLY // as images are
	}
	c.res[i] = result{kind: tree, fs: from.fs, restricted: true}
	return from.kind == fsys && attr&want == want && attr>>32 == 0
}

// openTree checks the copy of a mount. One of a mount of the host is recursive,
// or it would show what lies below mounts.
func (c *checker) openTree(i int) string {
	path, ok := c.text(i, 1)
	flags := c.num(i, 2)
	recursive := flags&unix.AT_RECURSIVE != 0
	r, from := &c.res[i], c.slot(i, 0)
	*r = result{kind: tree, recursive: recursive}
	switch {
	case !ok || !c.fd(i, 0) || flags&unix.OPEN_TREE_CLONE == 0 || flags>>32 != 0:
		return notAllowed
	case c.made(i, 0) && !strings.HasPrefix(path, "/") && !strings.Contains(path, ".."):
		r.fs, r.restricted = "part", true // of a mount that the script made
		return ""
	case !recursive:
		return "a mount of the host must be taken with what is mounted in it"
	case c.strict && from.kind == file && !from.image:
		return "the directory is not the image that was checked"
	}
	return says(c.conf.UserBindControl || from.image || c.num(i, 0) == cwd && c.ofSite(path), "user bind control", "no")
}

// ofSite tells whether the administrator has path bound in every container.
func (c *checker) ofSite(path string) bool {
	site := []string{"/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/etc/resolv.conf", find(users, 2, strconv.Itoa(c.uid))[5]}
	for _, b := range c.conf.BindPaths {
		src, _, _ := strings.Cut(b, ":")
		site = append(site, src)
	}
	return path != "" && slices.Contains(site, path) || strings.HasPrefix(path, "/dev/") && !strings.Contains(path, "..")
}

func (c *checker) setattr(i int) bool {
	r := c.slot(i, 0)
	flags := c.num(i, 2)
	w := c.words(i, 3, 4)
	const may = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSYMFOLLOW
	if r.kind != tree || !c.is(i, 1, "") || flags&^(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE) != 0 || c.num(i, 4) != 32 ||
		w == nil || w[0]&^may != 0 || w[1]|w[3] != 0 || w[2] != 0 && w[2] != unix.MS_PRIVATE {
		return false
	}
	r.nosymlinks = r.nosymlinks || w[0]&unix.MOUNT_ATTR_NOSYMFOLLOW != 0 && c.surely(i) && !r.recursive
	r.restricted = r.restricted || w[0]&unix.MOUNT_ATTR_NOSUID != 0 && c.surely(i) && (flags&unix.AT_RECURSIVE != 0 || !r.recursive)
	return true
}
