package luks

import (
	"cmp"
	"io"
	"slices"
)

const (
	cipherName = "aes-xts-plain64"
	stripes    = 4000
	maxSlots   = 32
	areaUnit   = 4096
	unit       = 512 // what tweaks count, whatever the size of a sector

	minIterations = 1000
	maxIterations = 1 << 27
)

// Container is a header that was read and found acceptable.
type Container struct {
	UUID, Label string
	SectorSize  int   // of the segment, in bytes
	DataOff     int64 // where the segment begins
	DataSize    int64 // of the segment
	Slots       []Slot

	r       io.ReaderAt
	keySize int // of the volume key
	digest  digest
}

// Slot is a key slot.
type Slot struct {
	ID       int
	KDF      KDF
	priority int
	keySize  int // of the volume key
	areaKey  int // size of the key that encrypts the area
	areaOff  int64
	areaSize int64
	afHash   string
}

// digest tells whether a volume key is the right one.
type digest struct {
	hash       string
	iterations int
	salt, sum  []byte
}

// Open reads the header of the container of size bytes in r.
func Open(r io.ReaderAt, size int64) (*Container, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	o, err := parseJSON(h.json)
	if err != nil {
		return nil, refuse("its JSON text: %w", err)
	}
	c := &Container{UUID: h.uuid, Label: h.label, r: r}
	if err := c.accept(o, h.size, size); err != nil {
		return nil, err
	}
	return c, nil
}

// accept checks the text of a header of headerSize bytes in a container of
// size bytes. Security: everything here may be forged, see the package
// comment. A null cipher would make the program read clear text of an
// attacker's, a cost without limit would occupy the machine.
func (c *Container) accept(o object, headerSize, size int64) error {
	var err error
	top := of(o, "the header", &err, "keyslots", "tokens", "segments", "digests", "config")
	keysEnd := acceptConfig(top.object("config", "json_size", "keyslots_size", "flags", "requirements"), headerSize)
	c.acceptSegment(top.object("segments"), keysEnd, size)
	slots := acceptSlots(top.object("keyslots"), 2*headerSize, keysEnd)
	if top.o["tokens"] != nil {
		of(top.o["tokens"], "tokens", &err) // an object; its members are other programs'
	}
	if err != nil {
		return err
	}
	return c.acceptDigests(top.object("digests"), slots)
}

// acceptConfig returns where the area of the key slots ends.
func acceptConfig(f fields, headerSize int64) int64 {
	if f.size("json_size") != headerSize-binarySize {
		f.fail("the JSON area has %d bytes, and the header claims %s", headerSize-binarySize, f.o["json_size"])
	}
	n := f.size("keyslots_size")
	if n%areaUnit != 0 || n > 128<<20 {
		f.fail("%d bytes for key slots", n)
	}
	if f.o["flags"] != nil {
		f.texts("flags") // hints for a kernel driver
	}
	if f.o["requirements"] != nil {
		if must := f.object("requirements", "mandatory").texts("mandatory"); len(must) > 0 {
			f.fail("it requires %q", must[0])
		}
	}
	return 2*headerSize + n
}

func (c *Container) acceptSegment(f fields, keysEnd, size int64) {
	if len(f.o) != 1 || f.o["0"] == nil {
		f.fail("%d segments, not the one that an image has", len(f.o))
		return
	}
	s := f.object("0", "type", "offset", "size", "iv_tweak", "encryption", "sector_size", "flags")
	s.word("type", "crypt")
	s.word("encryption", cipherName)
	if s.o["flags"] != nil && len(s.texts("flags")) > 0 {
		s.fail("the segment has flags")
	}
	if tweak := s.size("iv_tweak"); tweak != 0 {
		s.fail("the segment counts from %d, not from 0", tweak)
	}
	c.SectorSize = s.number("sector_size", 512, 4096)
	if c.SectorSize&(c.SectorSize-1) != 0 {
		s.fail("sectors of %d bytes", c.SectorSize)
	}
	c.DataOff = s.size("offset")
	if c.DataOff < keysEnd || c.DataOff%areaUnit != 0 || c.DataOff > size {
		s.fail("the segment begins at %d, the key slots end at %d and the container at %d", c.DataOff, keysEnd, size)
		return
	}
	c.DataSize = size - c.DataOff
	if s.text("size") != "dynamic" {
		if c.DataSize = s.size("size"); c.DataSize > size-c.DataOff {
			s.fail("the segment of %d bytes at %d ends after the container, at %d", c.DataSize, c.DataOff, size)
		}
	}
	if c.DataSize%int64(c.SectorSize) != 0 {
		s.fail("the segment of %d bytes is not whole sectors of %d", c.DataSize, c.SectorSize)
	}
}

