package verity

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"singularity/verity/lanes"
)

// hasher makes digests of a salt and a block, two at a time where the processor
// can. It is not safe for concurrent use.
type hasher struct {
	salt []byte
	hash hash.Hash // nil where the processor can

	// A message is the salt, the block and its padding: head has the salt and
	// the first skip bytes of the block, tail the last ones and the padding, and
	// the whole blocks of the hash between them are taken from where they lie.
	skip, middle int
	head, tail   [2][]byte

	out [2]Digest
}

// newHasher returns a hasher; wide is lanes.Have, which is not asked each time
// as a virtual machine takes long to answer.
func newHasher(salt []byte, wide bool) *hasher {
	h := &hasher{salt: salt}
	if !wide {
		h.hash = sha256.New()
		return h
	}
	h.skip = -len(salt) & (lanes.BlockSize - 1)
	h.middle = (BlockSize - h.skip) / lanes.BlockSize
	rest := (BlockSize - h.skip) % lanes.BlockSize
	for i := range h.head {
		h.head[i] = append(make([]byte, 0, len(salt)+h.skip), salt...)[:len(salt)+h.skip]
		h.tail[i] = make([]byte, (rest+1+8+lanes.BlockSize-1)/lanes.BlockSize*lanes.BlockSize)
		h.tail[i][rest] = 0x80
		binary.BigEndian.PutUint64(h.tail[i][len(h.tail[i])-8:], uint64(len(salt)+BlockSize)*8)
	}
	return h
}

// one puts the digest of block into out.
func (h *hasher) one(block, out []byte) {
	if h.hash != nil {
		h.hash.Reset()
		h.hash.Write(h.salt)
		h.hash.Write(block)
		h.hash.Sum(out[:0])
		return
	}
	s := lanes.Initial()
	h.edges(0, block)
	lanes.One(&s, h.head[0], len(h.head[0])/lanes.BlockSize)
	lanes.One(&s, block[h.skip:], h.middle)
	lanes.One(&s, h.tail[0], len(h.tail[0])/lanes.BlockSize)
	s.Put(out)
}

// two puts the digests of two blocks into out and other.
func (h *hasher) two(block, second, out, other []byte) {
	if h.hash != nil {
		h.one(block, out)
		h.one(second, other)
		return
	}
	s, t := lanes.Initial(), lanes.Initial()
	h.edges(0, block)
	h.edges(1, second)
	lanes.Blocks(&s, &t, h.head[0], h.head[1], len(h.head[0])/lanes.BlockSize)
	lanes.Blocks(&s, &t, block[h.skip:], second[h.skip:], h.middle)
	lanes.Blocks(&s, &t, h.tail[0], h.tail[1], len(h.tail[0])/lanes.BlockSize)
	s.Put(out)
	t.Put(other)
}

// edges fills head and tail of message i.
func (h *hasher) edges(i int, block []byte) {
	copy(h.head[i][len(h.salt):], block[:h.skip])
	copy(h.tail[i], block[h.skip+h.middle*lanes.BlockSize:BlockSize])
}

// all puts the digests of the blocks in data, which are whole, into out, one
// after the other.
func (h *hasher) all(data, out []byte) {
	for len(data) >= 2*BlockSize {
		h.two(data[:BlockSize], data[BlockSize:2*BlockSize], out, out[DigestSize:])
		data, out = data[2*BlockSize:], out[2*DigestSize:]
	}
	if len(data) > 0 {
		h.one(data, out)
	}
}

// with is all, and takes the data into the plain digest s as well, in the same
// time: the message of the one fills the gaps of the other.
func (h *hasher) with(s *lanes.State, data, out []byte) {
	head := len(h.head[0]) / lanes.BlockSize
	for ; len(data) > 0; data, out = data[BlockSize:], out[DigestSize:] {
		t := lanes.Initial()
		h.edges(0, data)
		lanes.Blocks(s, &t, data, h.head[0], head)
		both := min(h.middle, BlockSize/lanes.BlockSize-head)
		lanes.Blocks(s, &t, data[head*lanes.BlockSize:], data[h.skip:], both)
		lanes.One(&t, data[h.skip+both*lanes.BlockSize:], h.middle-both)
		lanes.One(&t, h.tail[0], len(h.tail[0])/lanes.BlockSize)
		t.Put(out)
	}
}
