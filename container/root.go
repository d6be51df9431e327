package container

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/fusefs"
	"singularity/linux/script"
	"singularity/plan"
)

// overlayLabel marks the step whose failure only means: no overlay here.
const overlayLabel = "mount an overlay over the sandbox"

// device is the FUSE connection between child and server of one image.
type device struct {
	fd     int // its number, in the parent and, until the table is unshared, in the child
	fsopen script.Slot
	mount  script.Slot
}

// openDevice reserves a descriptor number for the device, so that the mount
// option, which is text, can be written before the child opens it.
//
// For the setuid helper it is opened here, by the process that serves.
func (b *builder) openDevice(ready int) (*device, error) {
	if b.helper {
		fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
		}
		return &device{fd: fd}, nil
	}
	fd, err := unix.FcntlInt(uintptr(ready), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return &device{fd: fd}, nil
}

// mountDevices makes the file systems of all images and tells the parent on the
// descriptor ready. It shares the descriptors up to here, and serves on the
// devices from then on.
func (b *builder) mountDevices(devs []*device, ready int) {
	for _, d := range devs {
		if d != nil {
			b.mountDevice(d)
		}
	}
	b.mountFuse()
	if b.holds {
		b.mntNS = b.openNamespace("mnt")
		b.userNS = b.openNamespace("user")
	}
	if b.helper {
		for _, d := range slices.Concat(devs, b.fuse) {
			if d != nil {
				b.s.Call("close the FUSE device", unix.SYS_CLOSE, script.Int(d.fd))
			}
		}
		b.s.Call("report the FUSE file system", unix.SYS_WRITE, script.Int(ready), b.s.Bytes([]byte{1}), script.Int(1))
		return
	}
	// The parent must not get descriptors of this mount namespace, and this
	// process must not keep the devices: with one a dead server would hang
	// every path walk instead of ending it.
	b.s.Call("separate the descriptors", unix.SYS_UNSHARE, script.Int(unix.CLONE_FILES))
	for _, d := range devs {
		if d != nil {
			b.s.Call("close the FUSE device", unix.SYS_CLOSE, script.Int(d.fd))
		}
	}
	for i, d := range b.fuse {
		if b.p.Fuse[i].Host {
			b.s.Call("close the FUSE device", unix.SYS_CLOSE, script.Int(d.fd))
		}
	}
	b.sent = b.s.Send("report the FUSE file system", ready)
}

// mountDevice opens /dev/fuse inside the user namespace, as the kernel wants,
// and makes a file system.
func (b *builder) mountDevice(d *device) {
	s := b.s
	if !b.helper {
		b.openFuseDevice(d)
	}
	d.fsopen = s.Call("make a FUSE file system", unix.SYS_FSOPEN, s.Str("fuse"), script.Int(unix.FSOPEN_CLOEXEC))
	ids := &b.p.IDs
	for _, o := range fusefs.MountOptions(ids.InsideUID, ids.InsideGID, ids.Mode != plan.SingleID && !b.helper) {
		b.config(d.fsopen, o.Key, o.Value)
	}
	b.config(d.fsopen, "fd", itoa(d.fd))
	s.Call("create the FUSE file system", unix.SYS_FSCONFIG, d.fsopen.Arg(), script.Int(unix.FSCONFIG_CMD_CREATE), script.Int(0), script.Int(0), script.Int(0))
	d.mount = s.Call("mount the FUSE file system", unix.SYS_FSMOUNT, d.fsopen.Arg(), script.Int(unix.FSMOUNT_CLOEXEC),
		script.Uint(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|b.nosuid()))
}

func (b *builder) openFuseDevice(d *device) {
	s := b.s
	dev := s.Call("open /dev/fuse", unix.SYS_OPENAT, atCwd, s.Str("/dev/fuse"), script.Int(unix.O_RDWR|unix.O_CLOEXEC))
	s.Call("name the FUSE device", unix.SYS_DUP3, dev.Arg(), script.Int(d.fd), script.Int(unix.O_CLOEXEC))
	s.Call("close /dev/fuse", unix.SYS_CLOSE, dev.Arg())
}

func (b *builder) openNamespace(kind string) script.Slot {
	return b.s.Call("open the namespace of kind "+kind, unix.SYS_OPENAT, atCwd, b.s.Str("/proc/self/ns/"+kind), script.Int(unix.O_RDONLY|unix.O_CLOEXEC))
}

