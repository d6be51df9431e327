package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"singularity/sif"
)

// site is a server's data directory, with who uses it.
type site struct {
	b     *bench
	dir   string
	count int    // of keys, and of images
	url   string // of the server that runs
	token string
	keys  []string // the 64-bit ids
	tls   *tls.Config
	http  *http.Client
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// process is a server that runs.
type process struct {
	cmd   *exec.Cmd
	addr  string
	ended chan struct{}
}

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.ended
}

// tree are the process and its children, which nginx has.
func (p *process) tree() []int {
	pid := p.cmd.Process.Pid
	list := []int{pid}
	for _, f := range strings.Fields(readAll(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))) {
		if n, err := strconv.Atoi(f); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// cpu is what it has used until now, in ticks of 10 ms.
func (p *process) cpu() time.Duration {
	ticks := 0
	for _, pid := range p.tree() {
		_, rest, _ := strings.Cut(readAll(fmt.Sprintf("/proc/%d/stat", pid)), ") ")
		if f := strings.Fields(rest); len(f) > 12 {
			user, _ := strconv.Atoi(f[11])
			system, _ := strconv.Atoi(f[12])
			ticks += user + system
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func (p *process) memory() (int64, error) {
	for line := range strings.Lines(readAll(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("the server has ended")
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start starts the server and waits until it is ready, which the internal
// listener tells; its authority is made by the first start.
func (s *site) start(ctx context.Context, flags ...string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	internal, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s.url = "https://" + addr
	c := s.b.command(ctx, append([]string{s.b.program("singularity-server"), "serve", "--data", s.path("data"), "--listen", addr, "--internal", internal, "--url", s.url,
		"--tls-cert", s.path("cert.pem"), "--tls-key", s.path("key.pem"), "--rate-free", "127.0.0.0/8", "--rate-key-add", "1000000"}, flags...)...)
	c.Env = append(c.Env, "SSL_CERT_FILE="+s.path("cert.pem")) // builds trust the listener
	log, err := os.Create(s.path("server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.Stderr = log // a line for each request, as a site has them
	at, path := internal, "/readyz"
	if !exists(s.path("data/tls/ca.pem")) {
		at, path = addr, "/version"
	}
	p, err := s.launch(ctx, c, at, path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, readAll(s.path("server.log")))
	}
	return p, nil
}

// certificate makes one for both servers.
func (s *site) certificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool.AppendCertsFromPEM(text)
	// The internal listener has a certificate of the server's own authority.
	if ca, err := os.ReadFile(s.path("data/tls/ca.pem")); err == nil {
		pool.AppendCertsFromPEM(ca)
	}
	s.tls = &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}}
	s.http = &http.Client{Transport: &http.Transport{TLSClientConfig: s.tls.Clone(), WriteBufferSize: 256 << 10}}
	err = os.WriteFile(s.path("cert.pem"), text, 0o644)
	if err == nil {
		err = os.WriteFile(s.path("key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
	}
	return errors.Join(err, s.give())
}

// give makes everything the ordinary user's, as whom the servers run.
func (s *site) give() error {
	if os.Getuid() != 0 {
		return nil
	}
	return filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, s.b.user.uid, s.b.user.gid)
	})
}

// call makes a request with JSON.
func (s *site) call(ctx context.Context, method, path string, in, out any) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(answer, out)
	}
	return err
}

// put sends a part and returns its tag.
func (s *site) put(ctx context.Context, to string, body io.Reader, size int64) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, to, body)
	if err != nil {
		return "", err
	}
	req.ContentLength = size
	res, err := s.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		return "", fmt.Errorf("part: %s: %s", res.Status, text)
	}
	return res.Header.Get("Etag"), nil
}

// client is a connection that stays. It reads no more of an answer than it must:
// what it takes is taken from the server.
type client struct {
	conn *tls.Conn
	in   *bufio.Reader
	host string
}

func (s *site) dial(ctx context.Context) (*client, error) {
	return s.dialAddr(ctx, strings.TrimPrefix(s.url, "https://"))
}

func (s *site) dialAddr(ctx context.Context, addr string) (*client, error) {
	d := tls.Dialer{Config: s.tls}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{c.(*tls.Conn), bufio.NewReaderSize(c, 16<<10), addr}, nil
}

// get asks and returns the status.
func (c *client) get(path string) (int, error) {
	if _, err := io.WriteString(c.conn, "GET "+path+" HTTP/1.1\r\nHost: "+c.host+"\r\n\r\n"); err != nil {
		return 0, err
	}
	status, length := 0, -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if status == 0 {
			status, _ = strconv.Atoi(string(line[9:12]))
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(v)))
		}
	}
	if length < 0 {
		return status, errors.New("an answer without a length")
	}
	_, err := c.in.Discard(length)
	return status, err
}

// askKeys has some clients look up keys, and returns how long it took them, and
// all but the slowest hundredth of single look-ups.
func (s *site) askKeys(ctx context.Context, clients, each int) (took, slow time.Duration, err error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var next atomic.Uint64
	conns := make([]*client, clients)
	for i := range conns {
		if conns[i], err = s.dial(ctx); err != nil {
			return 0, 0, err
		}
		defer conns[i].conn.Close()
	}
	var wait sync.WaitGroup
	begun := time.Now()
	for _, c := range conns {
		wait.Go(func() {
			times := make([]time.Duration, 0, each)
			for range each {
				id := s.keys[next.Add(7919)%uint64(len(s.keys))]
				asked := time.Now()
				status, err := c.get("/pks/lookup?op=get&exact=on&options=mr&search=0x" + id)
				if err == nil && status != 200 {
					err = fmt.Errorf("key %s: %d", id, status)
				}
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				times = append(times, time.Since(asked))
			}
			mu.Lock()
			all = append(all, times...)
			mu.Unlock()
		})
	}
	wait.Wait()
	took = time.Since(begun)
	if failed != nil {
		return 0, 0, failed
	}
	slices.Sort(all)
	return took, all[len(all)*99/100], nil
}

// makeSIF makes an image of noise.
func makeSIF(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = sif.Create(f, sif.CreateOptions{}, sif.Input{Type: sif.DataPartition, Group: 1, Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: runtime.GOARCH}.Extra(),
		Data: io.LimitReader(rand.Reader, size-partOff)})
	return errors.Join(err, f.Close())
}
