// Package trustline says in one sentence what is known about an image: who
// signed it, whether that counts here, since when it is unchanged, and which
// advisories touch it.
//
// Facts go in, a Line comes out, by a pure function, so that the command line and
// the pages say the same words about the same facts. A page adds links and
// emphasis by the kinds of the parts of a line; without them the text is the same.
//
// Names in Facts are text of strangers. They are quoted, so that none can go on
// with the sentence in our words, and cut. What is not known is said, or left
// out where nothing was asked; nothing is ever taken for good by silence: every
// line speaks of the signature and of advisories.
package trustline

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Signature is what became of the signatures of an image.
type Signature int

// What may become of them.
const (
	Unsigned  Signature = iota
	Unchecked           // there are some, and none was checked
	Unknown             // by no key that is known here
	Invalid             // it is no signature of the key that it names
	Changed             // it is one, and the image is not what was signed
	Revoked             // good, of a key that is not to be trusted any more
	Good
)

var signatureNames = [...]string{"unsigned", "unchecked", "unknown key", "invalid", "changed", "revoked key", "good"}

func (s Signature) String() string { return signatureNames[s] }

// MarshalText writes the name of s.
func (s Signature) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Verdict is whether signers or an image count as trusted.
type Verdict int

// The verdicts.
const (
	Unasked Verdict = iota // nobody said whom to trust
	Trusted
	Refused
)

var verdictNames = [...]string{"unasked", "trusted", "refused"}

func (v Verdict) String() string { return verdictNames[v] }

// MarshalText writes the name of v.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Facts are what is known about an image.
type Facts struct {
	Signature   Signature `json:"signature"`
	Signer      string    `json:"signer,omitempty"`      // a name that is proven or that a keyring of this host has
	Fingerprint string    `json:"fingerprint,omitempty"` // of the key, in hexadecimal digits
	Others      int       `json:"others,omitempty"`      // further keys with a good signature
	Objects     int       `json:"objects"`               // data objects beside signatures
	Open        int       `json:"open"`                  // of these, such as no good signature is about
	Since       time.Time `json:"since,omitzero"`

	Trust  Verdict `json:"trust"`
	Policy string  `json:"policy,omitempty"` // name of the rule of the site that decided; "" for the keyrings

	Builder    string `json:"builder,omitempty"`    // who built it, if a checked statement says so
	Reproduced bool   `json:"reproduced,omitempty"` // and somebody else got the same image

	Advisories *Advisories `json:"advisories"` // nil if the image was not compared with any
}

// Advisories are how many touch an image, by severity.
type Advisories struct {
	Critical int       `json:"critical"`
	High     int       `json:"high"`
	Medium   int       `json:"medium"`
	Low      int       `json:"low"`
	Unrated  int       `json:"unrated"`
	AsOf     time.Time `json:"asOf,omitzero"`     // when the data was last changed
	Old      bool      `json:"old,omitempty"`     // longer ago than the site allows
	Partial  bool      `json:"partial,omitempty"` // not all packages of the image are known
}

// Kind tells what a part of a line is.
type Kind string

// The kinds.
const (
	Text    Kind = ""
	Lead    Kind = "lead"    // what the sentence begins with
	Key     Kind = "key"     // a fingerprint
	Warning Kind = "warning" // what should be seen
	Count   Kind = "count"   // of advisories
)

// Part is a part of a sentence.
type Part struct {
	Kind Kind
	Text string
}

// Line is a sentence.
type Line []Part

// String is the sentence.
func (l Line) String() string {
	var b strings.Builder
	for _, p := range l {
		b.WriteString(p.Text)
	}
	return b.String()
}

// Sound tells whether all that is known about the signature is good, and covers
// the whole image.
func (f *Facts) Sound() bool {
	return f.Signature == Good && f.Open == 0 && f.Trust != Refused
}

// Line says f.
func (f *Facts) Line() Line {
	var l Line
	add := func(k Kind, text string) { l = append(l, Part{k, text}) }
	f.signature(add)
	f.trust(add)
	f.whole(add)
	if f.Builder != "" {
		how := ", built by "
		if f.Reproduced {
			how = ", built reproducibly by "
		}
		add(Text, how+quote(f.Builder))
	}
	f.Advisories.say(add)
	add(Text, ".")
	return l
}

