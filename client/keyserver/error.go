package keyserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"
)

// ErrNotFound is wrapped by the error for a key that a server does not have.
var ErrNotFound = errors.New("no such key was found")

// ErrNoServer says that no key server was named.
var ErrNoServer = errors.New("no key server is known")

// Bytes of an answer of which a message is made, and of the message.
const (
	maxMessage     = 64 << 10
	maxMessageText = 256
)

// StatusError is a server's refusal.
type StatusError struct {
	Host    string
	Code    int
	Message string // what the server says, one line; may be empty
	// Authorized tells that a token was sent.
	Authorized bool
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("key server %q answers %d %s", e.Host, e.Code, http.StatusText(e.Code))
	if e.Message != "" {
		s += ": " + e.Message
	}
	return strings.TrimSpace(s)
}

// Is makes 404 an ErrNotFound.
func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound && e.Code == http.StatusNotFound
}

// refused is the error of an answer that is none of success.
func (s server) refused(res *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxMessage)) // what came of it will do
	return &StatusError{Host: s.base.Host, Code: res.StatusCode, Authorized: s.auth,
		Message: message(res.Header.Get("Content-Type"), body)}
}

// message returns what the server says: of the JSON that our own servers
// write, or the first line of plain text. Pages for browsers say nothing.
func message(contentType string, body []byte) string {
	var envelope struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	text := ""
	kind, _, _ := mime.ParseMediaType(contentType)
	if json.Unmarshal(body, &envelope) == nil {
		text = envelope.Error.Message
	} else if kind == "text/plain" || kind == "" {
		text = string(body)
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	if len(text) > maxMessageText {
		text = text[:maxMessageText] + "..."
	}
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "?")
	}
	return strings.TrimSpace(text)
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
