package priv

import (
	"cmp"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/script"
)

// noKernel is the answer that the kernel does not mount an image; our own server may.
func noKernel(cause string) error {
	return &Answer{NoKernel: true, Refusal: "the kernel does not mount the image: " + cause}
}

// Tries to get a loop device that somebody else takes meanwhile.
const loopTries = 64

// mountKernel has the kernel mount the file system in an image.
//
// Security (SC-059, SC-060, R11): a file system driver of the kernel must not read
// bytes that an unprivileged user can write, now or later. So the image and all
// that leads to it must be root's alone, on a file system of this host that the
// kernel itself keeps. Or what the kernel reads is held against a hash tree, at
// every read, that a key of the site's ring signed.
func (h *helper) mountKernel(s *Start, f *os.File, c *checker) error {
	k, format := s.Kernel, s.Images[0].Format
	st, err := stat(f)
	switch {
	case err != nil:
		return err
	case k.FS != Ext3FS && !h.conf.AllowKernelSquashfs:
		return noKernel("singularity.conf says: allow kernel squashfs = no")
	case k.FS == Ext3FS && !h.conf.AllowKernelExtfs:
		return noKernel("singularity.conf says: allow kernel extfs = no")
	case k.Mount <= socketFD || k.Mount >= maxNumber || h.fds[k.Mount] != 0 || !k.fits(format, st):
		return errRequest
	case k.FS == CryptFS:
		if err := h.readKey(k.Key); err != nil {
			return err
		}
		defer func() {
			clear(h.key)
			h.key = nil
		}()
	}
	f, refused := rootsOwn(f, st)
	defer f.Close()
	var mapper *os.File
	v, needed := new(Verdict), h.conf.RequireIntegrity || k.Tree
	judged := h.conf.RequireIntegrity || c.listed || k.FS != SquashfsFS && sif(format)
	if judged || k.Tree || refused != nil {
		mapper = openMapper("verity")
		defer mapper.Close()
	}
	if judged || mapper != nil {
		// All of it is read if what is read later is not checked.
		v, err = h.verify(f, unless(mapper != nil, "full"), unless(!c.listed, "list"))
		if err != nil && c.strict {
			return err
		}
		if err == nil && (k.FS != v.FS || k.Off != v.Off || k.Size != v.Size) {
			err = errPlace
		}
	}
	over := err == nil && v.Tree != nil && mapper != nil && kept(f, refused == nil)
	switch {
	case err != nil:
	case refused == nil && v.Size == 0 && format == conf.FormatSIF && !k.placed(f):
		err = errPlace
	case over || refused == nil && !needed:
		err = h.mountImage(f, k, c, mapper, v, over)
	case refused != nil:
		err = refused
	case mapper == nil:
		err = errors.New("the kernel has no dm-verity")
	default:
		err = errors.New("no key of the site's ring signed it with a hash tree: " + v.Text)
	}
	if err != nil {
		return noKernel(err.Error())
	}
	return nil
}

// fits tells whether an image of that format can hold such a partition. What is no SIF
// is one file system, from its first byte on; what has no name could have any.
func (k *Kernel) fits(format string, st *syscall.Stat_t) bool {
	size := uint64(st.Size)
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink == 0 || k.Size == 0 || k.Off%512 != 0 || k.Off > size || k.Size > size-k.Off {
		return false
	}
	switch k.FS {
	case SquashfsFS:
		return format == conf.FormatSIF || format == conf.FormatSquashfs && k.Off == 0
	case Ext3FS:
		return format == conf.FormatSIF || format == conf.FormatExtfs && k.Off == 0 && k.Size == size
	case CryptFS:
		return format == conf.FormatEncrypted
	}
	return false
}

var errPlace = errors.New("it is not the root partition of the image")

// Sizes and places in a SIF of version 01, as package sif has them.
const (
	sifHeader, sifTotal, sifTable = 128, 88, 96
	sifDescriptor, sifMost        = 585, 1 << 12
	sifPartition                  = 0x4004
	sifSquashfs, sifPrimary       = 1, 2
)

// placed tells whether the table of a SIF, which root wrote, has a root partition
// at this place. Elsewhere in an image of root's could be what a user made: the
// content of a file.
func (k *Kernel) placed(f *os.File) bool {
	var head [sifHeader]byte // what cannot be read is zero, and fits nowhere
	f.ReadAt(head[:], 0)
	le := binary.LittleEndian
	off := le.Uint64(head[sifTable:])
	for n := range min(le.Uint64(head[sifTotal:]), sifMost) {
		var d [sifDescriptor]byte
		f.ReadAt(d[:], int64(off+n*sifDescriptor))
		if le.Uint32(d[:]) == sifPartition && d[4] == 1 && le.Uint64(d[17:]) == k.Off && le.Uint64(d[25:]) == k.Size && le.Uint32(d[201:]) == sifSquashfs && le.Uint32(d[205:]) == sifPrimary {
			return true
		}
	}
	return false
}

