package pgp

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// RawRing is a keyring that is only looked into, for few of its keys.
type RawRing []byte

// ByID returns what Ring.ByID does of the same ring, but reads no other keys, and
// of those no other sub-keys: each costs checks of signatures, of which a start
// waits for all. If nothing is found, or the ring is damaged, all of it is read.
func (r RawRing) ByID(id uint64) []*Key {
	found, err := r.find(id)
	if err == nil && len(found) > 0 {
		return found
	}
	ring, err := ParseRing(r)
	if err != nil {
		return nil
	}
	return ring.ByID(id)
}

func (r RawRing) find(id uint64) (found []*Key, err error) {
	data := []byte(r)
	if len(data) > MaxRingSize || isArmored(data) {
		return nil, errFraming // not the form of a file of ours
	}
	seen := map[Fingerprint]bool{}
	for entries := 0; len(data) > 0; entries++ {
		n, broken := entryLen(data)
		if broken || entries == maxEntries {
			return nil, errFraming
		}
		part, err := onlyFor(data[:n], id)
		if err != nil {
			return nil, err
		}
		if part != nil {
			k, err := parseKey(part)
			if err != nil {
				return nil, err
			}
			if k.HasID(id) && !seen[k.Fingerprint()] {
				seen[k.Fingerprint()] = true
				found = append(found, k)
			}
		}
		data = data[n:]
	}
	return found, nil
}

// onlyFor returns the packets of the key in raw without the sub-keys that do not
// have that id, or nil if nothing in it has the id.
//
// Security: with a sub-key only signatures go that are about it. Anything else, such
// as a revocation of the whole key in an odd place, must be seen.
func onlyFor(raw []byte, id uint64) ([]byte, error) {
	list, err := packets(raw)
	if err != nil {
		return nil, err
	}
	var out []byte
	has, keep := false, true
	for i, p := range list {
		switch p.tag {
		case tagPublicKey, tagSecretKey, tagPublicSubkey, tagSecretSubkey:
			have, err := keyID(p)
			if err != nil {
				return nil, err
			}
			keep = i == 0 || have == id
			has = has || have == id
		default:
			if !keep && !aboutSubkey(p) {
				return nil, errFraming
			}
		}
		if keep {
			out = append(out, p.data...)
		}
	}
	if !has {
		return nil, nil
	}
	return out, nil
}

// aboutSubkey tells whether p is a signature that binds or revokes a sub-key.
func aboutSubkey(p rawPacket) bool {
	body := p.body()
	return p.tag == tagSignature && len(body) > 1 && body[0] == 4 &&
		(body[1] == byte(packet.SigTypeSubkeyBinding) || body[1] == byte(packet.SigTypeSubkeyRevocation))
}

// keyID returns the id of a key of version 4: the end of its fingerprint.
func keyID(p rawPacket) (uint64, error) {
	body := p.body()
	if p.tag == tagSecretKey || p.tag == tagSecretSubkey {
		n, err := publicSize(body)
		if err != nil {
			return 0, err
		}
		body = body[:n]
	}
	if len(body) == 0 || body[0] != 4 || len(body) > 0xffff {
		return 0, fmt.Errorf("%w: not a key of version 4", errFraming)
	}
	sum := sha1.Sum(slices.Concat([]byte{0x99, byte(len(body) >> 8), byte(len(body))}, body))
	return binary.BigEndian.Uint64(sum[12:]), nil
}
