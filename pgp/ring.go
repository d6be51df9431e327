package pgp

import (
	"bytes"
	"errors"
	"fmt"
)

// maxRescue bounds the attempts to find a key behind a damaged one, each of
// which may check signatures.
const maxRescue = 64

// maxEntries bounds the keys of a ring: each costs checks of signatures, and a
// damaged one needs only a few bytes.
const maxEntries = 10000

// Ring is a keyring: keys in the order of the file, and whatever else was found.
// Its methods are not safe for concurrent changes.
type Ring struct {
	entries []entry
}

// entry is a run of bytes of the ring: a usable key, or why it is none.
type entry struct {
	raw []byte
	key *Key
	err error
}

// Problem is an entry of a ring that is no usable key.
type Problem struct {
	Entry int // position in the file, from 0
	Size  int // in bytes
	Err   error
}

func (p Problem) Error() string {
	return fmt.Sprintf("entry %d (%d bytes) of the keyring is not usable: %v", p.Entry, p.Size, p.Err)
}

// ParseRing reads a keyring, binary or armored; no bytes are an empty ring. It
// fails only for input that is too large or no keyring at all; single damaged
// keys are listed by Problems.
func ParseRing(data []byte) (*Ring, error) {
	if len(data) > MaxRingSize {
		return nil, fmt.Errorf("keyring has %d bytes, the limit is %d", len(data), MaxRingSize)
	}
	if isArmored(data) {
		plain, err := dearmor(data)
		if err != nil {
			return nil, err
		}
		data = plain
	}
	r := &Ring{}
	rescues := 0
	for len(data) > 0 {
		if len(r.entries) == maxEntries {
			return nil, fmt.Errorf("keyring has more than %d entries", maxEntries)
		}
		n, broken := entryLen(data)
		key, err := parseKey(data[:n])
		if err != nil || broken {
			// A packet that was cut short may have swallowed the next key.
			if m := nextKey(data, n, &rescues); m > 0 {
				n = m
				key, err = parseKey(data[:n])
			}
		}
		r.entries = append(r.entries, entry{raw: bytes.Clone(data[:n]), key: key, err: err})
		data = data[n:]
	}
	if len(r.entries) > 0 && len(r.Keys()) == 0 && len(r.entries) == 1 && errors.Is(r.entries[0].err, errFraming) {
		return nil, errors.New("no OpenPGP keys in the data")
	}
	return r, nil
}

// entryLen returns the length of the first key in data with all that follows it
// up to the next primary key or to where the framing breaks. If it breaks at
// once, that is all of data.
func entryLen(data []byte) (n int, broken bool) {
	for n < len(data) {
		p, err := nextPacket(data[n:])
		if err != nil && n == 0 {
			return len(data), true
		}
		if err != nil {
			return n, true
		}
		if n > 0 && (p.tag == tagPublicKey || p.tag == tagSecretKey) {
			return n, false
		}
		n += len(p.data)
	}
	return n, false
}

// nextKey returns the offset, above 0 and below end, of the next place in data
// where a whole key with a valid self-signature starts, or 0.
func nextKey(data []byte, end int, rescues *int) int {
	for i := 1; i < end && *rescues < maxRescue; i++ {
		if data[i]&0x80 == 0 {
			continue
		}
		p, err := nextPacket(data[i:])
		if err != nil || (p.tag != tagPublicKey && p.tag != tagSecretKey) {
			continue
		}
		if body := p.body(); len(body) < 12 || body[0] != 4 {
			continue
		}
		*rescues++
		n, _ := entryLen(data[i:])
		if _, err := parseKey(data[i : i+n]); err == nil {
			return i
		}
	}
	return 0
}

// Keys returns the usable keys in the order of the ring.
func (r *Ring) Keys() []*Key {
	var keys []*Key
	for _, e := range r.entries {
		if e.key != nil {
			keys = append(keys, e.key)
		}
	}
	return keys
}

// Problems returns the entries that are no usable key.
func (r *Ring) Problems() []Problem {
	var list []Problem
	for i, e := range r.entries {
		if e.err != nil {
			list = append(list, Problem{Entry: i, Size: len(e.raw), Err: e.err})
		}
	}
	return list
}

// Find returns the first key of that fingerprint, or nil.
func (r *Ring) Find(fp Fingerprint) *Key {
	for _, k := range r.Keys() {
		if k.Fingerprint() == fp {
			return k
		}
	}
	return nil
}

// ByID returns the keys that have that 64-bit id themselves or in a sub-key. A
// key that is in the ring twice comes once.
func (r *Ring) ByID(id uint64) []*Key {
	var found []*Key
	seen := map[Fingerprint]bool{}
	for _, k := range r.Keys() {
		if k.HasID(id) && !seen[k.Fingerprint()] {
			seen[k.Fingerprint()] = true
			found = append(found, k)
		}
	}
	return found
}

// Add appends k with all its packets.
func (r *Ring) Add(k *Key) {
	r.entries = append(r.entries, entry{raw: bytes.Clone(k.raw), key: k})
}

// Remove takes out every key of that fingerprint and tells whether there was
// one. The others stay as they were, secret parts included.
func (r *Ring) Remove(fp Fingerprint) bool {
	kept := r.entries[:0]
	found := false
	for _, e := range r.entries {
		if e.key != nil && e.key.Fingerprint() == fp {
			found = true
			continue
		}
		kept = append(kept, e)
	}
	r.entries = kept
	return found
}

// Bytes returns the binary form of the ring. Damaged entries come last, so that
// programs which stop at the first bad packet see all good keys.
func (r *Ring) Bytes() []byte {
	var good, bad bytes.Buffer
	for _, e := range r.entries {
		if e.key != nil {
			good.Write(e.raw)
		} else {
			bad.Write(e.raw)
		}
	}
	return append(good.Bytes(), bad.Bytes()...)
}
