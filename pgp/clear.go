package pgp

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// MaxMessageSize bounds a clear-signed message, in bytes.
const MaxMessageSize = 1<<20 + 64<<10

// minBits is the smallest RSA or DSA key whose signatures count. Some programs
// make 2048-bit keys whose modulus has a leading zero bit.
const minBits = 2047

// ErrNotClearSigned tells that data is not one clear-signed message.
var ErrNotClearSigned = errors.New("clear-signed message not valid")

// UnknownKeyError tells that no key of the given id is known.
type UnknownKeyError struct{ ID uint64 }

func (e *UnknownKeyError) Error() string { return pgperrors.ErrUnknownIssuer.Error() }

// Signed is a text whose signature was found valid.
type Signed struct {
	Text []byte // exactly what was signed, lines ended by a line feed
	Key  *Key   // the signer
	Time time.Time
}

// acceptedHashes are the hashes that a signature may use.
var acceptedHashes = []crypto.Hash{crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512}

// ClearSign returns text as a clear-signed message made by the primary key at
// time now. The key must be unlocked, and be valid for signing at that time.
// The text must not start with a dash nor hold trailing blanks.
func (k *Key) ClearSign(text []byte, now time.Time) (_ []byte, err error) {
	defer guard(&err)
	if !k.Secret() {
		return nil, errors.New("key has no secret part")
	}
	if k.Locked() {
		return nil, errors.New("key is locked")
	}
	if err := k.Unlock(nil); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, k.signer, &packet.Config{
		DefaultHash: crypto.SHA256,
		Time:        func() time.Time { return now },
	})
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	// A key that has expired or may not sign would make a signature that nobody
	// accepts; a faulty computation could even give the secret away.
	self := func(uint64) []*Key { return []*Key{k} }
	if _, err := VerifyClear(b.Bytes(), self, now); err != nil {
		return nil, fmt.Errorf("key %s cannot sign: %w", k.Fingerprint(), err)
	}
	return b.Bytes(), nil
}

// ClearText returns the text of a clear-signed message without checking the
// signature, to tell what kind of message it is. Never act on it.
func ClearText(data []byte) ([]byte, error) {
	b, err := decodeClear(data)
	if err != nil {
		return nil, err
	}
	return b.Plaintext, nil
}

