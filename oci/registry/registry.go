// Package registry talks to OCI registries: images to convert, SIF images that
// are kept as they are (ORAS), and log-ins.
//
// In go repositories and tags, out come v1.Images whose layers are read when
// they are needed, descriptions of SIF artifacts, and their bytes in a file. The
// protocol is that of the OCI distribution specification 1.1; the media types of
// SIF artifacts are those that existing images have.
//
// A registry is not trusted: what has a digest is checked against it, sizes are
// bounded, and layers that are said to be elsewhere are not fetched from there.
// Credentials go to the registry that they are for and to its token server, if
// that is at the same host or named in the configuration, and nowhere else:
// not over a connection that is not encrypted, and not along a redirect.
//
// Files: registry.go (connections, images), credentials.go (where they come
// from), authfile.go (files of credentials), helper.go (programs that keep
// them), guard.go (what may go where), layer.go, sif.go (pull of a SIF), push.go, pushsif.go (several
// SIFs at one tag), login.go.
package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"singularity/client/transfer"
	"singularity/conf/registries"
	"singularity/oci/document"
)

// defaultHost is the registry of names without one.
const defaultHost = "docker.io"

// Client is how registries are reached.
type Client struct {
	Config      *registries.File
	Credentials *Resolver
	Plain       bool // --no-https
	UserAgent   string
	// CertDirs hold certificates: HOST/*.crt to trust, HOST/*.cert with *.key
	// to show.
	CertDirs []string
	// Connect bounds the time for a connection; 0: the default.
	Connect time.Duration
	Log     func(msg string) // messages for -v; may be nil

	// Context ends all requests; may be nil.
	Context context.Context

	sessions map[string]*session
}

func (c *Client) context() context.Context {
	if c.Context == nil {
		return context.Background()
	}
	return c.Context
}

// session is a connection to one endpoint.
type session struct {
	repo   name.Repository
	auth   authn.Authenticator
	used   string // where the credentials come from
	rt     http.RoundTripper
	puller *remote.Puller
	plain  bool
	mirror bool
}

func (c *Client) log(format string, args ...any) {
	if c.Log != nil {
		c.Log(fmt.Sprintf(format, args...))
	}
}

// Error is a failure of a registry.
type Error struct {
	Verb string // what was tried
	Ref  string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("cannot %s %q: %v", e.Verb, e.Ref, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// open returns a session for an endpoint of repository, as the user named it.
func (c *Client) open(e registries.Endpoint) (*session, error) {
	key := e.Repository
	if s := c.sessions[key]; s != nil {
		return s, nil
	}
	host, _, _ := strings.Cut(e.Repository, "/")
	s := &session{plain: c.Plain && !e.Mirror || e.Insecure, mirror: e.Mirror}
	var options []name.Option
	if s.plain {
		options = append(options, name.Insecure)
	}
	var err error
	if s.repo, err = name.NewRepository(e.Repository, options...); err != nil {
		return nil, err
	}
	if canonical(s.repo.RegistryStr()) != canonical(host) {
		return nil, fmt.Errorf("%q is no host of a registry: give it a domain or a port", host)
	}
	found, err := c.Credentials.For(e.Repository, !e.Mirror)
	if err != nil {
		return nil, err
	}
	s.auth, s.used = found.authenticator(), found.Source
	if found.Source == "" {
		c.log("%s: no credentials, going on without (asked %s)", host, strings.Join(c.Credentials.Order(), ", "))
	} else {
		c.log("%s: credentials of %s (order: %s)", host, found.Source, strings.Join(c.Credentials.Order(), ", "))
	}
	t, err := c.transport(s.repo.RegistryStr(), host, s.plain, e.CA)
	if err != nil {
		return nil, err
	}
	s.rt = &guard{inner: t, host: s.repo.RegistryStr(), plain: s.plain, others: append(authHosts(host), e.AuthHosts...)}
	if s.puller, err = remote.NewPuller(s.options(c.context())...); err != nil {
		return nil, err
	}
	if c.sessions == nil {
		c.sessions = map[string]*session{}
	}
	c.sessions[key] = s
	return s, nil
}

// transport makes the connection to a host.
func (c *Client) transport(host, typed string, plain bool, ca string) (http.RoundTripper, error) {
	set := &transfer.Settings{Plain: plain, UserAgent: c.UserAgent, Connect: c.Connect}
	if c.Config != nil {
		set.Offline, set.Proxy = c.Config.Offline, c.Config.Proxy
	}
	if ca != "" {
		set.CAs = append(set.CAs, ca)
	}
	for _, dir := range c.CertDirs {
		for _, h := range []string{host, typed} {
			addCerts(set, filepath.Join(dir, h))
		}
	}
	return transfer.NewTransport(set)
}

func addCerts(set *transfer.Settings, dir string) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		switch filepath.Ext(f.Name()) {
		case ".crt":
			set.CAs = append(set.CAs, path)
		case ".cert":
			set.Cert, set.Key = path, strings.TrimSuffix(path, ".cert")+".key"
		}
	}
}

