package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"

	"singularity/sif"
)

// maxEnvelopeSignatures bounds the signatures in one envelope.
const maxEnvelopeSignatures = 64

// PublicKey is a key that DSSE signatures are checked with.
type PublicKey struct {
	Key crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	ID  string           // see KeyID
	// Name says whose key it is, for messages: a path, or the subject of a
	// certificate.
	Name string
}

// minRSABits is the smallest RSA key that counts.
const minRSABits = 2048

// NewPublicKey returns key as Verify takes it.
func NewPublicKey(key crypto.PublicKey, name string) (*PublicKey, error) {
	id, err := KeyID(key)
	if err != nil {
		return nil, err
	}
	if k, ok := key.(*rsa.PublicKey); ok && k.N.BitLen() < minRSABits {
		return nil, fmt.Errorf("an RSA key of %d bits is too short, the least is %d", k.N.BitLen(), minRSABits)
	}
	return &PublicKey{Key: key, ID: id, Name: name}, nil
}

// KeyID returns the name of a key in an envelope: its fingerprint as OpenSSH
// prints it.
func KeyID(key crypto.PublicKey) (string, error) {
	var b []byte
	switch k := key.(type) {
	case *rsa.PublicKey:
		b = sshString(nil, []byte("ssh-rsa"))
		b = sshString(b, sshNumber(big.NewInt(int64(k.E))))
		b = sshString(b, sshNumber(k.N))
	case *ecdsa.PublicKey:
		curve, ok := map[string]string{"P-256": "nistp256", "P-384": "nistp384", "P-521": "nistp521"}[k.Params().Name]
		if !ok {
			return "", fmt.Errorf("curve %s is not supported: use P-256, P-384 or P-521", k.Params().Name)
		}
		point, err := k.Bytes()
		if err != nil {
			return "", err
		}
		b = sshString(nil, []byte("ecdsa-sha2-"+curve))
		b = sshString(b, []byte(curve))
		b = sshString(b, point)
	case ed25519.PublicKey:
		b = sshString(nil, []byte("ssh-ed25519"))
		b = sshString(b, k)
	default:
		return "", fmt.Errorf("a key of type %T cannot sign images: use RSA, ECDSA or Ed25519", key)
	}
	sum := sha256.Sum256(b)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]), nil
}

