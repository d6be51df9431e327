package priv

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/script"
)

const (
	cloneFlags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE
	safe       = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
)

var cwdArg = script.Int(unix.AT_FDCWD)

func newChecker(l *script.Listing) *checker {
	return &checker{helper: &helper{conf: conf.Default(), uid: 1000, gid: 1000, fds: map[int]int{9: 9, 900: 900}}, Listing: l, kernel: 900}
}

// run has a checker look at the steps of a script.
func run(t *testing.T, build func(s *script.Script), change func(c *checker)) error {
	t.Helper()
	s := new(script.Script)
	build(s)
	s.Drop()
	s.Exec([]string{"/bin/true"}, []string{"true"}, nil, "")
	l, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	c := newChecker(l)
	if change != nil {
		change(c)
	}
	_, err = c.check()
	return err
}

func bind(s *script.Script, path string) script.Slot {
	return s.Call("bind", unix.SYS_OPEN_TREE, cwdArg, s.Str(path), script.Int(cloneFlags))
}

func attr(s *script.Script, t script.Slot, w ...uint64) script.Slot {
	return s.Call("attributes", unix.SYS_MOUNT_SETATTR, t.Arg(), s.Str(""), script.Int(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE), s.Words(append(w, make([]uint64, 4-len(w))...)), script.Int(32))
}