func acceptSlots(f fields, low, high int64) map[string]Slot {
	slots := map[string]Slot{}
	if len(f.o) > maxSlots {
		f.fail("%d key slots, at most %d are allowed", len(f.o), maxSlots)
		return nil
	}
	var places []Slot
	for id := range f.o {
		n, ok := number(id, maxSlots)
		if !ok {
			f.fail("a key slot %q", id)
		}
		s := acceptSlot(f.object(id, "type", "key_size", "af", "area", "kdf", "priority"), low, high)
		s.ID = n
		slots[id] = s
		places = append(places, s)
	}
	slices.SortFunc(places, func(a, b Slot) int { return cmp.Compare(a.areaOff, b.areaOff) })
	for i := 1; i < len(places); i++ {
		if places[i-1].areaOff+places[i-1].areaSize > places[i].areaOff {
			f.fail("the areas of key slots %d and %d overlap", places[i-1].ID, places[i].ID)
		}
	}
	return slots
}

func acceptSlot(f fields, low, high int64) (s Slot) {
	f.word("type", "luks2")
	s.keySize = acceptKeySize(f)
	s.priority = 1
	if f.o["priority"] != nil {
		s.priority = f.number("priority", 0, 2)
	}
	af := f.object("af", "type", "stripes", "hash")
	af.word("type", "luks1")
	af.number("stripes", stripes, stripes)
	s.afHash = af.word("hash", "sha256", "sha512")
	area := f.object("area", "type", "offset", "size", "encryption", "key_size")
	area.word("type", "raw")
	area.word("encryption", cipherName)
	s.areaKey = acceptKeySize(area)
	s.areaOff, s.areaSize = area.size("offset"), area.size("size")
	need := roundUp(int64(s.keySize)*stripes, areaUnit)
	if s.areaSize < need || s.areaOff%areaUnit != 0 || s.areaOff < low || s.areaOff > high || s.areaSize > high-s.areaOff {
		area.fail("%s of %d bytes at %d does not fit between %d and %d, or has less than %d bytes", area.at, s.areaSize, s.areaOff, low, high, need)
	}
	s.KDF = acceptKDF(f)
	return s
}

func acceptKeySize(f fields) int {
	n := f.number("key_size", 32, 64)
	if n != 32 && n != 64 {
		f.fail("%s has a key of %d bytes", f.at, n)
	}
	return n
}

// acceptDigests finds the one digest of the segment, and the slots whose key
// it is of. Slots without it have keys of other things.
func (c *Container) acceptDigests(f fields, slots map[string]Slot) error {
	if len(f.o) > maxSlots {
		f.fail("%d digests", len(f.o))
		return *f.err
	}
	found := 0
	for id := range f.o {
		if _, ok := number(id, maxSlots); !ok {
			f.fail("a digest %q", id)
		}
		d := f.object(id, "type", "keyslots", "segments", "hash", "iterations", "salt", "digest")
		g := acceptDigest(d)
		used, segments := d.texts("keyslots"), d.texts("segments")
		if *f.err != nil || !slices.Contains(segments, "0") {
			continue
		}
		found++
		c.digest = g
		for _, id := range used {
			s, ok := slots[id]
			if !ok || slices.ContainsFunc(c.Slots, func(o Slot) bool { return o.ID == s.ID }) {
				f.fail("the digest names key slot %q, which is not there or is named twice", id)
			}
			c.Slots = append(c.Slots, s)
		}
	}
	if found != 1 {
		f.fail("%d digests for the segment", found)
	}
	if len(c.Slots) == 0 {
		f.fail("no key slot opens the segment")
	}
	for _, s := range c.Slots {
		if c.keySize = s.keySize; s.keySize != c.Slots[0].keySize {
			f.fail("key slots of one segment have keys of %d and %d bytes", s.keySize, c.Slots[0].keySize)
		}
	}
	slices.SortFunc(c.Slots, func(a, b Slot) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.ID, b.ID))
	})
	return *f.err
}

func acceptDigest(f fields) (d digest) {
	f.word("type", "pbkdf2")
	d.hash = f.word("hash", "sha256", "sha512")
	d.iterations = f.number("iterations", minIterations, maxIterations)
	d.salt = f.bytes("salt", 8, 64)
	n := 32
	if h := hashNamed(d.hash); h != nil {
		n = h().Size()
	}
	d.sum = f.bytes("digest", n, n)
	return d
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
