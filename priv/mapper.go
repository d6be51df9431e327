package priv

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"singularity/linux/script"
)

// The requests of the device mapper: struct dm_ioctl, then what it is about.
const (
	mapperHead = 312
	mapperSize = 4096
	specSize   = 40 // of struct dm_target_spec
	sectorSize = 512
	minorBits  = 20
)

// The offsets of fields of struct dm_ioctl.
const (
	headStart   = 16 // where the rest begins
	headTargets = 20
	headFlags   = 28
	headDev     = 40
	headName    = 48
)

// mapped is a device of the device mapper that is made.
type mapped struct {
	name    string
	minor   uint32
	kind    string // of the target
	params  string
	key     []byte // nil for none
	sectors uint64
}

// request is the memory of an ioctl about d: version 4, sizes, one target, the number
// of users that the kernel tells, flags. Only a request that loads a table is about
// its target.
func (d *mapped) request(flags uint32) []byte {
	b := make([]byte, mapperSize)
	for i, v := range []uint32{4, 0, 0, mapperSize, mapperHead, 1, 0, flags} {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	copy(b[headName:headName+unix.DM_NAME_LEN-1], d.name)
	copy(b[mapperHead:], d.spec())
	return b
}

// spec is the one line of the table: struct dm_target_spec and its parameters.
func (d *mapped) spec() []byte {
	b := make([]byte, specSize, specSize+len(d.params)+1)
	binary.NativeEndian.PutUint64(b[8:], d.sectors)
	copy(b[24:], d.kind)
	return append(append(b, d.params...), 0)
}

// openMapper opens the device mapper if it has that target, else it returns nil.
func openMapper(target string) *os.File {
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err == nil && script.Ioctl(control.Fd(), unix.DM_GET_TARGET_VERSION, (&mapped{name: target}).request(0)) == nil {
		return control
	}
	control.Close()
	return nil
}

// verity makes the device of dm-verity that shows the root partition of an image.
func (h *helper) verity(control, f *os.File, v *Verdict) (*os.File, error) {
	data, dataErr := h.loop(f, v.Off, v.Size)
	defer data.Close()
	tree, treeErr := h.loop(f, v.Tree.Off, v.Tree.Size)
	defer tree.Close()
	if err := cmp.Or(dataErr, treeErr); err != nil {
		return nil, err
	}
	salt := cmp.Or(fmt.Sprintf("%x", v.Tree.Salt), "-")
	d := &mapped{kind: "verity", sectors: v.Size / sectorSize, params: fmt.Sprintf("1 %s %s %d %d %d 1 sha256 %x %s",
		device(data), device(tree), blockSize, blockSize, v.Size/blockSize, v.Tree.Root, salt)}
	return d.open(control)
}

// keyName is what the key is called in a keyring that one process has.
const keyName = "singularity:volume"

// readKey takes the key of an encrypted image from a pipe of the caller's.
func (h *helper) readKey(n int) error {
	var st unix.Stat_t
	fd, ok := h.fds[n]
	if !ok || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return errRequest
	}
	defer unix.Close(fd)
	delete(h.fds, n) // the container does not get it
	// It is never in swap space; the process cannot be dumped.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return err
	}
	h.key = make([]byte, KeySize)
	if n, err := unix.Read(fd, h.key); err != nil || n != KeySize {
		return errRequest
	}
	return nil
}

// crypt makes the device of dm-crypt that shows the squashfs in the LUKS2 partition
// on lower.
//
// Security (SC-059, SC-060): who owns or signed the image vouches for the cipher
// text and the header, but the key is the caller's word: with another one the
// kernel would parse what nobody vouches for. So starter-verify holds the key
// against the digest in the header, which it reads by the tree that the kernel reads
// the cipher text by, and says where that lies. The kernel gets the very bytes that
// were held against the digest, since the helper has read them once. The key is in
// the keyring of the process that loads the table, which ends with it: nobody else
// can name it, and nobody can read it back.
func (h *helper) crypt(lower *os.File, c *Crypt) (*os.File, error) {
	if c == nil {
		return nil, errors.New("its header proves no key")
	}
	control := openMapper("crypt")
	if control == nil {
		return nil, errors.New("the kernel has no dm-crypt")
	}
	defer control.Close()
	d := &mapped{kind: "crypt", key: h.key[:c.Key], sectors: c.Size / sectorSize,
		params: fmt.Sprintf("aes-xts-plain64 :%d:logon:%s 0 %s %d", c.Key, keyName, device(lower), c.Off/sectorSize)}
	if c.Sector != sectorSize {
		d.params += fmt.Sprintf(" 1 sector_size:%d", c.Sector)
	}
	return d.open(control)
}

