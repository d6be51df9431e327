package action

import (
	"errors"
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
// that of a Failure, else 255. It returns 0 for nil.
func Report(l *Log, err error) int {
	if err == nil {
		return 0
	}
	code, hint := 255, ""
	if f, ok := errors.AsType[*Failure](err); ok {
		code, hint = f.Code, f.Hint
	}
	l.Fatal(err.Error())
	if hint != "" && l.Level >= LevelError {
		l.Out.Write([]byte("hint: " + Printable(hint) + "\n"))
	}
	return code
}
