// Package registry offers the containers of the library to clients of the OCI
// distribution API, version 1.1: docker, podman, skopeo, oras.
//
// A repository is a container, entity/collection/container, with the same
// rights, quotas and contents. Manifests and blobs are visible in the repository
// that they were sent to, or mounted to by somebody who may read where they are:
// a digest alone opens nothing (SC-139). A SIF image that comes as an ORAS
// artifact is an image of the library too, and an image of the library can be
// pulled as such an artifact.
//
// Clients are hostile: manifests are bounded at 4 MiB, lists come in pages
// (SC-156), digests are SHA-256 of what came and never taken from the client.
// Every write touches one record: first bytes, then the link that shows them in
// a repository, then the manifest, then the tag.
//
//   - registry.go: routes and errors
//   - blob.go, upload.go: blobs; manifest.go: manifests; tags.go: lists
//   - sif.go: images of the library; collect.go: what nobody names any more
package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/route"
	"singularity/server/store"
)

// Service is the registry.
type Service struct {
	url   string
	auth  *auth.Service
	lib   *library.Service
	blobs store.Blobs
	now   func() time.Time

	links     *store.Collection[link]
	manifests *store.Collection[manifest]
	uploads   *store.Collection[upload]

	mu    sync.Mutex
	swept time.Time
}

// link shows a blob in a repository.
type link struct {
	Container string    `json:"container"`
	Entity    string    `json:"entity"`
	SHA256    string    `json:"sha256"`
	Size      int64     `json:"size"`
	At        time.Time `json:"at"`
}

// manifest is a manifest of a repository. Its bytes are a blob.
type manifest struct {
	Container    string            `json:"container"`
	SHA256       string            `json:"sha256"`
	Size         int64             `json:"size"`
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Subject      string            `json:"subject,omitempty"` // a digest
	Annotations  map[string]string `json:"annotations,omitempty"`
	Blobs        []string          `json:"blobs,omitempty"`     // SHA-256 of config and layers
	Manifests    []string          `json:"manifests,omitempty"` // of an index
	SIF          string            `json:"sif,omitempty"`       // of an image of the library
	At           time.Time         `json:"at"`
}

// upload is a blob that arrives, under the id of the storage.
type upload struct {
	Container string    `json:"container"`
	User      string    `json:"user"`
	Expires   time.Time `json:"expires"`
}

// Open opens the registry in the store.
func Open(ctx context.Context, r store.Records, b store.Blobs, a *auth.Service, l *library.Service, url string) (*Service, error) {
	s := &Service{url: url, auth: a, lib: l, blobs: b, now: time.Now}
	var err error
	if s.links, err = store.Open(ctx, r, "registry_links", store.Options[link]{Indexes: []store.Index[link]{
		{Name: "blob", Of: func(l *link) []string { return []string{l.SHA256} }},
		{Name: "entity", Of: func(l *link) []string { return []string{l.Entity} }},
		{Name: "container", Of: func(l *link) []string { return []string{l.Container} }},
	}}); err != nil {
		return nil, fmt.Errorf("cannot open the registry: %w", err)
	}
	if s.manifests, err = store.Open(ctx, r, "registry_manifests", store.Options[manifest]{Indexes: []store.Index[manifest]{
		{Name: "blob", Of: func(m *manifest) []string { return []string{m.SHA256} }},
		{Name: "container", Of: func(m *manifest) []string { return []string{m.Container} }},
		{Name: "subject", Of: func(m *manifest) []string {
			if m.Subject == "" {
				return nil
			}
			return []string{m.Container + "/" + m.Subject}
		}},
		{Name: "names", Of: func(m *manifest) []string {
			var list []string
			for _, b := range m.Blobs {
				list = append(list, m.Container+"/"+b)
			}
			return list
		}},
	}}); err != nil {
		return nil, fmt.Errorf("cannot open the registry: %w", err)
	}
	if s.uploads, err = store.Open(ctx, r, "registry_uploads", store.Options[upload]{
		Expires: func(u *upload) time.Time { return u.Expires },
		Indexes: []store.Index[upload]{{Name: "user", Of: func(u *upload) []string { return []string{u.User} }}},
	}); err != nil {
		return nil, fmt.Errorf("cannot open the registry: %w", err)
	}
	l.Hold(s.holds)
	l.Count(s.inUse)
	l.Removed(s.sifRemoved)
	return s, nil
}