func (f *Facts) signature(add func(Kind, string)) {
	switch f.Signature {
	case Unsigned:
		add(Lead, "Signed by nobody")
		return
	case Unchecked:
		add(Lead, "Signed")
		add(Warning, ", which was not checked")
		return
	case Unknown:
		add(Lead, "Signed by no key that is known here")
	case Invalid:
		add(Warning, "Signed with a signature that is not valid")
	case Changed:
		add(Warning, "Changed after it was signed")
		f.by(Text, add)
		return
	default:
		add(Lead, "Signed")
		f.by(Lead, add)
		if f.Signature == Revoked {
			add(Warning, ", a key that was revoked")
		}
		return
	}
	if f.Fingerprint != "" {
		add(Text, " (it names ")
		add(Key, hexadecimal(f.Fingerprint))
		add(Text, ")")
	}
}

// by names the signer, and tells if there are more.
func (f *Facts) by(k Kind, add func(Kind, string)) {
	switch {
	case f.Signer != "":
		add(k, " by "+quote(f.Signer))
	case f.Fingerprint != "":
		add(k, " by somebody whose name is not known")
	default:
		add(k, " with a key file or certificate")
	}
	if f.Fingerprint != "" {
		add(Text, " (fingerprint ")
		add(Key, hexadecimal(f.Fingerprint))
		add(Text, ")")
	}
	if f.Others > 0 {
		add(Text, " and by "+count(f.Others, "other key"))
	}
}

func (f *Facts) trust(add func(Kind, string)) {
	by := "the keyrings of this host"
	if f.Policy != "" {
		by = "site policy " + quote(f.Policy)
	}
	switch f.Trust {
	case Trusted:
		add(Text, ", trusted by "+by)
	case Refused:
		add(Warning, ", not trusted by "+by)
	}
}

// whole tells how much of the image the signature is about, and since when.
func (f *Facts) whole(add func(Kind, string)) {
	if f.Signature != Good && f.Signature != Revoked {
		return
	}
	if f.Open > 0 {
		add(Warning, ", "+strconv.Itoa(f.Open)+" of "+count(f.Objects, "object")+" not signed")
	}
	add(Text, ", unchanged since "+date(f.Since))
}

func (a *Advisories) say(add func(Kind, string)) {
	if a == nil {
		add(Text, ", not compared with advisories")
		return
	}
	var list []string
	total := 0
	for _, s := range [...]struct {
		n    int
		word string
	}{{a.Critical, "critical"}, {a.High, "high"}, {a.Medium, "medium"}, {a.Low, "low"}, {a.Unrated, "unrated"}} {
		if s.n > 0 {
			list, total = append(list, strconv.Itoa(s.n)+" "+s.word), total+s.n
		}
	}
	words := "no known advisories"
	if n := len(list); n > 0 {
		words = list[n-1]
		if n > 1 {
			words = strings.Join(list[:n-1], ", ") + " and " + words
		}
		if total == 1 {
			words += " advisory"
		} else {
			words += " advisories"
		}
	}
	add(Text, ", ")
	add(Count, words)
	add(Text, " as of "+date(a.AsOf))
	if a.Old {
		add(Warning, ", which is too long ago")
	}
	if a.Partial {
		add(Warning, ", with packages that could not be read")
	}
}

// maxName bounds what is shown of a name, in bytes.
const maxName = 120

// quote writes a name of strangers.
//
// Security: it may hold escapes for a terminal, letters that turn the direction
// of writing, and words that look like the rest of the sentence.
func quote(s string) string {
	if len(s) > maxName {
		n := maxName
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		return strconv.Quote(s[:n]) + "..."
	}
	return strconv.Quote(s)
}

// hexadecimal is a fingerprint in capitals, without what is no digit of one.
func hexadecimal(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9' || r >= 'A' && r <= 'F':
			return r
		case r >= 'a' && r <= 'f':
			return r - 'a' + 'A'
		}
		return -1
	}, s[:min(len(s), 128)])
}

// date writes a day; data without one is no reason to name one.
func date(t time.Time) string {
	if t.Year() < 2000 {
		return "an unknown date"
	}
	return t.UTC().Format(time.DateOnly)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
