package priv

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"singularity/conf"
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
	loop, err := h.loop(f, k)
	if err != nil {
		return err
	}
	defer loop.Close()
	fd, err := mountBlock(loop.Name())
	if err != nil {
		return err
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
	if info.Inode != st.Ino || info.Offset != k.Off || info.Sizelimit != k.Size || info.Flags&want != want {
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
