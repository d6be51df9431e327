// Package xts is AES-XTS (IEEE 1619) over whole sectors, the cipher of LUKS2
// containers: aes-xts with keys of 128 or 256 bits.
//
// In go runs of sectors, out come runs of the same length: nothing is padded,
// and there is no ciphertext stealing, as a sector is a multiple of the block
// of 16 bytes. The tweak of a sector is a 64-bit number that the caller
// counts; sectors in a row count on by a step that he names, because LUKS
// counts units of 512 bytes whatever the size of its sectors.
//
// XTS keeps data secret and proves nothing: who can write to the ciphertext
// can put back old blocks and turn others into noise unseen. Whoever needs to
// know signs the image.
//
// The expanded keys lie in memory that the caller brings, so that he can lock
// and wipe it. On amd64 with AES instructions nothing else holds a key. There
// the work is done in assembler, eight blocks side by side, or sixteen where
// the processor has the 256-bit forms (VAES). The portable path goes through
// crypto/aes, whose copy of the keys lies in ordinary memory.
//
// A Cipher never changes after New, so that any number of goroutines may use
// one at a time, and nothing here allocates per call.
package xts

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

const (
	// BlockSize is what sector sizes are multiples of.
	BlockSize = 16
	// ScheduleSize is the memory that New asks for.
	ScheduleSize = 3 * roundKeysSize

	roundKeysSize = 15 * BlockSize
	tweakBatch    = 32 // sectors whose tweaks are encrypted together
)

// ErrKeySize says that a key is not one of AES-128-XTS or AES-256-XTS.
var ErrKeySize = errors.New("the key of AES-XTS has 32 or 64 bytes")

// Cipher encrypts and decrypts with one key.
type Cipher struct {
	schedule []byte // round keys: to encrypt, to decrypt, to encrypt tweaks
	rounds   int
	path     path
	portable *portable
}

// path is a way to do the work; a higher one is faster.
type path int

const (
	pathPortable path = iota
	pathAES           // amd64 with AES instructions
	pathVAES          // and their 256-bit forms
)

// New returns a cipher for key, of which the first half encrypts data and the
// second half tweaks. The expanded keys are kept in schedule, which has
// ScheduleSize bytes and belongs to the cipher until Wipe.
func New(schedule, key []byte) (*Cipher, error) {
	return newPath(fastest(), schedule, key)
}

func newPath(p path, schedule, key []byte) (*Cipher, error) {
	if len(key) != 32 && len(key) != 64 {
		return nil, ErrKeySize
	}
	if len(schedule) != ScheduleSize {
		return nil, fmt.Errorf("the expanded keys take %d bytes, not %d", ScheduleSize, len(schedule))
	}
	half := len(key) / 2
	c := &Cipher{schedule: schedule, rounds: half/4 + 6, path: p}
	if p != pathPortable {
		c.expand(key[:half], key[half:])
		return c, nil
	}
	var err error
	c.portable, err = newPortable(key[:half], key[half:])
	return c, err
}

// Wipe overwrites the expanded keys. The cipher is of no use after it.
func (c *Cipher) Wipe() {
	clear(c.schedule)
	c.portable = nil
	c.rounds = 0
}

// Encrypt encrypts src, whole sectors of size bytes, to dst. Their tweaks are
// first, first+step, and so on. dst is src, or does not overlap it.
func (c *Cipher) Encrypt(dst, src []byte, size int, first, step uint64) {
	c.crypt(dst, src, size, first, step, true)
}

// Decrypt decrypts what Encrypt encrypted.
func (c *Cipher) Decrypt(dst, src []byte, size int, first, step uint64) {
	c.crypt(dst, src, size, first, step, false)
}

func (c *Cipher) crypt(dst, src []byte, size int, first, step uint64, encrypt bool) {
	if size <= 0 || size%BlockSize != 0 || len(src)%size != 0 {
		panic("xts: not whole sectors")
	}
	if len(dst) < len(src) {
		panic("xts: the destination is too short")
	}
	if c.rounds == 0 {
		panic("xts: the keys are wiped")
	}
	if c.portable != nil {
		for ; len(src) > 0; first += step {
			c.portable.sector(dst[:size], src[:size], first, encrypt)
			dst, src = dst[size:], src[size:]
		}
		return
	}
	for len(src) > 0 {
		n := min(len(src)/size, tweakBatch)
		c.batch(dst, src, size, n, first, step, encrypt)
		first += uint64(n) * step
		dst, src = dst[n*size:], src[n*size:]
	}
}

// portable is XTS over crypto/aes, in chunks: the tweaks of a chunk lie side
// by side, so that only the block cipher itself is called block by block.
type portable struct {
	data, tweak cipher.Block
	scratch     sync.Pool
}

type chunk struct {
	tweaks [512]byte
	tweak  [BlockSize]byte
}

func newPortable(data, tweak []byte) (*portable, error) {
	p := &portable{scratch: sync.Pool{New: func() any { return new(chunk) }}}
	var err error
	if p.data, err = aes.NewCipher(data); err != nil {
		return nil, err
	}
	p.tweak, err = aes.NewCipher(tweak)
	return p, err
}

func (p *portable) sector(dst, src []byte, number uint64, encrypt bool) {
	s := p.scratch.Get().(*chunk)
	defer p.scratch.Put(s)
	binary.LittleEndian.PutUint64(s.tweak[:], number)
	clear(s.tweak[8:])
	p.tweak.Encrypt(s.tweak[:], s.tweak[:])
	lo, hi := binary.LittleEndian.Uint64(s.tweak[:]), binary.LittleEndian.Uint64(s.tweak[8:])
	work := p.data.Decrypt
	if encrypt {
		work = p.data.Encrypt
	}
	for len(src) > 0 {
		n := min(len(src), len(s.tweaks))
		tweaks := s.tweaks[:n]
		for i := 0; i < n; i += BlockSize {
			binary.LittleEndian.PutUint64(tweaks[i:], lo)
			binary.LittleEndian.PutUint64(tweaks[i+8:], hi)
			lo, hi = double(lo, hi)
		}
		subtle.XORBytes(dst[:n], src[:n], tweaks)
		for i := 0; i < n; i += BlockSize {
			work(dst[i:i+BlockSize], dst[i:i+BlockSize])
		}
		subtle.XORBytes(dst[:n], dst[:n], tweaks)
		dst, src = dst[n:], src[n:]
	}
}

// double multiplies a tweak by x in the field of XTS.
func double(lo, hi uint64) (uint64, uint64) {
	carry := uint64(int64(hi)>>63) & 0x87
	return lo<<1 ^ carry, hi<<1 | lo>>63
}
