package gocryptfs

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"strings"
)

const (
	// IVSize is the length of a gocryptfs.diriv, the IV of a directory's names.
	IVSize = 16
	// IVName is the file with the IV of the directory that it is in.
	IVName = "gocryptfs.diriv"
	// ConfigName is the file with the configuration.
	ConfigName = "gocryptfs.conf"
	// MaxName is the most bytes that an encrypted name has, one in a file of its
	// own too.
	MaxName = 1024

	longName   = "gocryptfs.longname."
	longSuffix = ".name"
)

// Own tells whether name is a file of gocryptfs itself.
func Own(name string) bool {
	return name == ConfigName || name == IVName || strings.HasPrefix(name, longName) && strings.HasSuffix(name, longSuffix)
}

// LongName returns the file that holds the encrypted name of name, "" if name is
// that already.
func LongName(name string) string {
	if strings.HasPrefix(name, longName) {
		return name + longSuffix
	}
	return ""
}

// Name decrypts a name. IV is that of its directory, all zero where names are
// deterministic.
func (k *Keys) Name(name string, iv [IVSize]byte) (string, error) {
	if len(name) > MaxName {
		return "", fmt.Errorf("%w: a name of %d bytes", ErrContent, len(name))
	}
	b, err := k.base64.DecodeString(name)
	if err != nil || len(b) == 0 || len(b)%aes.BlockSize != 0 || len(b)/aes.BlockSize > maxBlocks {
		return "", fmt.Errorf("%w: %q is no encrypted name", ErrContent, name)
	}
	emeDecrypt(k.names, iv, b)
	pad := int(b[len(b)-1])
	if pad < 1 || pad > aes.BlockSize || pad == len(b) {
		return "", fmt.Errorf("%w: name %q", ErrContent, name)
	}
	text := b[:len(b)-pad]
	for _, c := range b[len(text):] {
		if int(c) != pad {
			return "", fmt.Errorf("%w: name %q", ErrContent, name)
		}
	}
	plain := string(text)
	if plain == "." || plain == ".." || strings.ContainsAny(plain, "/\x00") {
		return "", fmt.Errorf("%w: %q is no name", ErrContent, plain)
	}
	return plain, nil
}

// Target decrypts the target of a symbolic link.
func (k *Keys) Target(target string) (string, error) {
	if len(target) > 2*plainBlock {
		return "", fmt.Errorf("%w: a link of %d bytes", ErrContent, len(target))
	}
	b, err := k.base64.DecodeString(target)
	if err != nil {
		return "", fmt.Errorf("%w: %q is no encrypted link", ErrContent, target)
	}
	plain, err := openBlock(k.content, nil, b, blockData(0, nil))
	return string(plain), err
}

// maxBlocks bounds what EME takes: its sums repeat after that many.
const maxBlocks = 128

// emeDecrypt decrypts b in place: ECB-mix-ECB of Halevi and Rogaway, "A
// Parallelizable Enciphering Mode", which makes each bit of a name depend on all
// others. There are at most maxBlocks blocks.
func emeDecrypt(c cipher.Block, tweak [aes.BlockSize]byte, b []byte) {
	type block = [aes.BlockSize]byte
	var l, mp block
	c.Encrypt(l[:], l[:])
	masks := make([]block, len(b)/aes.BlockSize)
	list := make([]*block, len(masks))
	for i := range masks {
		l = double(l)
		masks[i] = l
		list[i] = (*block)(b[i*aes.BlockSize:])
		xor(list[i], &l)
		c.Decrypt(list[i][:], list[i][:])
		xor(&mp, list[i])
	}
	xor(&mp, &tweak)
	var mc block
	c.Decrypt(mc[:], mp[:])
	m := mp
	xor(&m, &mc)
	first := mc
	xor(&first, &tweak)
	for _, x := range list[1:] {
		m = double(m)
		xor(x, &m)
		xor(&first, x)
	}
	*list[0] = first
	for i, x := range list {
		c.Decrypt(x[:], x[:])
		xor(x, &masks[i])
	}
}

func xor(dst, src *[aes.BlockSize]byte) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}

// double multiplies by 2 in GF(2^128), with the first byte the lowest.
func double(b [aes.BlockSize]byte) (out [aes.BlockSize]byte) {
	carry := b[aes.BlockSize-1] >> 7
	for i := range b {
		out[i] = b[i] << 1
		if i > 0 {
			out[i] |= b[i-1] >> 7
		}
	}
	out[0] ^= carry * 0x87
	return out
}
