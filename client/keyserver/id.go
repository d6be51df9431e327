package keyserver

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"singularity/pgp"
)

// ID names a key: by its fingerprint, or by the 64-bit id of it or of one of its
// sub-keys.
type ID struct {
	fingerprint pgp.Fingerprint
	long        uint64
	whole       bool // by fingerprint
}

// ByLongID and ByFingerprint name a key.
func ByLongID(id uint64) ID              { return ID{long: id} }
func ByFingerprint(f pgp.Fingerprint) ID { return ID{fingerprint: f, whole: true} }

// ParseID reads 16 or 40 hexadecimal digits of any case, with or without 0x.
//
// Security: anybody can make a key with a given id of 8 digits within minutes.
func ParseID(s string) (ID, error) {
	digits := strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X")
	switch len(digits) {
	case 40:
		f, err := pgp.ParseFingerprint(digits)
		return ByFingerprint(f), err
	case 16:
		if n, err := strconv.ParseUint(digits, 16, 64); err == nil {
			return ByLongID(n), nil
		}
	}
	return ID{}, fmt.Errorf("%q names no key: want its fingerprint of 40 hexadecimal digits, or the last 16 of them", s)
}

// String returns the id in upper-case digits.
func (i ID) String() string {
	if i.whole {
		return i.fingerprint.String()
	}
	return fmt.Sprintf("%016X", i.long)
}

// search is the id as HKP wants it.
func (i ID) search() string { return "0x" + strings.ToLower(i.String()) }

func (i ID) names(k *pgp.Key) bool {
	if i.whole {
		return k.Fingerprint() == i.fingerprint
	}
	return k.HasID(i.long)
}

// Find returns the keys of that id in ring.
func (i ID) Find(ring *pgp.Ring) []*pgp.Key {
	if !i.whole {
		return ring.ByID(i.long)
	}
	if k := ring.Find(i.fingerprint); k != nil {
		return []*pgp.Key{k}
	}
	return nil
}

// isHex tells whether s is a number of the length of some id.
func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && (len(s) == 8 || len(s) == 16 || len(s) == 40)
}
