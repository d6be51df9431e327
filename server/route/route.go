// Package route is what the services share in speaking HTTP: how a service
// names its routes, and the form of answers and refusals.
//
// A service gives Routes; package server puts them behind one listener, with
// limits, request ids, metrics and the check of tokens around each. A success is
// {"data": ...}, a refusal {"error": {"code", "message"}}: the form that clients
// of the library protocol read. Bodies come from anybody: their size is bounded
// by the route, unknown fields are ignored because clients send whole objects,
// and no Content-Type is required because clients send none.
//
// A message of a refusal is for the person who asked. It holds what they sent
// and what to do, never a path, an address or an error of the storage: those go
// to the log, under the request id that the answer carries.
package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"singularity/api"
	"singularity/server/store"
)

// Class is the allowance that a request counts against.
type Class int

// The classes. Health and the like count against none.
const (
	Normal   Class = iota
	Push           // making objects and beginning uploads
	Search         // whatever reads much to answer
	Login          // whatever a guess of a secret could come by
	Transfer       // bytes of images: never refused in the middle of a pull
	KeyID          // look-ups of keys by id, of which a check of signatures makes many
	KeyText        // searches of keys
	KeyAdd         // counted by the hour: a key is checked at length
	Free
)

// Route is one pattern of net/http's mux and what answers it.
type Route struct {
	Pattern string
	Handler http.HandlerFunc
	Class   Class
	// ClassOf tells the class where one pattern has several.
	ClassOf func(*http.Request) Class
	// Body bounds the body of a request; 0 stands for MaxBody, and Stream for
	// one whose length the handler bounds itself.
	Body int64
	// Presigned routes carry their authority in the address: a token that comes
	// along is not looked at.
	Presigned bool
}

const (
	MaxBody = 1 << 20
	Stream  = -1
)

// Error is a refusal with its status. Cause goes to the log alone.
type Error struct {
	Status  int
	Message string
	Cause   error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s (%d): %v", e.Message, e.Status, e.Cause)
	}
	return fmt.Sprintf("%s (%d)", e.Message, e.Status)
}

func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes a refusal.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// Refuse answers with err: an *Error as it says, faults of the storage by their
// kind, anything else as an error of ours that only the log tells.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	if e.Status >= 500 && e.Status != http.StatusNotImplemented {
		slog.ErrorContext(r.Context(), "request failed", "request", Of(r.Context()).ID, "method", r.Method, "path", r.URL.Path, "status", e.Status, "error", err.Error())
	}
	h := w.Header()
	h.Del("ETag")
	h.Del("Content-Length")
	h.Set("Cache-Control", "no-store")
	if e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable {
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", "10")
		}
	}
	writeJSON(w, e.Status, struct {
		Error api.Error `json:"error"`
	}{api.Error{Code: e.Status, Message: e.Message}})
}

func asError(err error) *Error {
	var e *Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &tooLarge):
		return &Error{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request is larger than %d bytes", tooLarge.Limit), err}
	case errors.Is(err, store.ErrNotFound):
		return &Error{http.StatusNotFound, "not found", err}
	case errors.Is(err, store.ErrExists):
		return &Error{http.StatusConflict, "exists already", err}
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrBusy):
		return &Error{http.StatusConflict, "changed by another request meanwhile: try again", err}
	case errors.Is(err, store.ErrInvalid):
		return &Error{http.StatusBadRequest, "invalid request", err}
	case errors.Is(err, store.ErrContent):
		return &Error{http.StatusUnprocessableEntity, "the content is not what was announced", err}
	case errors.Is(err, store.ErrFull):
		return &Error{http.StatusInsufficientStorage, "no space left in the storage", err}
	}
	return &Error{http.StatusInternalServerError, "internal error", err}
}

// Data answers 200 with {"data": v}.
func Data(w http.ResponseWriter, v any) {
	writeJSON(w, http.StatusOK, struct {
		Data any `json:"data"`
	}{v})
}

// JSON answers with v as it is, for the few answers without an envelope.
func JSON(w http.ResponseWriter, status int, v any) { writeJSON(w, status, v) }

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		slog.Error("an answer cannot be written", "error", err.Error())
		http.Error(w, `{"error":{"code":500,"message":"internal error"}}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}

// Decode reads the body as JSON into v, whatever its Content-Type says. An empty
// body is an empty object.
func Decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	if err := d.Decode(v); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.As(err, &tooLarge) {
			return err
		}
		return &Error{http.StatusBadRequest, "the request is not the JSON that this call takes", err}
	}
	if _, err := d.Token(); err != io.EOF {
		return Errorf(http.StatusBadRequest, "something follows the JSON of the request")
	}
	return nil
}

// Func makes a handler of a function that returns its refusal.
func Func(f func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := f(w, r); err != nil {
			Refuse(w, r, err)
		}
	}
}
