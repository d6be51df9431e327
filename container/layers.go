package container

import (
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/linux/script"
	"singularity/plan"
)

// layersLabel marks the steps whose failure means that the kernel makes no
// overlay of these layers.
const layersLabel = "mount the overlay"

// NoLayers tells whether err says that the kernel makes no overlay of the
// layers of a plan.
func NoLayers(err error) bool {
	se := new(script.Error)
	return errors.As(err, &se) && se.Label == layersLabel
}

// wires are the descriptors over which child and parent speak before the
// program starts: ready, staged and inNet the child's to write, the others to read.
type wires struct{ ready, staged, proceed, inNet, attached int }

// stage is a file system in memory on b.attach. The parts of the root and the
// images that mounts come from are attached to its directories, so that they
// have names: the number of an image; d and the number of a layer that is a
// directory; and those below.
type stage struct {
	fd          script.Slot
	at          string   // its place while the programs start
	lower       []string // top first
	upper, work string
}

const (
	stageRoot   = "r" // the sandbox
	stagePoints = "p" // what the sandbox lacks, in memory
	stageMemory = "t" // the writable layer in memory
	stageMerged = "m" // where fuse-overlayfs mounts
)

// openDevices reserves a device for each image that our server serves. It is
// nil if none is.
func (b *builder) openDevices(images []*Served, ready int) ([]*device, error) {
	b.images = images
	devs := make([]*device, len(images))
	served := false
	for i, img := range images {
		if img.Writable || i == 0 && b.kernel() {
			continue
		}
		var err error
		if devs[i], err = b.openDevice(ready); err != nil {
			return devs, err
		}
		served = true
	}
	if !served {
		return nil, nil
	}
	return devs, nil
}

// needsStage tells whether something must be put together.
func needsStage(p *plan.Plan) bool {
	for i := range p.Mounts {
		if p.Mounts[i].Kind == plan.ImageBind {
			return true
		}
	}
	return len(p.Layers) > 0 || p.Root.Kind == plan.ProgramRoot
}

// makeStage attaches the parts, has the parent start the programs that write to
// images, and fills in the sources of the mounts that come from images. All
// other sources must be open already.
func (b *builder) makeStage(devs []*device, sources []script.Slot, w wires) {
	if !needsStage(b.p) {
		return
	}
	s := b.s
	layered := len(b.p.Layers) > 0
	// The permissions are those that are said here.
	old := s.Call("clear the umask", unix.SYS_UMASK, script.Int(0))
	if layered && b.p.Root.Kind == plan.DirRoot {
		b.layer(true)
	}
	b.stage = &stage{fd: b.tmpfs("0755", 1<<20, "the file system of the layers"), at: b.attach}
	b.attachMount(b.stage.fd, "attach the file system of the layers")
	b.stageLayers()
	if layered && b.p.Root.Kind == plan.DirRoot {
		b.stageMove(b.points, stagePoints)
		b.stageMove(b.cloneHostDir(b.dirs[0], b.p.Root.Path, 0), stageRoot)
		b.stage.lower = append(b.stage.lower, stagePoints, stageRoot)
	}
	for i := range b.images {
		if i == 0 && b.p.Root.Kind == plan.ServedRoot {
			if layered {
				root := b.kernelMount()
				if !b.kernel() {
					root = devs[i].mount
				}
				b.stageMove(root, "0")
				b.stage.lower = append(b.stage.lower, "0")
			}
			continue
		}
		if b.images[i].Writable {
			b.stageDir(itoa(i))
			continue
		}
		if b.images[i].Layer {
			b.setattr(devs[i].mount, unix.MOUNT_ATTR_NOSYMFOLLOW, 0, "restrict an image")
		}
		b.stageMove(devs[i].mount, itoa(i))
	}
	if b.p.Programs() {
		b.stageDir(stageMerged)
		b.awaitPrograms(w)
	}
	for i := range b.p.Mounts {
		if m := &b.p.Mounts[i]; m.Kind == plan.ImageBind {
			sources[i] = b.imageSource(m)
		}
	}
	s.Call("restore the umask", unix.SYS_UMASK, old.Arg())
}

