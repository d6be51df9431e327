package squashfs

import (
	"errors"
	"reflect"

	"golang.org/x/sys/unix"
)

var errClosed = errors.New("squashfs reader is closed")

// arena is the memory of the block cache: one anonymous mapping outside the Go
// heap, cut into slots. The garbage collector neither scans nor multiplies it,
// and huge pages spare 32 page faults for each fresh block of 128 KiB. Pages
// come into being when a slot is first written.
type arena struct {
	slotSize int
	slots    int // at most this many

	mapping []byte
	rest    []byte   // not yet cut
	spare   [][]byte // cut, given back
}

const hugePage = 2 << 20

// take returns an unused slot, or nil if there is none.
func (a *arena) take() []byte {
	if n := len(a.spare); n > 0 {
		s := a.spare[n-1]
		a.spare = a.spare[:n-1]
		return s
	}
	if a.mapping == nil && !a.create() {
		return nil
	}
	if len(a.rest) < a.slotSize {
		return nil
	}
	s := a.rest[:a.slotSize:a.slotSize]
	a.rest = a.rest[a.slotSize:]
	return s
}

func (a *arena) give(slot []byte) { a.spare = append(a.spare, slot) }

// create maps the memory. On failure the cache lives without: slots then come
// from the heap for as long as they are held.
func (a *arena) create() bool {
	size := a.slots * a.slotSize
	m, err := unix.Mmap(-1, 0, size+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		a.mapping, a.rest = []byte{}, nil
		return false
	}
	skip := int(-reflect.ValueOf(m).Pointer() & (hugePage - 1))
	a.mapping, a.rest = m, m[skip:skip+size]
	unix.Madvise(a.rest, unix.MADV_HUGEPAGE) // an old kernel may refuse: slower, not wrong
	return true
}

func (a *arena) free() error {
	m := a.mapping
	a.mapping, a.rest, a.spare = []byte{}, nil, nil
	if len(m) == 0 {
		return nil
	}
	return unix.Munmap(m)
}