func move(s *script.Script, t script.Arg, to string) script.Slot {
	return s.Call("move", unix.SYS_MOVE_MOUNT, t, s.Str(""), cwdArg, s.Str(to), script.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
}

func makeFS(s *script.Script, kind string, attr int, options ...string) script.Slot {
	fs := s.Call("fsopen", unix.SYS_FSOPEN, s.Str(kind), script.Int(1))
	for i := 0; i < len(options); i += 2 {
		s.Call("option", unix.SYS_FSCONFIG, fs.Arg(), script.Int(unix.FSCONFIG_SET_STRING), s.Str(options[i]), s.Str(options[i+1]), script.Int(0))
	}
	s.Call("create", unix.SYS_FSCONFIG, fs.Arg(), script.Int(unix.FSCONFIG_CMD_CREATE), script.Int(0), script.Int(0), script.Int(0))
	return s.Call("fsmount", unix.SYS_FSMOUNT, fs.Arg(), script.Int(1), script.Int(attr))
}

func pivot(s *script.Script) {
	dot := s.Str(".")
	s.Call("pivot", unix.SYS_PIVOT_ROOT, dot, dot)
	s.Call("unmount", unix.SYS_UMOUNT2, dot, script.Int(unix.MNT_DETACH))
}

// TestCheckConfigured: what the administrator's file makes of the same containers
// passes with that file alone.
func TestCheckConfigured(t *testing.T) {
	err := run(t, func(s *script.Script) {
		makeFS(s, "ramfs", safe, "mode", "1777")
		attr(s, bind(s, "/home/me"), safe, 0, unix.MS_PRIVATE)
		makeFS(s, "fuse", safe|unix.MOUNT_ATTR_RDONLY, "fd", "9")
	}, func(c *checker) { c.conf.MemoryFSType, c.conf.EnableFusemount = "ramfs", false })
	if err != nil {
		t.Error(err)
	}
}

// TestCheckAcceptsImage: user bind control is not about the directory that is the image.
func TestCheckAcceptsImage(t *testing.T) {
	err := run(t, func(s *script.Script) {
		d := s.Call("open", unix.SYS_OPENAT, cwdArg, s.Str("/opt/image"), script.Int(unix.O_PATH))
		st := make([]uint64, 32)
		s.Call("look", unix.SYS_FSTAT, d.Arg(), s.Words(st))
		s.Equal("same", st, 0, 1, 5, 7)
		s.Call("clone", unix.SYS_OPEN_TREE, d.Arg(), s.Str(""), script.Int(cloneFlags|unix.AT_EMPTY_PATH))
	}, func(c *checker) { c.conf.UserBindControl, c.strict, c.images = false, true, [][2]uint64{{5, 7}} })
	if err != nil {
		t.Error(err)
	}
}

// TestCheckAccepts: what package container makes passes.
func TestCheckAccepts(t *testing.T) {
	err := run(t, func(s *script.Script) {
		s.Call("namespaces", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWNET|unix.CLONE_NEWUTS))
		s.Call("name", unix.SYS_SETHOSTNAME, s.Str("box"), script.Int(3))
		sock := s.Call("socket", unix.SYS_SOCKET, script.Int(unix.AF_INET), script.Int(2), script.Int(0))
		s.Call("lo", unix.SYS_IOCTL, sock.Arg(), script.Int(unix.SIOCSIFFLAGS), s.Words([]uint64{'l' | 'o'<<8, 0, unix.IFF_UP | unix.IFF_RUNNING, 0, 0}))
		fuse := makeFS(s, "fuse", safe, "rootmode", "40000", "user_id", "1000", "group_id", "1000", "fd", "9")
		home := bind(s, "/home/me")
		attr(s, home, safe)
		move(s, fuse.Arg(), "/tmp")
		move(s, home.Arg(), "/tmp/home")
		kernel := s.Call("kernel", unix.SYS_DUP, script.Int(900))
		move(s, kernel.Arg(), "/dev")
		s.Call("enter", unix.SYS_FCHDIR, fuse.Arg())
		pivot(s)
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

// TestCheckRefuses: everything else does not (SC-002, SC-003, SC-004, SC-059,
// SC-062).
func TestCheckRefuses(t *testing.T) {
	strict := func(c *checker) { c.strict = true }
	joins := func(c *checker) { c.joins = true }
	for _, r := range []struct {
		name   string
		build  func(s *script.Script)
		change func(c *checker)
	}{
		{"a bind with setuid", func(s *script.Script) { move(s, bind(s, "/usr").Arg(), "/tmp") }, nil},
		{"a bind whose setuid is taken only if a step works", func(s *script.Script) {
			b := bind(s, "/usr")
			s.SkipOK(s.Call("umask", unix.SYS_UMASK, script.Int(0)), 1)
			attr(s, b, safe)
			move(s, b.Arg(), "/tmp")
		}, nil},
		{"attributes that are cleared", func(s *script.Script) { attr(s, bind(s, "/usr"), safe, unix.MOUNT_ATTR_RDONLY) }, nil},
		{"attributes with a propagation", func(s *script.Script) { attr(s, bind(s, "/usr"), safe, 0, unix.MS_SHARED) }, nil},
		{"attributes with an id map", func(s *script.Script) { attr(s, bind(s, "/usr"), safe|unix.MOUNT_ATTR_IDMAP, 0, 0, 9) }, nil},
		{"attributes that a call writes", func(s *script.Script) {
			b, w := bind(s, "/usr"), make([]uint64, 32)
			s.Call("stat", unix.SYS_FSTAT, b.Arg(), s.Words(w))
			s.Call("attributes", unix.SYS_MOUNT_SETATTR, b.Arg(), s.Str(""), script.Int(unix.AT_EMPTY_PATH), s.Words(w), script.Int(32))
		}, nil},
		{"a bind that shows what lies below mounts", func(s *script.Script) {
			s.Call("bind", unix.SYS_OPEN_TREE, cwdArg, s.Str("/"), script.Int(unix.OPEN_TREE_CLONE))
		}, nil},
		{"a mount that is no result", func(s *script.Script) { move(s, script.Int(9), "/tmp") }, nil},
		{"a file system of the kernel's", func(s *script.Script) { makeFS(s, "ext4", safe, "source", "/dev/loop0") }, nil},
		{"squashfs", func(s *script.Script) { makeFS(s, "squashfs", safe, "source", "/dev/loop0") }, nil},
		{"fuse for others", func(s *script.Script) { makeFS(s, "fuse", safe, "allow_other", "1") }, nil},
		{"fuse of another user", func(s *script.Script) { makeFS(s, "fuse", safe, "user_id", "0") }, nil},
		{"fuse on a device of the helper's", func(s *script.Script) { makeFS(s, "fuse", safe, "fd", "4") }, nil},
		{"fuse where images are limited", func(s *script.Script) { makeFS(s, "fuse", safe, "fd", "9") }, strict},
		{"a tmpfs with setuid", func(s *script.Script) { makeFS(s, "tmpfs", unix.MOUNT_ATTR_NODEV) }, nil},
		{"a tmpfs with devices", func(s *script.Script) { makeFS(s, "tmpfs", unix.MOUNT_ATTR_NOSUID) }, nil},
		{"a ramfs", func(s *script.Script) { makeFS(s, "ramfs", safe) }, nil},
		{"a ramfs of root's", func(s *script.Script) { makeFS(s, "ramfs", safe, "uid", "0") }, func(c *checker) { c.conf.MemoryFSType = "ramfs" }},
		{"a bind that is shared", func(s *script.Script) { attr(s, bind(s, "/home/me"), safe, 0, unix.MS_SHARED) }, nil},
		{"a bind in another user namespace", func(s *script.Script) { attr(s, bind(s, "/home/me"), safe, 0, 0, 9) }, nil},
		{"a FUSE file system to write to", func(s *script.Script) { makeFS(s, "fuse", safe, "fd", "9") }, func(c *checker) { c.conf.EnableFusemount = false }},
		{"a tmpfs of root's", func(s *script.Script) { makeFS(s, "tmpfs", safe, "uid", "0") }, nil},
		{"the processes of the host", func(s *script.Script) { makeFS(s, "proc", safe) }, nil},
		{"the message queues of the host", func(s *script.Script) { makeFS(s, "mqueue", safe) }, nil},
		{"an overlay with attributes of root's", func(s *script.Script) { makeFS(s, "overlay", safe, "lowerdir", "/tmp") }, nil},
		{"an overlay against the configuration", func(s *script.Script) { s.Call("fsopen", unix.SYS_FSOPEN, s.Str("overlay"), script.Int(1)) }, func(c *checker) { c.conf.EnableOverlay = "no" }},
		{"a writable layer on the host", func(s *script.Script) {
			makeFS(s, "overlay", safe, "userxattr", "1", "lowerdir", "a", "upperdir", "/root/upper", "workdir", "/root/work")
		}, nil},
		{"a layer behind a link", func(s *script.Script) { layered(s, "x/y", 0) }, nil},
		{"a layer outside", func(s *script.Script) { layered(s, "..", 0) }, nil},
		{"a bind against the configuration", func(s *script.Script) { bind(s, "/opt/mine") }, func(c *checker) { c.conf.UserBindControl = false }},
		{"a bind by descriptor against the configuration", func(s *script.Script) {
			d := s.Call("open", unix.SYS_OPENAT, cwdArg, s.Str("/opt/mine"), script.Int(unix.O_PATH))
			s.Call("clone", unix.SYS_OPEN_TREE, d.Arg(), s.Str(""), script.Int(cloneFlags|unix.AT_EMPTY_PATH))
		}, func(c *checker) { c.conf.UserBindControl = false }},
		{"a bind of the working directory against the configuration, by a caller without a home", func(s *script.Script) {
			s.Call("clone", unix.SYS_OPEN_TREE, cwdArg, s.Str(""), script.Int(cloneFlags|unix.AT_EMPTY_PATH))
		}, func(c *checker) { c.conf.UserBindControl, c.uid = false, 1<<30 }},
		{"a mount in a container that runs", func(s *script.Script) { bind(s, "/usr") }, joins},
		{"a namespace in a container that runs", func(s *script.Script) { s.Call("unshare", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWIPC)) }, joins},
		{"a number of another descriptor in a join", func(s *script.Script) { s.Call("dup", unix.SYS_DUP3, script.Int(9), script.Int(8), script.Int(0)) }, joins},
		{"a directory that was not checked", func(s *script.Script) {
			d := s.Call("open", unix.SYS_OPENAT, cwdArg, s.Str("/opt"), script.Int(unix.O_PATH))
			s.Call("clone", unix.SYS_OPEN_TREE, d.Arg(), s.Str(""), script.Int(cloneFlags|unix.AT_EMPTY_PATH))
		}, strict},
		{"an unmount", func(s *script.Script) {
			s.Call("unmount", unix.SYS_UMOUNT2, s.Str("/tmp"), script.Int(unix.MNT_DETACH))
		}, nil},
		{"a pivot without the unmount", func(s *script.Script) {
			s.Call("pivot", unix.SYS_PIVOT_ROOT, s.Str("."), s.Str("."))
			s.Call("umask", unix.SYS_UMASK, script.Int(0))
		}, nil},
		{"a user namespace", func(s *script.Script) { s.Call("unshare", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWUSER)) }, nil},
		{"a shared mount namespace again", func(s *script.Script) { s.Call("unshare", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWNS)) }, nil},
		{"an ipc namespace against the configuration", func(s *script.Script) { s.Call("unshare", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWIPC)) }, func(c *checker) { c.conf.AllowIPCNS = false }},
		{"the host's name", func(s *script.Script) { s.Call("name", unix.SYS_SETHOSTNAME, s.Str("box"), script.Int(3)) }, nil},
		{"a device of the host's network", func(s *script.Script) {
			sock := s.Call("socket", unix.SYS_SOCKET, script.Int(unix.AF_INET), script.Int(2), script.Int(0))
			s.Call("namespaces", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWNET))
			s.Call("lo", unix.SYS_IOCTL, sock.Arg(), script.Int(unix.SIOCSIFFLAGS), s.Words([]uint64{'l' | 'o'<<8, 0, unix.IFF_UP | unix.IFF_RUNNING, 0, 0}))
		}, nil},
		{"a text without an end", func(s *script.Script) {
			s.Call("open", unix.SYS_OPENAT, cwdArg, s.Bytes([]byte("abc")), script.Int(0))
		}, nil},
		{"a write of memory behind its own", func(s *script.Script) {
			s.Call("write", unix.SYS_WRITE, script.Int(1), s.Bytes(make([]byte, 8)), script.Int(9))
		}, nil},
		{"a read into memory behind its own", func(s *script.Script) {
			s.Call("read", unix.SYS_PREAD64, script.Int(1), s.Bytes(make([]byte, 8)), script.Int(9), script.Int(0))
		}, nil},
		{"a descriptor of the helper's", func(s *script.Script) { s.Call("close", unix.SYS_CLOSE, script.Int(7)) }, nil},
		{"two marks", func(s *script.Script) { s.Drop() }, nil},
		{"a mark that is skipped", func(s *script.Script) { s.SkipOK(s.Call("umask", unix.SYS_UMASK, script.Int(0)), 1) }, nil},
		{"a fork before the mark", func(s *script.Script) { s.Init(false, false) }, nil},
		{"a fork that tells root's parent", func(s *script.Script) { s.Leave(9) }, nil},
	} {
		if err := run(t, r.build, r.change); err == nil {
			t.Errorf("%s is accepted", r.name)
		}
	}
	// Every system call but those that are known.
	for nr := range uintptr(600) {
		err := run(t, func(s *script.Script) { s.Call("call", nr, script.Int(0), script.Int(0), script.Int(0)) }, nil)
		if err == nil && !slices.Contains([]uintptr{unix.SYS_CLOSE, unix.SYS_FCHDIR, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_UMASK, unix.SYS_CLOSE_RANGE, unix.SYS_UNSHARE}, nr) {
			t.Errorf("system call %d is accepted", nr)
		}
	}
}