// mountImage makes the mount, over dm-verity and dm-crypt or not, and gives it its
// number.
func (h *helper) mountImage(f *os.File, k *Kernel, c *checker, mapper *os.File, v *Verdict, over bool) error {
	var dev *os.File
	var err error
	share := h.conf.SharedLoopDevices && k.FS != CryptFS && !over
	if over {
		dev, err = h.verity(mapper, f, v)
	} else if share {
		dev = h.sharedLoop(f, k)
	}
	made := dev == nil && err == nil
	if made {
		dev, err = h.loop(f, k.Off, k.Size)
	}
	if err == nil && k.FS == CryptFS {
		lower := dev
		defer lower.Close()
		dev, err = h.crypt(lower, v.Crypt)
	}
	if err != nil {
		return err
	}
	defer dev.Close()
	fd, err := mountBlock(k.FS, dev.Name())
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if share && made {
		h.linger(fd)
	}
	c.kernel = k.Mount
	h.fds[k.Mount], err = h.keep(fd)
	return err
}

// rootsOwn opens an image again, by a path that root alone can change. If it cannot, it
// says why, and returns the file as it was.
func rootsOwn(mine *os.File, st *syscall.Stat_t) (*os.File, error) {
	at, atErr := conf.FileOf(mine)
	f, err := conf.OpenOwned(at.Path)
	if err = cmp.Or(atErr, err); err != nil {
		return mine, err
	}
	if found, err := stat(f); err != nil || st.Dev != found.Dev || st.Ino != found.Ino || !kept(f, true) {
		f.Close()
		return mine, errors.New("it is not what lies at " + at.Path + ", or on no file system that this host alone keeps")
	}
	return f, nil
}

// kept tells whether a file is on a file system that the kernel keeps, of this
// host alone or, where every byte is checked, of others that the caller does not
// serve: one that does could let the kernel wait.
func kept(f *os.File, alone bool) bool {
	var fs unix.Statfs_t
	const lustre, gpfs = 0x0bd00bd0, 0x47504653 // not in the kernel's own tree
	here := []uint32{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1}
	shared := []uint32{unix.NFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC, lustre, gpfs}
	return unix.Fstatfs(int(f.Fd()), &fs) == nil && (slices.Contains(here, uint32(fs.Type)) || !alone && slices.Contains(shared, uint32(fs.Type)))
}

// loop makes a read-only loop device of a part of f. It ends with its last user.
func (h *helper) loop(f *os.File, off, size uint64) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := &unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Offset: off, Sizelimit: size, Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil || int64(n) >= h.conf.MaxLoopDevices {
			return nil, errors.New("all loop devices are in use (singularity.conf: max loop devices)")
		}
		dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		if err = unix.IoctlLoopConfigure(int(dev.Fd()), config); err == nil {
			err = sameLoop(dev, f, off, size)
		}
		if err == nil {
			return dev, nil
		}
		if dev.Close(); err != unix.EBUSY {
			return nil, errors.New("cannot configure " + dev.Name() + ": " + err.Error())
		}
	}
	return nil, errors.New("every free loop device was taken by others")
}

// sharedLoop finds a loop device that another start made of the same part of the
// same file. The kernel then has one file system of it, and keeps what it has read.
func (h *helper) sharedLoop(f *os.File, k *Kernel) *os.File {
	for n := range min(h.conf.MaxLoopDevices, 256) {
		dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(int(n)), os.O_RDONLY, 0)
		if err != nil {
			return nil
		}
		if sameLoop(dev, f, k.Off, k.Size) == nil {
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
	number(p, 0, map[int]int{mount: mount})
	h.take(p, h.uid)
	setCaps(p, 0, 0, 0)
	p.Call("begin a session", unix.SYS_SETSID)
	p.Call("wait", unix.SYS_NANOSLEEP, p.Words([]uint64{lingerTime, 0}), script.Int(0))
	script.Fork(0, mount, p.All()) // without it the next start is slower
}

// sameLoop reads back what a loop device shows.
func sameLoop(dev, f *os.File, off, size uint64) error {
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	st, err2 := stat(f)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	const want = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	if info.Inode != st.Ino || info.Device != st.Dev || info.Offset != off || info.Sizelimit != size || info.Flags&want != want {
		return errors.New("it is not as it was configured")
	}
	return nil
}

// mountBlock makes a detached mount of the file system on a block device.
//
// Security: the superblock of an ext3 can say that the kernel shall panic when it
// finds an error, and the option overrules it. A journal that was not emptied
// would have to be written: the kernel refuses it on a device for reading.
func mountBlock(kind FS, device string) (int, error) {
	name := map[FS]string{SquashfsFS: "squashfs", CryptFS: "squashfs", Ext3FS: "ext3"}[kind]
	fs, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if kind == Ext3FS {
		err = unix.FsconfigSetString(fs, "errors", "continue")
	}
	if err = errors.Join(err, unix.FsconfigSetString(fs, "source", device), unix.FsconfigSetFlag(fs, "ro"), unix.FsconfigCreate(fs)); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}