// device is the number of a device, as tables have it.
func device(dev *os.File) string {
	st, err := stat(dev)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

func (d *mapped) path() string { return "/dev/dm-" + strconv.Itoa(int(d.minor)) }

// open makes the device, which ends with its last user.
//
// Security: between its making and the order to remove it when it is not used any
// more, nothing may end the process. The caller can end this one. So another
// does it, which is root's and has no terminal, no limit and no signal that
// somebody could send; it shares the table of descriptors, and so hands over what
// it opened in place of /dev/null.
func (d *mapped) open(control *os.File) (*os.File, error) {
	var random [8]byte
	if _, err := unix.Getrandom(random[:], 0); err != nil {
		return nil, err
	}
	// The upper half of the numbers, which the kernel itself begins with at 0.
	d.minor = 1<<(minorBits-1) | binary.NativeEndian.Uint32(random[:])>>(32-minorBits+1)
	d.name = fmt.Sprintf("singularity-%d-%x", os.Getpid(), random)
	place, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dev := os.NewFile(uintptr(place), d.path())
	create := d.request(unix.DM_PERSISTENT_DEV_FLAG)
	binary.NativeEndian.PutUint64(create[headDev:], unix.Mkdev(0, d.minor))
	p := &script.Script{}
	ask := func(what string, nr int, b []byte) script.Slot {
		return p.Call(what, unix.SYS_IOCTL, script.Int(int(control.Fd())), script.Int(nr), p.Bytes(b))
	}
	p.Call("begin a session", unix.SYS_SETSID)
	p.Call("block signals", unix.SYS_RT_SIGPROCMASK, script.Int(unix.SIG_SETMASK), p.Words([]uint64{1<<64 - 1}), script.Int(0), script.Int(8))
	p.Call("become root's", unix.SYS_SETRESUID, script.Int(0), script.Int(0), script.Int(0))
	p.Call("use all the time it takes", unix.SYS_PRLIMIT64, script.Int(0), script.Int(unix.RLIMIT_CPU), p.Words([]uint64{1<<64 - 1, 1<<64 - 1}), script.Int(0))
	if d.key != nil {
		keyring := unix.KEY_SPEC_PROCESS_KEYRING
		p.Call("add the key", unix.SYS_ADD_KEY, p.Str("logon"), p.Str(keyName), p.Bytes(d.key), script.Int(len(d.key)), script.Int(keyring))
	}
	ask("make a device of "+d.kind, unix.DM_DEV_CREATE, create)
	p.SkipFail(ask("load the table", unix.DM_TABLE_LOAD, d.request(unix.DM_READONLY_FLAG)), 3)
	p.SkipFail(ask("begin to use it", unix.DM_DEV_SUSPEND, d.request(unix.DM_READONLY_FLAG)), 2)
	fd := p.Call("open it", unix.SYS_OPENAT, script.Int(unix.AT_FDCWD), p.Str(d.path()), script.Int(unix.O_RDONLY|unix.O_CLOEXEC))
	p.SkipFail(fd, 1)
	p.Optional(p.Call("hand it over", unix.SYS_DUP3, fd.Arg(), script.Int(place), script.Int(unix.O_CLOEXEC)))
	ask("have it removed", unix.DM_DEV_REMOVE, d.request(unix.DM_DEFERRED_REMOVE))
	p.Call("end", unix.SYS_EXIT_GROUP, script.Int(0))
	pid, err := script.Fork(unix.CLONE_FILES, place, p.All())
	if err == nil {
		err = wait(pid)
	}
	if err == nil {
		err = d.check(control, dev)
	}
	if err != nil {
		dev.Close()
		return nil, errors.New("the device mapper makes no device of " + d.kind + ": " + err.Error())
	}
	return dev, nil
}

// check reads back what the device is, and that it is the one that is open.
func (d *mapped) check(control, dev *os.File) error {
	b := d.request(unix.DM_STATUS_TABLE_FLAG)
	st, err := stat(dev)
	if err := errors.Join(err, script.Ioctl(control.Fd(), unix.DM_TABLE_STATUS, b)); err != nil {
		return err
	}
	word := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
	const want = unix.DM_READONLY_FLAG | unix.DM_ACTIVE_PRESENT_FLAG | unix.DM_DEFERRED_REMOVE
	const never = unix.DM_SUSPEND_FLAG | unix.DM_INACTIVE_PRESENT_FLAG | unix.DM_BUFFER_FULL_FLAG
	clear(b[mapperHead+16 : mapperHead+24]) // what only an answer has
	if st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == binary.NativeEndian.Uint64(b[headDev:]) && word(headFlags)&(want|never) == want &&
		word(headTargets) == 1 && word(headStart) == mapperHead && bytes.HasPrefix(b[mapperHead:], d.spec()) {
		return nil
	}
	return errors.New("it is not as it was configured")
}
