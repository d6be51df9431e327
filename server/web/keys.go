package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
)

// keyHit is a key that a search found.
type keyHit struct {
	Fingerprint      string
	Created, Expires time.Time
	Revoked, Expired bool
	UserIDs          []string
}

func (s *Service) keys(w http.ResponseWriter, r *http.Request) error {
	v := struct {
		page.Frame
		Query   string
		Found   []keyHit
		Offered bool
		Message string
	}{Frame: auth.FrameOf(r.Context(), "Keys", "keys"), Query: strings.TrimSpace(r.FormValue("q")), Offered: s.has("/pks/lookup")}
	if v.Query == "" || !v.Offered {
		return show(w, "keys.html", v)
	}
	a, err := s.send(r.Context(), http.MethodGet, "/pks/lookup?"+url.Values{"op": {"index"}, "options": {"mr"}, "search": {v.Query}}.Encode(), nil)
	switch {
	case missing(err):
		v.Message = "No key is known by that."
	case err != nil:
		return err
	default:
		v.Found = parseIndex(a.Body.String())
	}
	return show(w, "keys.html", v)
}

// parseIndex reads the list of keys in the form for machines
// (draft-gallagher-openpgp-hkp, section 5).
func parseIndex(text string) (list []keyHit) {
	for l := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(l), ":")
		switch {
		case f[0] == "pub" && len(f) >= 7:
			list = append(list, keyHit{Fingerprint: f[1], Created: seconds(f[4]), Expires: seconds(f[5]), Revoked: strings.Contains(f[6], "r"), Expired: strings.Contains(f[6], "e")})
		case f[0] == "uid" && len(f) >= 2 && len(list) > 0:
			if id, err := url.PathUnescape(f[1]); err == nil {
				k := &list[len(list)-1]
				k.UserIDs = append(k.UserIDs, id)
			}
		}
	}
	return list
}

func seconds(text string) time.Time {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

// key is what the key store tells of a key.
type key struct {
	Fingerprint string
	Subkeys     []string
	UserIDs     []struct {
		Text            string
		Revoked, Proven bool
	}
	Algorithm, Bits  int
	Created, Expires time.Time
	Revoked          bool
	Added, Changed   time.Time
	SHA256           string
	LogIndex         int64
}

// algorithms of OpenPGP (RFC 9580, section 9.1).
var algorithms = map[int]string{1: "RSA", 17: "DSA", 18: "ECDH", 19: "ECDSA", 22: "EdDSA", 25: "X25519", 26: "X448", 27: "Ed25519", 28: "Ed448"}

func (k key) AlgorithmName() string {
	if n := algorithms[k.Algorithm]; n != "" {
		return n
	}
	return "algorithm " + strconv.Itoa(k.Algorithm)
}

func (s *Service) key(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	k, err := get[key](s, ctx, path("/v1/keys/", r.PathValue("fingerprint")))
	if err != nil {
		return err
	}
	v := struct {
		page.Frame
		Key     key
		Expired bool
		Images  []api.Image
		Days    int // until it expires
		Short   string
		HKP     string
	}{Frame: auth.FrameOf(ctx, "Key "+short(k.Fingerprint), "keys"), Key: k, Expired: !k.Expires.IsZero() && k.Expires.Before(time.Now()), Short: short(k.Fingerprint)}
	v.Days = int(time.Until(k.Expires) / (24 * time.Hour))
	v.HKP = strings.Replace(strings.Replace(s.url, "https:", "hkps:", 1), "http:", "hkp:", 1)
	l, err := list[api.Image](s, ctx, path("/v1/signers/", k.Fingerprint, "images"))
	if err != nil {
		return err
	}
	v.Images = l.Data
	return show(w, "key.html", v)
}

// short is the end of a fingerprint.
func short(f string) string { return f[max(0, len(f)-16):] }