// authHosts are the token servers of well-known registries that are at another
// host.
func authHosts(host string) []string {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return []string{"auth.docker.io", "registry-1.docker.io", "index.docker.io"}
	case "registry.gitlab.com":
		return []string{"gitlab.com"}
	}
	return nil
}

// endpoints returns sessions of the places where repository may be.
func (c *Client) endpoints(repository string, mirrors bool) ([]*session, error) {
	config := c.Config
	if config == nil {
		config = &registries.File{}
	}
	list, err := config.Endpoints(repository, mirrors)
	if err != nil {
		return nil, err
	}
	var sessions []*session
	for _, e := range list {
		s, err := c.open(e)
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, s)
	}
	return sessions, nil
}

// each calls try with each place of repository until one does. Its error is
// that of the last one, which is no mirror.
func (c *Client) each(ctx context.Context, verb, ref, repository string, try func(s *session) error) error {
	list, err := c.endpoints(repository, true)
	if err != nil {
		return &Error{Verb: verb, Ref: ref, Err: err}
	}
	for _, s := range list {
		if err = try(s); err == nil {
			return nil
		}
		err = s.explain(err)
		if ctx.Err() != nil || errors.Is(err, transfer.ErrOffline) {
			break
		}
		if s.mirror {
			c.log("mirror %s: %v", s.repo.RegistryStr(), err)
		}
	}
	return &Error{Verb: verb, Ref: ref, Err: err}
}

// explain turns an error of the library below into one of ours.
func (s *session) explain(err error) error {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		host := s.repo.RegistryStr()
		if e.Request != nil {
			host = e.Request.URL.Host
		}
		var list []string
		for _, d := range e.Errors {
			list = append(list, strings.Trim(string(d.Code)+": "+d.Message, ": "))
		}
		return &transfer.StatusError{Host: host, Code: e.StatusCode, Message: strings.Join(list, "; "), Used: s.used}
	}
	return transfer.Plain(err)
}

func (s *session) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(s.rt), remote.WithAuth(s.auth),
		remote.WithRetryBackoff(remote.Backoff{Duration: 300 * time.Millisecond, Factor: 3, Steps: 3}),
	}
}

// reference names what is at a tag, or at a digest if there is one.
func (s *session) reference(tag, digest string) name.Reference {
	if digest != "" {
		return s.repo.Digest(digest)
	}
	return s.repo.Tag(tag)
}

// Resolve asks for the digest that a tag has. It is one short request, which
// registries do not count as a pull.
func (c *Client) Resolve(ctx context.Context, repository, tag string) (digest string, err error) {
	err = c.each(ctx, "find", repository+":"+tag, repository, func(s *session) error {
		d, err := s.puller.Head(ctx, s.repo.Tag(tag))
		if err != nil {
			// The answer to HEAD has no message in it.
			g, err2 := s.puller.Get(ctx, s.repo.Tag(tag))
			if err2 != nil {
				return err2
			}
			d = &g.Descriptor
		}
		digest = d.Digest.String()
		return nil
	})
	return digest, err
}

