package web

import (
	"context"
	"slices"
	"strings"

	"singularity/api"
)

// signer is a key that a signature names.
type signer struct {
	Fingerprint string
	Checked     bool   // the site knows the key and found the signature valid
	Name        string // that is proven, or empty
	Revoked     bool
}

// trust is what is known about who made an image, for one sentence and what it
// rests on.
type trust struct {
	Signers []signer
	Unnamed bool // a signature names no key
	Checked bool // a signature was good, with a key of this site
	Revoked bool // but the key is not to be trusted any more
	Who     string
	Print   string // fingerprint of the key
	Short   string // its end
	Open    int    // objects that no signature is about
	Objects int    // beside signatures
}

// trustOf reads the signatures of an image, and of the keys what is known here.
func (s *Service) trustOf(ctx context.Context, i api.Inspection, a anatomy) (trust, error) {
	t := trust{Open: a.Open}
	t.Signers, t.Unnamed = signersOf(i)
	for _, o := range i.Objects {
		if o.Type != "Signature" {
			t.Objects++
		}
	}
	for n := range t.Signers {
		g := &t.Signers[n]
		k, err := get[key](s, ctx, path("/v1/keys/", g.Fingerprint))
		if err != nil && !missing(err) {
			return t, err
		}
		if err == nil {
			g.Name, g.Revoked = k.provenName(), k.Revoked
		}
		if g.Checked && (!t.Checked || t.Revoked) {
			t.Checked, t.Revoked, t.Who, t.Print, t.Short = true, g.Revoked, g.Name, g.Fingerprint, short(g.Fingerprint)
		}
	}
	return t, nil
}

// provenName is the first name of a key whose address is known to be its owner's:
// anybody can write any name into a key.
func (k key) provenName() string {
	for _, u := range k.UserIDs {
		if u.Proven && !u.Revoked {
			return u.Text
		}
	}
	return ""
}

func signersOf(i api.Inspection) (list []signer, unnamed bool) {
	for _, o := range i.Objects {
		if o.Type != "Signature" {
			continue
		}
		known := slices.ContainsFunc(list, func(s signer) bool { return s.Fingerprint == o.Signer })
		if o.Signer != "" && !known {
			list = append(list, signer{Fingerprint: o.Signer, Checked: slices.ContainsFunc(i.Image.Fingerprints, func(f string) bool { return strings.EqualFold(f, o.Signer) })})
		}
		unnamed = unnamed || o.Signer == ""
	}
	return list, unnamed
}

// groups writes a fingerprint in groups of four, as people compare it.
func groups(fingerprint string) string {
	var b strings.Builder
	for n, c := range fingerprint {
		if n > 0 && n%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}