func (b *builder) config(fs script.Slot, key, value string) script.Slot {
	cmd, v := unix.FSCONFIG_SET_STRING, script.Int(0)
	if value == "" {
		cmd = unix.FSCONFIG_SET_FLAG
	} else {
		v = b.s.Str(value)
	}
	return b.s.Call("set the mount option "+key, unix.SYS_FSCONFIG, fs.Arg(), script.Int(cmd), b.s.Str(key), v, script.Int(0))
}

// extra is a generated file that is bound over the root.
type extra struct {
	tree script.Slot
	path string
}

// makeRoot adds the root, attached to b.attach, and returns the generated files
// that must still be bound into it.
func (b *builder) makeRoot(overlay bool, devs []*device) ([]extra, error) {
	r := &b.p.Root
	if len(b.p.Layers) > 0 || r.Kind == plan.ProgramRoot {
		return b.layeredRoot()
	}
	switch r.Kind {
	case plan.ServedRoot:
		if b.hold != nil {
			b.heldRoot()
			return nil, nil
		}
		if b.kernel() {
			return b.kernelRoot(overlay), nil
		}
		if len(devs) == 0 || devs[0] == nil {
			return nil, errors.New("no image to serve")
		}
		b.root = devs[0].mount
		b.attachMount(b.root, "attach the image")
		return nil, nil
	case plan.DirRoot:
		dir := b.dirs[0]
		overlay = overlay && !r.Writable
		var made []extra
		if overlay || b.hasContent() {
			made = b.layer(overlay)
		}
		if overlay {
			b.s.Call("enter the sandbox", unix.SYS_FCHDIR, dir.Arg())
			b.overlay(".")
			made = nil
		} else {
			b.root = b.s.Call("clone the mount of "+strconv.Quote(r.Path), unix.SYS_OPEN_TREE, dir.Arg(), b.s.Str(""),
				script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|b.below()))
			attr := unix.MOUNT_ATTR_NODEV | b.nosuid()
			if !r.Writable {
				attr |= unix.MOUNT_ATTR_RDONLY
			}
			b.setattr(b.root, attr, b.below(), "restrict the root")
		}
		b.attachMount(b.root, "attach the root")
		if r.Writable {
			b.makePoints()
		}
		return made, nil
	}
	return nil, errors.New("unknown kind of root")
}

// below is AT_RECURSIVE where the setuid helper makes the container: it shows
// nobody what lies below the mounts of the host. In a user namespace the kernel
// sees to that.
func (b *builder) below() int {
	if b.helper {
		return unix.AT_RECURSIVE
	}
	return 0
}

