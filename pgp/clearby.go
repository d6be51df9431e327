package pgp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// DigestSigner signs a SHA-256 digest with a secret key that is kept elsewhere. It
// returns the numbers of the signature, big-endian, in their order in OpenPGP:
// one for RSA, two (r and s) for DSA, ECDSA and EdDSA.
type DigestSigner func(digest []byte) ([][]byte, error)

// ClearSignBy is ClearSign with a secret key that is kept elsewhere: that of k
// itself or, if by is the fingerprint of a sub-key, of the sub-key.
func (k *Key) ClearSignBy(by Fingerprint, text []byte, now time.Time, sign DigestSigner) (_ []byte, err error) {
	defer guard(&err)
	if bytes.ContainsAny(text, "\r\n") {
		return nil, errors.New("text is not one line") // no other is needed, and ends of lines are a trap
	}
	algorithm, err := k.algorithmOf(by)
	if err != nil {
		return nil, err
	}
	head := signatureHead(algorithm, by, now)
	digest := textDigest(text, head)
	numbers, err := sign(digest)
	if err != nil {
		return nil, err
	}
	want := 2
	if algorithm == packet.PubKeyAlgoRSA || algorithm == packet.PubKeyAlgoRSASignOnly {
		want = 1
	}
	if len(numbers) != want {
		return nil, fmt.Errorf("signature has %d numbers, want %d", len(numbers), want)
	}
	body := append(head, 0, 10, 9, 16) // not hashed: the id of the key
	body = append(body, by[12:]...)
	body = append(body, digest[:2]...)
	for _, n := range numbers {
		body = appendNumber(body, n)
	}
	data, err := clearMessage(text, body)
	if err != nil {
		return nil, err
	}
	// Whoever signed may have used another key, or made a mistake.
	self := func(uint64) []*Key { return []*Key{k} }
	if _, err := VerifyClear(data, self, now); err != nil {
		return nil, fmt.Errorf("key %s cannot sign: %w", by, err)
	}
	return data, nil
}

// algorithmOf returns the algorithm of k or of the sub-key by.
func (k *Key) algorithmOf(by Fingerprint) (packet.PublicKeyAlgorithm, error) {
	for _, c := range k.list().KeysById(binary.BigEndian.Uint64(by[12:])) {
		if bytes.Equal(c.PublicKey.Fingerprint, by[:]) {
			return c.PublicKey.PubKeyAlgo, nil
		}
	}
	return 0, fmt.Errorf("key %s has no sub-key %s", k.Fingerprint(), by)
}

// signatureHead returns the part of a signature packet that is signed along: a
// text signature with SHA-256, of that time, by that key (RFC 9580, 5.2.3).
func signatureHead(algorithm packet.PublicKeyAlgorithm, by Fingerprint, now time.Time) []byte {
	b := []byte{4, byte(packet.SigTypeText), byte(algorithm), 8, 0, 6 + 23}
	b = append(b, 5, 2)
	b = binary.BigEndian.AppendUint32(b, uint32(now.Unix()))
	b = append(b, 22, 33, 4)
	return append(b, by[:]...)
}

// textDigest returns what is signed for a text of one line.
func textDigest(text, head []byte) []byte {
	h := sha256.New()
	h.Write(text)
	h.Write(head)
	h.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(head))))
	return h.Sum(nil)
}

// appendNumber appends n as a multiprecision integer: its length in bits first.
func appendNumber(b, n []byte) []byte {
	n = bytes.TrimLeft(n, "\x00")
	if len(n) == 0 {
		return append(b, 0, 0)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(8*(len(n)-1)+bits.Len8(n[0])))
	return append(b, n...)
}

// clearMessage returns text with a signature packet of that body.
func clearMessage(text, body []byte) ([]byte, error) {
	if len(body) > maxPacketSize {
		return nil, errors.New("signature is too long")
	}
	var b bytes.Buffer
	b.WriteString("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n")
	b.Write(text)
	b.WriteString("\n")
	w, err := armor.Encode(&b, "PGP SIGNATURE", nil)
	if err != nil {
		return nil, err
	}
	packet := binary.BigEndian.AppendUint32([]byte{0xc0 | tagSignature, 0xff}, uint32(len(body)))
	if _, err := w.Write(append(packet, body...)); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
