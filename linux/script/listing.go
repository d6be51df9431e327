package script

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listing is a script as data, which a process can also carry out in place of
// another: the setuid helper. Addresses are Refs.
type Listing struct {
	Memory  [][]byte
	Links   []Link
	Steps   []Step
	Program *Program // nil for none
}

// Ref is a place in the memory of a listing: its number, then the offset in 32
// bits.
type Ref uint64

// Mem and Off are the parts of a Ref.
func (r Ref) Mem() int { return int(r >> 32) }
func (r Ref) Off() int { return int(r & (1<<32 - 1)) }

// Link says that the word at At holds the address To.
type Link struct{ At, To Ref }

// What a step does.
const (
	OpCall   = iota
	OpExec   // find and execute the program
	OpEqual  // two words of memory must have given values: the first two arguments
	OpInit   // fork; the parent becomes a process 1 that waits for the child
	OpIdle   // stay as a process 1 without a child
	OpLeave  // fork; the parent tells the child's id and ends
	OpStore  // the result of a step goes to memory
	OpLaunch // start another program beside the one of the script
	OpDrop   // nothing: behind it a script needs no privilege any more
)

// Bits of the argument of OpInit.
const (
	initStays = 1 << iota
	initPolite
)

// Step is a step of a listing. Bit k of Slots says that argument k is the number
// of a step, whose result is meant; of Refs, that it is a Ref.
type Step struct {
	Op, Slots, Refs uint8
	Ignore          bool  // an error does not end the script
	Want            bool  // the result must be Expect
	SkipOK          uint8 // steps to leave out after success
	SkipNo          uint8 // steps to leave out after failure; implies Ignore
	Nr              uint16
	Expect          uint64
	Args            [6]uint64
	raise           uint64 // the capabilities that the step is made with
}

// Raise has a step made with capabilities. They are no part of what is handed over:
// whoever carries a listing out decides on them.
func (s *Step) Raise(caps uint64) { s.raise = caps }

// Program is what a script executes.
type Program struct {
	Paths      []Ref // candidates, in order
	Argv, Envp Ref   // null-terminated lists of addresses
	// Shell is a list that starts with the interpreter, then a place for the path,
	// then the arguments behind argv[0]: for a text file without "#!". 0 for none.
	Shell Ref
	// Other are the arguments of the program in OtherFD, for want of a file. 0 for
	// none.
	Other   Ref
	OtherFD int
}

// at is the address that r means.
//
//go:norace
//go:nosplit
func (l *Listing) at(r Ref) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(l.Memory[r.Mem()]))) + uintptr(r.Off())
}

// word is the word at an address.
//
//go:norace
//go:nosplit
func word(at uintptr) *uint64 { return (*uint64)(unsafe.Add(unsafe.Pointer(nil), at)) }

// link writes the addresses that the memory holds.
func (l *Listing) link() {
	for _, k := range l.Links {
		*word(l.at(k.At)) = uint64(l.at(k.To))
	}
}

// CapData is struct __user_cap_data_struct, twice: the low halves of the
// effective, permitted and inheritable sets, then the high ones.
//
//go:norace
//go:nosplit
func CapData(effective, permitted, inheritable uint64) [3]uint64 {
	const half = 1<<32 - 1
	return [3]uint64{effective&half | permitted&half<<32, inheritable&half | effective>>32<<32, permitted>>32 | inheritable>>32<<32}
}

// capHeader is struct __user_cap_header_struct: version 3, this thread.
var capHeader = [2]uint32{unix.LINUX_CAPABILITY_VERSION_3}

// raise sets the capabilities of this thread.
//
//go:norace
//go:nosplit
func raise(effective, permitted uint64) syscall.Errno {
	data := CapData(effective, permitted, 0)
	_, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&data)), 0)
	return e
}

// Ioctl makes one call at once, about memory that the kernel reads and writes.
func Ioctl(fd uintptr, request uint, b []byte) error {
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, uintptr(request), uintptr(unsafe.Pointer(&b[0]))); e != 0 {
		return e
	}
	return nil
}
