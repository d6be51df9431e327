package mongo

import (
	"context"
	"os"
	"strings"
	"testing"

	"singularity/server/store"
	"singularity/server/store/mongo/mongotest"
	"singularity/server/store/storetest"
)

// open opens a database of its own and drops it at the end.
func open(t *testing.T, uri, ca string, trial bool) *Records {
	t.Helper()
	r, err := Open(t.Context(), Options{URI: uri, CAFile: ca, Trial: trial, Database: "test_" + store.NewID()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.db.Drop(context.Background()); err != nil {
			t.Error(err)
		}
		r.Close()
	})
	return r
}

// TestServer runs the contract on a real server: the one that
// SINGULARITY_TEST_MONGODB names, or FerretDB with writes one after another.
func TestServer(t *testing.T) {
	uri, ca := os.Getenv("SINGULARITY_TEST_MONGODB"), ""
	if uri == "" {
		f := mongotest.Real(t)
		uri, ca = f.Orderly, f.CAFile
	}
	r, err := Open(t.Context(), Options{URI: uri, CAFile: ca, Database: "test_probe"})
	if err == nil {
		r.Close()
	} else if !strings.Contains(err.Error(), "changes would be lost") {
		t.Fatal(err)
	} else {
		t.Log(err)
	}
	storetest.Records(t, func(t *testing.T) store.Records {
		if err != nil && strings.HasSuffix(t.Name(), "/concurrent") {
			t.Skip(err)
		}
		return open(t, uri, ca, err != nil)
	})
}

// TestAddress: an address without a log-in or without TLS is refused (SC-147),
// and what is secret in one is in no error.
func TestAddress(t *testing.T) {
	for uri, word := range map[string]string{
		"":                                 "empty",
		"http://u:geheim@h/":               "cannot use",
		"mongodb://h/?tls=true":            "no user",
		"mongodb://u@h/?tls=true":          "",
		"mongodb://u:geheim@h/":            "tls=true",
		"mongodb://u:geheim@h/?tls=nosuch": "",
		"mongodb://u:geheim@h/?tls=true&tlsInsecure=true":                 "verification",
		"mongodb://u:geheim@h/?tls=true&tlsAllowInvalidCertificates=true": "",
		"mongodb://u:geheim@h/?tls=true&authMechanism=SCRAM-SHA-1":        "SCRAM-SHA-256",
		"mongodb://u:geheim@h/?tls=true&authMechanism=PLAIN":              "SCRAM-SHA-256",
		"mongodb://u:ge%68eim%zz@h/?tls=true":                             "",
		"mongodb://u:geheim:geheim@h:nosuch/?tls=true":                    "",
		"mongodb+srv://u:geheim@h.invalid.":                               "",
	} {
		_, err := clientOptions(Options{URI: uri})
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %v, want %q", uri, err, word)
		}
		if err != nil && strings.Contains(err.Error(), "eheim") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	c, err := clientOptions(Options{URI: "mongodb://u:geheim@h/?tls=true&w=1&readPreference=secondary"})
	if err != nil || c.Auth.AuthMechanism != "SCRAM-SHA-256" || c.WriteConcern.W != "majority" || c.ReadPreference.Mode().String() != "primary" {
		t.Errorf("%+v %v", c, err)
	}
}
