package main

import (
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// without executes a program in a kernel that seems older.
func without(what string, argv []string) {
	calls := []uint32{unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR}
	if what == "calls" {
		calls = append(calls, unix.SYS_CLONE3, unix.SYS_CLOSE_RANGE, unix.SYS_FACCESSAT2)
	}
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}}
	if what == "el8" {
		// Linux 4.18 has none of the calls from this number on: openat2, pidfd_open, clone3.
		const first = unix.SYS_PIDFD_SEND_SIGNAL
		calls = nil
		code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 1, K: first})
	}
	for i, nr := range calls {
		code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(calls) - i), K: nr})
	}
	code = append(code, unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)})
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if syscall.Getuid() != 0 {
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog))); e != 0 {
		write("cannot install the filter: " + e.Error() + "\n")
		syscall.Exit(3)
	}
	env := strings.Split(strings.TrimSuffix(read("/proc/self/environ"), "\x00"), "\x00")
	err := syscall.Exec(argv[0], argv, env)
	write("cannot execute " + argv[0] + ": " + err.Error() + "\n")
	syscall.Exit(3)
}
