// Package provenance writes and reads statements of how an image was built.
//
// A statement is one of in-toto, version 1, with a predicate of SLSA provenance,
// version 1; the types are those of in-toto's own module. Subjects are the objects
// of the SIF that a build made, by their digests: an image cannot hold its own. The
// predicate names the definition, what base systems, packages and files it took,
// and who built it.
//
//	{"_type": "https://in-toto.io/Statement/v1",
//	 "subject": [{"name": "FS", "digest": {"sha256": "..."}}, ...],
//	 "predicateType": "https://slsa.dev/provenance/v1",
//	 "predicate": {"buildDefinition": {...}, "runDetails": {...}}}
//
// It is the object Object of an image. If a key was there, the object Envelope holds
// the same text in a DSSE envelope; package sign makes and opens those.
//
// Trust: whoever made the image wrote the statement. Parse bounds its size and says
// whether it has the form; Check says whether it is about this image; that it is
// true, only a signature by somebody who is trusted says. The same build gives the
// same bytes, so that a local build's statement has no times.
package provenance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	slsa "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"singularity/sif"
)

// Names in an image, and types in statements.
const (
	Object        = "provenance.json"      // the statement
	Envelope      = "provenance.dsse.json" // the statement in an envelope
	PayloadType   = "application/vnd.in-toto+json"
	PredicateType = "https://slsa.dev/provenance/v1"
	BuildType     = "urn:singularity:build:v1"
	LocalBuilder  = "urn:singularity:builder:local"
)

// MaxSize bounds a statement.
const MaxSize = 8 << 20

// Build is what a statement tells of a build.
type Build struct {
	Version      string         // of the program
	Parameters   map[string]any // what was asked for: "definition", "arch"
	Dependencies []Dependency
}

// Dependency is something that a build took.
type Dependency struct {
	Name   string
	URI    string
	Digest string         // ALGORITHM:HEX
	More   map[string]any // what else is known
}

// Run is who built, where others did it than who asked.
type Run struct {
	Builder           string // a URI
	Invocation        string
	Started, Finished time.Time
	Submitted         string // SHA-256 of the definition as it came, in hexadecimal
}

// New makes the statement of a local build of the image f.
func New(f *sif.File, b Build) ([]byte, error) {
	text, err := newStatement(f, b)
	if err != nil {
		return nil, fmt.Errorf("cannot state the provenance: %w", err)
	}
	return text, nil
}

func newStatement(f *sif.File, b Build) ([]byte, error) {
	parameters, err := object(b.Parameters)
	if err != nil {
		return nil, err
	}
	p := &slsa.Provenance{BuildDefinition: &slsa.BuildDefinition{BuildType: BuildType, ExternalParameters: parameters},
		RunDetails: &slsa.RunDetails{Builder: &slsa.Builder{Id: LocalBuilder, Version: map[string]string{"singularity": b.Version}}}}
	for _, d := range b.Dependencies {
		r := &intoto.ResourceDescriptor{Name: d.Name, Uri: d.URI}
		if algorithm, digits, ok := strings.Cut(d.Digest, ":"); ok {
			r.Digest = map[string]string{digestName(algorithm): digits}
		}
		if r.Annotations, err = object(d.More); err != nil {
			return nil, err
		}
		p.BuildDefinition.ResolvedDependencies = append(p.BuildDefinition.ResolvedDependencies, r)
	}
	s := &intoto.Statement{Type: intoto.StatementTypeUri, PredicateType: PredicateType}
	if s.Subject, err = subjects(f); err != nil {
		return nil, err
	}
	return encode(s, p)
}

// digestName is how in-toto calls a digest; that of a directory is ours.
func digestName(algorithm string) string {
	if algorithm == "tree-sha256" {
		return "treeSha256"
	}
	return algorithm
}

// object makes a JSON object of a map of anything that is JSON.
func object(m map[string]any) (*structpb.Struct, error) {
	if len(m) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	var plain map[string]any
	if err := json.Unmarshal(text, &plain); err != nil {
		return nil, err
	}
	return structpb.NewStruct(plain)
}

