package endpoint

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestDiscover(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/path/assets/config/config.prod.json" {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(`{"libraryAPI":{"uri":"https://l.org/","registryUri":"x"},"keystoreAPI":{"uri":"https://k.org"},"xAPI":{"uri":3},"other":{}}`))
	}))
	defer s.Close()
	got, err := Discover(t.Context(), s.Client(), s.URL+"/path", false)
	if err != nil || len(got) != 2 || got["library"] != "https://l.org" || got["keyserver"] != "https://k.org" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Discover(t.Context(), s.Client(), s.URL[len("http://"):], true); err == nil {
		t.Error("404: no error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"libraryAPI":{"uri":"https://l.org"}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := Parse(in)
		for name, uri := range s {
			if err == nil && uri == "" {
				t.Errorf("%q has no address", name)
			}
		}
	})
}
