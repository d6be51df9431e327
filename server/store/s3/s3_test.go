package s3

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"singularity/server/store"
	"singularity/server/store/embedded"
	"singularity/server/store/mongo/mongotest"
	"singularity/server/store/s3/s3test"
	"singularity/server/store/storetest"
)

func certificate(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	cert, ca, err := mongotest.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	return cert, ca
}

func fake(t *testing.T) *s3test.Server {
	t.Helper()
	cert, ca := certificate(t)
	s, err := s3test.New(t.TempDir(), cert, ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// open opens the bucket below a beginning of its own.
func open(t *testing.T, o Options) *Blobs {
	t.Helper()
	r, err := embedded.OpenRecords(t.Context(), filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	o.Prefix = "/" + store.NewID()
	b, err := Open(t.Context(), r, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func of(s *s3test.Server) Options {
	return Options{Endpoint: s.Endpoint, CAFile: s.CAFile, Bucket: s3test.Bucket, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Region: "us-east-1"}
}

// TestBlobs runs the contract on the server of the tests.
func TestBlobs(t *testing.T) {
	s := fake(t)
	storetest.Blobs(t, 1<<20, func(t *testing.T) store.Blobs { return open(t, of(s)) })
}

// TestFaultyBlobs runs the contract while requests break.
func TestFaultyBlobs(t *testing.T) {
	s := fake(t)
	var n atomic.Int64
	s.Fail(func(string, string) s3test.Fault {
		switch n.Add(1) % 23 {
		case 6:
			return s3test.Fault{Before: true}
		case 12:
			return s3test.Fault{After: true}
		case 18:
			return s3test.Fault{Half: true}
		case 20:
			return s3test.Fault{Status: http.StatusServiceUnavailable}
		}
		return s3test.Fault{}
	})
	storetest.Blobs(t, 1<<20, func(t *testing.T) store.Blobs { return open(t, of(s)) })
}

// gateway starts versitygw, if there is one: by SINGULARITY_TEST_VERSITYGW, or on
// PATH.
func gateway(t *testing.T) Options {
	t.Helper()
	program := os.Getenv("SINGULARITY_TEST_VERSITYGW")
	if program == "" {
		program = "versitygw"
	}
	program, err := exec.LookPath(program)
	if err != nil {
		t.Skip("versitygw is not here: SINGULARITY_TEST_VERSITYGW=$(e2e/versitygw/build) names one")
	}
	dir := t.TempDir()
	cert, ca := certificate(t)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, p []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, p, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certFile, keyFile := write("cert.pem", ca), write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(filepath.Join(data, s3test.Bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	port, err := s3test.Port()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--port", "127.0.0.1:"+port, "--cert", certFile, "--key", keyFile, "posix", data)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3test.AccessKey, "ROOT_SECRET_KEY="+s3test.SecretKey)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	for {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
			break
		}
		select {
		case <-ended:
			ended <- nil
			t.Fatal(out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return Options{Endpoint: "https://127.0.0.1:" + port, CAFile: certFile, Bucket: s3test.Bucket, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Region: "us-east-1"}
}

// TestGateway runs the contract on versitygw.
func TestGateway(t *testing.T) {
	o := gateway(t)
	storetest.Blobs(t, 1<<20, func(t *testing.T) store.Blobs { return open(t, o) })
	t.Run("large", func(t *testing.T) { testLarge(t, open(t, o)) })
	t.Run("direct", func(t *testing.T) { testDirect(t, o) })
}

func TestLarge(t *testing.T) { testLarge(t, open(t, of(fake(t)))) }

func TestDirect(t *testing.T) { testDirect(t, of(fake(t))) }

// testLarge: more than a block, of known and of unknown size, and refused at its
// very end.
func testLarge(t *testing.T, b *Blobs) {
	p := storetest.Bytes(1, 2*blockSize+blockSize/2)
	for name, want := range map[string]store.Content{"known": storetest.Of(p), "unknown": store.Unknown} {
		info, err := b.Put(t.Context(), "large/"+name, bytes.NewReader(p), want)
		if err != nil || info.SHA256 != storetest.Of(p).SHA256 {
			t.Fatalf("%+v %v", info, err)
		}
		f, err := b.Open(t.Context(), "large/"+name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || !bytes.Equal(got, p) {
			t.Errorf("%d bytes came back, of %d, %v", len(got), len(p), err)
		}
	}
	wrong := storetest.Of(p)
	wrong.SHA256 = storetest.Of(p[1:]).SHA256
	if _, err := b.Put(t.Context(), "large/wrong", bytes.NewReader(p), wrong); !errors.Is(err, store.ErrContent) {
		t.Errorf("another digest: %v", err)
	}
	if _, err := b.Stat(t.Context(), "large/wrong"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a refused blob is there: %v", err)
	}
}

// testDirect: an upload in parts becomes one object, and whoever has an address
// of it reads it without a log-in; without Direct there is none.
func testDirect(t *testing.T, o Options) {
	if _, err := open(t, o).Presign(t.Context(), store.Access{Method: http.MethodGet, Name: "a", Expires: time.Minute}); !errors.Is(err, store.ErrUnsupported) {
		t.Errorf("without direct: %v", err)
	}
	o.Direct = true
	b := open(t, o)
	const part = 5 << 20
	p := storetest.Bytes(2, 2*part+1000)
	u, err := b.Start(t.Context(), store.Plan{Size: int64(len(p)), PartSize: part})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		piece := p[n*part : min((n+1)*part, len(p))]
		if _, err := b.PutPart(t.Context(), u.ID, n+1, bytes.NewReader(piece), storetest.Of(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Complete(t.Context(), u.ID, "sha256/x", storetest.Of(p)); err != nil {
		t.Fatal(err)
	}
	address, err := b.Presign(t.Context(), store.Access{Method: http.MethodGet, Name: "sha256/x", Expires: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := transport(o.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: rt}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", part-5, part+5))
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusPartialContent || !bytes.Equal(got, p[part-5:part+6]) {
		t.Errorf("%s: %d bytes, %v", res.Status, len(got), err)
	}
	other, err := client.Get(strings.Replace(address, "Signature=", "Signature=0", 1))
	if err != nil {
		t.Fatal(err)
	}
	other.Body.Close()
	if other.StatusCode != http.StatusForbidden {
		t.Errorf("with another signature: %s", other.Status)
	}
	// The parts are no longer needed, and go; the whole stays.
	b.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if n, err := b.Sweep(t.Context()); err != nil || n != 3 {
		t.Errorf("%d objects swept, want the 3 parts, %v", n, err)
	}
	f, err := b.Open(t.Context(), "sha256/x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if all, err := io.ReadAll(f); err != nil || !bytes.Equal(all, p) {
		t.Errorf("%d bytes are left, of %d, %v", len(all), len(p), err)
	}
}

// TestSweep: of what was deleted, replaced, aborted and cut nothing is left, but
// only after a time, and nothing that a blob has goes.
func TestSweep(t *testing.T) {
	s := fake(t)
	b := open(t, of(s))
	ctx, p := t.Context(), storetest.Bytes(3, 1000)
	put := func(name string, c store.Content) error {
		_, err := b.Put(ctx, name, bytes.NewReader(p), c)
		return err
	}
	for _, name := range []string{"a", "b", "b", "c"} {
		if err := put(name, storetest.Of(p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := put("d", store.Content{Size: 999}); !errors.Is(err, store.ErrContent) {
		t.Fatal(err)
	}
	u, err := b.Start(ctx, store.Plan{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.PutPart(ctx, u.ID, 1, bytes.NewReader(p), store.Unknown); err != nil {
		t.Fatal(err)
	}
	// A server dies between the object and the record of its part.
	if err := b.send(ctx, b.key(u.ID, "2", "lost"), newIntake(bytes.NewReader(p), nil, store.Unknown)); err != nil {
		t.Fatal(err)
	}
	if err := b.Abort(ctx, u.ID); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Sweep(ctx); n != 0 || err != nil {
		t.Errorf("%d objects were swept at once, %v", n, err)
	}
	b.now = func() time.Time { return time.Now().Add(72 * time.Hour) }
	if _, err := b.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if objects, unfinished := s.Keys(); len(objects) != 2 || len(unfinished) != 0 {
		t.Errorf("left: %v, %v", objects, unfinished)
	}
	for _, name := range []string{"b", "c"} {
		f, err := b.Open(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, p) {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}

// TestRetried: a completion whose server died is made again by another.
func TestRetried(t *testing.T) {
	b := open(t, of(fake(t)))
	ctx, p := t.Context(), storetest.Bytes(4, 5000)
	u, err := b.Start(ctx, store.Plan{Size: 5000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.PutPart(ctx, u.ID, 1, bytes.NewReader(p), store.Unknown); err != nil {
		t.Fatal(err)
	}
	i, err := b.find(ctx, u.ID)
	if err != nil {
		t.Fatal(err)
	}
	i.Value.Ending, i.Value.Since = "x", time.Now()
	if _, err := b.uploads.Replace(ctx, i); err != nil {
		t.Fatal(err)
	}
	if err := b.Abort(ctx, u.ID); !errors.Is(err, store.ErrBusy) {
		t.Errorf("an abort while it is completed: %v", err)
	}
	if _, err := b.Complete(ctx, u.ID, "x", storetest.Of(p)); err != nil {
		t.Fatal(err)
	}
	if err := b.Abort(ctx, u.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an abort of what is completed: %v", err)
	}
}

// TestOptions: no plain HTTP, no storage without keys, no secret in an error.
func TestOptions(t *testing.T) {
	s := fake(t)
	r, err := embedded.OpenRecords(t.Context(), filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for word, change := range map[string]func(*Options){
		"https":          func(o *Options) { o.Endpoint = strings.Replace(o.Endpoint, "https", "http", 1) },
		"none like":      func(o *Options) { o.Endpoint = "https://user:geheim@host" },
		"secret key":     func(o *Options) { o.SecretKey = "" },
		"no bucket":      func(o *Options) { o.Bucket = "" },
		"no such bucket": func(o *Options) { o.Bucket = "other" },
		"certificate":    func(o *Options) { o.CAFile = "" },
		"bucket":         func(o *Options) { o.SecretKey = "geheim" },
	} {
		o := of(s)
		change(&o)
		if _, err := Open(t.Context(), r, o); err == nil || !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", word, err)
		}
	}
}
