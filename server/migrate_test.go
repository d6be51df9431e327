package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"singularity/server/store"
	"singularity/server/store/mongo/mongotest"
	"singularity/server/store/s3/s3test"
	"singularity/server/store/storetest"
)

// elsewhere is a configuration with MongoDB at uri and S3 of the tests.
func elsewhere(t *testing.T, uri, caFile string) string {
	t.Helper()
	dir := t.TempDir()
	cert, ca, err := mongotest.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := s3test.New(dir, cert, ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bucket.Close)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("to.toml", fmt.Sprintf("data = %q\n[storage]\nrecords = \"mongodb\"\nmongodb_uri_file = %q\nmongodb_ca_file = %q\nblobs = \"s3\"\ns3_endpoint = %q\ns3_bucket = %q\ns3_region = \"us-east-1\"\ns3_key_file = %q\ns3_ca_file = %q\n",
		filepath.Join(dir, "data"), write("uri", uri), caFile, bucket.Endpoint, s3test.Bucket, write("keys", s3test.AccessKey+"\n"+s3test.SecretKey), bucket.CAFile))
}

func admin(t *testing.T, words ...string) string {
	t.Helper()
	var out, progress bytes.Buffer
	root := newRoot()
	root.SetArgs(append([]string{"admin"}, words...))
	root.SetOut(&out)
	root.SetErr(&progress)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v: %v\n%s", words, err, progress.String())
	}
	return out.String()
}

// TestMigrate moves an installation while it is written to, and back: nothing
// that was acknowledged is lost, and the old server takes nothing any more.
func TestMigrate(t *testing.T) {
	t.Run("fake", func(t *testing.T) {
		db, err := mongotest.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		testMigrate(t, elsewhere(t, db.URI, db.CAFile))
	})
	t.Run("real", func(t *testing.T) {
		db := mongotest.Real(t)
		testMigrate(t, elsewhere(t, db.Orderly, db.CAFile))
	})
}

func testMigrate(t *testing.T, to string) {
	c := Defaults()
	c.Data, c.Listen, c.Internal, c.LogLevel = filepath.Join(t.TempDir(), "data"), "127.0.0.1:0", "127.0.0.1:0", "error"
	s, err := Open(t.Context(), c, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for n := range 30 {
		p := storetest.Bytes(n, 1000*n)
		if _, err := s.store.Blobs.Put(ctx, "sha256/"+storetest.Of(p).SHA256, bytes.NewReader(p), storetest.Of(p)); err != nil {
			t.Fatal(err)
		}
	}
	accounts, err := store.Open(ctx, s.store.Records, "grants", store.Options[map[string]string]{Indexes: []store.Index[map[string]string]{{Name: "object", Of: func(m *map[string]string) []string { return []string{(*m)["object"]} }},
		{Name: "subject", Of: func(m *map[string]string) []string { return []string{(*m)["subject"]} }}}})
	if err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(t.TempDir(), "from.toml")
	if err := os.WriteFile(from, fmt.Appendf(nil, "data = %q\n", c.Data), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := admin(t, "migrate", "--config", from, "--to", to, "--dry-run"); !strings.Contains(got, "and 30 blobs") {
		t.Error(got)
	}
	// Somebody writes until nothing is taken any more; not more than a slow database
	// can follow.
	const most = 200
	var kept []string
	var group sync.WaitGroup
	group.Go(func() {
		for n := 0; ; n++ {
			key := fmt.Sprintf("k%06d", n)
			_, err := accounts.Insert(ctx, key, map[string]string{"object": "o" + key, "subject": "s"})
			if err == nil {
				kept = append(kept, key)
				if n%10 == 5 || len(kept) > most {
					if err = accounts.Delete(ctx, kept[0], 0); err == nil {
						kept = kept[1:]
					}
				}
			}
			if err != nil {
				if !strings.Contains(err.Error(), "being moved") {
					t.Error(err)
				}
				return
			}
		}
	})
	t.Log(admin(t, "migrate", "--config", from, "--to", to))
	group.Wait()
	if _, err := s.store.Blobs.Put(ctx, "late", strings.NewReader("x"), store.Unknown); err == nil {
		t.Error("the old server takes a blob after everything was moved")
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	check := func(config string) {
		t.Helper()
		target := Defaults()
		text, err := os.ReadFile(config)
		if err == nil {
			err = ParseConfig(text, &target)
		}
		if err != nil {
			t.Fatal(err)
		}
		st, err := openStorage(t.Context(), &target, false)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		g, err := store.Open(t.Context(), st.Records, "grants", store.Options[map[string]string]{Indexes: []store.Index[map[string]string]{{Name: "object", Of: func(m *map[string]string) []string { return []string{(*m)["object"]} }},
			{Name: "subject", Of: func(m *map[string]string) []string { return []string{(*m)["subject"]} }}}})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := g.Count(t.Context(), store.Query{Index: "subject", Equal: "s"}); err != nil || n != int64(len(kept)) {
			t.Errorf("%d of %d records are there, %v", n, len(kept), err)
		}
		if _, err := g.Get(t.Context(), kept[len(kept)-1]); err != nil {
			t.Errorf("the last record: %v", err)
		}
		n := 0
		for i, err := range st.Blobs.List(t.Context(), "sha256/") {
			if err != nil {
				t.Fatal(err)
			}
			f, err := st.Blobs.Open(t.Context(), i.Name)
			if err != nil {
				t.Fatal(err)
			}
			p, err := io.ReadAll(f)
			f.Close()
			if err != nil || "sha256/"+storetest.Of(p).SHA256 != i.Name {
				t.Errorf("%s has other bytes, %v", i.Name, err)
			}
			n++
		}
		if n != 30 {
			t.Errorf("%d blobs", n)
		}
	}
	check(to)
	back := filepath.Join(t.TempDir(), "back.toml")
	if err := os.WriteFile(back, fmt.Appendf(nil, "data = %q\n", filepath.Join(t.TempDir(), "data")), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Log(admin(t, "migrate", "--config", to, "--to", back))
	check(back)
	// Again: nothing is left to do.
	t.Log(admin(t, "migrate", "--config", to, "--to", back))
	check(back)
}
