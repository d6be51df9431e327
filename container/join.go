package container

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/linux/script"
)

// joinHold adds the way into the user namespace of a shared mount, with a mount
// namespace that is still a copy of the caller's, so that bind sources are what
// the caller sees. A PID namespace begins with a fork, whose id goes to left.
func (b *builder) joinHold(left int) {
	s := b.s
	if b.hold.user >= 0 {
		s.Call("join the user namespace of the image's mount", unix.SYS_SETNS, script.Int(b.hold.user), script.Int(unix.CLONE_NEWUSER))
	}
	flags := unix.CLONE_NEWNS
	if b.p.Namespaces.PID {
		flags |= unix.CLONE_NEWPID
	}
	s.Call("create namespaces", unix.SYS_UNSHARE, script.Int(flags))
	if b.p.Namespaces.PID {
		s.Leave(left)
	}
}

// enterHeld goes on in a copy of the mount namespace that holds the shared
// mount. The bind sources are open already.
func (b *builder) enterHeld() {
	s := b.s
	s.Call("join the mount namespace of the image's mount", unix.SYS_SETNS, script.Int(b.hold.mnt), script.Int(unix.CLONE_NEWNS))
	s.Call("create a mount namespace", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWNS))
	b.held = s.Call("open the image's mount", unix.SYS_OPENAT, atCwd, s.Str(b.attach), script.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
}

// heldRoot makes the shared mount the root, below a layer of the container's own
// if it lacks something.
func (b *builder) heldRoot() {
	s := b.s
	if b.hold.layer {
		b.layer(true)
		s.Call("enter the image", unix.SYS_FCHDIR, b.held.Arg())
		b.overlay(".")
	} else {
		b.root = s.Call("clone the image's mount", unix.SYS_OPEN_TREE, b.held.Arg(), s.Str(""), script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH))
	}
	b.attachMount(b.root, "attach the image")
}

// receiveID reads the process id that Leave wrote; 0 if there is none.
func receiveID(fd int) int {
	var b [8]byte
	for {
		n, err := syscall.Read(fd, b[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil || n != len(b):
			return 0
		}
		return int(binary.NativeEndian.Uint64(b[:]))
	}
}