// Routes are the calls of the registry. The names in their paths have slashes,
// so that they are told apart here.
func (s *Service) Routes() []route.Route {
	return []route.Route{
		{Pattern: "GET /registry/token", Handler: s.token, Class: route.Login},
		{Pattern: "/v2/{rest...}", Handler: s.serve, Class: route.Transfer, Body: route.Stream},
		{Pattern: "POST /v2/{rest...}", Handler: s.serve, Body: route.Stream},
		{Pattern: "PUT /v2/{rest...}", Handler: s.serve, Body: route.Stream},
	}
}

// request is a call whose path is read.
type request struct {
	*http.Request
	w    http.ResponseWriter
	name string // of the repository
	ref  string // what follows the kind
}

var paths = []struct {
	path  *regexp.Regexp
	calls map[string]func(*Service, *request) error
}{
	{regexp.MustCompile(`^(.+)/blobs/uploads/()$`), map[string]func(*Service, *request) error{"POST": (*Service).startUpload}},
	{regexp.MustCompile(`^(.+)/blobs/uploads/([^/]+)$`), map[string]func(*Service, *request) error{
		"GET": (*Service).uploadStatus, "PATCH": (*Service).patchUpload, "PUT": (*Service).endUpload, "DELETE": (*Service).abortUpload}},
	{regexp.MustCompile(`^(.+)/blobs/([^/]+)$`), map[string]func(*Service, *request) error{
		"GET": (*Service).getBlob, "HEAD": (*Service).getBlob, "DELETE": (*Service).deleteBlob}},
	{regexp.MustCompile(`^(.+)/manifests/([^/]+)$`), map[string]func(*Service, *request) error{
		"GET": (*Service).getManifest, "HEAD": (*Service).getManifest, "PUT": (*Service).putManifest, "DELETE": (*Service).deleteManifest}},
	{regexp.MustCompile(`^(.+)/tags/list()$`), map[string]func(*Service, *request) error{"GET": (*Service).listTags}},
	{regexp.MustCompile(`^(.+)/referrers/([^/]+)$`), map[string]func(*Service, *request) error{"GET": (*Service).listReferrers}},
}

func (s *Service) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	req := &request{Request: r, w: w}
	if err := s.dispatch(req); err != nil {
		s.refuse(req, err)
	}
}

func (s *Service) dispatch(r *request) error {
	rest := r.PathValue("rest")
	if rest == "" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		if c := auth.From(r.Context()); !c.Known() && r.Header.Get("Authorization") != "Bearer "+auth.AnonymousToken {
			return errUnauthorized
		}
		route.JSON(r.w, http.StatusOK, struct{}{})
		return nil
	}
	for _, p := range paths {
		m := p.path.FindStringSubmatch(rest)
		if m == nil {
			continue
		}
		call := p.calls[r.Method]
		if call == nil {
			return &fault{http.StatusMethodNotAllowed, "UNSUPPORTED", "method not allowed"}
		}
		r.name, r.ref = m[1], m[2]
		return call(s, r)
	}
	return &fault{http.StatusNotFound, "NAME_UNKNOWN", "not found"}
}

// fault is a refusal in the words of the protocol.
type fault struct {
	status        int
	code, message string
}

func (f *fault) Error() string { return f.message }

func faultf(status int, code, format string, args ...any) *fault {
	return &fault{status, code, fmt.Sprintf(format, args...)}
}

// final is a refusal that no log-in changes.
type final struct{ *fault }

func (f final) Unwrap() error { return f.fault }

var errUnauthorized = &fault{http.StatusUnauthorized, "UNAUTHORIZED", "log in first"}

// refuse answers with an error. Whoever has no account is asked to log in,
// whether what they want is hidden or not there.
func (s *Service) refuse(r *request, err error) {
	var f *fault
	if !errors.As(err, &f) {
		f = s.translate(err)
	}
	var last final
	if c := auth.From(r.Context()); !c.Known() && !errors.As(err, &last) && (f.status == http.StatusNotFound && f.code == "NAME_UNKNOWN" || f.status == http.StatusForbidden) {
		f = errUnauthorized
	}
	if f.status >= 500 {
		route.Refuse(r.w, r.Request, err) // which logs it
		return
	}
	if f.status == http.StatusUnauthorized {
		r.w.Header().Set("WWW-Authenticate", s.challenge(r))
	}
	r.w.Header().Del("Content-Length")
	r.w.Header().Set("Cache-Control", "no-store")
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	route.JSON(r.w, f.status, struct {
		Errors []one `json:"errors"`
	}{[]one{{f.code, f.message}}})
}

