package mongotest

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
)

// FerretEnv names the program of FerretDB, which e2e/mongodb/build makes.
const FerretEnv = "SINGULARITY_TEST_FERRETDB"

// Ferret is a FerretDB in a process of its own: a real server with TLS,
// SCRAM-SHA-256 and data on the disk.
type Ferret struct {
	URI     string // its own TLS listener
	Orderly string // a listener of this process before it; see front.go
	CAFile  string // the authority of both

	dir     string
	program string
	sync    string
	front   *front

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{}
}

// Real is a FerretDB for a test, which is skipped where there is none.
func Real(t testing.TB) *Ferret {
	t.Helper()
	program := os.Getenv(FerretEnv)
	if program == "" {
		t.Skip(FerretEnv + " names no program, which e2e/mongodb/build makes")
	}
	f, err := StartFerret(program, t.TempDir(), Quick)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// Tests write so that all survives the end of the process, but not that of the
// machine; to measure, as the embedded store does.
const (
	Quick = "off"
	Safe  = "full"
)

// StartFerret starts the program with its data in dir; sync is Quick or Safe.
func StartFerret(program, dir, sync string) (*Ferret, error) {
	cert, ca, err := Certificate()
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	f := &Ferret{CAFile: filepath.Join(dir, "ferret-ca.pem"), dir: dir, program: program, sync: sync}
	err = errors.Join(os.WriteFile(f.CAFile, ca, 0o600),
		os.WriteFile(f.path("key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
		os.Mkdir(f.path("data"), 0o700))
	if err != nil {
		return nil, err
	}
	if err := f.Start(); err != nil {
		return nil, err
	}
	if f.front, err = newFront(cert, f.path("socket")); err != nil {
		f.Kill()
		return nil, err
	}
	f.Orderly = address(f.front.listener.Addr().String())
	return f, nil
}

func address(host string) string {
	return "mongodb://" + User + ":correct%20horse@" + host + "/?tls=true"
}

func (f *Ferret) path(name string) string { return filepath.Join(f.dir, "ferret-"+name) }

var ferretListens = regexp.MustCompile(`Listening on TLS (127\.0\.0\.1:[0-9]+)`)

// Start starts the process and waits until it listens; after Kill, with what it
// had stored. Its own address is another one then.
func (f *Ferret) Start() error {
	os.Remove(f.path("socket"))
	cmd := exec.Command(f.program, "--handler=sqlite", "--sqlite-url=file:"+f.path("data")+"/?_pragma=synchronous("+f.sync+")", "--state-dir=-", "--listen-addr=", "--listen-unix="+f.path("socket"),
		"--listen-tls=127.0.0.1:0", "--listen-tls-cert-file="+f.CAFile, "--listen-tls-key-file="+f.path("key.pem"), "--debug-addr=-", "--telemetry=disable",
		"--test-enable-new-auth", "--setup-database=admin", "--setup-username="+User)
	cmd.Env = []string{"FERRETDB_SETUP_PASSWORD=" + Password, "DO_NOT_TRACK=1"}
	cmd.Dir = f.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(f.path("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		log.Close()
		return fmt.Errorf("cannot start FerretDB: %w", err)
	}
	ended := make(chan struct{})
	listens := make(chan string, 1)
	var said bytes.Buffer
	go func() {
		defer close(ended)
		defer log.Close()
		lines := bufio.NewScanner(io.TeeReader(out, log))
		for waits := true; lines.Scan(); {
			if m := ferretListens.FindSubmatch(lines.Bytes()); waits && m != nil {
				listens <- string(m[1])
				waits = false
			} else if waits {
				said.Write(append(lines.Bytes(), '\n'))
			}
		}
		io.Copy(log, out) // behind a line that is too long
		cmd.Wait()
	}()
	select {
	case host := <-listens:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.URI, f.cmd, f.ended = address(host), cmd, ended
		return nil
	case <-ended:
		return fmt.Errorf("FerretDB ended: %s", said.String())
	}
}

// Kill ends the process at once, as a crash does, and breaks the connections.
func (f *Ferret) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cmd.Process.Kill()
	<-f.ended
}

// Close ends both.
func (f *Ferret) Close() {
	f.front.close()
	f.Kill()
}

// Host is the address in a URI of this package.
func Host(uri string) string {
	_, host, _ := bytes.Cut([]byte(uri), []byte("@"))
	host, _, _ = bytes.Cut(host, []byte("/"))
	if _, _, err := net.SplitHostPort(string(host)); err != nil {
		return ""
	}
	return string(host)
}
