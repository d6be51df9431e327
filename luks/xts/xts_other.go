//go:build !amd64

package xts

func fastest() path { return pathPortable }

func (c *Cipher) expand(data, tweak []byte) { panic("xts: only the portable path is here") }

func (c *Cipher) batch(dst, src []byte, size, n int, first, step uint64, encrypt bool) {
	panic("xts: only the portable path is here")
}