// PlatformError says that an image is not there for a platform.
type PlatformError struct {
	Want string
	Have []string
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("it is not for %s; it is for %s", e.Want, strings.Join(e.Have, ", "))
}

// Image returns the image at a tag, or at a digest if there is one, for a
// platform. Its layers are fetched when they are read.
func (c *Client) Image(ctx context.Context, repository, tag, digest string, p v1.Platform) (v1.Image, error) {
	var image v1.Image
	err := c.each(ctx, "pull", fullName(repository, tag, digest), repository, func(s *session) error {
		d, err := s.get(ctx, s.reference(tag, digest), "")
		if err != nil {
			return err
		}
		if d.MediaType.IsIndex() {
			if d, err = s.choose(ctx, d, p); err != nil {
				return err
			}
		}
		inner, err := d.Image()
		if err != nil {
			return err
		}
		if err := suits(inner, p); err != nil {
			return err
		}
		image, err = c.resuming(ctx, s, inner)
		return err
	})
	return image, err
}

// get reads a manifest or an index, which is said to be of a type, if one is
// named.
func (s *session) get(ctx context.Context, ref name.Reference, want types.MediaType) (*remote.Descriptor, error) {
	d, err := s.puller.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	if want != "" && d.MediaType != want {
		return nil, fmt.Errorf("the registry sends %q where an index names %q: %w", d.MediaType, want, document.ErrFormat)
	}
	return d, document.Check(d.Manifest, string(d.MediaType), d.MediaType.IsIndex())
}

// checkDigest refuses what is no digest by SHA-256.
func checkDigest(h v1.Hash) error {
	if h.Algorithm != "sha256" || len(h.Hex) != 64 || strings.Trim(h.Hex, "0123456789abcdef") != "" {
		return fmt.Errorf("the digest %q is not supported", h)
	}
	return nil
}

// choose gets the manifest that an index has for a platform.
func (s *session) choose(ctx context.Context, d *remote.Descriptor, p v1.Platform) (*remote.Descriptor, error) {
	index, err := d.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var have []string
	for _, e := range m.Manifests {
		if e.Platform == nil || e.Platform.OS == "unknown" {
			continue
		}
		if e.Platform.Satisfies(p) {
			if err := checkDigest(e.Digest); err != nil {
				return nil, err
			}
			d, err := s.get(ctx, s.repo.Digest(e.Digest.String()), e.MediaType)
			if err == nil && d.MediaType.IsIndex() {
				err = fmt.Errorf("it holds an index within an index: %w", document.ErrFormat)
			}
			return d, err
		}
		have = append(have, e.Platform.String())
	}
	return nil, &PlatformError{Want: p.String(), Have: have}
}

// suits checks a single image against what is asked for.
//
// Security: a layer that is said to be elsewhere would make us ask an address
// of the image's choice.
func suits(i v1.Image, p v1.Platform) error {
	m, err := i.Manifest()
	if err != nil {
		return err
	}
	if m.Config.MediaType == sifConfigType {
		return errors.New("it is a SIF image: oras:// is its scheme")
	}
	// The library below reads it whole.
	if m.Config.Size > document.MaxSize {
		return fmt.Errorf("its configuration has %d bytes, more than %d", m.Config.Size, document.MaxSize)
	}
	for _, l := range m.Layers {
		if len(l.URLs) > 0 {
			return fmt.Errorf("its layer %s is said to be at another address", l.Digest)
		}
	}
	config, err := i.ConfigFile()
	if err != nil {
		return err
	}
	if have := config.Platform(); have != nil && have.Architecture != "" && have.Architecture != p.Architecture {
		return &PlatformError{Want: p.String(), Have: []string{have.String()}}
	}
	return nil
}

// fullName is a reference as people write it.
func fullName(repository, tag, digest string) string {
	if digest != "" {
		return repository + "@" + digest
	}
	return repository + ":" + tag
}
