// Package s3 keeps blobs in storage that speaks the protocol of S3, so that
// several servers share them.
//
// What the storage holds are objects that are written once, under names nobody
// can guess, and never changed. Which of them are a blob is a record (package
// store), with size and SHA-256, and so is an upload with the parts that have
// come. A blob is there from the one write of its record on, and gone by
// another, whatever the storage does with the objects meanwhile; readers of a
// blob that was deleted have an hour to end. So the storage needs no versions, no
// conditional writes and no order of its own.
//
//	PREFIX/data/ID/NAME    a piece of a blob: the whole, or a part of an upload
//	blob_names             name -> pieces, size, SHA-256
//	blob_uploads           id -> plan, parts, state of the hash
//	blob_rests             objects to remove, after a time, unless a blob has them
//
// Bytes are hashed while they arrive and sent on in blocks, each with its own
// hash, which the storage compares; nothing is kept on this machine. A rest is
// noted before an object is made, so that a crash leaves nothing that Sweep does
// not find.
//
// The storage is trusted to keep what it took, and to keep it from others: the
// bucket is private and reached by TLS with verification alone. Clients see
// addresses of it only if Direct is set, for reading one blob and for some time.
//
//   - s3.go: the connection; object.go: objects, in and out
//   - blobs.go: blobs by name; uploads.go: uploads in parts; rest.go: what goes
package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"singularity/server/store"
)

// Options of the storage.
type Options struct {
	Endpoint  string // https://HOST[:PORT]
	Bucket    string
	Prefix    string // of all names, for several services in one bucket
	Region    string
	AccessKey string
	SecretKey string
	CAFile    string // authorities beside the system's
	Encrypt   bool   // ask the storage to encrypt with its own keys
	Direct    bool   // let clients read from the storage itself
}

// Blobs keeps blobs in a bucket.
type Blobs struct {
	core   *minio.Core
	o      Options
	sse    encrypt.ServerSide
	blocks sync.Pool
	now    func() time.Time

	names   *store.Collection[named]
	uploads *store.Collection[going]
	rests   *store.Collection[rest]
}

var _ store.Blobs = (*Blobs)(nil)

// Open opens the bucket, which must exist, with its records in r.
func Open(ctx context.Context, r store.Records, o Options) (*Blobs, error) {
	u, err := url.Parse(o.Endpoint)
	switch {
	case err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return nil, errors.New("cannot use the address of the S3 storage: it is none like https://s3.example.org")
	case u.Scheme != "https":
		return nil, fmt.Errorf("cannot use the S3 storage %q: without https everybody on the way would read and change blobs", o.Endpoint)
	case o.Bucket == "":
		return nil, fmt.Errorf("cannot use the S3 storage %q: no bucket is named", o.Endpoint)
	case o.AccessKey == "" || o.SecretKey == "":
		return nil, fmt.Errorf("cannot use the S3 storage %q: it needs an access key and a secret key", o.Endpoint)
	}
	transport, err := transport(o.CAFile)
	if err != nil {
		return nil, err
	}
	core, err := minio.NewCore(u.Host, &minio.Options{Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""), Secure: true, Region: o.Region, Transport: transport, MaxRetries: retries})
	if err != nil {
		return nil, fmt.Errorf("cannot use the S3 storage %q: %w", o.Endpoint, err)
	}
	b := &Blobs{core: core, o: o, now: time.Now, blocks: sync.Pool{New: func() any { p := make([]byte, blockSize); return &p }}}
	b.o.Prefix = strings.Trim(o.Prefix, "/")
	if b.o.Prefix != "" {
		b.o.Prefix += "/"
	}
	if o.Encrypt {
		b.sse = encrypt.NewSSE()
	}
	if err := b.openRecords(ctx, r); err != nil {
		return nil, err
	}
	if err := b.Ping(ctx); err != nil {
		return nil, fmt.Errorf("cannot use the bucket %q of %s: %w", o.Bucket, o.Endpoint, err)
	}
	return b, nil
}

func (b *Blobs) openRecords(ctx context.Context, r store.Records) (err error) {
	if b.names, err = store.Open(ctx, r, "blob_names", store.Options[named]{}); err != nil {
		return err
	}
	if b.uploads, err = store.Open(ctx, r, "blob_uploads", store.Options[going]{}); err != nil {
		return err
	}
	b.rests, err = store.Open(ctx, r, "blob_rests", store.Options[rest]{Indexes: []store.Index[rest]{{Name: "due", Of: func(r *rest) []string { return []string{stamp(r.Due)} }}}})
	return err
}

// stamp is a time as text whose order is that of times.
func stamp(t time.Time) string { return t.UTC().Format("20060102T150405.000") }

const (
	retries  = 4
	callTime = 60 * time.Second // of one request
)

// transport follows nothing and trusts the system's authorities and those of ca.
func transport(ca string) (http.RoundTripper, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("cannot read the authorities for the S3 storage: %w", err)
		}
		if c.RootCAs, err = x509.SystemCertPool(); err != nil {
			return nil, err
		}
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("cannot read the authorities for the S3 storage: %q has no certificate", ca)
		}
	}
	d := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{DialContext: d.DialContext, TLSClientConfig: c, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: callTime, MaxIdleConnsPerHost: 64,
		IdleConnTimeout: 90 * time.Second, DisableCompression: true}, nil
}

// Ping asks for the bucket.
func (b *Blobs) Ping(ctx context.Context) error {
	ok, err := b.core.BucketExists(ctx, b.o.Bucket)
	if err == nil && !ok {
		err = errors.New("there is no such bucket")
	}
	return err
}

// Close has nothing to close: the records are closed by who opened them.
func (b *Blobs) Close() error { return nil }
