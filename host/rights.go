package host

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Capabilities returns the capabilities that this process may pass on, which
// are the permitted ones that its bounding set has too, and those that the
// kernel knows; bit n is capability n.
func Capabilities() (have, known uint64) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) == nil {
		have = uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
	}
	// The kernel refuses to speak of a number behind the last one.
	low, high := 0, 64
	for low < high {
		mid := (low + high) / 2
		if bounding(mid) < 0 {
			high = mid
		} else {
			low = mid + 1
		}
	}
	known = 1<<low - 1
	for c := range low {
		if bit := uint64(1) << c; have&bit != 0 && bounding(c) == 0 {
			have &^= bit
		}
	}
	return have, known
}

// MayMount tells whether this process has CAP_SYS_ADMIN in its user namespace,
// which root of another container may lack.
func MayMount() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// bounding tells whether capability c is in the bounding set: 1, 0, or -1 if
// the kernel does not know it. It is called for each capability at each start,
// and cannot block.
func bounding(c int) int {
	in, _, e := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, uintptr(c), 0)
	if e != 0 {
		return -1
	}
	return int(in)
}

// AppArmor tells whether the kernel confines processes by AppArmor profiles.
func AppArmor() bool {
	return strings.HasPrefix(running().line("/sys/module/apparmor/parameters/enabled"), "Y")
}

// SELinux tells whether SELinux is enabled: its file system is known to the
// kernel only then.
func SELinux() bool { return running().fileSystem("selinuxfs") }

// Seccomp tells whether the kernel takes filters of system calls.
func Seccomp() bool {
	_, _, e := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_SECCOMP, 0, 0)
	return e == 0
}

// Landlock returns the version of Landlock that the kernel has, or 0.
func Landlock() int {
	v, _, e := syscall.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0
	}
	return int(v)
}
