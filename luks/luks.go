// Package luks reads and writes encrypted images: LUKS2 containers with
// aes-xts-plain64, without device-mapper and without privilege.
//
//	0          header, 16 KiB: 4 KiB of binary fields with a checksum over
//	           the whole, then JSON text: key slots, segment, digest
//	16384      the second copy of the header
//	32768      key slots: the volume key, split into 4000 stripes and
//	           encrypted with what is derived from a passphrase
//	16777216   the segment: the payload, sector by sector
//
// Open takes the header of any io.ReaderAt and trusts none of its bytes. The
// digest authenticates the volume key and nothing else, so whoever can write
// to an image can write any header: only the cipher, the layout and the costs
// that this package would write or that cryptsetup writes for images are
// accepted, before anything is derived, and what was checked is what is used:
// the header is not read a second time. A damaged first copy is replaced by
// the second one in memory, never in the file.
//
// Unlock tries a passphrase on the key slots and gives a Volume, an
// io.ReaderAt of the plain bytes. Limits say what deriving may cost here; a
// slot that asks for more is refused before it is tried. Create is the other
// direction: an image is encrypted as it is written, and no plain byte goes
// anywhere. WrapKey and UnwrapKey are the message beside an image whose
// passphrase is random and encrypted with an RSA key.
//
// Encryption keeps data secret. It does not prove that the data is what was
// written: sign encrypted images.
//
// The package opens no file, asks for no passphrase and prints nothing.
// Files: header.go the binary fields, json.go a strict reader of the text,
// metadata.go what is accepted in it, kdf.go costs and derivation, slot.go key
// slots, volume.go reading, create.go writing, message.go RSA. The format is
// LUKS2 On-Disk Format Specification 1.1, written down in doc/format/luks.md.
package luks

import (
	"errors"
	"fmt"
)

var (
	// ErrNotLUKS says that no LUKS2 header is there.
	ErrNotLUKS = errors.New("not a LUKS2 container")
	// ErrHeader says that the header is damaged, or says what is not accepted.
	ErrHeader = errors.New("the LUKS2 header is not acceptable")
	// ErrKey says that the passphrase opens no key slot.
	ErrKey = errors.New("no key slot opens with this key")
	// ErrMessage says that the message or the RSA key is not the right one. It
	// is the same whatever was wrong, because the difference would help to
	// guess.
	ErrMessage = errors.New("the key message cannot be decrypted with this RSA key")
)

// LimitError says that deriving a key needs more memory than there is.
type LimitError struct {
	Slot       int
	Need, Have uint64 // bytes
	Rule       string // what sets Have, such as "the control group"
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("key slot %d needs %d MiB of memory to derive its key, and %s leaves %d MiB", e.Slot, e.Need>>20, e.Rule, e.Have>>20)
}

// Limits say what deriving a key may cost, and where keys may lie.
type Limits struct {
	// Memory is how many bytes a derivation may take, and Rule what sets it.
	// Zero stands for the most that a header may ask for, 4 GiB.
	Memory uint64
	Rule   string
	// Keys allocates memory for keys, such as locked memory. Nil stands for
	// ordinary memory. The package wipes what it took before it lets go of it.
	Keys func(size int) ([]byte, error)
}

func (l Limits) keys(size int) ([]byte, error) {
	if l.Keys == nil {
		return make([]byte, size), nil
	}
	b, err := l.Keys(size)
	if err == nil && len(b) != size {
		err = fmt.Errorf("%d bytes for keys, not %d", len(b), size)
	}
	return b, err
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrHeader}, args...)...)
}
