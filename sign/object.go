package sign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"singularity/pgp"
	"singularity/sif"
)

// Limits on the signature objects of an image: nobody has many signers, and an
// attacker may append as many objects as the format allows.
const (
	maxSignatures     = 1024
	maxSignatureBytes = 16 << 20
)

// payloadType marks a DSSE envelope that holds a statement.
const payloadType = "application/vnd.sylabs.sif-metadata+json"

const (
	clearSignedStart = "-----BEGIN PGP SIGNED MESSAGE-----"
	legacyStart      = "SIFHASH:"
)

// ErrNoKey says that a DSSE signature was met and no key for it was given.
var ErrNoKey = errors.New("key material not provided for DSSE envelope signature")

var (
	errNoKeyring   = errors.New("key material not provided for PGP clear-sign signature")
	errFormat      = errors.New("signature format not recognized")
	errFingerprint = errors.New("fingerprint in descriptor does not correspond to signing entity")
)

// Origin tells which keyring a key came from.
type Origin string

// The keyrings. The administrator's is asked first.
const (
	Global Origin = "GLOBAL"
	Local  Origin = "LOCAL"
	Remote Origin = "REMOTE" // none: Options.Lookup found the key
)

// Keyring is a source of keys. The first of several that knows a key id counts.
type Keyring struct {
	Origin Origin
	Ring   interface {
		// ByID returns the keys that have that 64-bit id, or a sub-key that has.
		ByID(id uint64) []*pgp.Key
	}
}

// rings looks keys up, and remembers where the last one was found.
type rings struct {
	list   []Keyring
	lookup func(id uint64) []*pgp.Key // asked last; may be nil
	found  Origin
}

func (r *rings) find(id uint64) []*pgp.Key {
	for _, k := range r.list {
		if keys := k.Ring.ByID(id); len(keys) > 0 {
			r.found = k.Origin
			return keys
		}
	}
	if r.lookup == nil {
		return nil
	}
	r.found = Remote
	return r.lookup(id)
}

// form is how a signature object is written.
type form int

const (
	formUnknown form = iota
	formOpenPGP
	formLegacy // the statement is "SIFHASH:" and a digest of data
	formDSSE
)

// formOf tells the form of a signature object by its content.
func formOf(data []byte) form {
	var envelope struct{ PayloadType string }
	if t := bytes.TrimSpace(data); len(t) > 0 && t[0] == '{' {
		if json.Unmarshal(t, &envelope) == nil && envelope.PayloadType == payloadType {
			return formDSSE
		}
		return formUnknown
	}
	if !bytes.Contains(data, []byte(clearSignedStart)) {
		return formUnknown
	}
	if text, err := pgp.ClearText(data); err == nil && bytes.HasPrefix(text, []byte(legacyStart)) {
		return formLegacy
	}
	return formOpenPGP
}

// signatureObject is a signature object of the image with its data.
type signatureObject struct {
	sif.Object
	data []byte
	form form
}

// signatureObjects reads all signature objects of f.
func signatureObjects(f *sif.File) ([]signatureObject, error) {
	var list []signatureObject
	var total int64
	for _, o := range f.Objects() {
		if o.Type != sif.DataSignature {
			continue
		}
		if total += o.Size; len(list) == maxSignatures || total > maxSignatureBytes {
			return nil, fmt.Errorf("image has more than %d signatures or %d bytes of them", maxSignatures, maxSignatureBytes)
		}
		data, err := f.ReadAll(o)
		if err != nil {
			return nil, err
		}
		list = append(list, signatureObject{o, data, formOf(data)})
	}
	return list, nil
}

// signedText is what a signature object signs, and by whose key.
type signedText struct {
	text   []byte
	key    *pgp.Key // of an OpenPGP signature
	origin Origin   // where key was found
	public *PublicKey
	time   time.Time // of an OpenPGP signature
}

// verify checks the signature itself, and returns the text that was signed.
func (s *signatureObject) verify(o Options) (*signedText, error) {
	meta, ok := s.Signature()
	switch {
	case s.form == formUnknown:
		return nil, errFormat
	case s.form == formDSSE && len(o.Keys) == 0:
		return nil, ErrNoKey
	case s.form == formDSSE:
		payload, key, err := openEnvelope(bytes.TrimSpace(s.data), o.Keys)
		if err != nil {
			return nil, &InvalidError{ID: s.ID, Err: err}
		}
		// Security: others read the signer off the descriptor, which nothing signs.
		if !ok || meta.Entity != [20]byte{} {
			return nil, errFingerprint
		}
		return &signedText{text: payload, public: key}, nil
	case len(o.Keyrings) == 0 && o.Lookup == nil:
		return nil, errNoKeyring
	}
	r := rings{list: o.Keyrings, lookup: o.Lookup}
	signed, err := pgp.VerifyClear(s.data, r.find, o.Now)
	if err != nil {
		return nil, &InvalidError{ID: s.ID, Err: err}
	}
	if !ok || pgp.Fingerprint(meta.Entity) != signed.Key.Fingerprint() {
		return nil, errFingerprint
	}
	return &signedText{text: signed.Text, key: signed.Key, origin: r.found, time: signed.Time}, nil
}
