package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// stopping is a server of its own address of the loopback, so that nobody else
// takes its port while it is stopped.
type stopping struct {
	t      *testing.T
	addr   string
	handle http.HandlerFunc
	server *http.Server
}

func newStopping(t *testing.T, handle http.HandlerFunc) *stopping {
	t.Helper()
	var b [3]byte
	rand.Read(b[:])
	s := &stopping{t: t, addr: fmt.Sprintf("127.%d.%d.%d:0", 1+b[0]%250, b[1], 1+b[2]%250), handle: handle}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *stopping) start() {
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.addr, s.server = l.Addr().String(), &http.Server{Handler: s.handle}
	go s.server.Serve(l)
}

func (s *stopping) stop() { s.server.Close() }

func patientClient(t *testing.T) *http.Client {
	t.Helper()
	inner, err := NewTransport(&Settings{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	return NewClient(patient{inner, 2 * time.Millisecond})
}

func ask(c *http.Client, ctx context.Context, method, url string, body io.Reader) (int, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	res, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// TestRestarted: a server that is stopped and started again answers a request of
// every method that came meanwhile; the user hears of it once.
func TestRestarted(t *testing.T) {
	var got []string
	s := newStopping(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+string(text))
	})
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "POST"} {
		// Without a connection of the time before, on which a POST may have begun.
		tr, err := NewTransport(&Settings{Plain: true, Again: true})
		if err != nil {
			t.Fatal(err)
		}
		s.stop()
		got = nil
		var said []string
		ctx := Telling(t.Context(), func(text string) { said = append(said, text); s.start() })
		var body io.Reader
		if method == "PUT" || method == "POST" {
			body = strings.NewReader("whole")
		}
		if status, err := ask(NewClient(tr), ctx, method, "http://"+s.addr, body); err != nil || status != 200 {
			t.Errorf("%s: %d %v", method, status, err)
		}
		want := method + " "
		if body != nil {
			want += "whole"
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("%s: the server got %q", method, got)
		}
		if len(said) != 1 || said[0] != s.addr+" refuses connections: trying again" {
			t.Errorf("%s: said %q", method, said)
		}
	}
}

// TestDropped: a request whose connection breaks is made again if that is the same
// as once, with its whole body, and else not: a POST may have been carried out.
func TestDropped(t *testing.T) {
	var mu sync.Mutex
	var bodies []string
	s := newStopping(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, string(text))
		if len(bodies) < 3 {
			panic(http.ErrAbortHandler) // carried out, but nobody hears of it
		}
	})
	plain, repeatable := t.Context(), Repeatable(t.Context())
	for name, c := range map[string]struct {
		method string
		ctx    context.Context
		body   io.Reader
		want   int
	}{
		"GET": {"GET", plain, nil, 3}, "DELETE": {"DELETE", plain, nil, 3}, "PUT": {"PUT", plain, strings.NewReader("whole"), 3},
		"PUT that cannot be sent again": {"PUT", plain, io.LimitReader(strings.NewReader("whole"), 5), 1},
		"POST":                          {"POST", plain, strings.NewReader("whole"), 1}, "POST that may be repeated": {"POST", repeatable, strings.NewReader("whole"), 3},
		"PATCH": {"PATCH", plain, strings.NewReader("whole"), 1},
		"once":  {"GET", context.WithValue(plain, onceKey, true), nil, 1},
	} {
		bodies = nil
		_, err := ask(patientClient(t), c.ctx, c.method, "http://"+s.addr, c.body)
		if (err == nil) != (c.want == 3) {
			t.Errorf("%s: %v", name, err)
		}
		mu.Lock()
		for _, b := range bodies {
			if c.body != nil && b != "whole" {
				t.Errorf("%s: the body %q came", name, b)
			}
		}
		if len(bodies) != c.want {
			t.Errorf("%s: came %d times, want %d", name, len(bodies), c.want)
		}
		mu.Unlock()
	}
}

// TestBusy: a server, or a proxy before it, may say that it is away; how long it
// asks to wait is followed, unless that is longer than anybody would sit there.
func TestBusy(t *testing.T) {
	var n atomic.Int32
	after, status := "", 0
	s := newStopping(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) < 3 {
			w.Header().Set("Retry-After", after)
			w.WriteHeader(status)
		}
	})
	for _, c := range []struct {
		status, want int
		after        string
		least        time.Duration
		times        int32
	}{
		{502, 200, "", 0, 3}, {503, 200, "", 0, 3}, {503, 200, "1", 2 * time.Second, 3}, {503, 503, "3600", 0, 1}, {503, 200, "nonsense", 0, 3},
		{500, 500, "", 0, 1}, {429, 429, "1", 0, 1}, {404, 404, "", 0, 1},
	} {
		n.Store(0)
		after, status = c.after, c.status
		begun := time.Now()
		got, err := ask(patientClient(t), t.Context(), "GET", "http://"+s.addr, nil)
		if err != nil || got != c.want || n.Load() != c.times || time.Since(begun) < c.least {
			t.Errorf("%d with Retry-After %q: %d, %v, after %v, %d times", c.status, c.after, got, err, time.Since(begun), n.Load())
		}
	}
	later := time.Now().Add(5 * time.Second).UTC().Format(http.TimeFormat)
	if d := retryAfter(later); d < 3*time.Second || d > 5*time.Second {
		t.Errorf("%q is %v from now", later, d)
	}
}

// TestGivenUp: a server that does not come is given up, with the error of the last
// try, and who interrupts the wait does not wait.
func TestGivenUp(t *testing.T) {
	s := newStopping(t, func(http.ResponseWriter, *http.Request) {})
	s.stop()
	n := 0
	if _, err := ask(patientClient(t), Telling(t.Context(), func(string) { n++ }), "GET", "http://"+s.addr, nil); !errors.Is(err, syscall.ECONNREFUSED) || n != 1 {
		t.Errorf("%v, told %d times", err, n)
	}
	ctx, stop := context.WithCancel(t.Context())
	inner, err := NewTransport(&Settings{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	slow := NewClient(patient{inner, 5 * time.Second})
	time.AfterFunc(20*time.Millisecond, stop)
	begun := time.Now()
	if _, err := ask(slow, ctx, "GET", "http://"+s.addr, nil); !errors.Is(err, context.Canceled) || time.Since(begun) > 2400*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	// What does not pass by waiting is not tried again.
	offline, err := NewTransport(&Settings{Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	told := Telling(t.Context(), func(text string) { t.Error(text) })
	for _, tr := range []http.RoundTripper{offline, inner} {
		if _, err := ask(NewClient(patient{tr, time.Millisecond}), told, "GET", "https://nosuch.invalid", nil); err == nil {
			t.Error("an answer of nobody")
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Fri, 31 Dec 1999 23:59:59 GMT")
	f.Fuzz(func(t *testing.T, s string) {
		if d := retryAfter(s); d < 0 {
			t.Errorf("%q: %v", s, d)
		}
	})
}
