package script

import (
	"syscall"
	"unsafe"
)

// Ioctl makes one call at once, about memory that the kernel reads and writes.
func Ioctl(fd uintptr, request uint, b []byte) error {
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, uintptr(request), uintptr(unsafe.Pointer(&b[0]))); e != 0 {
		return e
	}
	return nil
}
