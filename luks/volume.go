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
}

// chunkSize is how much ciphertext is read at a time: a usual squashfs block
// with the sectors that it begins and ends in.
const chunkSize = 136 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

func newVolume(c *Container, cipher *xts.Cipher) *Volume {
	return &Volume{r: c.r, off: c.DataOff, size: c.DataSize, sectorSize: c.SectorSize, cipher: cipher}
}

// Size returns the bytes of the volume.
func (v *Volume) Size() int64 { return v.size }

// Close wipes the key. Nobody may read any more.
func (v *Volume) Close() { v.cipher.Wipe() }

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
