// Package mongo keeps records in MongoDB, or a server that speaks its protocol,
// so that several servers share them.
//
// A collection of package store is one of the database, and a document one of
// its documents:
//
//	_id      the key
//	rev      the revision; prev the one before it
//	exp      when it ends, milliseconds since 1970, or the greatest number
//	data     its JSON
//	x_NAME   the values in the index NAME; in a unique index that has none, the key
//	         as binary, which equals nothing else
//
// Every write touches one document. What is asked of the server is find, insert,
// replace, delete, unique indexes, and aggregation with $match, $unwind and
// $group: no transaction, change stream, $lookup, and no TTL, partial or text
// index, so that a replica set, a sharded cluster or a compatible server will do.
//
// A call that a broken connection or an election cuts is made again, each time
// with a short deadline of its own. A write finds by its random revision whether
// the call before was carried out, so that none is done twice.
//
// The address comes from a file or the environment, must have user and password
// for SCRAM-SHA-256 and TLS with verification, and no error shows them. The
// server is trusted to keep what it acknowledged. Text of documents and queries
// is only ever a value of a command.
//
//   - mongo.go: the address; records.go: what is read; write.go: what is written
//   - define.go: collections and indexes; retry.go: what is tried again
package mongo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"singularity/server/store"
)

// Options of a connection.
type Options struct {
	URI      string // mongodb://USER:PASSWORD@HOST/?tls=true
	Database string // "singularity" by default
	CAFile   string // authorities beside the system's
	Trial    bool   // take a server that loses writes, for a trial of one program
}

// Records keeps documents in a database.
type Records struct {
	client  *mongo.Client
	db      *mongo.Database
	now     func() time.Time
	several bool // a unique index keeps several values of a document apart

	mu      sync.RWMutex
	schemas map[string]store.Schema
	split   map[string]bool // indexes in which a document has several values
}

var _ store.Records = (*Records)(nil)

// Open connects to the database, and fails if it does not answer.
func Open(ctx context.Context, o Options) (*Records, error) {
	c, err := clientOptions(o)
	if err != nil {
		return nil, err
	}
	client, err := mongo.Connect(c)
	if err != nil {
		return nil, fmt.Errorf("cannot use the address of MongoDB: %w", redact(o.URI, err))
	}
	name := o.Database
	if name == "" {
		name = "singularity"
	}
	r := &Records{client: client, db: client.Database(name), now: time.Now, schemas: map[string]store.Schema{}, split: map[string]bool{}}
	if err = r.Ping(ctx); err == nil {
		err = r.probe(ctx, o.Trial)
	} else {
		err = fmt.Errorf("cannot reach MongoDB at %s: %w", strings.Join(c.Hosts, ", "), redact(o.URI, err))
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// clientOptions reads the address and refuses one that would let others on the
// network read or write.
func clientOptions(o Options) (*options.ClientOptions, error) {
	bad := func(format string, args ...any) (*options.ClientOptions, error) {
		return nil, redact(o.URI, fmt.Errorf("cannot use the address of MongoDB: "+format, args...))
	}
	if strings.TrimSpace(o.URI) == "" {
		return bad("it is empty")
	}
	c := options.Client().ApplyURI(o.URI)
	if err := c.Validate(); err != nil {
		return bad("%w", err)
	}
	switch {
	case c.Auth == nil || c.Auth.Username == "" || c.Auth.Password == "":
		return bad("it has no user and password")
	case c.Auth.AuthMechanism != "" && c.Auth.AuthMechanism != "SCRAM-SHA-256":
		return bad("authMechanism is %s, not SCRAM-SHA-256", c.Auth.AuthMechanism)
	case c.TLSConfig == nil:
		return bad("it has no tls=true: everybody on the way would read and change records")
	case c.TLSConfig.InsecureSkipVerify || strings.Contains(strings.ToLower(o.URI), "tlsallowinvalid"):
		return bad("it turns the verification of TLS off")
	}
	// Without a mechanism a server may ask for the older SHA-1.
	c.Auth.AuthMechanism = "SCRAM-SHA-256"
	c.TLSConfig.MinVersion = tls.VersionTLS12
	if o.CAFile != "" {
		if err := trust(c.TLSConfig, o.CAFile); err != nil {
			return nil, err
		}
	}
	// What is acknowledged is on the disks of a majority, and what is read was.
	journal := true
	c.SetWriteConcern(&writeconcern.WriteConcern{W: writeconcern.WCMajority, Journal: &journal})
	c.SetReadConcern(readconcern.Majority())
	c.SetReadPreference(readpref.Primary())
	c.SetAppName("singularity-server").SetServerSelectionTimeout(callTime).SetConnectTimeout(callTime)
	return c, nil
}

func trust(c *tls.Config, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read the authorities for MongoDB: %w", err)
	}
	if c.RootCAs == nil {
		if c.RootCAs, err = x509.SystemCertPool(); err != nil {
			return err
		}
	}
	if !c.RootCAs.AppendCertsFromPEM(text) {
		return fmt.Errorf("cannot read the authorities for MongoDB: %q has no certificate", file)
	}
	return nil
}

// redacted is an error without the words of an address that are secret.
type redacted struct {
	text  string
	cause error
}

func (r redacted) Error() string { return r.text }
func (r redacted) Unwrap() error { return r.cause }

// redact takes the password of the address out of an error, as it stands there
// and as the driver understands it.
func redact(uri string, err error) error {
	if err == nil || uri == "" {
		return err
	}
	text := strings.ReplaceAll(err.Error(), uri, "[address]")
	_, rest, _ := strings.Cut(uri, "://")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		_, password, _ := strings.Cut(rest[:at], ":")
		for _, secret := range []string{rest[:at], password} {
			plain, _ := url.PathUnescape(secret)
			for _, s := range []string{secret, plain} {
				if s != "" {
					text = strings.ReplaceAll(text, s, "[redacted]")
				}
			}
		}
	}
	// The cause is for errors.Is alone: its own text is never shown.
	return redacted{text, err}
}

// Ping asks the server for an answer.
func (r *Records) Ping(ctx context.Context) error {
	return r.try(ctx, callTime, func(ctx context.Context) error { return r.client.Ping(ctx, readpref.Primary()) })
}

// Close ends the connections.
func (r *Records) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	return r.client.Disconnect(ctx)
}
