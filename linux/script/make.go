//go:build !starter

package script

import (
	"strconv"
	"syscall"
)

// beside is what a script has that the setuid helper does without.
type beside struct {
	texts    map[int]string
	launches []*launchData
	child    *child // what a child that shares our memory needs
	// classic does the work of calls that this kernel lacks; usually nil.
	classic *classic
}

// Len is the number of steps so far.
func (s *Script) Len() int { return len(s.Steps) }

// String lists the steps, a line each: what the step does, and what its failure
// or success leaves out.
func (s *Script) String() string {
	var b []byte
	for i := range s.Steps {
		st := &s.Steps[i]
		b = append(b, s.labels[i]...)
		switch {
		case st.SkipOK > 0:
			b = append(b, "; or else the next "+strconv.Itoa(int(st.SkipOK))...)
		case st.SkipNo > 0:
			b = append(b, "; without it, not the next "+strconv.Itoa(int(st.SkipNo))...)
		case st.Ignore:
			b = append(b, "; may fail"...)
		case st.Want:
			b = append(b, "; must give "+strconv.FormatUint(st.Expect, 10)...)
		}
		b = append(b, '\n')
	}
	return string(b)
}

// Drop adds a mark: what comes behind it needs no privilege.
func (s *Script) Drop() { s.add("give up every privilege", OpDrop, 0) }

// SkipOK leaves out the n steps after step i when it succeeds. A failure of
// step i is then no error: the steps after it are the other way.
func (s *Script) SkipOK(i Slot, n int) {
	s.Steps[i].SkipOK, s.Steps[i].Ignore = uint8(n), true
}

// Store adds that the result of step i is written to word k of w, for
// structures in memory that hold a descriptor.
func (s *Script) Store(i Slot, w []uint64, k int) {
	s.add("store a result", OpStore, 0, i.Arg(), s.Words(w[k:]))
}

// Exec adds the end of the script: the first of paths that can be executed
// replaces the process, with argv and env. A file that the kernel does not know
// (ENOEXEC) is given to shell, unless that is empty.
func (s *Script) Exec(paths, argv, env []string, shell string) {
	s.Program = s.program(paths, argv, env, shell)
	s.add("execute", OpExec, 0)
}

func (s *Script) program(paths, argv, env []string, shell string) *Program {
	args := s.strings(argv)
	p := &Program{Argv: s.list(args), Envp: s.list(s.strings(env))}
	for _, path := range paths {
		p.Paths = append(p.Paths, Ref(s.Str(path).v))
	}
	if shell != "" {
		p.Shell = s.list(append([]Arg{s.Str(shell), {}}, args[min(1, len(args)):]...))
	}
	return p
}

// Otherwise adds to Exec what is executed if none of its paths is there, or the
// interpreter that one names is not: the program in descriptor fd, which must be
// closed on execve, with argv.
func (s *Script) Otherwise(fd int, argv []string) {
	s.Program.OtherFD, s.Program.Other = fd, s.list(s.strings(argv))
}

// strings keeps the strings of a list.
func (s *Script) strings(list []string) []Arg {
	var text []byte
	args := make([]Arg, len(list))
	for i, v := range list {
		args[i] = Arg{v: uint64(len(text)), mem: true}
		text = append(append(text, v...), 0)
	}
	at := s.Bytes(text)
	for i := range list {
		args[i].v += at.v
	}
	return args
}

// list keeps a null-terminated list of their addresses.
func (s *Script) list(args []Arg) Ref { return Ref(s.Pointers(append(args, Arg{})...).v) }

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
	how := 0
	if stay {
		how |= initStays
	}
	if polite {
		how |= initPolite
	}
	s.add("create the container's first program", OpInit, 0, Int(how))
}

// Idle ends the script as process 1 of an instance that starts no program.
func (s *Script) Idle() {
	findEnvironment()
	s.add("wait as process 1", OpIdle, 0)
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
	if i < 0 || i >= len(s.Steps) {
		return &Error{Step: i, Label: "start the container", Errno: e}
	}
	return &Error{Step: i, Label: s.labels[i], Errno: e, Exec: s.Steps[i].Op == OpExec, Text: s.texts[i]}
}

// Fail is the failure of step i as somebody else who carried the script out tells it.
func (s *Script) Fail(i int, e syscall.Errno) error { return s.fail(i, e) }
