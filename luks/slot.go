package luks

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash"

	"golang.org/x/crypto/pbkdf2"

	"singularity/luks/xts"
)

const maxKeySize = 64

// keyMemory is the one piece of memory that holds a volume's keys, and those
// on the way to it.
type keyMemory struct {
	data, area []byte // expanded keys of the segment and of a key slot
	volume     []byte
	derived    []byte
}

func newKeyMemory(l Limits) (*keyMemory, error) {
	b, err := l.keys(2*xts.ScheduleSize + 2*maxKeySize)
	if err != nil {
		return nil, err
	}
	m := &keyMemory{}
	m.data, b = b[:xts.ScheduleSize:xts.ScheduleSize], b[xts.ScheduleSize:]
	m.area, b = b[:xts.ScheduleSize:xts.ScheduleSize], b[xts.ScheduleSize:]
	m.volume, m.derived = b[:maxKeySize:maxKeySize], b[maxKeySize:]
	return m, nil
}

// wipeAll wipes everything, wipeSlot what was needed on the way.
func (m *keyMemory) wipeAll() {
	clear(m.data)
	clear(m.volume)
	m.wipeSlot()
}

func (m *keyMemory) wipeSlot() {
	clear(m.area)
	clear(m.derived)
}

// Unlock tries passphrase on the key slots, in the order of their priority,
// and returns the volume. A slot that l does not allow is not tried; if no
// other one opens, that is the error. When ctx ends Unlock returns.
func (c *Container) Unlock(ctx context.Context, passphrase []byte, l Limits) (*Volume, error) {
	m, err := newKeyMemory(l)
	if err != nil {
		return nil, err
	}
	var limited error
	for _, s := range c.Slots {
		if s.priority == 0 {
			continue // "ignore" in the words of cryptsetup
		}
		if err := s.KDF.within(l, s.ID); err != nil {
			limited = err
			continue
		}
		ok, err := c.tryOpen(ctx, s, passphrase, m)
		if err != nil {
			m.wipeAll()
			return nil, err
		}
		if !ok {
			continue
		}
		m.wipeSlot()
		return newVolume(c, m)
	}
	m.wipeAll()
	if limited != nil {
		return nil, limited
	}
	return nil, ErrKey
}

// tryOpen tries one slot, and leaves its key in m.volume.
func (c *Container) tryOpen(ctx context.Context, s Slot, passphrase []byte, m *keyMemory) (bool, error) {
	key, err := s.KDF.derive(ctx, passphrase, s.areaKey)
	if err != nil {
		return false, err
	}
	copy(m.derived, key)
	clear(key)
	cipher, err := xts.New(m.area, m.derived[:s.areaKey])
	if err != nil {
		return false, err
	}
	defer cipher.Wipe()
	split := make([]byte, roundUp(int64(s.keySize)*stripes, unit))
	defer clear(split)
	if err := readFull(c.r, split, s.areaOff); err != nil {
		return false, err
	}
	cipher.Decrypt(split, split, unit, 0, 1)
	merge(m.volume[:s.keySize], split, hashNamed(s.afHash)())
	return c.IsKey(m.volume), nil
}

// KeySize is the size of the volume key.
func (c *Container) KeySize() int { return c.keySize }

// IsKey tells whether the first KeySize bytes of key are the volume key.
func (c *Container) IsKey(key []byte) bool {
	return len(key) >= c.keySize && subtle.ConstantTimeCompare(c.digest.of(key[:c.keySize]), c.digest.sum) == 1
}

// of returns the digest of a volume key.
func (d digest) of(key []byte) []byte {
	h := hashNamed(d.hash)
	return pbkdf2.Key(key, d.salt, d.iterations, h().Size(), h)
}

// merge makes the key of the stripes in split: each is needed, so that wiping
// any one of them wipes the key.
func merge(key, split []byte, h hash.Hash) {
	n := len(key)
	clear(key)
	for i := range stripes - 1 {
		subtle.XORBytes(key, key, split[i*n:])
		diffuse(key, h)
	}
	subtle.XORBytes(key, key, split[(stripes-1)*n:])
}

// splitKey makes stripes of key.
func splitKey(key []byte, h hash.Hash) ([]byte, error) {
	n := len(key)
	split := make([]byte, roundUp(int64(n)*stripes, unit))
	if _, err := rand.Read(split[:(stripes-1)*n]); err != nil {
		return nil, err
	}
	d := make([]byte, n)
	defer clear(d)
	for i := range stripes - 1 {
		subtle.XORBytes(d, d, split[i*n:])
		diffuse(d, h)
	}
	subtle.XORBytes(split[(stripes-1)*n:], d, key)
	return split, nil
}

// diffuse spreads every bit of b over a piece of the length of the hash.
func diffuse(b []byte, h hash.Hash) {
	var counter [4]byte
	var sum [64]byte
	for i := uint32(0); len(b) > 0; i++ {
		n := min(len(b), h.Size())
		h.Reset()
		binary.BigEndian.PutUint32(counter[:], i)
		h.Write(counter[:])
		h.Write(b[:n])
		copy(b[:n], h.Sum(sum[:0]))
		b = b[n:]
	}
}

var errEmptyKey = errors.New("cannot encrypt with an empty passphrase")

// writeSlot returns the area of slot s that gives key for passphrase.
func (s Slot) writeSlot(ctx context.Context, passphrase, key []byte, m *keyMemory) ([]byte, error) {
	derived, err := s.KDF.derive(ctx, passphrase, s.areaKey)
	if err != nil {
		return nil, err
	}
	copy(m.derived, derived)
	clear(derived)
	cipher, err := xts.New(m.area, m.derived[:s.areaKey])
	if err != nil {
		return nil, err
	}
	defer cipher.Wipe()
	split, err := splitKey(key, hashNamed(s.afHash)())
	if err != nil {
		return nil, err
	}
	cipher.Encrypt(split, split, unit, 0, 1)
	return split, nil
}
