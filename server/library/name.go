package library

import (
	"net/http"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"singularity/server/route"
)

var (
	namePart = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)
	tagName  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	hashName = regexp.MustCompile(`^sha256\.[0-9a-f]{64}$`)
	uuidName = regexp.MustCompile(`^sif\.[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	archName = regexp.MustCompile(`^[a-z0-9]{2,16}$`)
	idName   = regexp.MustCompile(`^[0-9a-f]{24}$`)
)

// The limits of texts, in bytes.
const (
	maxName            = 64
	maxDescription     = 2048
	maxFullDescription = 64 << 10
	maxPatterns        = 50
)

func checkPart(name string) error {
	if len(name) > maxName || !namePart.MatchString(name) {
		return route.Errorf(http.StatusBadRequest, "%.80q is no name here: up to 64 lower-case letters and digits, with single dots, dashes and underscores between them", name)
	}
	return nil
}

func checkTag(tag string) error {
	if !tagName.MatchString(tag) || hashName.MatchString(tag) || uuidName.MatchString(tag) {
		return route.Errorf(http.StatusBadRequest, "%.140q is no tag: up to 128 letters, digits, dots, dashes and underscores, and no hash", tag)
	}
	return nil
}

// reference is what follows /v1/images/ in a path.
type reference struct {
	path string // of a container: three parts
	tag  string // or a hash
	arch string
}

func (r reference) isHash() bool { return hashName.MatchString(r.tag) || uuidName.MatchString(r.tag) }

// parseReference reads NAME[:TAG]. Short names are those of the operator's
// images: NAME is library/default/NAME, COLLECTION/NAME library/COLLECTION/NAME.
func parseReference(r *http.Request) (reference, error) {
	name, tag, found := strings.Cut(r.PathValue("ref"), ":")
	ref := reference{tag: tag, arch: r.URL.Query().Get("arch")}
	if !found {
		ref.tag = "latest"
	}
	parts := strings.Split(name, "/")
	switch len(parts) {
	case 1:
		parts = []string{"library", "default", parts[0]}
	case 2:
		parts = []string{"library", parts[0], parts[1]}
	case 3:
	default:
		return ref, route.Errorf(http.StatusBadRequest, "%.200q names no container: entity/collection/container is wanted", name)
	}
	for _, p := range parts {
		if err := checkPart(p); err != nil {
			return ref, err
		}
	}
	ref.path = strings.Join(parts, "/")
	if !ref.isHash() {
		if err := checkTag(ref.tag); err != nil {
			return ref, err
		}
	}
	if ref.arch != "" && !archName.MatchString(ref.arch) {
		return ref, route.Errorf(http.StatusBadRequest, "%.40q is no architecture", ref.arch)
	}
	return ref, nil
}

// pathOf reads the names of a path with {entity}, {collection}, {container}.
func pathOf(r *http.Request, names ...string) (string, error) {
	var parts []string
	for _, n := range names {
		p := r.PathValue(n)
		if err := checkPart(p); err != nil {
			return "", err
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, "/"), nil
}

// clean takes from a text what could act on a terminal that prints it. Lines are
// kept only where Markdown wants them.
func clean(text string, limit int, lines bool) (string, error) {
	if len(text) > limit {
		return "", route.Errorf(http.StatusBadRequest, "the description is larger than %d bytes", limit)
	}
	if !utf8.ValidString(text) {
		return "", route.Errorf(http.StatusBadRequest, "the description is no UTF-8 text")
	}
	return strings.Map(func(r rune) rune {
		switch {
		case lines && (r == '\n' || r == '\t'):
			return r
		case r == '\n' || r == '\t':
			return ' '
		case route.Acts(r):
			return -1
		}
		return r
	}, text), nil
}

// checkPatterns checks patterns of tags.
func checkPatterns(list []string) error {
	if len(list) > maxPatterns {
		return route.Errorf(http.StatusBadRequest, "more than %d patterns", maxPatterns)
	}
	for _, p := range list {
		if _, err := path.Match(p, ""); err != nil || p == "" || len(p) > 128 || strings.ContainsFunc(p, func(r rune) bool { return r <= 0x20 || r > 0x7e }) {
			return route.Errorf(http.StatusBadRequest, "%.140q is no pattern of tags", p)
		}
	}
	return nil
}
