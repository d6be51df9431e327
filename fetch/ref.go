package fetch

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// maxReference bounds an image reference, in bytes.
const maxReference = 4096

// Kind is the scheme of a reference.
type Kind string

// The kinds of references.
const (
	Path          Kind = ""
	Instance      Kind = "instance"
	Library       Kind = "library"
	Docker        Kind = "docker"
	DockerDaemon  Kind = "docker-daemon"
	DockerArchive Kind = "docker-archive"
	OCI           Kind = "oci"
	OCIArchive    Kind = "oci-archive"
	ORAS          Kind = "oras"
	Shub          Kind = "shub"
	HTTP          Kind = "http"
	HTTPS         Kind = "https"
)

var kinds = []Kind{Instance, Library, Docker, DockerDaemon, DockerArchive, OCI, OCIArchive, ORAS, Shub, HTTP, HTTPS}

// Ref is an image reference, read.
type Ref struct {
	Kind Kind
	Text string // as typed
	// Name is a path, a URL, the name in a daemon or, for registries and the
	// library, the name without host, tag and digest.
	Name   string
	Host   string   // of a registry or library; empty: the default one
	Tags   []string // without a default; more than one only for a library
	Digest string   // algorithm:hex; empty if none is given
}

// SchemeError says that nothing is known of a scheme.
type SchemeError struct{ Scheme, Text string }

func (e *SchemeError) Error() string {
	return fmt.Sprintf("cannot read image reference %q: unknown scheme %q", e.Text, e.Scheme)
}

// Parse reads an image reference. exists tells whether a path is there; what
// is there is a path, whatever it looks like, and is never asked the network
// for. Without exists no path is looked at.
func Parse(text string, exists func(string) bool) (*Ref, error) {
	r := &Ref{Text: text}
	if text == "" || len(text) > maxReference || strings.ContainsRune(text, 0) {
		return nil, r.bad("it is empty, too long or holds a NUL")
	}
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok || exists != nil && exists(text) {
		r.Name = text
		return r, nil
	}
	for _, k := range kinds {
		if string(k) == scheme {
			r.Kind = k
		}
	}
	if r.Kind == Path {
		if strings.HasPrefix(rest, "//") && isScheme(scheme) {
			return nil, &SchemeError{Scheme: scheme, Text: text}
		}
		r.Name = text
		return r, nil
	}
	for _, c := range rest {
		if c <= ' ' && r.Kind != DockerArchive && r.Kind != OCI && r.Kind != OCIArchive || c == 0x7f {
			return nil, r.bad("it holds a blank or a control character")
		}
	}
	return r, r.parse(rest)
}

// Exists tells whether path is there, for Parse.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func isScheme(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(s[i]))) {
			return false
		}
	}
	return s != ""
}

func (r *Ref) bad(why string) error {
	return fmt.Errorf("cannot read image reference %q: %s", r.Text, why)
}

func (r *Ref) parse(rest string) error {
	bare := strings.TrimPrefix(rest, "//")
	var err error
	switch r.Kind {
	case HTTP, HTTPS:
		err = r.parseURL()
	case Docker, ORAS:
		if bare == rest {
			return r.bad("after the scheme, // is missing")
		}
		err = r.parseRegistry(bare)
	case DockerDaemon:
		err = r.parseRegistryName(bare)
	case Library:
		err = r.parseLibrary(bare)
	case Shub:
		err = r.parseShub(bare)
	case DockerArchive:
		r.Name = bare
	case OCI, OCIArchive:
		err = r.parseLayout(bare)
	default:
		r.Name = bare
	}
	if err == nil && r.Name == "" {
		err = errors.New("a name is missing")
	}
	if err != nil {
		return r.bad(err.Error())
	}
	return nil
}

func (r *Ref) parseURL() error {
	u, err := url.Parse(r.Text)
	if err != nil || u.Host == "" {
		return errors.New("it is no URL")
	}
	r.Name, r.Host = r.Text, u.Host
	return nil
}

// parseRegistry reads [host/]name[:tag][@digest].
func (r *Ref) parseRegistry(s string) error {
	host, name, ok := strings.Cut(s, "/")
	if ok && (strings.ContainsAny(host, ".:[") || host == "localhost") {
		r.Host = strings.ToLower(host)
		s = name
		if err := checkHost(r.Host); err != nil {
			return err
		}
	}
	if err := r.parseRegistryName(s); err != nil {
		return err
	}
	switch r.Host {
	case "docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		r.Host = ""
	}
	if r.Kind == ORAS && r.Host == "" {
		return errors.New("name the registry: oras://HOST/NAME:TAG")
	}
	if r.Host == "" && !strings.Contains(r.Name, "/") {
		r.Name = "library/" + r.Name
	}
	return nil
}

func checkHost(s string) error {
	u, err := url.Parse("https://" + s)
	if err != nil || u.Host != s || u.Hostname() == "" || u.User != nil || strings.ContainsAny(s, "@?#%\\") {
		return fmt.Errorf("%q is no host", s)
	}
	return nil
}

