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

import (
	"strconv"
	"syscall"
	"unsafe"
)

// Slot names the result of a step, for use as an argument of a later one.
type Slot int

// Arg is one argument of a system call: an Int, a Slot, or memory that the
// script keeps (Str, Bytes, Words).
type Arg struct {
	v    uintptr
	slot bool
	mem  bool // v is the address of memory that the script keeps
}

// Int is a plain number.
func Int(v int) Arg { return Arg{v: uintptr(v)} }

// Uint is a plain number.
func Uint(v uint64) Arg { return Arg{v: uintptr(v)} }

// Arg makes the result of a step an argument.
func (s Slot) Arg() Arg { return Arg{v: uintptr(s), slot: true} }

// What a step does.
const (
	OpCall   = iota
	OpExec   // find and execute the program
	OpEqual  // two words of memory must have given values
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

type step struct {
	op     uint8
	ref    uint8 // bit k: argument k is the number of a slot
	ptr    uint8 // bit k: argument k is the address of memory
	ignore bool  // an error does not end the script
	skipOK uint8 // steps to leave out after success
	skipNo uint8 // steps to leave out after failure; implies ignore
	want   bool  // the result must be expect
	nr     uintptr
	a      [6]uintptr
	expect uintptr
	mem    [2]*uint64 // OpEqual: the words; a[0] and a[1] are their values. OpStore: where to
	launch *launchData
	raise  *[2][3]uint64 // capset for this step, and behind it; nil for none
	code   uintptr       // what a failure is reported as, and 1; 0 for the number of the step
}

// Program is what a script executes, as Exec and Otherwise were told.
type Program struct {
	Paths, Args, Env []string
	Shell            string
	OtherFD          int
	OtherArgs        []string // nil for none
}

// Drop adds a mark: what comes behind it needs no privilege.
func (s *Script) Drop() { s.add("give up every privilege", step{op: OpDrop}) }

// Script is a list of system calls with the memory that they use.
type Script struct {
	steps  []step
	labels []string
	texts  map[int]string
	res    []uintptr
	keep   []any
	exec   *execData
	source *Program // of exec
	lists  [][]Arg  // what Pointers made, in order
	tables [][]uintptr
	// classic does the work of calls that this kernel lacks; usually nil.
	classic *classic
}

// execData is what OpExec needs, as addresses.
type execData struct {
	paths []uintptr // candidates, in order
	argv  uintptr
	envp  uintptr
	// shell starts with the interpreter, then a place for the path, then the
	// arguments behind argv[0]: for a text file without "#!".
	shell     []uintptr
	shellPath uintptr
	// otherwise is the descriptor of a program for want of a file, with its
	// own arguments, if any.
	otherwise     uintptr
	otherwiseArgv uintptr
}

// Str keeps s with a final NUL.
func (s *Script) Str(v string) Arg {
	b := make([]byte, len(v)+1)
	copy(b, v)
	s.keep = append(s.keep, b)
	return Arg{v: uintptr(unsafe.Pointer(&b[0])), mem: true}
}

// Bytes keeps b itself: what a call writes there can be read after Here.
func (s *Script) Bytes(b []byte) Arg {
	if len(b) == 0 {
		return Arg{}
	}
	s.keep = append(s.keep, b)
	return Arg{v: uintptr(unsafe.Pointer(&b[0])), mem: true}
}

// Words keeps w itself.
func (s *Script) Words(w []uint64) Arg {
	s.keep = append(s.keep, w)
	return Arg{v: uintptr(unsafe.Pointer(&w[0])), mem: true}
}

// Pointers keeps the memory of args and returns a list of their addresses, for
// structures that hold addresses.
func (s *Script) Pointers(args ...Arg) Arg {
	w := make([]uintptr, len(args))
	for i, a := range args {
		w[i] = a.v
	}
	s.keep = append(s.keep, w)
	s.lists, s.tables = append(s.lists, args), append(s.tables, w)
	return Arg{v: uintptr(unsafe.Pointer(&w[0])), mem: true}
}

// Call adds the system call nr and returns the slot of its result. The label
// says what the step does, as verb and object, for the error text.
func (s *Script) Call(label string, nr uintptr, args ...Arg) Slot {
	st := step{op: OpCall, nr: nr}
	for i, a := range args {
		st.a[i] = a.v
		if a.slot {
			st.ref |= 1 << i
		}
		if a.mem {
			st.ptr |= 1 << i
		}
	}
	return s.add(label, st)
}

func (s *Script) add(label string, st step) Slot {
	s.steps = append(s.steps, st)
	s.labels = append(s.labels, label)
	s.res = append(s.res, 0)
	return Slot(len(s.steps) - 1)
}

// Len is the number of steps so far.
func (s *Script) Len() int { return len(s.steps) }

// String lists the steps, a line each: what the step does, and what its failure
// or success leaves out.
func (s *Script) String() string {
	var b []byte
	for i := range s.steps {
		st := &s.steps[i]
		b = append(b, s.labels[i]...)
		switch {
		case st.skipOK > 0:
			b = append(b, "; or else the next "+strconv.Itoa(int(st.skipOK))...)
		case st.skipNo > 0:
			b = append(b, "; without it, not the next "+strconv.Itoa(int(st.skipNo))...)
		case st.ignore:
			b = append(b, "; may fail"...)
		case st.want:
			b = append(b, "; must give "+strconv.FormatUint(uint64(st.expect), 10)...)
		}
		b = append(b, '\n')
	}
	return string(b)
}

// Optional lets step i fail.
func (s *Script) Optional(i Slot) { s.steps[i].ignore = true }

// Want makes step i fail with ESTALE unless its result is v.
func (s *Script) Want(i Slot, v int) {
	s.steps[i].want, s.steps[i].expect = true, uintptr(v)
}

// SkipOK leaves out the n steps after step i when it succeeds. A failure of
// step i is then no error: the steps after it are the other way.
func (s *Script) SkipOK(i Slot, n int) {
	s.steps[i].skipOK, s.steps[i].ignore = uint8(n), true
}

// SkipFail leaves out the n steps after step i when it fails, which then is no
// error.
func (s *Script) SkipFail(i Slot, n int) {
	s.steps[i].skipNo, s.steps[i].ignore = uint8(n), true
}

// Equal adds a check that the two words at i and j of w are those given: what
// an earlier call wrote there must be what the parent saw.
func (s *Script) Equal(label string, w []uint64, i, j int, a, b uint64) {
	s.Words(w)
	s.add(label, step{op: OpEqual, mem: [2]*uint64{&w[i], &w[j]}, a: [6]uintptr{uintptr(a), uintptr(b)}})
}

// Store adds that the result of step i is written to word k of w, for
// structures in memory that hold a descriptor.
func (s *Script) Store(i Slot, w []uint64, k int) {
	s.Words(w)
	s.add("store a result", step{op: OpStore, mem: [2]*uint64{&w[k]}, a: [6]uintptr{uintptr(i)}})
}

// Exec adds the end of the script: the first of paths that can be executed
// replaces the process, with argv and env. A file that the kernel does not know
// (ENOEXEC) is given to shell, unless that is empty.
func (s *Script) Exec(paths, argv, env []string, shell string) {
	s.exec = s.program(paths, argv, env, shell)
	s.source = &Program{Paths: paths, Args: argv, Env: env, Shell: shell}
	s.add("execute", step{op: OpExec})
}

func (s *Script) program(paths, argv, env []string, shell string) *execData {
	e := &execData{argv: s.strings(argv), envp: s.strings(env)}
	for _, p := range paths {
		e.paths = append(e.paths, s.Str(p).v)
	}
	if shell != "" {
		e.shellPath = s.Str(shell).v
		e.shell = []uintptr{e.shellPath, 0}
		if len(argv) > 0 {
			for _, a := range argv[1:] {
				e.shell = append(e.shell, s.Str(a).v)
			}
		}
		e.shell = append(e.shell, 0)
	}
	s.keep = append(s.keep, e.paths, e.shell, e)
	return e
}

// Otherwise adds to Exec what is executed if none of its paths is there, or the
// interpreter that one names is not: the program in descriptor fd, which must be
// closed on execve, with argv.
func (s *Script) Otherwise(fd int, argv []string) {
	s.exec.otherwise, s.exec.otherwiseArgv = uintptr(fd), s.strings(argv)
	s.source.OtherFD, s.source.OtherArgs = fd, argv
}

// strings keeps a null-terminated list of addresses of strings.
func (s *Script) strings(list []string) uintptr {
	w := make([]uintptr, len(list)+1)
	for i, v := range list {
		w[i] = s.Str(v).v
	}
	s.keep = append(s.keep, w)
	return uintptr(unsafe.Pointer(&w[0]))
}

// Init adds a fork whose parent stays as process 1 of its PID namespace: it reaps
// every orphan, passes signals on to the child, and ends as the child ends, with
// 128 and the number of the signal if one ended it. The script goes on in the
// child. All signals must be blocked, so that none is lost; the child puts its
// own mask back.
//
// With stay, process 1 is that of an instance: it stays when the child ends. A
// signal that asks for an end (HUP, INT, QUIT, TERM) goes to every process of
// the namespace, and when none is left process 1 ends. Any other goes to the
// child's process group; the child must have made one.
//
// With polite, process 1 asks all others to end when the child has ended, and
// gives them some seconds.
func (s *Script) Init(stay, polite bool) {
	findEnvironment()
	st := step{op: OpInit}
	if stay {
		st.a[0] |= initStays
	}
	if polite {
		st.a[0] |= initPolite
	}
	s.add("create the container's first program", st)
}

// Idle ends the script as process 1 of an instance that starts no program.
func (s *Script) Idle() {
	findEnvironment()
	s.add("wait as process 1", step{op: OpIdle})
}

// Leave adds a fork whose parent writes the child's process id to fd, 8 bytes,
// and ends. The child has the same parent as that process had; so a process
// that changed the PID namespace of its children gets into it.
func (s *Script) Leave(fd int) {
	s.add("create a process in the container", step{op: OpLeave, a: [6]uintptr{uintptr(fd)}})
}

// Text replaces the whole message of step i if it fails with ENOENT.
func (s *Script) Text(i Slot, text string) {
	if s.texts == nil {
		s.texts = map[int]string{}
	}
	s.texts[int(i)] = text
}

// Error is the failure of a step.
type Error struct {
	Step  int
	Label string
	Errno syscall.Errno
	Exec  bool // the program itself could not be executed
	Text  string
}

func (e *Error) Error() string {
	if e.Text != "" && e.Errno == syscall.ENOENT {
		return e.Text
	}
	return "cannot " + e.Label + ": " + e.Errno.Error()
}

// Unwrap returns the error number.
func (e *Error) Unwrap() error { return e.Errno }

func (s *Script) fail(i int, e syscall.Errno) *Error {
	if i >= Foreign {
		return &Error{Step: i, Label: "change to an unprivileged process (step " + strconv.Itoa(i-Foreign) + ")", Errno: e}
	}
	if i < 0 || i >= len(s.steps) {
		return &Error{Step: i, Label: "start the container", Errno: e}
	}
	return &Error{Step: i, Label: s.labels[i], Errno: e, Exec: s.steps[i].op == OpExec, Text: s.texts[i]}
}

// Fail is the failure of step i as somebody else who carried the script out tells it.
func (s *Script) Fail(i int, e syscall.Errno) error { return s.fail(i, e) }
