package mongotest

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// front passes commands on and lets one that writes in at a time.
//
// MongoDB looks at a document and changes it in one step. FerretDB 1 looks first
// and changes then, so that of several changes of one revision at once all
// succeed; package mongo finds that out and refuses such a server. What several
// servers do on one database is tried with this in between.
type front struct {
	listener net.Listener
	socket   string
	write    sync.Mutex

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

func newFront(cert tls.Certificate, socket string) (*front, error) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, err
	}
	f := &front{listener: l, socket: socket, conns: map[net.Conn]bool{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
	return f, nil
}

func (f *front) close() {
	f.listener.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for c := range f.conns {
		c.Close()
	}
}

func (f *front) serve(c net.Conn) {
	defer c.Close()
	f.mu.Lock()
	f.conns[c] = true
	closed := f.closed
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
	}()
	if closed {
		return
	}
	back, err := net.Dial("unix", f.socket)
	if err != nil {
		return
	}
	defer back.Close()
	for {
		ask, err := message(c)
		if err != nil {
			return
		}
		answer, err := f.exchange(back, ask)
		if err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func (f *front) exchange(back net.Conn, ask []byte) ([]byte, error) {
	if writes(ask) {
		f.write.Lock()
		defer f.write.Unlock()
	}
	if _, err := back.Write(ask); err != nil {
		return nil, err
	}
	return message(back)
}

// message reads one with its head. What asks for no answer is not understood.
func message(r io.Reader) ([]byte, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head)
	if n < 16 || n > 48<<20 {
		return nil, errors.New("bad length")
	}
	m := make([]byte, n)
	copy(m, head)
	_, err := io.ReadFull(r, m[16:])
	if op := binary.LittleEndian.Uint32(head[12:]); err == nil && op == opMsg && n > 20 && m[16]&2 != 0 {
		err = errors.New("a message that more follow")
	}
	return m, err
}

// writes tells whether a message is a command that changes documents: its name
// is the first key of the first section.
func writes(m []byte) bool {
	const name = 16 + 4 + 1 + 4 + 1
	if binary.LittleEndian.Uint32(m[12:]) != opMsg || len(m) < name || m[20] != 0 {
		return false
	}
	key, _, _ := bytes.Cut(m[name:], []byte{0})
	switch string(key) {
	case "insert", "update", "delete", "findAndModify":
		return true
	}
	return false
}
