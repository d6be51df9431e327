package luks

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"singularity/luks/xts"
)

// What new containers look like: the layout that cryptsetup makes.
const (
	newHeaderSize = minHeaderSize
	newDataOff    = 16 << 20
	newKeySize    = 64
	// DefaultSectorSize is one tweak for eight times the bytes of the smallest
	// sector; kernels since 4.12 read it.
	DefaultSectorSize = 4096
)

// Options are what a new container is like.
type Options struct {
	SectorSize int    // 0: DefaultSectorSize
	KDF        KDF    // the zero value: DefaultKDF of Limits
	UUID       string // "": a random one
	Limits     Limits
}

// Size returns the size of a container with a payload of that many bytes.
func Size(payload int64, sectorSize int) int64 {
	if sectorSize == 0 {
		sectorSize = DefaultSectorSize
	}
	return newDataOff + roundUp(payload, int64(sectorSize))
}

// Writer encrypts a payload as it is written. It keeps the first sector back,
// so that a format whose superblock is made last fits: besides what follows
// the bytes so far, only bytes of the first sector can be written. Rewind gives
// up what was written since Mark.
type Writer struct {
	w          io.WriterAt
	cipher     *xts.Cipher
	sectorSize int
	first      []byte // the first sector, plain
	pending    []byte // whole sectors and less, plain, of the payload from flushed on
	flushed    int64
	mark       int64    // where Mark was called
	head       []byte   // plain, of the sector that mark lies in: what is before it
	header     [][]byte // the two copies
	area       []byte
	err        error
}

// writeSize is how much is encrypted and written at a time.
const writeSize = 128 << 10

// Create begins a container in w that passphrase opens. Bytes of w that the
// Writer leaves out must read as zero. The header is written by Close, so that
// a container that was not finished is none.
func Create(ctx context.Context, w io.WriterAt, passphrase []byte, o Options) (*Writer, error) {
	if len(passphrase) == 0 {
		return nil, errEmptyKey
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	m, err := newKeyMemory(o.Limits)
	if err != nil {
		return nil, err
	}
	defer clear(m.volume)
	defer m.wipeSlot()
	if _, err := rand.Read(m.volume); err != nil {
		return nil, err
	}
	out := &Writer{w: w, sectorSize: o.SectorSize, first: make([]byte, o.SectorSize), pending: make([]byte, 0, writeSize)}
	slot := Slot{KDF: o.KDF, keySize: newKeySize, areaKey: newKeySize, areaOff: 2 * newHeaderSize, afHash: "sha256"}
	slot.areaSize = roundUp(newKeySize*stripes, areaUnit)
	if out.area, err = slot.writeSlot(ctx, passphrase, m.volume, m); err != nil {
		return nil, err
	}
	if out.header, err = newHeader(slot, m.volume, o); err != nil {
		return nil, err
	}
	out.cipher, err = xts.New(m.data, m.volume)
	return out, err
}

// complete fills in defaults and checks the rest.
func (o *Options) complete() (err error) {
	if o.SectorSize == 0 {
		o.SectorSize = DefaultSectorSize
	}
	if o.SectorSize < unit || o.SectorSize > 4096 || o.SectorSize&(o.SectorSize-1) != 0 {
		return fmt.Errorf("sectors of %d bytes are not possible", o.SectorSize)
	}
	if o.KDF.Type == "" {
		if o.KDF, err = DefaultKDF(o.Limits); err != nil {
			return err
		}
	}
	if err := o.KDF.check(); err != nil {
		return err
	}
	if err := o.KDF.within(o.Limits, 0); err != nil {
		return err
	}
	o.KDF.salt = random(32)
	if o.UUID == "" {
		b := random(16)
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		s := hex.EncodeToString(b)
		o.UUID = s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
	}
	if len(o.UUID) >= uuidSize {
		return fmt.Errorf("%q is no UUID", o.UUID)
	}
	return nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // ends the program rather than to fail
	return b
}

// newHeader returns the two copies of a header with one slot.
func newHeader(s Slot, key []byte, o Options) ([][]byte, error) {
	d := digest{hash: "sha256", iterations: minIterations, salt: random(32)}
	d.sum = d.of(key)
	kdf := map[string]any{"type": s.KDF.Type, "salt": s.KDF.salt}
	if s.KDF.Type == "pbkdf2" {
		kdf["hash"], kdf["iterations"] = s.KDF.Hash, s.KDF.Iterations
	} else {
		kdf["time"], kdf["memory"], kdf["cpus"] = s.KDF.Time, s.KDF.Memory, s.KDF.CPUs
	}
	text, err := json.Marshal(map[string]any{
		"keyslots": map[string]any{"0": map[string]any{
			"type": "luks2", "key_size": s.keySize, "kdf": kdf,
			"af":   map[string]any{"type": "luks1", "stripes": stripes, "hash": s.afHash},
			"area": map[string]any{"type": "raw", "offset": decimal(s.areaOff), "size": decimal(s.areaSize), "encryption": cipherName, "key_size": s.areaKey},
		}},
		"tokens": map[string]any{},
		"segments": map[string]any{"0": map[string]any{
			"type": "crypt", "offset": decimal(newDataOff), "size": "dynamic", "iv_tweak": "0", "encryption": cipherName, "sector_size": o.SectorSize,
		}},
		"digests": map[string]any{"0": map[string]any{
			"type": "pbkdf2", "keyslots": []string{"0"}, "segments": []string{"0"}, "hash": d.hash, "iterations": d.iterations, "salt": d.salt, "digest": d.sum,
		}},
		"config": map[string]any{"json_size": decimal(newHeaderSize - binarySize), "keyslots_size": decimal(newDataOff - 2*newHeaderSize)},
	})
	if err != nil {
		return nil, err
	}
	return [][]byte{encodeHeader(0, newHeaderSize, text, o.UUID, random(saltSize)),
		encodeHeader(newHeaderSize, newHeaderSize, text, o.UUID, random(saltSize))}, nil
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// Write appends p to the payload.
func (w *Writer) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && w.err == nil {
		k := min(len(p), writeSize-len(w.pending))
		if at := w.size(); at < int64(len(w.first)) {
			copy(w.first[at:], p[:k])
		}
		w.pending = append(w.pending, p[:k]...)
		p = p[k:]
		if len(w.pending) == writeSize {
			w.flush()
		}
	}
	return n - len(p), w.err
}

// Mark remembers the end of the payload so far. The ciphertext is never read
// back, so the beginning of its sector is kept.
func (w *Writer) Mark() {
	w.mark = w.size()
	w.head = append(w.head[:0], w.pending[len(w.pending)-int(w.mark%int64(w.sectorSize)):]...)
}

// Rewind makes the place of the last Mark the end of the payload.
func (w *Writer) Rewind() {
	if w.mark >= w.flushed {
		w.pending = w.pending[:w.mark-w.flushed]
		return
	}
	w.flushed = w.mark - int64(len(w.head))
	w.pending = append(w.pending[:0], w.head...)
}

// WriteAt appends p, after zeros if off is a little past the end, or writes to
// the first sector again.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	size := w.size()
	switch {
	case w.err != nil:
		return 0, w.err
	case off >= size && off-size < int64(w.sectorSize):
		if _, err := w.Write(make([]byte, off-size)); err != nil {
			return 0, err
		}
		return w.Write(p)
	case off >= 0 && off+int64(len(p)) <= min(size, int64(len(w.first))):
		copy(w.first[off:], p)
		if w.flushed == 0 {
			copy(w.pending[off:], p)
		}
		return len(p), nil
	}
	return 0, fmt.Errorf("cannot write to %d of an encrypted payload of %d bytes: only its end and its first sector are open", off, size)
}

