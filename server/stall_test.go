package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"singularity/server/route"
)

// TestStalled: clients that stop in the middle of something are cut, at each of
// its steps, and while they hold on the others are served.
func TestStalled(t *testing.T) {
	limits := times{header: 5 * time.Second, idle: time.Second, body: time.Second, stall: 3 * time.Second, rate: time.Second}
	const many = 8                 // of each kind
	var gaveUp [many]chan struct{} // of the handler of each that does not read
	for n := range gaveUp {
		gaveUp[n] = make(chan struct{})
	}
	read := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			route.Refuse(w, r, err)
		}
	}
	r := startTimed(t, limits, nil,
		route.Route{Pattern: "POST /small", Class: route.Free, Handler: read},
		route.Route{Pattern: "POST /large", Class: route.Free, Body: route.Stream, Handler: read},
		route.Route{Pattern: "GET /long", Class: route.Free, Handler: func(w http.ResponseWriter, r *http.Request) {
			page := make([]byte, 1<<20)
			for range 1 << 10 { // more than any buffer on the way has
				if _, err := w.Write(page); err != nil {
					close(gaveUp[r.FormValue("n")[0]-'0'])
					return
				}
			}
		}})
	raw := func() net.Conn {
		c, err := net.Dial("tcp", r.public.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	say := func(text string) func() net.Conn {
		return func() net.Conn {
			c := tls.Client(raw(), &tls.Config{RootCAs: r.ca.pool(), ServerName: "localhost"})
			io.WriteString(c, text) // if it is cut already, so be it
			return c
		}
	}
	const head = " HTTP/1.1\r\nHost: localhost\r\n"
	const noReader = "does not read the answer that it got"
	stalls := map[string]func() net.Conn{
		"says nothing":                     raw,
		"stops in the handshake":           func() net.Conn { c := raw(); c.Write([]byte{22, 3, 1, 2, 0, 1, 0}); return c },
		"says nothing after the handshake": say(""),
		"stops in the head":                say("GET /assets/config/config.prod.json" + head + "X-Slow: "),
		"stops in a small body":            say("POST /small" + head + "Content-Length: 100\r\n\r\nx"),
		"stops in a large body":            say("POST /large" + head + "Content-Length: 100000000\r\n\r\nx"),
		"asks for nothing more":            say("GET /version" + head + "\r\n"),
		noReader:                           nil,
	}
	var group sync.WaitGroup
	for name, begin := range stalls {
		for n := range many {
			if name == noReader {
				begin = say(fmt.Sprintf("GET /long?n=%d%s\r\n", n, head))
			}
			c := begin()
			defer c.Close()
			group.Go(func() {
				if name == noReader {
					select {
					case <-gaveUp[n]:
					case <-time.After(time.Minute):
						t.Errorf("a client that %s keeps its handler", name)
						return
					}
				}
				c.SetReadDeadline(time.Now().Add(time.Minute))
				n, err := io.Copy(io.Discard, bufio.NewReader(c))
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("a client that %s is never cut", name)
				}
				if n >= 1<<30 {
					t.Errorf("a client that %s got the whole", name)
				}
			})
		}
	}
	for range 20 {
		if res, _ := r.get(t, "/assets/config/config.prod.json"); res.StatusCode != http.StatusOK {
			t.Error(res.Status)
		}
	}
	group.Wait()
}
