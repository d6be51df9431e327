package keyserver

import (
	"errors"
	"net/http"
	"strings"

	"singularity/client/transfer"
)

// ErrNotFound is wrapped by the error for a key that a server does not have.
var ErrNotFound = errors.New("no such key was found")

// ErrNoServer says that no key server was named.
var ErrNoServer = errors.New("no key server is known")

// refusal is a *transfer.StatusError of a key server. 404 is an ErrNotFound.
type refusal struct{ status *transfer.StatusError }

func (e *refusal) Error() string { return "key server " + e.status.Error() }
func (e *refusal) Unwrap() error { return e.status }
func (e *refusal) Is(target error) bool {
	return target == ErrNotFound && e.status.Code == http.StatusNotFound
}

// allError are the faults of several servers.
type allError struct{ list []error }

func (e *allError) Error() string {
	var b strings.Builder
	for i, err := range e.list {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// Unwrap returns the faults. That one server does not have a key is no answer
// for another one that was not heard.
func (e *allError) Unwrap() []error {
	var list []error
	for _, err := range e.list {
		if !errors.Is(err, ErrNotFound) {
			list = append(list, err)
		}
	}
	return list
}