// stageLayers attaches the layers that are directories or in memory, and notes
// the order of all.
//
// Security: the kernel walks to the directories upper and work itself. Where
// somebody else could have put a link in their place, in a directory or an
// image, the mount follows none.
func (b *builder) stageLayers() {
	for i := range b.p.Layers {
		l := &b.p.Layers[i]
		name := itoa(l.Image)
		switch l.Kind {
		case plan.DirLayer:
			name = "d" + itoa(i)
			b.stageMove(b.cloneHostDir(b.dirs[1+i], l.Path, unix.MOUNT_ATTR_NOSYMFOLLOW), name)
		case plan.TmpfsLayer:
			name = stageMemory
			t := b.tmpfs("0755", l.Size, "the writable layer")
			b.setattr(t, unix.MOUNT_ATTR_NOSYMFOLLOW|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, 0, "restrict the writable layer")
			b.stageMove(t, name)
			b.stageDir(name + "/upper")
			b.stageDir(name + "/work")
		}
		switch {
		case l.Writable:
			b.stage.upper, b.stage.work = name+"/upper", name+"/work"
		case l.Sub != "":
			b.stage.lower = append(b.stage.lower, name+"/"+l.Sub)
		default:
			b.stage.lower = append(b.stage.lower, name)
		}
	}
}

func (b *builder) stageDir(name string) {
	b.s.Call("create /"+name, unix.SYS_MKDIRAT, b.stage.fd.Arg(), b.s.Str(name), script.Int(0o755))
}