// parseRegistryName reads name[:tag][@digest].
func (r *Ref) parseRegistryName(s string) error {
	s, digest, ok := strings.Cut(s, "@")
	if ok {
		if !isDigest(digest) {
			return fmt.Errorf("%q is no digest", digest)
		}
		r.Digest = digest
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 && i > strings.LastIndexByte(s, '/') {
		if !isTag(s[i+1:]) {
			return fmt.Errorf("%q is no tag", s[i+1:])
		}
		r.Tags = []string{s[i+1:]}
		s = s[:i]
	}
	for _, part := range strings.Split(s, "/") {
		if !isNamePart(part) {
			return fmt.Errorf("%q is no name in a registry: lower-case letters, digits and single . _ - between them are", s)
		}
	}
	if len(s) > 255 {
		return errors.New("the name has more than 255 characters")
	}
	r.Name = s
	return nil
}

// isDigest tells whether s is a SHA-256 or SHA-512 digest.
func isDigest(s string) bool {
	name, hex, _ := strings.Cut(s, ":")
	if len(hex) != map[string]int{"sha256": 64, "sha512": 128}[name] || hex == "" {
		return false
	}
	return strings.Trim(hex, "0123456789abcdef") == ""
}

func isTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

// isNamePart knows the components of names that the distribution API takes.
func isNamePart(s string) bool {
	plain := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	if s == "" || !plain(s[0]) || !plain(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		j := i
		for j < len(s) && !plain(s[j]) {
			j++
		}
		if sep := s[i:j]; sep != "" && sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
		i = j + 1
	}
	return true
}

// parseLibrary reads [host/]path[:tag[,tag...]], with one to three parts.
func (r *Ref) parseLibrary(s string) error {
	s = strings.TrimPrefix(s, "/")
	if strings.Count(s, "/") >= 3 {
		r.Host, s, _ = strings.Cut(s, "/")
		if err := checkHost(r.Host); err != nil {
			return err
		}
	}
	name, tags, hasTag := strings.Cut(s, ":")
	if hasTag {
		for _, t := range strings.Split(tags, ",") {
			if !isTag(t) {
				return fmt.Errorf("%q is no tag", t)
			}
			r.Tags = append(r.Tags, t)
		}
	}
	parts := strings.Split(name, "/")
	if len(parts) > 3 {
		return errors.New("entity/collection/container has three parts at most")
	}
	for _, p := range parts {
		// Security: the name becomes a part of a URL, where ".." and "%2e" lead
		// to other calls, with the token of the user.
		if strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || strings.Trim(p, ".") == "" {
			return fmt.Errorf("%q is no name in a library", p)
		}
	}
	r.Name = name
	for _, t := range r.Tags {
		if hex, ok := strings.CutPrefix(t, "sha256."); ok && isDigest("sha256:"+hex) {
			r.Digest = "sha256:" + hex
		}
	}
	return nil
}

// parseShub reads [host/]user/name[:tag][@digest].
func (r *Ref) parseShub(s string) error {
	s, _, _ = strings.Cut(s, "@")
	if strings.Count(s, "/") >= 2 { // a host may have a port
		r.Host, s, _ = strings.Cut(s, "/")
		if err := checkHost(r.Host); err != nil {
			return err
		}
	}
	name, tag, ok := strings.Cut(s, ":")
	if ok {
		if !isTag(tag) {
			return fmt.Errorf("%q is no tag", tag)
		}
		r.Tags = []string{tag}
	}
	for _, p := range strings.Split(name, "/") {
		if strings.Trim(p, ".") == "" || strings.ContainsAny(p, "?#%\\") {
			return fmt.Errorf("%q is no name", p)
		}
	}
	r.Name = name
	return nil
}

// parseLayout reads PATH[:ref] and PATH[@digest].
func (r *Ref) parseLayout(s string) error {
	if path, digest, ok := strings.Cut(s, "@"); ok && isDigest(digest) {
		r.Name, r.Digest = path, digest
		return nil
	}
	r.Name = s
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		r.Name, r.Tags = s[:i], []string{s[i+1:]}
	}
	return nil
}

// Tag returns the first tag, or latest.
func (r *Ref) Tag() string {
	if len(r.Tags) == 0 {
		return "latest"
	}
	return r.Tags[0]
}

// Repository returns the name of a repository with its host.
func (r *Ref) Repository() string {
	host := r.Host
	if host == "" {
		host = "docker.io"
	}
	return host + "/" + r.Name
}

// FileName returns the name that pull gives to an image.
func (r *Ref) FileName() string {
	if r.Kind == HTTP || r.Kind == HTTPS {
		if u, err := url.Parse(r.Name); err == nil {
			p := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
			if p != "" && p != "." && p != ".." && !strings.ContainsAny(p, "/\x00") {
				return p
			}
		}
		return "image.sif"
	}
	base := strings.TrimRight(r.Name, "/")
	base = base[strings.LastIndexByte(base, '/')+1:]
	tag := strings.NewReplacer("/", "-", ":", "-").Replace(r.Tag())
	if r.Digest != "" && len(r.Tags) == 0 {
		tag = strings.Replace(r.Digest, ":", ".", 1)
	}
	return strings.TrimLeft(base, ".") + "_" + tag + ".sif"
}
