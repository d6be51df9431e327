package luks

import (
	"errors"
	"io"
	"sync"

	"singularity/luks/xts"
)

// Volume is the plain bytes of an unlocked container. Any number of goroutines
// may read at a time.
type Volume struct {
	r          io.ReaderAt
	off, size  int64
	sectorSize int
	cipher     *xts.Cipher
	keys       *keyMemory
	keySize    int
}

// chunkSize is how much ciphertext is read at a time: a usual squashfs block
// with the sectors that it begins and ends in.
const chunkSize = 136 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// newVolume takes m over, which has the volume key.
func newVolume(c *Container, m *keyMemory) (*Volume, error) {
	cipher, err := xts.New(m.data, m.volume[:c.keySize])
	if err != nil {
		return nil, err
	}
	return &Volume{r: c.r, off: c.DataOff, size: c.DataSize, sectorSize: c.SectorSize, cipher: cipher, keys: m, keySize: c.keySize}, nil
}

// Size returns the bytes of the volume.
func (v *Volume) Size() int64 { return v.size }

// Close wipes the keys. Nobody may read any more.
func (v *Volume) Close() {
	v.cipher.Wipe()
	v.keys.wipeAll()
}

// ExportSize is the length of what Export returns.
const ExportSize = 4*8 + maxKeySize

// Export writes the key and the place of the volume to b, of ExportSize bytes,
// for another process that serves the same container. The key is in the last 64
// bytes. It is as secret as the key, and does not leave the machine.
func (v *Volume) Export(b []byte) {
	_ = b[:ExportSize]
	be.PutUint64(b, uint64(v.off))
	be.PutUint64(b[8:], uint64(v.size))
	be.PutUint64(b[16:], uint64(v.sectorSize))
	be.PutUint64(b[24:], uint64(v.keySize))
	copy(b[32:], v.keys.volume)
}

// Import opens the volume of the container in r that b, from Export, tells of.
func Import(r io.ReaderAt, b []byte, l Limits) (*Volume, error) {
	if len(b) != ExportSize {
		return nil, errors.New("this is no exported volume")
	}
	c := &Container{r: r, DataOff: int64(be.Uint64(b)), DataSize: int64(be.Uint64(b[8:])), SectorSize: int(be.Uint64(b[16:])), keySize: int(be.Uint64(b[24:]))}
	if c.DataOff < 0 || c.DataSize < 0 || c.SectorSize < unit || c.SectorSize > 4096 || c.SectorSize&(c.SectorSize-1) != 0 || c.keySize < 0 || c.keySize > maxKeySize {
		return nil, errors.New("this is no exported volume")
	}
	m, err := newKeyMemory(l)
	if err != nil {
		return nil, err
	}
	copy(m.volume, b[32:])
	return newVolume(c, m)
}

// ReadAt reads like any io.ReaderAt. Whole sectors are decrypted right into p.
func (v *Volume) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("cannot read before the volume")
	}
	if off >= v.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > v.size-off {
		p, end = p[:v.size-off], io.EOF
	}
	n := 0
	for n < len(p) {
		k, err := v.readSome(p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, end
}

// readSome reads the beginning of p: whole sectors in place, or the sectors
// around its edges by way of a chunk.
func (v *Volume) readSome(p []byte, off int64) (int, error) {
	sector := int64(v.sectorSize)
	if n := len(p) - len(p)%v.sectorSize; off%sector == 0 && n > 0 {
		if err := readFull(v.r, p[:n], v.off+off); err != nil {
			return 0, err
		}
		v.decrypt(p[:n], p[:n], off)
		return n, nil
	}
	chunk := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(chunk)
	begin := off - off%sector
	end := min(roundUp(off+int64(len(p)), sector), begin+chunkSize)
	in := chunk[:end-begin]
	if err := readFull(v.r, in, v.off+begin); err != nil {
		return 0, err
	}
	return v.decryptEdges(p, in, off, begin), nil
}

// decryptEdges decrypts the part of p that lies in the whole sectors in, which
// begin at begin.
func (v *Volume) decryptEdges(p, in []byte, off, begin int64) (done int) {
	for len(p) > 0 && len(in) > 0 {
		skip := int(off - begin)
		n := min(len(p), len(in)-skip)
		if whole := n - n%v.sectorSize; skip == 0 && whole > 0 {
			v.decrypt(p[:whole], in[:whole], begin)
			n = whole
		} else {
			n = min(n, v.sectorSize-skip)
			v.decrypt(in[:v.sectorSize], in[:v.sectorSize], begin)
			copy(p[:n], in[skip:v.sectorSize])
		}
		used := int(roundUp(int64(skip+n), int64(v.sectorSize)))
		p, in = p[n:], in[used:]
		done += n
		off += int64(n)
		begin += int64(used)
	}
	return done
}

func (v *Volume) decrypt(dst, src []byte, off int64) {
	v.cipher.Decrypt(dst, src, v.sectorSize, uint64(off/unit), uint64(v.sectorSize/unit))
}
