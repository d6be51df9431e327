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
)

// The packet tags that matter here.
const (
	tagSignature    = 2
	tagSecretKey    = 5
	tagPublicKey    = 6
	tagSecretSubkey = 7
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