// subjects are the objects of the image that are there before the statement.
func subjects(f *sif.File) (list []*intoto.ResourceDescriptor, err error) {
	for _, o := range f.Objects() {
		if !built(o) {
			continue
		}
		sum, err := digest(f, o)
		if err != nil {
			return nil, err
		}
		name := o.Type.String()
		if o.Name != "" {
			name += " " + o.Name
		}
		list = append(list, &intoto.ResourceDescriptor{Name: strings.ToValidUTF8(name, "?"), Digest: map[string]string{"sha256": sum}})
	}
	return list, nil
}

// built tells whether an object is what a build made, and not said about it.
func built(o sif.Object) bool {
	return o.Type != sif.DataSignature && o.Type != sif.DataSBOM && o.Name != Object && o.Name != Envelope
}

func digest(f *sif.File, o sif.Object) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, f.Reader(o))
	return hex.EncodeToString(h.Sum(nil)), err
}

// encode writes a statement, with the same bytes each time: the module's own
// encoder puts spaces where it likes.
func encode(s *intoto.Statement, p *slsa.Provenance) ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(p)
	if err != nil {
		return nil, err
	}
	s.Predicate = &structpb.Struct{}
	if err := protojson.Unmarshal(text, s.Predicate); err != nil {
		return nil, err
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if text, err = protojson.Marshal(s); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "\t"); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Statement is one that has the form.
type Statement struct {
	s *intoto.Statement
	p *slsa.Provenance
}

// Parse reads a statement and checks its form.
func Parse(text []byte) (*Statement, error) {
	v := &Statement{&intoto.Statement{}, &slsa.Provenance{}}
	if len(text) > MaxSize {
		return nil, fmt.Errorf("provenance not valid: it has more than %d bytes", MaxSize)
	}
	lax := protojson.UnmarshalOptions{DiscardUnknown: true}
	err := lax.Unmarshal(text, v.s)
	if err == nil {
		err = v.s.Validate()
	}
	if err == nil && v.s.PredicateType != PredicateType {
		err = fmt.Errorf("it is a statement of the kind %.100q", v.s.PredicateType)
	}
	if err == nil {
		if text, err = protojson.Marshal(v.s.Predicate); err == nil {
			err = lax.Unmarshal(text, v.p)
		}
	}
	if err == nil {
		err = v.p.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("provenance not valid: %w", err)
	}
	return v, nil
}

// Builder says who built.
func (v *Statement) Builder() string { return v.p.GetRunDetails().GetBuilder().GetId() }

// ErrOther says that a statement is about another image.
var ErrOther = errors.New("the provenance is about another image")

// Check returns nil if the statement is about the image f: each object that was
// built is still there, and the system that runs is one of them. What was added
// later is not what it is about.
func (v *Statement) Check(f *sif.File) error {
	there := map[string]bool{}
	primary, err := f.Primary()
	if err != nil {
		return err
	}
	said := func(sum string) bool {
		return slices.ContainsFunc(v.s.Subject, func(s *intoto.ResourceDescriptor) bool { return strings.EqualFold(s.Digest["sha256"], sum) })
	}
	for _, o := range f.Objects() {
		if !built(o) {
			continue
		}
		sum, err := digest(f, o)
		if err != nil {
			return err
		}
		if there[sum] = true; o.ID == primary.ID && !said(sum) {
			return fmt.Errorf("%w: the system in it is not the one that was built", ErrOther)
		}
	}
	for _, s := range v.s.Subject {
		if !there[strings.ToLower(s.Digest["sha256"])] {
			return fmt.Errorf("%w: %.100q is not in it as it was built", ErrOther, s.Name)
		}
	}
	return nil
}

// Issue returns the statement as who ran the build vouches for it.
func (v *Statement) Issue(r Run) ([]byte, error) {
	b := v.p.RunDetails.Builder
	b.Id = r.Builder
	v.p.RunDetails.Metadata = &slsa.BuildMetadata{InvocationId: r.Invocation, StartedOn: timestamppb.New(r.Started), FinishedOn: timestamppb.New(r.Finished)}
	if r.Submitted != "" {
		v.p.BuildDefinition.ExternalParameters.Fields["submitted"] = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"sha256": structpb.NewStringValue(r.Submitted)}})
	}
	text, err := encode(v.s, v.p)
	if err != nil {
		return nil, fmt.Errorf("cannot state the provenance: %w", err)
	}
	return text, nil
}
