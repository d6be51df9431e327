package pgp

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// Limits on what is read, in bytes. A key with pictures and many signatures of
// others has some 100 KiB; packets beyond 1 MiB are no key material.
const (
	MaxRingSize   = 32 << 20
	maxPacketSize = 1 << 20
	maxPackets    = 20000 // of one key; the least has two bytes
)

// The packet tags that matter here.
const (
	tagSignature    = 2
	tagSecretKey    = 5
	tagPublicKey    = 6
	tagSecretSubkey = 7
	tagUserID       = 13
	tagPublicSubkey = 14
)

// The subpackets of a signature that matter here.
const (
	subpacketIssuer   = 16
	subpacketEmbedded = 32
)

var errFraming = errors.New("packet framing not valid")

// rawPacket is one packet: its tag, all its bytes, and where its body starts.
type rawPacket struct {
	tag  int
	data []byte
	head int
}

func (p rawPacket) body() []byte { return p.data[p.head:] }

// nextPacket cuts the first packet off b. Lengths that key material never uses
// (indeterminate and partial ones) are refused.
func nextPacket(b []byte) (rawPacket, error) {
	if len(b) < 2 || b[0]&0x80 == 0 {
		return rawPacket{}, errFraming
	}
	var tag, head, size int
	if b[0]&0x40 != 0 {
		tag = int(b[0] & 0x3f)
		switch n := int(b[1]); {
		case n < 192:
			head, size = 2, n
		case n < 224 && len(b) >= 3:
			head, size = 3, (n-192)<<8+int(b[2])+192
		case n == 255 && len(b) >= 6:
			head, size = 6, be32(b[2:])
		default:
			return rawPacket{}, errFraming
		}
	} else {
		tag = int(b[0]&0x3f) >> 2
		switch width := b[0] & 3; {
		case width == 0:
			head, size = 2, int(b[1])
		case width == 1 && len(b) >= 3:
			head, size = 3, int(b[1])<<8|int(b[2])
		case width == 2 && len(b) >= 5:
			head, size = 5, be32(b[1:])
		default:
			return rawPacket{}, errFraming
		}
	}
	if tag == 0 || size > maxPacketSize || size > len(b)-head {
		return rawPacket{}, errFraming
	}
	return rawPacket{tag: tag, data: b[:head+size], head: head}, nil
}

func be32(b []byte) int {
	return int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
}

// packets splits b into all its packets.
func packets(b []byte) ([]rawPacket, error) {
	var list []rawPacket
	for len(b) > 0 {
		p, err := nextPacket(b)
		if err == nil && len(list) == maxPackets {
			err = fmt.Errorf("it has more than %d packets", maxPackets)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, p)
		b = b[len(p.data):]
	}
	return list, nil
}

var armorStart = []byte("-----BEGIN PGP ")

// isArmored tells whether b is text with an armored block and not packets.
func isArmored(b []byte) bool {
	return len(b) > 0 && b[0]&0x80 == 0 && bytes.Contains(b, armorStart)
}

// dearmor returns the bytes of every key block in b, one after the other.
func dearmor(b []byte) ([]byte, error) {
	var out bytes.Buffer
	for {
		i := bytes.Index(b, armorStart)
		if i < 0 {
			return out.Bytes(), nil
		}
		end := len(b)
		if next := bytes.Index(b[i+1:], armorStart); next >= 0 {
			end = i + 1 + next
		}
		block, err := armor.Decode(bytes.NewReader(b[i:end]))
		if err != nil {
			return nil, fmt.Errorf("armor not valid: %w", err)
		}
		if block.Type != openpgp.PublicKeyType && block.Type != openpgp.PrivateKeyType {
			return nil, fmt.Errorf("armored block is %q, want a public or private key", block.Type)
		}
		if _, err := io.Copy(&out, block.Body); err != nil {
			return nil, fmt.Errorf("armor not valid: %w", err)
		}
		b = b[end:]
	}
}

// guard turns a panic of the OpenPGP library into an error.
//
// Security: a crash on hostile bytes must end in "not valid", never in a state
// that a caller could take for success.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("OpenPGP data not valid: %v", p)
	}
}

// protectionOf tells how a secret key packet is protected.
type protectionOf int

const (
	inClear protectionOf = iota
	byPassphrase
	isDummy // GnuPG's mark for a secret part that is kept elsewhere
)

// publicPart returns the public key packet inside a secret one, and how the
// secret rest is protected. The rest is not read: that takes long, as the numbers
// of a private key are checked, and is needed for signing only.
func publicPart(p rawPacket) (packet []byte, how protectionOf, err error) {
	body := p.body()
	n, err := publicSize(body)
	if err != nil {
		return nil, 0, err
	}
	rest := body[n:]
	switch {
	case len(rest) == 0:
		return nil, 0, errFraming
	case rest[0] != 0 && len(rest) > 2 && rest[2] == 101:
		how = isDummy
	case rest[0] != 0:
		how = byPassphrase
	}
	tag := byte(tagPublicKey)
	if p.tag == tagSecretSubkey {
		tag = tagPublicSubkey
	}
	packet = append(packet, 0xc0|tag, 255, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	return append(packet, body[:n]...), how, nil
}

// publicSize returns how long the public part of the secret key in body is. The
// body starts with version, time and algorithm; the numbers of the key follow.
func publicSize(body []byte) (int, error) {
	if len(body) < 6 || body[0] != 4 {
		return 0, errors.New("key is not of version 4")
	}
	// The parts that follow: m is a number after its length in bits, o a string
	// of bytes after its length.
	var parts string
	switch body[5] {
	case 1, 2, 3: // RSA
		parts = "mm"
	case 16: // Elgamal
		parts = "mmm"
	case 17: // DSA
		parts = "mmmm"
	case 18: // ECDH
		parts = "omo"
	case 19, 22: // ECDSA, EdDSA
		parts = "om"
	case 25, 27: // X25519, Ed25519
		return fixedSize(body, 32)
	case 26: // X448
		return fixedSize(body, 56)
	case 28: // Ed448
		return fixedSize(body, 57)
	default:
		return 0, fmt.Errorf("key algorithm %d is not supported", body[5])
	}
	n := 6
	for _, part := range parts {
		switch {
		case part == 'm' && len(body) >= n+2:
			n += 2 + ((int(body[n])<<8|int(body[n+1]))+7)/8
		case part == 'o' && len(body) > n:
			n += 1 + int(body[n])
		default:
			return 0, errFraming
		}
	}
	return fixedSize(body, n-6)
}

func fixedSize(body []byte, n int) (int, error) {
	if n += 6; n > len(body) {
		return 0, errFraming
	}
	return n, nil
}