func sshString(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// sshNumber returns a positive number as SSH writes it: a leading zero keeps the
// first bit clear.
func sshNumber(n *big.Int) []byte {
	b := n.Bytes()
	if len(b) > 0 && b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return b
}

// envelope is the outer form of a DSSE signature.
type envelope struct {
	PayloadType string              `json:"payloadType"`
	Payload     string              `json:"payload"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// preAuth returns the bytes that are signed.
func preAuth(payloadType string, payload []byte) []byte {
	b := []byte("DSSEv1 " + strconv.Itoa(len(payloadType)) + " " + payloadType + " " + strconv.Itoa(len(payload)) + " ")
	return append(b, payload...)
}

// DSSE returns a signer that makes envelopes with key, which may live elsewhere
// and be a crypto.MessageSigner.
func DSSE(key crypto.Signer) (Signer, error) {
	public, err := NewPublicKey(key.Public(), "")
	if err != nil {
		return nil, err
	}
	return &dsse{key, public}, nil
}

type dsse struct {
	key    crypto.Signer
	public *PublicKey
}

func (s *dsse) Unlock() error { return nil }

func (s *dsse) Sign(statement []byte) ([]byte, sif.Signature, error) {
	data, err := s.seal(payloadType, statement)
	return data, sif.Signature{Hash: sif.HashSHA256}, err
}

func (s *dsse) seal(kind string, payload []byte) ([]byte, error) {
	sig, err := signMessage(s.key, s.public, preAuth(kind, payload))
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{kind, base64.StdEncoding.EncodeToString(payload), []envelopeSignature{{s.public.ID, base64.StdEncoding.EncodeToString(sig)}}})
}

// Attest returns an envelope of a payload that is no statement of this package,
// such as one of provenance, signed with key.
func Attest(key crypto.Signer, kind string, payload []byte) ([]byte, error) {
	public, err := NewPublicKey(key.Public(), "")
	if err != nil {
		return nil, err
	}
	return (&dsse{key, public}).seal(kind, payload)
}

// Attestation is an envelope that holds a payload of a kind.
type Attestation struct {
	Payload []byte
	KeyIDs  []string   // what the envelope says of its signers, checked by nobody
	By      *PublicKey // whose signature is good; nil for none of the keys
}

// OpenAttestation opens an envelope of a payload of a kind, and tells which of the
// keys signed it, if any did.
func OpenAttestation(data []byte, kind string, keys []*PublicKey) (*Attestation, error) {
	e, err := decodeEnvelope(data, kind)
	if err != nil {
		return nil, err
	}
	a := &Attestation{}
	for _, s := range e.Signatures {
		a.KeyIDs = append(a.KeyIDs, s.KeyID)
	}
	a.Payload, a.By, err = e.open(keys)
	if errors.Is(err, errDSSE) {
		err = nil
	}
	return a, err
}

// signMessage signs text with key, whose public part is public.
func signMessage(key crypto.Signer, public *PublicKey, text []byte) ([]byte, error) {
	hash := crypto.SHA256
	if _, ok := public.Key.(ed25519.PublicKey); ok {
		hash = 0
	}
	// Some keys live where only whole messages are signed.
	sig, err := crypto.SignMessage(key, rand.Reader, text, hash)
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	// A token or an agent may have signed with another key than it showed.
	if !public.verify(text, sig) {
		return nil, errors.New("cannot sign: the signature does not fit the key")
	}
	return sig, nil
}

// verify tells whether sig is a signature of text by the key.
func (k *PublicKey) verify(text, sig []byte) bool {
	sum := sha256.Sum256(text)
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum[:], sig)
	case ed25519.PublicKey:
		return ed25519.Verify(key, text, sig)
	}
	return false
}

var errDSSE = errors.New("no signature of the given keys")

// openEnvelope returns the payload of a DSSE envelope and the key that signed it.
//
// Security: keys of the envelope that stand twice, or in another spelling, read
// differently from one program to the next, so they are refused; the key id is
// a hint, and no more.
func openEnvelope(data []byte, keys []*PublicKey) ([]byte, *PublicKey, error) {
	e, err := decodeEnvelope(data, payloadType)
	if err != nil {
		return nil, nil, err
	}
	payload, by, err := e.open(keys)
	if err != nil {
		payload = nil // nobody vouches for it
	}
	return payload, by, err
}

// open returns the payload, and the key that signed it or errDSSE.
func (e *envelope) open(keys []*PublicKey) ([]byte, *PublicKey, error) {
	payload, err := decodeBase64(e.Payload)
	if err != nil {
		return nil, nil, fmt.Errorf("envelope not valid: payload: %w", err)
	}
	text := preAuth(e.PayloadType, payload)
	for _, s := range e.Signatures {
		sig, err := decodeBase64(s.Sig)
		if err != nil {
			return nil, nil, fmt.Errorf("envelope not valid: signature: %w", err)
		}
		for _, k := range keys {
			if (s.KeyID == "" || s.KeyID == k.ID) && k.verify(text, sig) {
				return payload, k, nil
			}
		}
	}
	return payload, nil, errDSSE
}

func decodeEnvelope(data []byte, kind string) (*envelope, error) {
	var e envelope
	d := decoder{json.NewDecoder(bytes.NewReader(data))}
	err := d.object(map[string]func() error{
		"payloadType": d.into(&e.PayloadType),
		"payload":     d.into(&e.Payload),
		"signatures": func() error {
			return d.array(func() error {
				var s envelopeSignature
				if len(e.Signatures) == maxEnvelopeSignatures {
					return fmt.Errorf("more than %d signatures", maxEnvelopeSignatures)
				}
				err := d.objectWith(map[string]func() error{"sig": d.into(&s.Sig)}, map[string]func() error{"keyid": d.into(&s.KeyID)})
				e.Signatures = append(e.Signatures, s)
				return err
			})
		},
	})
	if err == nil {
		if _, err2 := d.Token(); err2 != io.EOF {
			err = errors.New("text after it")
		}
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("envelope not valid: %w", err)
	case e.PayloadType != kind:
		return nil, fmt.Errorf("envelope holds %q, not a statement about an image", e.PayloadType)
	case len(e.Signatures) == 0:
		return nil, errors.New("envelope not valid: it has no signatures")
	}
	return &e, nil
}

// decodeBase64 reads both alphabets, as others write either.
func decodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		b, err = base64.URLEncoding.DecodeString(s)
	}
	return b, err
}