// stageMove attaches a mount to a new directory of the stage.
func (b *builder) stageMove(mount script.Slot, name string) {
	b.stageDir(name)
	b.s.Call("attach /"+name, unix.SYS_MOVE_MOUNT, mount.Arg(), b.s.Str(""), b.stage.fd.Arg(), b.s.Str(name), script.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// cloneDir makes a mount of the directory dir alone, without what is mounted in
// it.
func (b *builder) cloneDir(dir script.Slot, path string, attr uint64) script.Slot {
	return b.cloneAt(dir, path, attr, 0)
}

// cloneHostDir is cloneDir for a directory of the host.
func (b *builder) cloneHostDir(dir script.Slot, path string, attr uint64) script.Slot {
	return b.cloneAt(dir, path, attr, b.below())
}

func (b *builder) cloneAt(dir script.Slot, path string, attr uint64, below int) script.Slot {
	t := b.s.Call("clone the mount of "+path, unix.SYS_OPEN_TREE, dir.Arg(), b.s.Str(""), script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|below))
	b.setattr(t, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|attr, below, "restrict the mount of "+path)
	return t
}

// overlayOption has an overlay keep its notes in attributes that any user may set:
// trusted ones are root's alone.
func (b *builder) overlayOption(fs script.Slot, label string) {
	b.s.Call(label, unix.SYS_FSCONFIG, fs.Arg(), script.Int(unix.FSCONFIG_SET_FLAG), b.s.Str("userxattr"), script.Int(0), script.Int(0))
}

// awaitPrograms lets the parent start the programs that write to images, in
// these namespaces, and waits until they have mounted.
func (b *builder) awaitPrograms(w wires) {
	s := b.s
	// This process holds both ends of the pipe, so it would wait for ever for a
	// parent that is gone.
	s.Call("set the parent-death signal", unix.SYS_PRCTL, script.Int(unix.PR_SET_PDEATHSIG), script.Int(int(syscall.SIGKILL)))
	b.seeParent()
	s.Call("report the layers", unix.SYS_WRITE, script.Int(w.staged), s.Bytes([]byte{1}), script.Int(1))
	s.Want(s.Call("wait for the programs that serve images", unix.SYS_READ, script.Int(w.proceed), s.Bytes(make([]byte, 1)), script.Int(1)), 1)
	// A program looks at its mount point by name once more after it has mounted,
	// and then answers, so nothing may move before it has.
	served := []string{}
	for i := range b.images {
		if b.images[i].Writable {
			served = append(served, itoa(i))
		}
	}
	if u := b.p.Upper(); u != nil && u.Kind == plan.ProgramLayer {
		served = append(served, stageMerged)
	}
	for _, name := range served {
		at := b.stage.at + "/" + name
		s.Call("reach the program that serves an image", unix.SYS_STATFS, s.Str(at), s.Words(make([]uint64, 32)))
	}
	b.leavePrograms()
}

// leavePrograms leaves the mount namespace to the programs, and goes on in a
// copy. Theirs gets the stage as its root, with /proc, which fuse-overlayfs needs,
// and the system's libraries, of which the C library loads one only when it ends
// a thread: so they never walk a path into what they serve themselves, as they
// would if the container's root became theirs, and a program in the container
// that may look at them finds nothing of a user of the host.
func (b *builder) leavePrograms() {
	s := b.s
	proc := s.Call("clone the procfs", unix.SYS_OPEN_TREE, atCwd, s.Str("/proc"), script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
	b.stageMove(proc, "proc")
	for _, d := range []string{"usr", "lib", "lib64"} {
		t := s.Call("clone /"+d, unix.SYS_OPEN_TREE, atCwd, s.Str("/"+d), script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
		s.SkipFail(t, 2)
		b.stageMove(t, d)
	}
	b.stageDir("a")
	s.Call("enter the layers", unix.SYS_FCHDIR, b.stage.fd.Arg())
	dot := s.Str(".")
	s.Call("pivot to the layers", unix.SYS_PIVOT_ROOT, dot, dot)
	s.Call("drop the old root", unix.SYS_UMOUNT2, dot, script.Int(unix.MNT_DETACH))
	s.Call("create a second mount namespace", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWNS))
	b.stage.fd = s.Call("open the layers", unix.SYS_OPENAT, atCwd, s.Str("/"), script.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
	b.attach = "/a"
}

// imageSource makes a mount of a path in an image.
func (b *builder) imageSource(m *plan.Mount) script.Slot {
	s := b.s
	root := s.Call("open the image", unix.SYS_OPENAT, b.stage.fd.Arg(), s.Str(itoa(m.Image)), script.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
	how := []uint64{unix.O_PATH | unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	d := s.Call("find "+m.Source+" in the image", unix.SYS_OPENAT2, root.Arg(), s.Str("."+m.Source), s.Words(how), script.Int(openHowSize))
	attr := uint64(0)
	if m.ReadOnly {
		attr = unix.MOUNT_ATTR_RDONLY
	}
	return b.cloneDir(d, m.Source, attr)
}

// layeredRoot makes the root of the parts on the stage, and returns the
// generated files that must still be bound into it.
func (b *builder) layeredRoot() ([]extra, error) {
	s := b.s
	u := b.p.Upper()
	switch {
	case b.p.Root.Kind == plan.ProgramRoot:
		b.root = b.stageClone("0")
	case u != nil && u.Kind == plan.ProgramLayer:
		b.root = b.stageClone(stageMerged)
	default:
		b.mountOverlay()
	}
	b.attachMount(b.root, "attach the root")
	if b.p.Root.Writable || u != nil && u.Kind != plan.TmpfsLayer {
		b.makePoints()
	}
	if b.p.Root.Kind == plan.ProgramRoot && b.hasContent() {
		old := s.Call("clear the umask", unix.SYS_UMASK, script.Int(0))
		made := b.layer(false)
		s.Call("restore the umask", unix.SYS_UMASK, old.Arg())
		return made, nil
	}
	return nil, nil
}

func (b *builder) stageClone(name string) script.Slot {
	t := b.s.Call("clone the root", unix.SYS_OPEN_TREE, b.stage.fd.Arg(), b.s.Str(name), script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
	b.setattr(t, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, 0, "restrict the root")
	return t
}

// mountOverlay has the kernel put the layers together.
func (b *builder) mountOverlay() {
	s := b.s
	s.Call("enter the layers", unix.SYS_FCHDIR, b.stage.fd.Arg())
	fs := s.Call(layersLabel, unix.SYS_FSOPEN, s.Str("overlay"), script.Int(unix.FSOPEN_CLOEXEC))
	set := func(key, value string) {
		s.Call(layersLabel, unix.SYS_FSCONFIG, fs.Arg(), script.Int(unix.FSCONFIG_SET_STRING), s.Str(key), s.Str(value), script.Int(0))
	}
	set("lowerdir", strings.Join(b.stage.lower, ":"))
	attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if b.stage.upper != "" {
		set("upperdir", b.stage.upper)
		set("workdir", b.stage.work)
	} else {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if b.p.IDs.Mode != plan.HostIDs || b.helper {
		b.overlayOption(fs, layersLabel)
	}
	s.Call(layersLabel, unix.SYS_FSCONFIG, fs.Arg(), script.Int(unix.FSCONFIG_CMD_CREATE), script.Int(0), script.Int(0), script.Int(0))
	b.root = s.Call(layersLabel, unix.SYS_FSMOUNT, fs.Arg(), script.Int(unix.FSMOUNT_CLOEXEC), script.Int(attr))
}
