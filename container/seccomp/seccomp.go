// Package seccomp makes filters of system calls, as the bytes that the kernel
// takes. It only builds them: installing one is up to whoever starts the
// process, with NO_NEW_PRIVS set before.
//
// Parse and Profile.Compile make a filter of a profile: the JSON with which
// people say what a container may do. It comes from whoever starts the
// container and is bounded and checked strictly; what it does not name as
// allowed or refused falls to its default, and calls through a calling
// convention that it does not name end the process.
//
// Two filters let a build run where a process is root in name only:
//
//   - Fakeroot, for a user namespace in which a single id is mapped: every
//     change of owner or id, and every device node, "succeeds" and nothing happens.
//   - Devices, for a user namespace with ranges of ids, and so real owners:
//     only device nodes, which no user namespace may make.
//
// Neither of the two is a fence: they turn errors into quiet successes for programs that
// would give up, and an architecture that a filter does not know passes
// through. What protects the host is the namespace.
//
// Files: seccomp.go (assembling), fakeroot.go (our own filters), profile.go
// (reading a profile), compile.go (its filter), tables.go (the numbers of
// system calls, written by gen.go), default.json (the profile that is
// installed).
package seccomp

//go:generate go run gen.go

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Offsets in the kernel's struct seccomp_data. The arguments are 64 bits wide;
// their low half comes first on every architecture handled here.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retZero  = unix.SECCOMP_RET_ERRNO // with error number 0: the call returns 0
)

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func and(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k}
}

// ifEqual skips yes instructions where the accumulator is k, else no.
func ifEqual(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

func answer(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

// Bytes returns a filter as the array of struct sock_filter that the pointer
// of a struct sock_fprog leads to, in the byte order of this machine; its
// length there is len(filter).
func Bytes(filter []unix.SockFilter) []byte {
	b := make([]byte, 0, 8*len(filter))
	for _, f := range filter {
		b = binary.NativeEndian.AppendUint16(b, f.Code)
		b = append(b, f.Jt, f.Jf)
		b = binary.NativeEndian.AppendUint32(b, f.K)
	}
	return b
}