// layered makes a writable overlay in memory, with another layer.
func layered(s *script.Script, lower string, attributes uint64) {
	stage := makeFS(s, "tmpfs", safe)
	place := func(m script.Slot, name string) {
		s.Call("mkdir", unix.SYS_MKDIRAT, stage.Arg(), s.Str(name), script.Int(0o755))
		s.Call("place", unix.SYS_MOVE_MOUNT, m.Arg(), s.Str(""), stage.Arg(), s.Str(name), script.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	}
	memory := makeFS(s, "tmpfs", safe)
	attr(s, memory, safe|unix.MOUNT_ATTR_NOSYMFOLLOW)
	place(memory, "t")
	image := makeFS(s, "fuse", safe, "fd", "9")
	if attributes != 0 {
		attr(s, image, safe|attributes)
	}
	place(image, "x")
	s.Call("enter", unix.SYS_FCHDIR, stage.Arg())
	makeFS(s, "overlay", safe, "lowerdir", lower, "upperdir", "t/upper", "workdir", "t/work", "userxattr", "1")
}

func TestOverlayInMemory(t *testing.T) {
	for _, c := range []struct {
		lower string
		attr  uint64
		want  bool
	}{{"x", 0, true}, {"x/upper", unix.MOUNT_ATTR_NOSYMFOLLOW, true}, {"x/upper", 0, false}, {"/x", 0, false}, {"y", 0, false}, {"x/../..", unix.MOUNT_ATTR_NOSYMFOLLOW, false}} {
		if err := run(t, func(s *script.Script) { layered(s, c.lower, c.attr) }, nil); (err == nil) != c.want {
			t.Errorf("%s: %v", c.lower, err)
		}
	}
}

// TestRefusalNamesTheStep: the other side says which step it was.
func TestRefusalNamesTheStep(t *testing.T) {
	err := run(t, func(s *script.Script) {
		s.Call("umask", unix.SYS_UMASK, script.Int(0))
		s.Call("unmount", unix.SYS_UMOUNT2, s.Str("/tmp"), script.Int(0))
	}, nil)
	a, ok := err.(*Answer)
	if !ok || a.Step != 2 || !strings.Contains(a.Error(), "step 1 is refused") {
		t.Errorf("%v", err)
	}
}
