package advisory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// vexContext is the version of OpenVEX that is written (https://openvex.dev/ns).
const vexContext = "https://openvex.dev/ns/v0.2.0"

// VEX is a document of OpenVEX: what somebody decided about faults in products.
type VEX struct {
	Context    string      `json:"@context"`
	ID         string      `json:"@id"`
	Author     string      `json:"author"`
	Timestamp  time.Time   `json:"timestamp"`
	Version    int         `json:"version"`
	Statements []Statement `json:"statements"`
}

// Statement says what holds for one fault in some products. One that has
// expired is not obeyed; OpenVEX has no field for that, so that action_statement
// carries it in a form of ours ("until 2026-12-31: ...").
type Statement struct {
	Vulnerability struct {
		Name    string   `json:"name"`
		Aliases []string `json:"aliases,omitempty"`
	} `json:"vulnerability"`
	Products        []Product `json:"products,omitempty"`
	Status          string    `json:"status"`
	Justification   string    `json:"justification,omitempty"`
	Impact          string    `json:"impact_statement,omitempty"`
	Action          string    `json:"action_statement,omitempty"`
	StatusNotes     string    `json:"status_notes,omitempty"`
	ActionTimestamp time.Time `json:"action_statement_timestamp,omitzero"`
	Timestamp       time.Time `json:"timestamp,omitzero"`
}

// Product is a purl, or an image by its digest, perhaps with packages in it.
type Product struct {
	ID            string            `json:"@id,omitempty"`
	Identifiers   map[string]string `json:"identifiers,omitempty"`
	Hashes        map[string]string `json:"hashes,omitempty"`
	Subcomponents []Product         `json:"subcomponents,omitempty"`
}

// Status of a statement.
const (
	NotAffected = "not_affected"
	AffectedBy  = "affected"
	FixedHere   = "fixed"
	UnderStudy  = "under_investigation"
)

// Bounds of a document.
const (
	maxVEX        = 16 << 20
	maxStatements = 100_000
)

// ReadVEX reads a document of OpenVEX.
func ReadVEX(r io.Reader) (*VEX, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxVEX+1))
	if err != nil {
		return nil, err
	}
	var v VEX
	if len(b) > maxVEX {
		return nil, fmt.Errorf("it is larger than %d bytes", maxVEX)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(v.Context, "https://openvex.dev/ns") {
		return nil, errors.New("it is no document of OpenVEX: @context is something else")
	}
	if len(v.Statements) > maxStatements {
		return nil, fmt.Errorf("it has over %d statements", maxStatements)
	}
	for i, s := range v.Statements {
		switch {
		case !plain(s.Vulnerability.Name):
			return nil, fmt.Errorf("statement %d names no fault", i+1)
		case s.Status == NotAffected && s.Justification == "" && s.Impact == "":
			return nil, fmt.Errorf("statement %d (%s): not_affected wants a justification or an impact statement", i+1, s.Vulnerability.Name)
		case s.Status != NotAffected && s.Status != AffectedBy && s.Status != FixedHere && s.Status != UnderStudy:
			return nil, fmt.Errorf("statement %d (%s): the status %q is not known", i+1, s.Vulnerability.Name, clean(s.Status))
		}
	}
	return &v, nil
}

// untilMark begins an action statement that carries an expiry.
const untilMark = "until "

// Expiry is when s ends to hold, the zero time for never.
func (s Statement) Expiry() time.Time {
	rest, ok := strings.CutPrefix(s.Action, untilMark)
	if !ok {
		return time.Time{}
	}
	day, _, _ := strings.Cut(rest, ":")
	t, err := time.Parse(time.DateOnly, strings.TrimSpace(day))
	if err != nil {
		return time.Time{}
	}
	return t.AddDate(0, 0, 1)
}

// Ignore makes a statement that nobody here counts the fault called id in
// product (a purl, "" for any) until the end of a day, zero for ever.
func Ignore(id, product, reason string, until time.Time) Statement {
	s := Statement{Status: NotAffected, Impact: reason}
	s.Vulnerability.Name = id
	if product != "" {
		s.Products = []Product{{ID: product}}
	}
	if !until.IsZero() {
		s.Action = untilMark + until.Format(time.DateOnly) + ": review"
	}
	return s
}

// Apply marks the findings in list that statements declare harmless or
// corrected, at the time now. image is the SHA-256 of the image in hex. Later
// statements about the same fault and product count.
func (v *VEX) Apply(list []Finding, image string, now time.Time) {
	for i := range list {
		f := &list[i]
		for _, s := range v.Statements {
			if !f.Has(s.Vulnerability.Name) && !slices.ContainsFunc(s.Vulnerability.Aliases, f.Has) {
				continue
			}
			if e := s.Expiry(); !e.IsZero() && !now.Before(e) || !s.about(f, image) {
				continue
			}
			f.Ignored = ""
			if s.Status == NotAffected || s.Status == FixedHere {
				f.Ignored = clean(strings.TrimSpace(strings.Join([]string{s.Status, s.Justification, s.Impact}, " ")))
			}
		}
	}
}

// about tells whether s speaks of f in the image.
func (s Statement) about(f *Finding, image string) bool {
	if len(s.Products) == 0 {
		return true
	}
	for _, p := range s.Products {
		if p.names(f) {
			return true
		}
		if !p.isImage(image) {
			continue
		}
		if len(p.Subcomponents) == 0 || slices.ContainsFunc(p.Subcomponents, func(c Product) bool { return c.names(f) }) {
			return true
		}
	}
	return false
}

// names tells whether p is the package of f. A purl without a version or
// without qualifiers is about all of them.
func (p Product) names(f *Finding) bool {
	for _, id := range []string{p.ID, p.Identifiers["purl"]} {
		if !strings.HasPrefix(id, "pkg:") {
			continue
		}
		full := f.PURL
		bare, _, _ := strings.Cut(full, "?")
		name := bare
		if i := strings.LastIndexByte(bare, '@'); i > strings.LastIndexByte(bare, '/') {
			name = bare[:i]
		}
		if id == full || id == bare || id == name {
			return true
		}
	}
	return false
}

func (p Product) isImage(digest string) bool {
	if digest == "" {
		return false
	}
	return p.Hashes["sha-256"] == digest || strings.HasSuffix(p.ID, "sha256:"+digest) || strings.HasSuffix(p.ID, "sha256."+digest) || strings.HasSuffix(p.ID, "sha256%3A"+digest)
}

// NewVEX makes a document of statements.
func NewVEX(id, author string, at time.Time, list []Statement) *VEX {
	return &VEX{Context: vexContext, ID: id, Author: author, Timestamp: at.UTC(), Version: 1, Statements: list}
}
