package sif

import (
	"encoding/binary"
	"strings"
)

// Object describes one data object. Offsets and sizes are in bytes, times in
// seconds since 1970.
type Object struct {
	ID          uint32
	Type        DataType
	Group       uint32 // 0: in no group
	Link        uint32 // id or group it belongs to; 0: none
	LinkIsGroup bool
	Off, Size   int64 // place of the data in the file, checked
	Created     int64
	Modified    int64
	UID, GID    int64  // historic, 0 today
	Name        string // up to the first NUL; text from the image, not escaped
	Extra       [384]byte
}

// Partition is what Extra holds for an object of type DataPartition.
type Partition struct {
	FS   FSType
	Type PartType
	Arch string // as GOARCH spells it, or UnknownArch
}

// Partition decodes Extra; it returns false for an object of another type.
func (o Object) Partition() (Partition, bool) {
	if o.Type != DataPartition {
		return Partition{}, false
	}
	return Partition{FS: FSType(o.extra32(0)), Type: PartType(o.extra32(4)), Arch: archName(o.Extra[8:11])}, true
}

// Extra encodes p. An architecture that the format has no code for becomes
// UnknownArch, which Create and Add refuse.
func (p Partition) Extra() (b [384]byte) {
	put32(&b, 0, int32(p.FS))
	put32(&b, 4, int32(p.Type))
	code, _ := archCode(p.Arch)
	copy(b[8:11], code[:])
	return b
}

// Signature is what Extra holds for an object of type DataSignature.
type Signature struct {
	Hash   HashType
	Entity [20]byte // OpenPGP fingerprint of the signer; zero: not recorded
}

// Signature decodes Extra; it returns false for an object of another type.
func (o Object) Signature() (Signature, bool) {
	if o.Type != DataSignature {
		return Signature{}, false
	}
	return Signature{Hash: HashType(o.extra32(0)), Entity: [20]byte(o.Extra[4:24])}, true
}

// Extra encodes s.
func (s Signature) Extra() (b [384]byte) {
	put32(&b, 0, int32(s.Hash))
	copy(b[4:], s.Entity[:])
	return b
}

// CryptoMessage is what Extra holds for an object of type DataCryptoMessage.
type CryptoMessage struct {
	Format  FormatType
	Message MessageType
}

// CryptoMessage decodes Extra; it returns false for an object of another type.
func (o Object) CryptoMessage() (CryptoMessage, bool) {
	if o.Type != DataCryptoMessage {
		return CryptoMessage{}, false
	}
	return CryptoMessage{Format: FormatType(o.extra32(0)), Message: MessageType(o.extra32(4))}, true
}

// Extra encodes m.
func (m CryptoMessage) Extra() (b [384]byte) {
	put32(&b, 0, int32(m.Format))
	put32(&b, 4, int32(m.Message))
	return b
}

// SBOM is what Extra holds for an object of type DataSBOM.
type SBOM struct {
	Format SBOMFormat
}

// SBOM decodes Extra; it returns false for an object of another type.
func (o Object) SBOM() (SBOM, bool) {
	if o.Type != DataSBOM {
		return SBOM{}, false
	}
	return SBOM{Format: SBOMFormat(o.extra32(0))}, true
}

// Extra encodes s.
func (s SBOM) Extra() (b [384]byte) {
	put32(&b, 0, int32(s.Format))
	return b
}

// Digest is what Extra holds for the two OCI types: "sha256:" and 64 lower-case
// hex digits of the object's data.
type Digest string

// Digest decodes Extra; it returns false for an object of another type. The data
// is not hashed: who relies on the digest checks it while reading.
func (o Object) Digest() (Digest, bool) {
	if o.Type != DataOCIRootIndex && o.Type != DataOCIBlob {
		return "", false
	}
	d := Digest(cString(o.Extra[:]))
	return d, d.valid()
}

// Extra encodes d.
func (d Digest) Extra() (b [384]byte) {
	copy(b[:], d)
	return b
}

func (d Digest) valid() bool {
	hex, ok := strings.CutPrefix(string(d), "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

func (o Object) extra32(off int) int32 { return int32(binary.LittleEndian.Uint32(o.Extra[off:])) }

func put32(b *[384]byte, off int, n int32) { binary.LittleEndian.PutUint32(b[off:], uint32(n)) }
