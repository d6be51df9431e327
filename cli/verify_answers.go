package cli

import (
	"errors"
	"slices"

	"singularity/pgp"
	"singularity/sign"
)

// answersJSON are the three questions that verify answers.
type answersJSON struct {
	Integrity answerJSON // is everything as it was signed?
	Signer    answerJSON // is it known who signed?
	Trust     answerJSON // does this host know the signers?
}

// answerJSON is an answer in a word, and as an exit status of its own: 0 for yes.
type answerJSON struct {
	Answer   string
	ExitCode int
	Signers  []string `json:",omitempty"` // fingerprints and key ids, each of which made a valid signature
}

// The answers, which doc/user/signing.md explains.
var (
	intact           = answerJSON{Answer: "intact"}
	damaged          = answerJSON{Answer: "damaged", ExitCode: 10}
	integrityUnknown = answerJSON{Answer: "unknown", ExitCode: 11}

	signerKnown   = answerJSON{Answer: "known"}
	unsigned      = answerJSON{Answer: "unsigned", ExitCode: 20}
	signerUnknown = answerJSON{Answer: "unknown key", ExitCode: 21}
	notValid      = answerJSON{Answer: "signature not valid", ExitCode: 22}

	trusted      = answerJSON{Answer: "trusted"}
	notTrusted   = answerJSON{Answer: "not trusted", ExitCode: 30}
	trustUnknown = answerJSON{Answer: "unknown", ExitCode: 31}
)

// answer tells apart what the one verdict err of r comes from.
//
// Security: it never says yes where err says no to the same question.
func answer(r *sign.Result, err error) answersJSON {
	a := answersJSON{Integrity: integrityUnknown, Signer: signerOf(r, err), Trust: trustOf(r)}
	_, required := errors.AsType[*sign.RequiredError](err)
	switch {
	case err == nil, required: // with --any, one signature that fits is enough
		a.Integrity = intact
	case slices.ContainsFunc(r.Signatures, func(s sign.Signature) bool { return identified(s) && s.Err != nil }):
		a.Integrity = damaged
	}
	// All is well and yet it failed: a key that was asked for did not sign.
	if err != nil && a.Integrity.ExitCode != damaged.ExitCode && a.Trust.ExitCode == 0 {
		a.Trust = notTrusted
	}
	for _, s := range r.Signatures {
		if !identified(s) {
			continue
		}
		name := ""
		if s.Key != nil {
			name = s.Key.Fingerprint().String()
		} else {
			name = s.Public.ID
		}
		if !slices.Contains(a.Signer.Signers, name) {
			a.Signer.Signers = append(a.Signer.Signers, name)
		}
	}
	return a
}

// identified tells whether the signature itself is good: who made it is known.
func identified(s sign.Signature) bool {
	_, invalid := errors.AsType[*sign.InvalidError](s.Err)
	return !invalid && (s.Key != nil || s.Public != nil)
}

func signerOf(r *sign.Result, err error) answerJSON {
	_, required := errors.AsType[*sign.RequiredError](err)
	if err == nil || required {
		return signerKnown
	}
	_, unknown := errors.AsType[*pgp.UnknownKeyError](err)
	switch {
	case errors.Is(err, sign.ErrNoSignature):
		return unsigned
	case unknown, errors.Is(err, sign.ErrNoKey):
		return signerUnknown
	case slices.ContainsFunc(r.Signatures, func(s sign.Signature) bool { return s.Err != nil && !identified(s) }):
		return notValid
	case slices.ContainsFunc(r.Signatures, identified):
		return signerKnown
	}
	return signerUnknown
}

// trustOf tells whether each group that r looked at has a signer whose key is in
// a keyring of this host, or was named by the user.
func trustOf(r *sign.Result) answerJSON {
	groups := map[uint32]bool{}
	known := false
	for _, s := range r.Signatures {
		here := identified(s) && s.Origin != sign.Remote
		groups[s.Group] = groups[s.Group] || here
		known = known || identified(s)
	}
	switch {
	case !known:
		return trustUnknown
	case slices.ContainsFunc(r.Signatures, func(s sign.Signature) bool { return !groups[s.Group] }):
		return notTrusted
	}
	return trusted
}