// translate gives the refusals of the library the code of the protocol.
func (s *Service) translate(err error) *fault {
	var e *route.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return faultf(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "more than %d bytes", tooLarge.Limit)
	case errors.Is(err, store.ErrContent):
		return &fault{http.StatusBadRequest, "DIGEST_INVALID", "the content is not what was announced"}
	case errors.Is(err, store.ErrNotFound):
		return &fault{http.StatusNotFound, "BLOB_UNKNOWN", "not found"}
	case errors.Is(err, store.ErrBusy), errors.Is(err, store.ErrConflict):
		return &fault{http.StatusConflict, "BLOB_UPLOAD_INVALID", "changed by another request meanwhile: try again"}
	case !errors.As(err, &e):
		return &fault{http.StatusInternalServerError, "UNKNOWN", "internal error"}
	}
	code := map[int]string{http.StatusUnauthorized: "UNAUTHORIZED", http.StatusForbidden: "DENIED", http.StatusNotFound: "NAME_UNKNOWN", http.StatusBadRequest: "NAME_INVALID",
		http.StatusTooManyRequests: "TOOMANYREQUESTS", http.StatusMethodNotAllowed: "UNSUPPORTED", http.StatusInsufficientStorage: "DENIED", http.StatusConflict: "DENIED"}[e.Status]
	if code == "" {
		code = "UNKNOWN"
	}
	status := e.Status
	if status == http.StatusInsufficientStorage { // clients try 5xx again and again
		status = http.StatusForbidden
	}
	return &fault{status, code, e.Message}
}

func (s *Service) challenge(r *request) string {
	host := strings.TrimPrefix(strings.TrimPrefix(s.url, "https://"), "http://")
	text := fmt.Sprintf(`Bearer realm="%s/registry/token",service="%s"`, s.url, host)
	if repositoryName.MatchString(r.name) && len(r.name) < 300 {
		what := "pull"
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			what = "pull,push"
		}
		text += fmt.Sprintf(`,scope="repository:%s:%s"`, r.name, what)
	}
	return text
}

var repositoryName = regexp.MustCompile(`^[a-z0-9]+(?:[._/-]+[a-z0-9]+)*$`)

// token answers what a client asks for that was told to log in. The token is the
// one it has shown as a password, which every call checks; who shows none gets
// one that is nobody's.
func (s *Service) token(w http.ResponseWriter, r *http.Request) {
	c := auth.From(r.Context())
	if c.Invalid {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		route.Refuse(w, r, route.Errorf(http.StatusUnauthorized, "the password is no access token, or it has expired: make one on the page of your tokens"))
		return
	}
	text, life := auth.AnonymousToken, 300
	if c.Known() {
		if _, password, ok := r.BasicAuth(); ok {
			text = password
		} else {
			_, text, _ = strings.Cut(r.Header.Get("Authorization"), " ")
		}
		if left := time.Until(c.Expires); !c.Expires.IsZero() && left < time.Duration(life)*time.Second {
			life = max(1, int(left.Seconds()))
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	route.JSON(w, http.StatusOK, struct {
		Token       string    `json:"token"`
		AccessToken string    `json:"access_token"`
		ExpiresIn   int       `json:"expires_in"`
		IssuedAt    time.Time `json:"issued_at"`
	}{text, text, life, s.now().UTC()})
}

var digestName = regexp.MustCompile(`^sha256:([0-9a-f]{64})$`)

// parseDigest reads a digest. Another algorithm is none that this registry
// computes.
func parseDigest(text string) (string, error) {
	m := digestName.FindStringSubmatch(text)
	if m == nil {
		return "", faultf(http.StatusBadRequest, "DIGEST_INVALID", "%.100q is no digest here: sha256 and 64 hexadecimal digits are wanted", text)
	}
	return m[1], nil
}

// location sets where the client goes on, on this server.
func (r *request) location(path string) { r.w.Header().Set("Location", "/v2/"+r.name+path) }