// VerifyClear checks a clear-signed message and returns its text and signer.
// find returns the keys of a 64-bit id. The signature, the key and the
// key's own signatures must be valid at now.
func VerifyClear(data []byte, find func(id uint64) []*Key, now time.Time) (_ *Signed, err error) {
	defer guard(&err)
	block, err := decodeClear(data)
	if err != nil {
		return nil, err
	}
	sig, raw, err := readSignature(block.ArmoredSignature.Body)
	if err != nil {
		return nil, err
	}
	if names := block.Headers["Hash"]; len(names) > 1 || len(names) == 1 && names[0] != hashName(sig.Hash) {
		return nil, fmt.Errorf("%w: hash header does not name the hash of the signature", ErrNotClearSigned)
	}
	keys := find(*sig.IssuerKeyId)
	if len(keys) == 0 {
		return nil, &UnknownKeyError{ID: *sig.IssuerKeyId}
	}
	// Security: ids of 64 bits can be made to collide; with two candidates the
	// answer would hang on the order of the ring.
	if len(keys) > 1 {
		return nil, fmt.Errorf("%d keys have the id %016X", len(keys), *sig.IssuerKeyId)
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	_, _, err = openpgp.VerifyDetachedSignatureAndHash(keys[0].list(), bytes.NewReader(block.Bytes),
		bytes.NewReader(raw), acceptedHashes, config)
	if err != nil {
		return nil, tooEarly(keys[0], sig, now, err)
	}
	if err := checkSigner(keys[0], sig); err != nil {
		return nil, err
	}
	return &Signed{Text: block.Plaintext, Key: keys[0], Time: sig.CreationTime}, nil
}

// decodeClear reads the one message that data must be.
//
// Security: the usual reader takes the first message anywhere in the data,
// undoes dash escapes and drops blanks, so that what a person sees and what was
// signed may differ. Only the plain form, alone, is a signature here.
func decodeClear(data []byte) (*clearsign.Block, error) {
	if len(data) > MaxMessageSize {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrNotClearSigned, len(data), MaxMessageSize)
	}
	data = bytes.TrimSpace(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
	const begin, middle, end = "-----BEGIN PGP SIGNED MESSAGE-----\n", "\n-----BEGIN PGP SIGNATURE-----\n", "\n-----END PGP SIGNATURE-----"
	if !bytes.HasPrefix(data, []byte(begin)) || !bytes.HasSuffix(data, []byte(end)) ||
		bytes.Count(data, []byte("-----BEGIN ")) != 2 || bytes.Count(data, []byte("-----END ")) != 1 {
		return nil, fmt.Errorf("%w: not exactly one message", ErrNotClearSigned)
	}
	block, rest := clearsign.Decode(data)
	if block == nil || len(rest) != 0 {
		return nil, fmt.Errorf("%w: cannot be decoded", ErrNotClearSigned)
	}
	_, text, found := bytes.Cut(data, []byte("\n\n"))
	text, _, found2 := bytes.Cut(text, []byte(middle))
	if !found || !found2 || !bytes.Equal(text, block.Plaintext) {
		return nil, fmt.Errorf("%w: text is not in its plain form", ErrNotClearSigned)
	}
	return block, nil
}

// readSignature reads the one signature packet that r must hold.
func readSignature(r io.Reader) (*packet.Signature, []byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxPacketSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotClearSigned, err)
	}
	list, err := packets(raw)
	if err != nil || len(list) != 1 || list[0].tag != tagSignature {
		return nil, nil, fmt.Errorf("%w: not exactly one signature packet", ErrNotClearSigned)
	}
	p, err := packet.Read(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotClearSigned, err)
	}
	sig, ok := p.(*packet.Signature)
	if !ok || sig.IssuerKeyId == nil {
		return nil, nil, fmt.Errorf("%w: signature does not name its key", ErrNotClearSigned)
	}
	if sig.SigType != packet.SigTypeText && sig.SigType != packet.SigTypeBinary {
		return nil, nil, fmt.Errorf("%w: signature type %#x", ErrNotClearSigned, sig.SigType)
	}
	if !slices.Contains(acceptedHashes, sig.Hash) {
		return nil, nil, fmt.Errorf("%w: signature hash %v is not accepted", ErrNotClearSigned, sig.Hash)
	}
	return sig, raw, nil
}

// checkSigner refuses what the library lets pass: weak keys, and a signature
// older than the key that is said to have made it.
func checkSigner(k *Key, sig *packet.Signature) error {
	for _, c := range k.list().KeysById(*sig.IssuerKeyId) {
		switch c.PublicKey.PubKeyAlgo {
		case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoDSA:
			if n, err := c.PublicKey.BitLength(); err != nil || n < minBits {
				return fmt.Errorf("openpgp: key of %d bits is too weak", n)
			}
		}
		if sig.CreationTime.Before(c.PublicKey.CreationTime) {
			return errors.New("openpgp: signature made before its key")
		}
	}
	return nil
}

// tooEarly is err, unless it comes from a key or a signature that begins to count
// after now, which the library calls expired.
func tooEarly(k *Key, sig *packet.Signature, now time.Time, err error) error {
	for _, c := range k.list().KeysById(*sig.IssuerKeyId) {
		if t := c.PublicKey.CreationTime; errors.Is(err, pgperrors.ErrKeyExpired) && t.After(now) {
			return errors.New("openpgp: key not valid before " + t.UTC().Format(time.RFC3339))
		}
	}
	if t := sig.CreationTime; errors.Is(err, pgperrors.ErrSignatureExpired) && t.After(now) {
		return errors.New("openpgp: signature not valid before " + t.UTC().Format(time.RFC3339))
	}
	return err
}

// hashName returns the name of h in a Hash header.
func hashName(h crypto.Hash) string {
	switch h {
	case crypto.SHA224:
		return "SHA224"
	case crypto.SHA256:
		return "SHA256"
	case crypto.SHA384:
		return "SHA384"
	case crypto.SHA512:
		return "SHA512"
	}
	return ""
}