func (b *builder) attachMount(t script.Slot, label string) {
	b.s.Call(label, unix.SYS_MOVE_MOUNT, t.Arg(), b.s.Str(""), atCwd, b.s.Str(b.attach), script.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// openDirs opens the sandbox and the layers that are directories, before
// anything can cover them.
func (b *builder) openDirs() {
	b.dirs = make([]script.Slot, 1+len(b.p.Layers))
	if r := &b.p.Root; r.Kind == plan.DirRoot {
		b.dirs[0] = b.openDir("sandbox", r.Path, r.Dev, r.Ino)
	}
	for i := range b.p.Layers {
		if l := &b.p.Layers[i]; l.Kind == plan.DirLayer {
			b.dirs[1+i] = b.openDir("overlay", l.Path, l.Dev, l.Ino)
		}
	}
}

// openDir opens a directory again, in the new mount namespace, and makes sure
// that it is the one that was looked at before.
func (b *builder) openDir(what, path string, dev, ino uint64) script.Slot {
	dir := b.s.Call("open the "+what+" "+strconv.Quote(path), unix.SYS_OPENAT, atCwd, b.s.Str(path), script.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
	st := make([]uint64, 32) // struct stat, at most 144 bytes: device, inode, ...
	b.s.Call("look at the "+what, unix.SYS_FSTAT, dir.Arg(), b.s.Words(st))
	b.s.Equal("find the same "+what+" again", st, 0, 1, dev, ino)
	return dir
}

// makePoints makes the directories that a writable sandbox lacks, in the sandbox
// itself.
//
// Security: mkdir follows links on the way, so the sandbox is made the root
// while the paths are walked.
func (b *builder) makePoints() {
	s := b.s
	old := s.Call("open the old root", unix.SYS_OPENAT, atCwd, s.Str("/"), script.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
	s.Call("enter the sandbox", unix.SYS_FCHDIR, b.root.Arg())
	s.Call("change the root to the sandbox", unix.SYS_CHROOT, s.Str("."))
	for i := range b.p.Files {
		f := &b.p.Files[i]
		if !f.Dir || f.Load != nil {
			continue
		}
		for k := 1; k <= len(f.Path); k++ {
			if k == len(f.Path) || f.Path[k] == '/' {
				s.Optional(s.Call("create "+f.Path, unix.SYS_MKDIRAT, atCwd, s.Str(f.Path[:k]), script.Int(0o755)))
			}
		}
	}
	s.Call("enter the old root", unix.SYS_FCHDIR, old.Arg())
	s.Call("change the root back", unix.SYS_CHROOT, s.Str("."))
}

func (b *builder) hasContent() bool {
	for i := range b.p.Files {
		if b.p.Files[i].Load != nil {
			return true
		}
	}
	return false
}

// layer makes a tmpfs with the generated files: with their whole paths and the
// mount points if it shall be a layer of an overlay, else side by side, each
// returned as a detached mount.
func (b *builder) layer(paths bool) []extra {
	s := b.s
	t := b.tmpfs("0755", 1<<20, "a tmpfs for generated files")
	b.points = t
	if !paths || len(b.p.Layers) == 0 {
		b.attachMount(t, "attach the tmpfs")
	}
	var made []extra
	dirs := map[string]bool{}
	for i := range b.p.Files {
		f := &b.p.Files[i]
		content := b.content(f)
		if content == nil && (f.Load != nil || !paths) {
			continue
		}
		name := strings.Trim(f.Path, "/")
		if !paths {
			name = itoa(i)
		}
		b.parents(t, name, dirs)
		if f.Dir {
			b.mkdir(t, name, dirs)
			continue
		}
		fd := s.Call("create "+f.Path, unix.SYS_OPENAT, t.Arg(), s.Str(name), script.Int(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC), script.Int(int(f.Perm)))
		if len(content) > 0 {
			s.Want(s.Call("write "+f.Path, unix.SYS_WRITE, fd.Arg(), s.Bytes(content), script.Int(len(content))), len(content))
		}
		s.Call("close "+f.Path, unix.SYS_CLOSE, fd.Arg())
		if !paths {
			tree := s.Call("open "+f.Path, unix.SYS_OPEN_TREE, t.Arg(), s.Str(name), script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
			made = append(made, extra{tree, f.Path})
		}
	}
	return made
}

// content is what a generated file holds; nil leaves the image's own.
func (b *builder) content(f *plan.File) []byte {
	if f.Load == nil {
		return nil
	}
	var old []byte
	if b.img != nil {
		old, _ = b.img.ReadFile(f.Path, plan.MaxUserFile)
	}
	c, err := f.Load(old)
	if err != nil {
		warn(b.h, err.Error())
		return nil
	}
	return c
}

func (b *builder) parents(t script.Slot, name string, dirs map[string]bool) {
	for i := range len(name) {
		if name[i] == '/' {
			b.mkdir(t, name[:i], dirs)
		}
	}
}

func (b *builder) mkdir(t script.Slot, name string, dirs map[string]bool) {
	if name == "" || dirs[name] {
		return
	}
	dirs[name] = true
	b.s.Call("create /"+name, unix.SYS_MKDIRAT, t.Arg(), b.s.Str(name), script.Int(0o755))
}

// overlay puts the tmpfs, which lies on b.attach, above the directory lower.
// Neither is written to: there is no upper layer.
func (b *builder) overlay(lower string) {
	s := b.s
	fs := s.Call(overlayLabel, unix.SYS_FSOPEN, s.Str("overlay"), script.Int(unix.FSOPEN_CLOEXEC))
	s.Call(overlayLabel, unix.SYS_FSCONFIG, fs.Arg(), script.Int(unix.FSCONFIG_SET_STRING), s.Str("lowerdir"), s.Str(b.attach+":"+lower), script.Int(0))
	if b.helper {
		b.overlayOption(fs, overlayLabel)
	}
	s.Call(overlayLabel, unix.SYS_FSCONFIG, fs.Arg(), script.Int(unix.FSCONFIG_CMD_CREATE), script.Int(0), script.Int(0), script.Int(0))
	b.root = s.Call(overlayLabel, unix.SYS_FSMOUNT, fs.Arg(), script.Int(unix.FSMOUNT_CLOEXEC),
		script.Uint(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|b.nosuid()))
}
