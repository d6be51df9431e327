package transfer

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// maxMessage bounds what a server may say about an error, in bytes.
const maxMessage = 8 << 10

// StatusError is the refusal of a server.
type StatusError struct {
	Host    string
	Code    int
	Message string // the server's own; may be empty
	// Used tells where the credentials came from that were sent; empty if none.
	Used string
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s answers %d %s", e.Host, e.Code, http.StatusText(e.Code))
	if e.Message != "" {
		text += ": " + e.Message
	}
	switch {
	case e.Code != http.StatusUnauthorized && e.Code != http.StatusForbidden:
	case e.Used == "":
		text += " (no credentials were sent)"
	default:
		text += " (with the credentials of " + e.Used + ")"
	}
	return text
}

// NewStatusError reads the body of a refusal, a JSON envelope of a library or a
// registry or plain text.
func NewStatusError(r *http.Response, used string) *StatusError {
	e := &StatusError{Code: r.StatusCode, Used: used}
	if r.Request != nil {
		e.Host = r.Request.URL.Host
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxMessage))
	e.Message = message(r.Header.Get("Content-Type"), body)
	return e
}

func message(kind string, body []byte) string {
	var envelope struct {
		Error  json.RawMessage
		Errors []struct{ Code, Message string }
		// What token servers say.
		Details, Message string
		Description      string `json:"error_description"`
	}
	if json.Unmarshal(body, &envelope) == nil {
		var inner struct{ Message string }
		json.Unmarshal(envelope.Error, &inner)
		var list []string
		for _, m := range []string{inner.Message, envelope.Message, envelope.Details, envelope.Description} {
			if m != "" {
				list = append(list, m)
			}
		}
		for _, m := range envelope.Errors {
			list = append(list, strings.Trim(m.Code+": "+m.Message, ": "))
		}
		return oneLine(strings.Join(list, "; "))
	}
	if strings.Contains(kind, "html") {
		return "" // a page for people with a browser
	}
	return oneLine(string(body))
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 400 {
		s = s[:400] + "..."
	}
	return s
}

// Unreachable tells whether err means that no server could be talked to.
func Unreachable(err error) bool {
	if errors.Is(err, ErrOffline) {
		return true
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return true
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return true
	}
	_, dns := errors.AsType[*net.DNSError](err)
	return dns
}

// Plain takes the query out of the error of an http.Client: it may hold a token.
func Plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("cannot reach %s: %w", Redact(u.URL), u.Err)
	}
	return err
}

// isTLS tells whether err is about the certificate of the server.
func isTLS(err error) bool {
	_, a := errors.AsType[*tls.CertificateVerificationError](err)
	_, b := errors.AsType[tls.RecordHeaderError](err)
	return a || b
}
