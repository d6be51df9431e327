package action

import (
	"errors"
	"io"
	"syscall"

	"singularity/conf"
	"singularity/plan"
)

// Failure is an error with the exit status it causes and an optional hint: one
// line that says what to do next.
type Failure struct {
	Err  error
	Code int
	Hint string
}

func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Fatal returns err as a failure of exit status 255.
func Fatal(err error, hint string) error { return &Failure{Err: err, Code: 255, Hint: hint} }

// Report writes err to people and returns the exit status of the process:
// 1 for a usage error, that of a Failure, else 255. It returns 0 for nil.
func Report(l *Log, err error) int {
	if err == nil {
		return 0
	}
	if u, ok := errors.AsType[*UsageError](err); ok {
		u.write(l.Out)
		return 1
	}
	f := explain(err)
	if f.Code == 255 {
		l.Fatal(err.Error())
	} else {
		l.Error(err.Error())
	}
	if f.Hint != "" && l.Level >= LevelError {
		io.WriteString(l.Out, "hint: "+Printable(f.Hint)+"\n")
	}
	return f.Code
}

// explain is the one place that gives an error of the packages below its exit
// status and its hint. A Failure brings both itself.
func explain(err error) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	f := &Failure{Err: err, Code: 255}
	_, badConfig := errors.AsType[*conf.SyntaxError](err)
	switch {
	case badConfig:
		f.Hint = "correct the file, or ask the administrator of this host to"
	case errors.Is(err, plan.ErrOCIMode):
		f.Hint = "use native mode: leave out --oci and SINGULARITY_OCI; where 'oci mode = yes' is set in singularity.conf add --no-oci"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		f.Hint = "free some space, or let SINGULARITY_TMPDIR name a directory on a larger file system"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		f.Hint = "close programs, or raise the limit on open files (ulimit -n)"
	case errors.Is(err, syscall.EAGAIN):
		f.Hint = "end some processes of this user, or raise the limit on their number (ulimit -u)"
	case errors.Is(err, syscall.E2BIG):
		f.Hint = "pass fewer or shorter arguments and variables, or raise the limit on the stack, which bounds them (ulimit -s)"
	case errors.Is(err, syscall.EACCES):
		f.Hint = "ask the owner for permission, or use a copy of your own"
	}
	return f
}
