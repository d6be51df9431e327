package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"singularity/server/store"
	"singularity/server/store/embedded"
	"singularity/server/store/mongo"
	"singularity/server/store/s3"
)

// Storage is [storage] of the file: where records and blobs are.
type Storage struct {
	Records         string `toml:"records"` // embedded or mongodb
	MongoDBURIFile  string `toml:"mongodb_uri_file"`
	MongoDBDatabase string `toml:"mongodb_database"`
	MongoDBCAFile   string `toml:"mongodb_ca_file"`

	Blobs      string `toml:"blobs"` // embedded or s3
	S3Endpoint string `toml:"s3_endpoint"`
	S3Bucket   string `toml:"s3_bucket"`
	S3Prefix   string `toml:"s3_prefix"`
	S3Region   string `toml:"s3_region"`
	S3KeyFile  string `toml:"s3_key_file"` // two lines: access key and secret key
	S3CAFile   string `toml:"s3_ca_file"`
	S3Encrypt  bool   `toml:"s3_encrypt"`
	Direct     bool   `toml:"direct"`
}

// Words of records and blobs.
const (
	inDirectory = "embedded"
	inMongoDB   = "mongodb"
	inS3        = "s3"
)

func (s *Storage) check() error {
	switch {
	case s.Records != inDirectory && s.Records != inMongoDB:
		return fmt.Errorf("records: %q is not %s or %s", s.Records, inDirectory, inMongoDB)
	case s.Blobs != inDirectory && s.Blobs != inS3:
		return fmt.Errorf("blobs: %q is not %s or %s", s.Blobs, inDirectory, inS3)
	case s.Records == inDirectory && (s.MongoDBURIFile != "" || s.MongoDBDatabase != "" || s.MongoDBCAFile != ""):
		return fmt.Errorf("there are keys of MongoDB, but records are not %q", inMongoDB)
	case s.Blobs == inDirectory && (s.S3Endpoint != "" || s.S3Bucket != "" || s.S3KeyFile != "" || s.Direct):
		return fmt.Errorf("there are keys of S3, but blobs are not %q", inS3)
	}
	return nil
}

// storage is the open storage of a server.
type storage struct {
	Records store.Records
	Blobs   store.Blobs
	shared  bool // other servers have the same records
	gate    *gate
	local   *embedded.Store // what is in the data directory, if anything
	closers []func() error
}

// openStorage opens what the configuration says. exclusive is for the one server
// of a data directory; otherwise it is opened beside that.
func openStorage(ctx context.Context, c *Config, exclusive bool) (*storage, error) {
	s := &storage{gate: &gate{}, shared: c.Storage.Records == inMongoDB}
	if err := s.open(ctx, c, exclusive); err != nil {
		s.Close()
		return nil, err
	}
	s.Records, s.Blobs = gatedRecords{s.Records, s.gate}, gatedBlobs{s.Blobs, s.gate}
	return s, nil
}

func (s *storage) open(ctx context.Context, c *Config, exclusive bool) error {
	var err error
	if c.Storage.Records == inDirectory || c.Storage.Blobs == inDirectory {
		if exclusive {
			s.local, err = embedded.Open(c.Data)
		} else {
			s.local, err = attach(c.Data)
		}
		if err != nil {
			return err
		}
		s.closers = append(s.closers, s.local.Close)
		s.Records, s.Blobs = s.local.Records, s.local.Blobs
	} else if err := embedded.OwnDir(c.Data); err != nil {
		return err
	}
	if c.Storage.Records == inMongoDB {
		if err := s.openMongoDB(ctx, &c.Storage); err != nil {
			return err
		}
	}
	if c.Storage.Blobs == inS3 {
		return s.openS3(ctx, &c.Storage)
	}
	return nil
}

func (s *storage) openMongoDB(ctx context.Context, c *Storage) error {
	uri, err := secret(c.MongoDBURIFile, "SINGULARITY_SERVER_MONGODB_URI", "the address of MongoDB")
	if err != nil {
		return err
	}
	r, err := mongo.Open(ctx, mongo.Options{URI: uri, Database: c.MongoDBDatabase, CAFile: c.MongoDBCAFile})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, r.Close)
	s.Records = r
	return nil
}

func (s *storage) openS3(ctx context.Context, c *Storage) error {
	access, private := os.Getenv("SINGULARITY_SERVER_S3_ACCESS_KEY"), os.Getenv("SINGULARITY_SERVER_S3_SECRET_KEY")
	if access == "" || private == "" || c.S3KeyFile != "" {
		text, err := secret(c.S3KeyFile, "SINGULARITY_SERVER_S3_ACCESS_KEY and SINGULARITY_SERVER_S3_SECRET_KEY", "the keys of the S3 storage")
		if err != nil {
			return err
		}
		words := strings.Fields(text)
		if len(words) != 2 {
			return fmt.Errorf("cannot read the keys of the S3 storage: %q has not two lines, access key and secret key", c.S3KeyFile)
		}
		access, private = words[0], words[1]
	}
	b, err := s3.Open(ctx, s.Records, s3.Options{Endpoint: c.S3Endpoint, Bucket: c.S3Bucket, Prefix: c.S3Prefix, Region: c.S3Region, CAFile: c.S3CAFile, AccessKey: access, SecretKey: private,
		Encrypt: c.S3Encrypt, Direct: c.Direct})
	if err != nil {
		return err
	}
	s.closers = append([]func() error{b.Close}, s.closers...)
	s.Blobs = b
	return nil
}

// secret reads what nobody else may know, from a file, or from a variable: a
// command line shows it to everybody on the machine.
func secret(file, variable, what string) (string, error) {
	if file == "" {
		if text := os.Getenv(variable); text != "" {
			return strings.TrimSpace(text), nil
		}
		return "", fmt.Errorf("cannot find %s: name a file in [storage], or set %s", what, variable)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", what, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if st.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("cannot use %s: everybody may read %q (mode %04o): chmod 600", what, file, st.Mode().Perm())
	}
	text := make([]byte, maxSecret+1)
	n, _ := f.Read(text)
	if n > maxSecret {
		return "", fmt.Errorf("cannot use %s: %q is longer than %d bytes", what, file, maxSecret)
	}
	return strings.TrimSpace(string(text[:n])), nil
}

const maxSecret = 64 << 10

// Close closes everything that was opened.
func (s *storage) Close() error {
	var err error
	for _, c := range s.closers {
		err = errors.Join(err, c())
	}
	return err
}

// sweep removes what has expired, also of the blobs if they keep rests.
func (s *storage) sweep(ctx context.Context) (int64, error) {
	n, err := s.Records.Sweep(ctx)
	if b, ok := s.Blobs.(gatedBlobs).Blobs.(interface {
		Sweep(context.Context) (int64, error)
	}); ok && err == nil {
		err = s.gate.do(func() error { _, e := b.Sweep(ctx); return e })
	}
	return n, err
}
