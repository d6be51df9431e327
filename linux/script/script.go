// Package script runs a list of system calls in a new process without the Go
// runtime: the parent prepares everything, memory included, and the child of a
// raw clone only makes the calls, one after another, and ends in execve.
//
// That is how a container starts with one fork and no second start of a Go
// program: a Go process cannot enter a user namespace once its threads run, and
// a re-exec costs a millisecond and the capabilities. The same list can be run
// in the calling process (Here), for a process that became alone in its user
// namespace before the runtime started (package entry).
//
// A step may use the result of an earlier one (Slot), may be allowed to fail,
// and may skip the steps after it. The child works in the parent's memory where
// the kernel and the processor allow it, in a copy elsewhere. It never
// allocates, never takes a lock and never returns: on the first failure it
// writes the step's index and the error number to a pipe and exits with status
// 127.
package script

import "unsafe"

// Slot names the result of a step, for use as an argument of a later one.
type Slot int

// Arg is one argument of a system call: an Int, a Slot, or memory that the
// script keeps (Str, Bytes, Words).
type Arg struct {
	v    uint64
	slot bool
	mem  bool // v is a Ref
}

// Int is a plain number.
func Int(v int) Arg { return Arg{v: uint64(v)} }

// Uint is a plain number.
func Uint(v uint64) Arg { return Arg{v: v} }

// Arg makes the result of a step an argument.
func (s Slot) Arg() Arg { return Arg{v: uint64(s), slot: true} }

// Script is a listing that is being made, and the results of its steps.
type Script struct {
	Listing
	// Permitted are the capabilities that the process has, and raises for single
	// steps alone.
	Permitted uint64
	labels    []string
	res       []uintptr
	args      [6]uintptr // of the step that is made
	beside
}

// Of returns a script with the steps of l. Every Ref of l must lie in its memory,
// and every slot before its step: whoever got l from somebody else checks that
// first.
func Of(l *Listing) *Script {
	s := &Script{Listing: *l, res: make([]uintptr, len(l.Steps))}
	for i := range s.res {
		s.res[i] = ^uintptr(0) // no descriptor, unless the step is made
	}
	return s
}

// Str keeps v with a final NUL.
func (s *Script) Str(v string) Arg { return s.Bytes(append([]byte(v), 0)) }

// Bytes keeps b itself: what a call writes there can be read after Here.
func (s *Script) Bytes(b []byte) Arg {
	if len(b) == 0 {
		return Arg{}
	}
	if len(s.Memory) == 0 {
		s.Memory = append(s.Memory, make([]byte, 1)) // no Ref but none is 0
	}
	s.Memory = append(s.Memory, b)
	return Arg{v: uint64(len(s.Memory)-1) << 32, mem: true}
}

// Words keeps w itself.
func (s *Script) Words(w []uint64) Arg {
	return s.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 8*len(w)))
}

// Pointers keeps a list of the addresses of args, for structures that hold
// addresses.
func (s *Script) Pointers(args ...Arg) Arg {
	w := make([]uint64, len(args))
	at := s.Words(w)
	for i, a := range args {
		if w[i] = a.v; a.mem {
			s.Links = append(s.Links, Link{Ref(at.v) + Ref(8*i), Ref(a.v)})
		}
	}
	return at
}

// Call adds the system call nr and returns the slot of its result. The label
// says what the step does, as verb and object, for the error text.
func (s *Script) Call(label string, nr uintptr, args ...Arg) Slot {
	return s.add(label, OpCall, nr, args...)
}

func (s *Script) add(label string, op uint8, nr uintptr, args ...Arg) Slot {
	st := Step{Op: op, Nr: uint16(nr)}
	for i, a := range args {
		st.Args[i] = a.v
		if a.slot {
			st.Slots |= 1 << i
		}
		if a.mem {
			st.Refs |= 1 << i
		}
	}
	s.Steps = append(s.Steps, st)
	s.labels = append(s.labels, label)
	s.res = append(s.res, 0)
	return Slot(len(s.Steps) - 1)
}

// Optional lets step i fail.
func (s *Script) Optional(i Slot) { s.Steps[i].Ignore = true }

// Want makes step i fail with ESTALE unless its result is v.
func (s *Script) Want(i Slot, v int) {
	s.Steps[i].Want, s.Steps[i].Expect = true, uint64(v)
}

// SkipFail leaves out the n steps after step i when it fails, which then is no
// error.
func (s *Script) SkipFail(i Slot, n int) {
	s.Steps[i].SkipNo, s.Steps[i].Ignore = uint8(n), true
}

// Equal adds a check that the two words at i and j of w are those given: what
// an earlier call wrote there must be what the parent saw.
func (s *Script) Equal(label string, w []uint64, i, j int, a, b uint64) {
	s.add(label, OpEqual, 0, Uint(a), Uint(b), s.Words(w[i:]), s.Words(w[j:]))
}

// Leave adds a fork whose parent writes the child's process id to fd, 8 bytes,
// and ends. The child has the same parent as that process had; so a process
// that changed the PID namespace of its children gets into it.
func (s *Script) Leave(fd int) { s.add("create a process in the container", OpLeave, 0, Int(fd)) }
