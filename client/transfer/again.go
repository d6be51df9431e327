package transfer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long a request waits for a server that is being started again: the first
// wait, of which each next is twice as long up to the longest, how often it is made
// again, and all together, as a server may ask for longer waits.
const (
	firstAgain   = 200 * time.Millisecond
	longestAgain = 2 * time.Second
	maxAgain     = 8
	patience     = 15 * time.Second
)

type contextKey int

const (
	repeatKey contextKey = iota // a request that may be made twice, whatever its method
	onceKey                     // one whose caller makes it again himself
	tellKey                     // who hears of one that is made again
)

// Repeatable marks requests that are good to be made twice, although their method
// is none that says so.
func Repeatable(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatKey, true)
}

// Telling has tell hear, once for each request, that it is made again.
func Telling(ctx context.Context, tell func(string)) context.Context {
	return context.WithValue(ctx, tellKey, tell)
}

// patient makes requests again whose server is not there for a moment: it refuses
// or drops connections, or a proxy before it says so.
//
// A request is made again only if to make it twice is the same as once, by its
// method or because the caller says so, or if it never left; and only with a body
// that can be sent from its beginning.
type patient struct {
	inner http.RoundTripper
	first time.Duration // the wait
}

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	tell, _ := r.Context().Value(tellKey).(func(string))
	end, wait := time.Now().Add(patience), p.first
	for try := 1; ; try++ {
		res, err := p.inner.RoundTrip(r)
		why, rest := passing(r, res, err)
		if why == "" || try > maxAgain || r.Context().Value(onceKey) != nil {
			return res, err
		}
		if rest == 0 {
			rest = jitter(wait)
			wait = min(2*wait, longestAgain)
		}
		if time.Now().Add(rest).After(end) {
			return res, err
		}
		next, ok := afresh(r)
		if !ok {
			return res, err
		}
		if tell != nil && (try == 2 || rest > time.Second) {
			tell(fmt.Sprintf("%s %s: trying again", r.URL.Host, why))
			tell = nil
		}
		if res != nil {
			io.CopyN(io.Discard, res.Body, maxMessage)
			res.Body.Close()
		}
		if err := Pause(r.Context(), rest); err != nil {
			return nil, err
		}
		r = next
	}
}

// jitter is between half of d and d, so that not all clients come at once.
func jitter(d time.Duration) time.Duration {
	var b [2]byte
	rand.Read(b[:])
	return d/2 + d/2*time.Duration(binary.LittleEndian.Uint16(b[:]))/(1<<16)
}

// afresh is the request with its body at the beginning.
func afresh(r *http.Request) (*http.Request, bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, true
	}
	if r.GetBody == nil {
		return nil, false
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, false
	}
	again := r.Clone(r.Context())
	again.Body = body
	return again, true
}

// passing says what is the matter with the server if that may pass and the request
// may be made again, and how long it asks to wait; 0 if it does not.
func passing(r *http.Request, res *http.Response, err error) (string, time.Duration) {
	if r.Context().Err() != nil {
		return "", 0
	}
	var op *net.OpError
	if errors.Is(err, syscall.ECONNREFUSED) && errors.As(err, &op) && op.Op == "dial" {
		return "refuses connections", 0 // nothing was sent
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
	default:
		if r.Context().Value(repeatKey) == nil {
			return "", 0
		}
	}
	if err != nil {
		if dropped(err) {
			return "drops the connection", 0
		}
		return "", 0
	}
	switch res.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return fmt.Sprintf("answers %d", res.StatusCode), retryAfter(res.Header.Get("Retry-After"))
	}
	return "", 0
}

// dropped tells whether the connection ended before an answer came.
func dropped(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	// What net/http has no exported errors for.
	text := fmt.Sprint(err)
	return strings.Contains(text, "server sent GOAWAY") || strings.Contains(text, "client connection lost") || strings.Contains(text, "server closed idle connection")
}

// retryAfter reads a number of seconds, or a time.
func retryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return time.Duration(min(n, 1<<20)) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}