func (w *Writer) size() int64 { return w.flushed + int64(len(w.pending)) }

// flush encrypts and writes what is pending, which is whole sectors.
func (w *Writer) flush() {
	if w.err != nil || len(w.pending) == 0 {
		return
	}
	w.write(w.pending, w.flushed)
	w.flushed += int64(len(w.pending))
	w.pending = w.pending[:0]
}

// write encrypts b in place and writes it to off of the payload.
func (w *Writer) write(b []byte, off int64) {
	w.cipher.Encrypt(b, b, w.sectorSize, uint64(off/unit), uint64(w.sectorSize/unit))
	w.put(b, newDataOff+off)
}

func (w *Writer) put(b []byte, off int64) {
	if w.err == nil {
		_, w.err = w.w.WriteAt(b, off)
	}
}

// Close writes the rest of the payload, filled up to whole sectors, and the
// header, the first copy last. It returns the size of the container.
func (w *Writer) Close() (int64, error) {
	defer w.Abort()
	if n := int(roundUp(int64(len(w.pending)), int64(w.sectorSize))) - len(w.pending); n > 0 {
		w.pending = append(w.pending, make([]byte, n)...)
	}
	w.flush()
	size := newDataOff + w.flushed
	if w.flushed > 0 {
		w.write(bytes.Clone(w.first), 0)
	}
	w.put(w.area, 2*newHeaderSize)
	w.put(w.header[1], newHeaderSize)
	w.put(w.header[0], 0)
	err := w.err
	return size, err
}

// Abort wipes the key; what was written so far cannot be read by anybody.
func (w *Writer) Abort() {
	if w.err == nil {
		w.err = errors.New("the encrypted container is closed")
	}
	w.cipher.Wipe()
	clear(w.first)
	clear(w.head)
	clear(w.pending[:cap(w.pending)])
}
