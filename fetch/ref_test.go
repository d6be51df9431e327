package fetch

import (
	"strings"
	"testing"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParse(t *testing.T) {
	there := func(p string) bool { return p == "docker:there" || p == "docker://x/there" }
	for _, c := range []struct {
		in   string
		want Ref
		file string
	}{
		{"image.sif", Ref{Name: "image.sif"}, ""},
		{"a:b.img", Ref{Name: "a:b.img"}, ""},
		{"docker:there", Ref{Name: "docker:there"}, ""},
		{"docker://x/there", Ref{Name: "docker://x/there"}, ""},
		{"docker://alpine", Ref{Kind: Docker, Name: "library/alpine"}, "alpine_latest.sif"},
		{"docker://user/app:1.0", Ref{Kind: Docker, Name: "user/app", Tags: []string{"1.0"}}, "app_1.0.sif"},
		{"docker://docker.io/library/alpine:3", Ref{Kind: Docker, Name: "library/alpine", Tags: []string{"3"}}, "alpine_3.sif"},
		{"docker://localhost/a", Ref{Kind: Docker, Host: "localhost", Name: "a"}, "a_latest.sif"},
		{"docker://LOCALHOST:5000/a", Ref{Kind: Docker, Host: "localhost:5000", Name: "a"}, "a_latest.sif"},
		{"docker://[::1]:5000/a/b:c", Ref{Kind: Docker, Host: "[::1]:5000", Name: "a/b", Tags: []string{"c"}}, "b_c.sif"},
		{"docker://h.org/a:t@sha256:" + hex64, Ref{Kind: Docker, Host: "h.org", Name: "a", Tags: []string{"t"}, Digest: "sha256:" + hex64}, "a_t.sif"},
		{"docker://h.org/a@sha256:" + hex64, Ref{Kind: Docker, Host: "h.org", Name: "a", Digest: "sha256:" + hex64}, "a_sha256." + hex64 + ".sif"},
		{"oras://h.org:1/a/b:t", Ref{Kind: ORAS, Host: "h.org:1", Name: "a/b", Tags: []string{"t"}}, "b_t.sif"},
		{"docker-daemon:alpine:3", Ref{Kind: DockerDaemon, Name: "alpine", Tags: []string{"3"}}, ""},
		{"docker-daemon://alpine:3", Ref{Kind: DockerDaemon, Name: "alpine", Tags: []string{"3"}}, ""},
		{"docker-archive:/tmp/a b.tar", Ref{Kind: DockerArchive, Name: "/tmp/a b.tar"}, ""},
		{"oci:/tmp/dir:tag", Ref{Kind: OCI, Name: "/tmp/dir", Tags: []string{"tag"}}, "dir_tag.sif"},
		{"oci:/tmp/dir@sha256:" + hex64, Ref{Kind: OCI, Name: "/tmp/dir", Digest: "sha256:" + hex64}, ""},
		{"oci-archive:x.tar", Ref{Kind: OCIArchive, Name: "x.tar"}, ""},
		{"library://alpine", Ref{Kind: Library, Name: "alpine"}, "alpine_latest.sif"},
		{"library://c/k:t", Ref{Kind: Library, Name: "c/k", Tags: []string{"t"}}, "k_t.sif"},
		{"library://h.org/e/c/k:a,b", Ref{Kind: Library, Host: "h.org", Name: "e/c/k", Tags: []string{"a", "b"}}, "k_a.sif"},
		{"library:e/c/k:sha256." + hex64, Ref{Kind: Library, Name: "e/c/k", Tags: []string{"sha256." + hex64}, Digest: "sha256:" + hex64}, ""},
		{"shub://u/n:t@v", Ref{Kind: Shub, Name: "u/n", Tags: []string{"t"}}, "n_t.sif"},
		{"https://h.org/d/x.sif?q=1", Ref{Kind: HTTPS, Host: "h.org", Name: "https://h.org/d/x.sif?q=1"}, "x.sif"},
		{"http://h.org/", Ref{Kind: HTTP, Host: "h.org", Name: "http://h.org/"}, "image.sif"},
		{"instance://web", Ref{Kind: Instance, Name: "web"}, ""},
	} {
		r, err := Parse(c.in, there)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if r.Kind != c.want.Kind || r.Host != c.want.Host || r.Name != c.want.Name || r.Digest != c.want.Digest ||
			strings.Join(r.Tags, ",") != strings.Join(c.want.Tags, ",") || r.Text != c.in {
			t.Errorf("%s: got %+v, want %+v", c.in, r, c.want)
		}
		if c.file != "" && r.FileName() != c.file {
			t.Errorf("%s: got file %q, want %q", c.in, r.FileName(), c.file)
		}
	}
}

func TestParseBad(t *testing.T) {
	for _, in := range []string{
		"", "a\x00b", strings.Repeat("a", maxReference+1), "ftp://h/x", "docker://", "docker:alpine", "docker://h.org/",
		"docker://A/b", "docker://h.org/Upper", "docker://h.org/a:", "docker://h.org/a:b c", "docker://h.org/a..b", "docker://h.org/../x",
		"docker://user@h.org/a", "docker://h.org:x/a", "docker://h.org/a@sha256:12", "docker://h.org/a@md5:" + hex64[:32],
		"docker://h.org/a@sha256:../../x", // SC-130
		"oras://name:tag", "library://a/../../x", "library://a/%2e%2e/x", "library://h/a/b/c/d", "library://a:b:c", "library://",
		"https:///x", "http:x", "shub://..", "docker-daemon:", "library://a?b",
	} {
		if r, err := Parse(in, nil); err == nil {
			t.Errorf("%.60q: got %+v, want an error", in, r)
		}
	}
}

// FuzzParse: whatever is typed, names fit into a URL and file names into a
// directory.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"docker://h.org:5000/a/b:t@sha256:" + hex64, "library://h/e/c/k:a,b", "oras://h.org/a:b", "shub://a/b", "oci:/d:t",
		"docker-archive:x", "https://h.org/x.sif", "a:b", "docker-daemon:a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r, err := Parse(in, nil)
		if err != nil {
			return
		}
		if name := r.FileName(); strings.ContainsAny(name, "/\x00") || name == "." || name == ".." || name == "" {
			t.Errorf("%q: file name %q", in, name)
		}
		if r.Digest != "" && !isDigest(r.Digest) {
			t.Errorf("%q: digest %q", in, r.Digest)
		}
		switch r.Kind {
		case Docker, ORAS, Library:
			if strings.Contains("/"+r.Name+"/", "/../") || strings.ContainsAny(r.Host+r.Name, "?#%@\\ \t\n") {
				t.Errorf("%q: host %q, name %q", in, r.Host, r.Name)
			}
		}
	})
}
