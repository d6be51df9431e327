// Package secret is memory for keys: it is never written to swap space or a
// core file, and no child process gets a copy of it.
//
// Where the kernel has memfd_secret (Linux 5.14, switched on) the pages are
// also gone from the kernel's own map of memory, so that a flaw that reads
// kernel memory does not find them. Otherwise they are locked (mlock). A host
// that allows neither gets an error: a key that may land on a disk in clear is
// worse than a start that fails.
//
// What it cannot do: registers, the stacks of functions that work with a key,
// and what libraries copy. Hide keeps other processes of the same user from
// reading those.
package secret

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxSize bounds one piece, in bytes.
const maxSize = 1 << 20

// Alloc returns size bytes, all zero. They are kept until Free.
func Alloc(size int) ([]byte, error) {
	if size <= 0 || size > maxSize {
		return nil, fmt.Errorf("cannot allocate %d bytes for keys", size)
	}
	page := unix.Getpagesize()
	b, err := hidden((size + page - 1) / page * page)
	if err != nil {
		b, err = locked((size + page - 1) / page * page)
	}
	if err != nil {
		return nil, err
	}
	return b[:size], nil
}

// hidden maps a file of memfd_secret, which is locked by nature. Only a fork
// could pass it on.
func hidden(size int) ([]byte, error) {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	if err := unix.Madvise(b, unix.MADV_DONTFORK); err != nil {
		unix.Munmap(b)
		return nil, err
	}
	return b, nil
}

func locked(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	err = errors.Join(unix.Madvise(b, unix.MADV_DONTFORK), unix.Madvise(b, unix.MADV_DONTDUMP), lock(b))
	if err != nil {
		unix.Munmap(b)
		return nil, err
	}
	return b, nil
}

func lock(b []byte) error {
	err := unix.Mlock(b)
	if err == unix.ENOMEM || err == unix.EPERM || err == unix.EAGAIN {
		return fmt.Errorf("cannot lock %d bytes of memory for keys, RLIMIT_MEMLOCK (ulimit -l) is too low: %w", len(b), err)
	}
	return err
}

// Free wipes what Alloc returned and gives it back.
func Free(b []byte) error {
	b = b[:cap(b)]
	clear(b)
	return unix.Munmap(b)
}

// Memory gives packages that know nothing of this one what it does.
type Memory struct{}

// Alloc is Alloc.
func (Memory) Alloc(size int) ([]byte, error) { return Alloc(size) }

// Keep is Keep.
func (Memory) Keep(p any) error { return Keep(p) }

// Wipe is Wipe.
func (Memory) Wipe(p any) { Wipe(p) }

// Keep keeps what the pointer p points to out of swap space and core files, where
// it is: a key that a library has expanded into memory of its own. What that points
// to is not kept. The pages stay so when it is gone.
func Keep(p any) error {
	v := reflect.ValueOf(p)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("cannot keep a %T in memory", p)
	}
	page := uintptr(unix.Getpagesize())
	at := v.Pointer()
	first := at &^ (page - 1)
	end := (at + v.Type().Elem().Size() + page - 1) &^ (page - 1)
	// Objects of Go's heap do not move.
	b := unsafe.Slice((*byte)(unsafe.Add(v.UnsafePointer(), -int(at-first))), end-first)
	return errors.Join(unix.Madvise(b, unix.MADV_DONTDUMP), lock(b))
}

// Wipe zeroes what the pointer p points to. It is of no use afterwards.
func Wipe(p any) {
	if v := reflect.ValueOf(p); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().SetZero()
	}
}

// Hide keeps other processes of the same user, such as the program in a
// container, from reading this process's memory, environment and descriptors,
// and the kernel from writing a core file of it. Files of /proc/self belong to
// root from then on: what has to be written there must have been written.
func Hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	// Read back: a key is about to rely on it.
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n != 0 {
		return fmt.Errorf("cannot hide this process: dumpable is %d, %v", n, err)
	}
	return nil
}
