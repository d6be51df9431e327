package library

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singularity/api"
	"singularity/client/library/librarytest"
	"singularity/client/transfer"
)

const token = "a-token-of-somebody"

func setup(t *testing.T) (*librarytest.Server, *Client) {
	t.Helper()
	s := librarytest.New(token, true)
	t.Cleanup(s.Close)
	h := s.Client()
	h.CheckRedirect = transfer.CheckRedirect
	c, err := New(s.URL+"/", token, h)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func push(t *testing.T, c *Client, data []byte, tags ...string) *api.UploadComplete {
	t.Helper()
	done, err := c.Push(t.Context(), bytes.NewReader(data), &Push{Name: "lab/tools/tool", Tags: tags, Arch: "amd64", Size: int64(len(data)), Description: "a tool"})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func pull(t *testing.T, c *Client, tag string) ([]byte, error) {
	t.Helper()
	i, err := c.Find(t.Context(), "lab/tools/tool", tag, "amd64")
	if err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.Download(t.Context(), "lab/tools/tool", tag, "amd64", i, f, nil); err != nil {
		return nil, err
	}
	return os.ReadFile(f.Name())
}

func TestRoundTrip(t *testing.T) {
	s, c := setup(t)
	data := bytes.Repeat([]byte("sif!"), 100<<10)
	if done := push(t, c, data, "1.0", "latest"); done.ContainerURL == "" {
		t.Error("no address of the container")
	}
	for _, redirect := range []bool{false, true} {
		s.Redirect = redirect
		s.Break = 150 << 10
		for _, tag := range []string{"1.0", "latest"} {
			if got, err := pull(t, c, tag); err != nil || !bytes.Equal(got, data) {
				t.Errorf("redirect %v, %s: %d bytes, %v", redirect, tag, len(got), err)
			}
		}
	}
	// SC-127: the token is for the library alone.
	if len(s.Leaked) > 0 {
		t.Errorf("the token came to the data plane: %v", s.Leaked)
	}
	// What is there is not sent again.
	before := len(s.Seen)
	push(t, c, data, "2.0")
	for _, r := range s.Seen[before:] {
		if strings.Contains(r, "imagefile") {
			t.Errorf("sent again: %s", r)
		}
	}
	found, err := c.Search(t.Context(), "tool", "amd64", false)
	if err != nil || len(found) != 1 || found[0].ContainerName != "tool" || len(found[0].Tags) != 3 {
		t.Errorf("search: got %+v, %v", found, err)
	}
	if _, err := c.Search(t.Context(), "to", "amd64", false); err == nil {
		t.Error("a search for two characters is no error")
	}
	if err := c.Delete(t.Context(), "lab/tools/tool", "2.0", "amd64"); err != nil {
		t.Error(err)
	}
	_, err = pull(t, c, "1.0")
	if _, ok := errors.AsType[*NotFoundError](err); !ok {
		t.Errorf("after deletion: got %v", err)
	}
}

func TestParts(t *testing.T) {
	s, c := setup(t)
	s.PartSize = 24 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), 65<<20/16)
	push(t, c, data, "big")
	if got, err := pull(t, c, "big"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	s.PartSize = 0 // a library without parts gets it in one
	data[0] = 'x'
	push(t, c, data, "big")
	if len(s.Leaked) > 0 {
		t.Errorf("the token came to the data plane: %v", s.Leaked)
	}
}

func TestRefused(t *testing.T) {
	_, c := setup(t)
	c.Token = "other"
	_, err := c.Push(t.Context(), bytes.NewReader([]byte("x")), &Push{Name: "a/b/c", Tags: []string{"t"}, Size: 1})
	status, ok := errors.AsType[*transfer.StatusError](err)
	if !ok || status.Code != http.StatusUnauthorized || status.Message != "a token is needed" || strings.Contains(err.Error(), "other") {
		t.Errorf("got %v", err)
	}
	c.Token = ""
	if _, err := c.Push(t.Context(), nil, &Push{}); !errors.Is(err, ErrNoToken) {
		t.Errorf("got %v", err)
	}
	c.Token = token
	if _, err := c.Push(t.Context(), bytes.NewReader(nil), &Push{Name: "a/b"}); err == nil {
		t.Error("a name of two parts is no error")
	}
	for _, name := range []string{"a/../b", "a//b", "."} {
		if _, err := c.Find(t.Context(), name, "t", "amd64"); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
}

// TestLies: a library that lies gets nothing believed and nothing stored.
func TestLies(t *testing.T) {
	good := "sha256." + strings.Repeat("a", 64)
	for name, body := range map[string]string{
		"hash": `{"data":{"hash":"sha256.../../x","size":4}}`, "no hash": `{"data":{}}`, "size": `{"data":{"hash":"` + good + `","size":-1}}`,
		"content": `{"data":{"hash":"` + good + `","size":4}}`, "not JSON": `<html>`, "huge": strings.Repeat(" ", maxAnswer+1),
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "imagefile") {
				w.Write([]byte("evil"))
				return
			}
			w.Write([]byte(body))
		}))
		c, err := New(s.URL, "", s.Client())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pull(t, c, "t"); err == nil {
			t.Errorf("%s: no error", name)
		}
		s.Close()
	}
}

// TestPlan: a plan of parts that would leave out a part of the image.
func TestPlan(t *testing.T) {
	_, c := setup(t)
	for _, m := range []api.Multipart{{TotalParts: 1, PartSize: 10}, {TotalParts: 0, PartSize: 100}, {TotalParts: 3, PartSize: 0}, {TotalParts: 1 << 30, PartSize: 1}} {
		if _, err := c.parts(context.Background(), bytes.NewReader(nil), &Push{Size: 100}, "/x", &m); err == nil {
			t.Errorf("%+v: no error", m)
		}
	}
}
