// Package verdict is the answer of the program starter-verify: who signed an
// image, and the hash trees by which what is read of it is checked. The program
// that starts containers reads it and so need not link the checks themselves.
//
// It is a few lines of text: a word for the state, the parameters of a hash tree
// in each line that begins with "tree", and a line of text for people.
package verdict

import (
	"errors"
	"strings"

	"singularity/verity"
)

// State is what is known of the signer.
type State string

// The states. Only Refused forbids a start by itself.
const (
	Unsigned State = "unsigned"
	Unknown  State = "unknown" // signed with a key that no keyring has
	Trusted  State = "trusted" // signed with a key of a keyring
	Refused  State = "refused" // a signature, or what it covers, is wrong
	Allowed  State = "allowed" // by the execution control list; nothing else was asked
)

// ListPrefix begins the text of a refusal by the execution control list.
const ListPrefix = "while checking container image with ECL: "

// Verdict is the answer.
type Verdict struct {
	State State
	Text  string // the signer, or what is wrong; from the image, one line
	Trees []*verity.Params
	// Listed tells that an activated execution control list allows the image.
	Listed bool
}

// MaxSize bounds an encoded verdict, in bytes.
const MaxSize = 64 << 10

const maxTrees = 64

// Encode returns v as Decode reads it.
func (v *Verdict) Encode() []byte {
	b := []byte(string(v.State) + "\n")
	if v.Listed {
		b = append(b, "listed\n"...)
	}
	for _, t := range v.Trees {
		b = append(b, "tree "+t.String()+"\n"...)
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, v.Text)
	return append(b, "text "+text[:min(len(text), 4096)]+"\n"...)
}

var errForm = errors.New("the check of the image's signature gave no answer")

// Decode reads a verdict.
func Decode(b []byte) (*Verdict, error) {
	head, rest, ok := strings.Cut(string(b), "\n")
	v := &Verdict{State: State(head)}
	if !ok || len(b) > MaxSize {
		return nil, errForm
	}
	switch v.State {
	case Unsigned, Unknown, Trusted, Refused, Allowed:
	default:
		return nil, errForm
	}
	for {
		line, after, ok := strings.Cut(rest, "\n")
		if !ok || len(v.Trees) > maxTrees {
			return nil, errForm
		}
		rest = after
		if text, ok := strings.CutPrefix(line, "text "); ok {
			v.Text = text
			break
		}
		if line == "listed" && !v.Listed && len(v.Trees) == 0 {
			v.Listed = true
			continue
		}
		word, ok := strings.CutPrefix(line, "tree ")
		t, err := verity.ParseParams(word)
		if !ok || err != nil || t == nil {
			return nil, errForm
		}
		v.Trees = append(v.Trees, t)
	}
	if rest != "" {
		return nil, errForm
	}
	return v, nil
}

// Tree returns the tree of the partition with that id, nil without one.
func (v *Verdict) Tree(id uint32) *verity.Params {
	for _, t := range v.Trees {
		if t.Object == id {
			return t
		}
	}
	return nil
}
