package priv

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/script"
)

// A KernelError says why the kernel does not mount an image; our own server may.
type KernelError struct{ Cause string }

func (e *KernelError) Error() string { return "the kernel does not mount the image: " + e.Cause }

// Tries to get a loop device that somebody else takes meanwhile.
const loopTries = 64

// squashfsMagic is how a squashfs begins.
const squashfsMagic = "hsqs"

// mountKernel has the kernel mount the squashfs in an image.
//
// Security (SC-059, SC-060, R11): a file system driver of the kernel must not read
// bytes that an unprivileged user can write, now or later. So the image and all
// that leads to it must be root's alone, on a file system of this host that the
// kernel itself keeps.
func (h *helper) mountKernel(k *Kernel, c *checker) error {
	switch {
	case !h.conf.AllowKernelSquashfs:
		return &KernelError{"singularity.conf says: allow kernel squashfs = no"}
	case k.Mount <= socketFD || k.Mount >= maxNumber || c.numbers[k.Mount]:
		return errRequest
	}
	f, err := h.rootsOwn(k.FD)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := stat(f)
	if err != nil {
		return err
	}
	size := uint64(st.Size)
	if k.Size == 0 || k.Off%512 != 0 || k.Off > size || k.Size > size-k.Off {
		return errRequest
	}
	magic := make([]byte, len(squashfsMagic))
	if _, err := f.ReadAt(magic, int64(k.Off)); err != nil || string(magic) != squashfsMagic {
		return &KernelError{"it is no squashfs"}
	}
	var loop *os.File
	if h.conf.SharedLoopDevices {
		loop = h.sharedLoop(f, k)
	}
	shared := loop != nil
	if !shared {
		if loop, err = h.loop(f, k); err != nil {
			return err
		}
	}
	defer loop.Close()
	fd, err := mountBlock(loop.Name())
	if err != nil {
		return err
	}
	if h.conf.SharedLoopDevices && !shared {
		h.linger(fd)
	}
	h.fds[k.Mount] = fd
	c.numbers[k.Mount], c.kernel = true, k.Mount
	return nil
}

// rootsOwn opens the image of the request again, by a path that root alone can
// change.
func (h *helper) rootsOwn(number int) (*os.File, error) {
	mine, err := h.file(number)
	if err != nil {
		return nil, err
	}
	defer mine.Close()
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(mine.Fd())))
	if err != nil {
		return nil, err
	}
	f, err := conf.OpenOwned(path)
	if err != nil {
		return nil, &KernelError{err.Error()}
	}
	a, err := stat(mine)
	b, err2 := stat(f)
	var fs unix.Statfs_t
	if err := errors.Join(err, err2, unix.Fstatfs(int(f.Fd()), &fs)); err != nil {
		f.Close()
		return nil, err
	}
	if a.Dev != b.Dev || a.Ino != b.Ino {
		f.Close()
		return nil, &KernelError{"it is not what lies at " + path}
	}
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1:
		return f, nil
	}
	f.Close()
	return nil, &KernelError{"its file system is none that this host alone keeps"}
}

// loop makes a read-only loop device of a part of f. It ends with its last user.
func (h *helper) loop(f *os.File, k *Kernel) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, &KernelError{err.Error()}
	}
	defer control.Close()
	config := &unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Offset: k.Off, Sizelimit: k.Size, Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, &KernelError{"no loop device is free: " + err.Error()}
		}
		if int64(n) >= h.conf.MaxLoopDevices {
			return nil, &KernelError{"all loop devices are in use (singularity.conf: max loop devices)"}
		}
		dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDONLY, 0)
		if err != nil {
			return nil, &KernelError{err.Error()}
		}
		switch err = unix.IoctlLoopConfigure(int(dev.Fd()), config); err {
		case nil:
			if err = sameLoop(dev, f, k); err == nil {
				return dev, nil
			}
		case unix.EBUSY:
			dev.Close()
			continue
		}
		dev.Close()
		return nil, &KernelError{"cannot configure " + dev.Name() + ": " + err.Error()}
	}
	return nil, &KernelError{"every free loop device was taken by others"}
}

// sharedLoop finds a loop device that another start made of the same part of the
// same file. The kernel then has one file system of it, and keeps what it has read.
func (h *helper) sharedLoop(f *os.File, k *Kernel) *os.File {
	for n := range min(h.conf.MaxLoopDevices, 256) {
		dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(int(n)), os.O_RDONLY, 0)
		if err != nil {
			return nil
		}
		if sameLoop(dev, f, k) == nil {
			return dev // open, so it is not cleared now
		}
		dev.Close()
	}
	return nil
}

// lingerTime is how long a mount that others may share is kept without any use.
const lingerTime = 5 // seconds

// linger leaves a process that holds a mount for a while. It has no other
// descriptor, no privilege, and ends by itself.
func (h *helper) linger(mount int) {
	p := &script.Script{}
	p.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(0), script.Int(mount-1), script.Int(0))
	p.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(mount+1), script.Uint(1<<32-1), script.Int(0))
	uid := script.Int(h.uid)
	p.Call("become the caller", unix.SYS_SETRESUID, uid, uid, uid)
	prctl(p, unix.PR_SET_DUMPABLE, 0)
	setCaps(p, 0, 0, 0)
	p.Call("begin a session", unix.SYS_SETSID)
	p.Call("wait", unix.SYS_NANOSLEEP, p.Words([]uint64{lingerTime, 0}), script.Int(0))
	p.Call("end", unix.SYS_EXIT_GROUP, script.Int(0))
	p.Fork(0, mount) // without it the next start is slower
}

// sameLoop reads back what a loop device shows.
func sameLoop(dev, f *os.File, k *Kernel) error {
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil {
		return err
	}
	st, err := stat(f)
	if err != nil {
		return err
	}
	const want = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	if info.Inode != st.Ino || info.Device != st.Dev || info.Offset != k.Off || info.Sizelimit != k.Size || info.Flags&want != want {
		return errors.New("it is not as it was configured")
	}
	return nil
}

// mountBlock makes a detached mount of the squashfs on a block device.
func mountBlock(device string) (int, error) {
	fs, err := unix.Fsopen("squashfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, &KernelError{err.Error()}
	}
	defer unix.Close(fs)
	err = unix.FsconfigSetString(fs, "source", device)
	if err == nil {
		err = unix.FsconfigSetFlag(fs, "ro")
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return -1, &KernelError{err.Error()}
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return -1, &KernelError{err.Error()}
	}
	return fd, nil
}
