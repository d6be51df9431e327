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
	for c := range uint(64) {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil {
			break
		}
		known |= 1 << c
		if in == 0 {
			have &^= 1 << c
		}
	}
	return have, known
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
