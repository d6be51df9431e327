package seccomp

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// abi lists the system calls of one calling convention. The numbers are fixed
// parts of the kernel's interface, and written out because x/sys knows only
// those of the architecture it is compiled for.
type abi struct {
	arch    uint32   // AUDIT_ARCH_*
	mask    uint32   // cleared in the number; x32 is amd64 with one bit added
	owners  []uint32 // chown, fchown, lchown, fchownat and their 32-bit twins
	ids     []uint32 // set*uid, set*gid, setgroups, setfs*id, capset
	mknod   uint32   // mode in argument 1; 0 where the call does not exist
	mknodat uint32   // mode in argument 2
	ioctls  []uint32
}

const x32Bit = 1 << 30

// generic64 are the numbers of every 64-bit architecture that joined late.
func generic64(arch uint32) abi {
	return abi{
		arch: arch, mknodat: 33, ioctls: []uint32{29},
		owners: []uint32{54, 55},
		ids:    []uint32{91, 143, 144, 145, 146, 147, 149, 151, 152, 159},
	}
}

// ids32 are the numbers that 386 and arm share.
var ids32 = []uint32{23, 46, 70, 71, 81, 138, 139, 164, 170, 185, 203, 204, 206, 208, 210, 213, 214, 215, 216}

func abis() []abi {
	return []abi{
		{
			arch: unix.AUDIT_ARCH_X86_64, mask: x32Bit, mknod: 133, mknodat: 259, ioctls: []uint32{16, 514},
			owners: []uint32{92, 93, 94, 260},
			ids:    []uint32{105, 106, 113, 114, 116, 117, 119, 122, 123, 126},
		},
		{arch: unix.AUDIT_ARCH_I386, mknod: 14, mknodat: 297, ioctls: []uint32{54}, owners: []uint32{16, 95, 182, 198, 207, 212, 298}, ids: ids32},
		generic64(unix.AUDIT_ARCH_AARCH64),
		{arch: unix.AUDIT_ARCH_ARM, mknod: 14, mknodat: 324, ioctls: []uint32{54}, owners: []uint32{16, 95, 182, 198, 207, 212, 325}, ids: ids32},
		generic64(unix.AUDIT_ARCH_RISCV64),
		generic64(unix.AUDIT_ARCH_LOONGARCH64),
	}
}

// Fakeroot returns a filter that answers 0, and does nothing, to the chown
// family, the families that set ids and groups, capset, and the making of
// device nodes, in every ABI of the machine. A mknod of a file, FIFO or socket
// needs no privilege and goes through. Programs that read an id back after
// setting it notice; apt does, and wants APT::Sandbox::User "root".
func Fakeroot() ([]unix.SockFilter, error) {
	return build(func(a abi) []unix.SockFilter { return a.block(true) })
}

// Devices returns a filter that answers 0, and does nothing, to the making of
// device nodes only.
func Devices() ([]unix.SockFilter, error) {
	return build(func(a abi) []unix.SockFilter { return a.block(false) })
}

// Terminal returns a filter that refuses the two ways to put keystrokes into a
// terminal that a program shares with the caller's shell, in every ABI of the
// machine (SC-044). Since Linux 6.2 the kernel can refuse the first itself.
func Terminal() ([]unix.SockFilter, error) { return build(abi.terminal) }

// build lays out one block for each ABI. The comparisons of a block stand in
// a plain row: since Linux 5.11 the kernel remembers which numbers a filter
// always allows, so other calls never reach them.
func build(block func(abi) []unix.SockFilter) ([]unix.SockFilter, error) {
	var p []unix.SockFilter
	for _, a := range abis() {
		body := block(a)
		if len(body) > 255 { // the width of a jump
			return nil, fmt.Errorf("system call filter for architecture %#x has %d instructions, too many", a.arch, len(body))
		}
		p = append(append(p, load(dataArch), ifEqual(a.arch, 0, uint8(len(body)))), body...)
	}
	return append(p, answer(retAllow)), nil
}

// block decides one call of an ABI: the numbers that need no look at the
// arguments first, then the two ways to make a node.
func (a abi) block(ids bool) []unix.SockFilter {
	p := []unix.SockFilter{load(dataNumber), and(^a.mask)}
	if ids {
		for _, n := range slices.Concat(a.owners, a.ids) {
			p = append(p, ifEqual(n, 0, 1), answer(retZero))
		}
	}
	if a.mknod != 0 {
		p = append(append(p, ifEqual(a.mknod, 0, 6)), node(1)...)
	}
	p = append(append(p, ifEqual(a.mknodat, 0, 6)), node(2)...)
	return append(p, answer(retAllow))
}

// terminal decides the ioctls of an ABI. The kernel takes 32 bits of the request.
func (a abi) terminal() []unix.SockFilter {
	const tioclinux = 0x541c
	p := []unix.SockFilter{load(dataNumber), and(^a.mask)}
	for _, n := range a.ioctls {
		p = append(p, ifEqual(n, 0, 5), load(dataArgs+8), ifEqual(unix.TIOCSTI, 1, 0), ifEqual(tioclinux, 0, 1), answer(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM)), answer(retAllow))
	}
	return append(p, answer(retAllow))
}

// node answers a call whose argument arg is the type and mode of a node to make.
func node(arg uint32) []unix.SockFilter {
	return []unix.SockFilter{
		load(dataArgs + 8*arg),
		and(unix.S_IFMT),
		ifEqual(unix.S_IFCHR, 2, 0),
		ifEqual(unix.S_IFBLK, 1, 0),
		answer(retAllow),
		answer(retZero),
	}
}
