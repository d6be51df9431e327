// Package registries reads registries.conf: how registries are reached.
//
// In go the user's file and that of the installation, both optional, out comes
// which hosts stand for a repository, in which order, with which certificates.
// The form is a part of the file that Podman reads, with keys of our own:
//
//	offline = false
//	proxy = "http://proxy.example.org:3128"
//
//	[[registry]]
//	prefix = "docker.io"            # repositories that begin so
//	location = "docker.io"          # where they are; prefix if not given
//	insecure = false                # http, or TLS without verification
//	blocked = false
//	ca = "/etc/ssl/site.pem"        # besides the certificates of the system
//	auth-hosts = ["auth.example.org"] # may see the credentials besides location
//
//	[[registry.mirror]]             # asked first, in this order
//	location = "mirror.example.org/hub"
//
// A file is trusted as its owner is: it belongs to the user, or to whoever
// installed singularity. Keys that are not known are an error, except those of
// Podman that mean nothing here. The package never connects to anything.
package registries

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxSize bounds a file, in bytes.
const maxSize = 1 << 20

// File is the content of a registries.conf.
type File struct {
	Offline    bool       `toml:"offline"`
	Proxy      string     `toml:"proxy"`
	Registries []Registry `toml:"registry"`

	// Keys of Podman without meaning here.
	Unqualified []string       `toml:"unqualified-search-registries"`
	ShortMode   string         `toml:"short-name-mode"`
	Aliases     map[string]any `toml:"aliases"`
	Helpers     []string       `toml:"credential-helpers"`
}

// Registry is what holds for repositories whose names begin with Prefix.
type Registry struct {
	Prefix    string   `toml:"prefix"`
	Location  string   `toml:"location"`
	Insecure  bool     `toml:"insecure"`
	Blocked   bool     `toml:"blocked"`
	CA        string   `toml:"ca"`
	AuthHosts []string `toml:"auth-hosts"`
	Mirrors   []Mirror `toml:"mirror"`

	ByDigestOnly bool `toml:"mirror-by-digest-only"`
}

// Mirror is a copy of a registry, or goes through to it.
type Mirror struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
	CA       string `toml:"ca"`
	Which    string `toml:"pull-from-mirror"`
}

// Endpoint is one place where a repository may be found.
type Endpoint struct {
	Repository string // with its host
	Insecure   bool
	CA         string
	AuthHosts  []string
	Mirror     bool
}

// ErrBlocked says that the configuration forbids a registry.
var ErrBlocked = errors.New("registries.conf blocks this registry")

// Load reads the files of the given paths; one that is missing is empty. The
// first one that says something about a repository counts.
func Load(paths ...string) (*File, error) {
	all := &File{}
	for _, path := range paths {
		f, err := read(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read %q: %w", path, err)
		}
		all.Offline = all.Offline || f.Offline
		if all.Proxy == "" {
			all.Proxy = f.Proxy
		}
		all.Registries = append(all.Registries, f.Registries...)
	}
	return all, nil
}

func read(path string) (*File, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, err
	}
	return Parse(text)
}

// Parse reads the text of a file.
func Parse(text []byte) (*File, error) {
	if len(text) > maxSize {
		return nil, fmt.Errorf("it is larger than %d bytes", maxSize)
	}
	f := &File{}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		if e, ok := errors.AsType[*toml.StrictMissingError](err); ok {
			row, column := e.Errors[0].Position()
			return nil, fmt.Errorf("line %d, column %d: unknown key %q", row, column, strings.Join(e.Errors[0].Key(), "."))
		}
		if e, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, column := e.Position()
			return nil, fmt.Errorf("line %d, column %d: %w", row, column, err)
		}
		return nil, err
	}
	for i := range f.Registries {
		r := &f.Registries[i]
		if r.Prefix == "" {
			r.Prefix = r.Location
		}
		if r.Location == "" {
			r.Location = r.Prefix
		}
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (r *Registry) check() error {
	if r.Prefix == "" {
		return errors.New("a registry needs a prefix or a location")
	}
	if strings.HasPrefix(r.Prefix, "*.") {
		return fmt.Errorf("cannot use the prefix %q: name each registry", r.Prefix)
	}
	names := []string{r.Prefix, r.Location}
	for _, m := range r.Mirrors {
		names = append(names, m.Location)
	}
	for _, s := range names {
		if s == "" || strings.Contains(s, "://") || strings.ContainsAny(s, " \t\r\n@?#") || strings.HasSuffix(s, "/") {
			return fmt.Errorf("cannot use %q: a host is wanted, with a path at most", s)
		}
	}
	return nil
}

// Lookup returns what holds for repository, which begins with its host; nil if
// nothing does.
func (f *File) Lookup(repository string) *Registry {
	var best *Registry
	for i := range f.Registries {
		r := &f.Registries[i]
		if hasPrefix(repository, r.Prefix) && (best == nil || len(r.Prefix) > len(best.Prefix)) {
			best = r
		}
	}
	return best
}

// hasPrefix compares whole components of paths: a host is never the beginning
// of another host.
func hasPrefix(s, prefix string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// Endpoints returns where repository may be found, in the order to ask. Without
// mirrors it is the one place to write to.
func (f *File) Endpoints(repository string, mirrors bool) ([]Endpoint, error) {
	r := f.Lookup(repository)
	if r == nil {
		return []Endpoint{{Repository: repository}}, nil
	}
	if r.Blocked {
		return nil, ErrBlocked
	}
	rest := strings.TrimPrefix(repository, r.Prefix)
	var list []Endpoint
	if mirrors {
		for _, m := range r.Mirrors {
			list = append(list, Endpoint{Repository: m.Location + rest, Insecure: m.Insecure, CA: m.CA, Mirror: true})
		}
	}
	return append(list, Endpoint{Repository: r.Location + rest, Insecure: r.Insecure, CA: r.CA, AuthHosts: r.AuthHosts}), nil
}
