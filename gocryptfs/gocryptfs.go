// Package gocryptfs reads files of a gocryptfs file system, which the other fork
// keeps encrypted images in: a squashfs with gocryptfs.conf and one encrypted
// file, which is a squashfs again.
//
//	gocryptfs.conf  JSON: the master key, encrypted with what scrypt makes of a
//	                passphrase
//	file            18 bytes: version, id; then blocks of 4096 plain bytes, each
//	                IV (16), ciphertext, tag (16), AES-256-GCM
//	name            EME of the padded name, base64; or the name itself
//
// ParseConfig takes the text of the configuration, Config.Unlock a passphrase,
// and Keys open files, names and targets of symbolic links. None of the bytes is
// trusted. The configuration is not authenticated, so only what this package reads
// is accepted in it, before anything is derived: the scrypt costs have limits,
// and a cipher that is not known is an error. Each block is authenticated with its
// number and the id of its file. A block of zeros, which stands for a hole in the
// format, is refused: nobody has to know the key to write one, and images have none.
//
// What it cannot tell: whether the whole file is an older one, or is cut at the
// end of a block. Sign encrypted images.
//
// The package writes nothing, opens no file, asks for no passphrase and prints
// nothing. The master key is in memory that the caller gives, and what crypto/cipher
// expands from it is kept and wiped where it lies (KeyMemory). The format is
// that of the gocryptfs documentation, version 2 (forward mode), written down in
// doc/format/gocryptfs.md.
package gocryptfs

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/scrypt"
)

const (
	// MaxConfigSize is the most bytes that a configuration may have.
	MaxConfigSize = 16 << 10

	// KeySize is the length of a master key.
	KeySize = 32

	ivSize, tagSize = 16, 16

	minN      = 1 << 10
	maxN      = 1 << 28
	maxMemory = 4 << 30 // bytes, of scrypt
)

var (
	// ErrConfig says that the configuration is damaged, or says what is not
	// accepted.
	ErrConfig = errors.New("the gocryptfs configuration is not acceptable")
	// ErrKey says that the passphrase is not the right one.
	ErrKey = errors.New("the master key does not open with this key")
	// ErrContent says that a file, a name or a link is not what was encrypted.
	ErrContent = errors.New("the encrypted content is damaged")
)

// LimitError says that deriving the key needs more memory than there is.
type LimitError struct {
	Need, Have uint64 // bytes
	Rule       string // what sets Have
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("it needs %d MiB of memory to derive its key, and %s leaves %d MiB", e.Need>>20, e.Rule, e.Have>>20)
}

// Config is a gocryptfs.conf that is accepted.
type Config struct {
	encryptedKey []byte
	salt         []byte
	n, r, p      int
	// PlaintextNames tells that names and links are not encrypted.
	PlaintextNames bool
	raw64          bool
}

// form is the text of a configuration.
type form struct {
	EncryptedKey []byte
	ScryptObject struct {
		Salt            []byte
		N, R, P, KeyLen int
	}
	Version      int
	FeatureFlags []string
}

// ParseConfig reads a configuration.
func ParseConfig(text []byte) (*Config, error) {
	if len(text) > MaxConfigSize {
		return nil, refuse("it has more than %d bytes", MaxConfigSize)
	}
	var f form
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, refuse("%v", err)
	}
	s := &f.ScryptObject
	switch {
	case f.Version != 2:
		return nil, refuse("version %d", f.Version)
	case len(f.EncryptedKey) != ivSize+KeySize+tagSize:
		return nil, refuse("an encrypted key of %d bytes", len(f.EncryptedKey))
	case s.KeyLen != KeySize || len(s.Salt) < 16 || len(s.Salt) > 64:
		return nil, refuse("a derived key of %d bytes and a salt of %d", s.KeyLen, len(s.Salt))
	case s.N < minN || s.N > maxN || s.N&(s.N-1) != 0 || s.R < 1 || s.R > 32 || s.P < 1 || s.P > 4:
		return nil, refuse("scrypt costs N %d, R %d, P %d", s.N, s.R, s.P)
	}
	c := &Config{encryptedKey: f.EncryptedKey, salt: s.Salt, n: s.N, r: s.R, p: s.P}
	if c.Cost() > maxMemory {
		return nil, refuse("deriving its key takes %d MiB of memory, the limit is %d", c.Cost()>>20, maxMemory>>20)
	}
	return c, c.features(f.FeatureFlags)
}

// features checks that nothing is used that this package does not read.
func (c *Config) features(flags []string) error {
	eme := false
	for _, f := range flags {
		switch f {
		case "HKDF", "GCMIV128", "DirIV", "LongNames", "LongNameMax":
		case "PlaintextNames":
			c.PlaintextNames = true
		case "EMENames":
			eme = true
		case "Raw64":
			c.raw64 = true
		default:
			return refuse("feature %q is not known", f)
		}
	}
	switch {
	case !slices.Contains(flags, "HKDF") || !slices.Contains(flags, "GCMIV128"):
		return refuse("features HKDF and GCMIV128 are missing")
	case eme == c.PlaintextNames:
		return refuse("want either EMENames or PlaintextNames")
	}
	return nil
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
}

// Cost returns the memory that deriving the key takes, in bytes.
func (c *Config) Cost() uint64 { return 128 * uint64(c.r) * uint64(c.n+c.p) }

// Limits say what deriving a key may cost.
type Limits struct {
	Memory uint64 // bytes; zero stands for the most that is accepted, 4 GiB
	Rule   string // what sets Memory
	Keys   KeyMemory
}

// KeyMemory is where keys are. Without one they lie in ordinary memory.
type KeyMemory interface {
	Alloc(size int) ([]byte, error) // for keys, all zero
	Keep(p any) error               // keeps what p points to out of swap space and core files
	Wipe(p any)                     // zeroes what p points to
}

// ordinary is the memory of programs that need no other.
type ordinary struct{}

func (ordinary) Alloc(size int) ([]byte, error) { return make([]byte, size), nil }
func (ordinary) Keep(any) error                 { return nil }
func (ordinary) Wipe(any)                       {}

// Unlock opens the master key with a passphrase. Deriving cannot be interrupted:
// when ctx ends it goes on without anybody who waits.
func (c *Config) Unlock(ctx context.Context, passphrase []byte, l Limits) (*Keys, error) {
	if l.Memory > 0 && c.Cost() > l.Memory {
		return nil, &LimitError{Need: c.Cost(), Have: l.Memory, Rule: l.Rule}
	}
	type answer struct {
		keys *Keys
		err  error
	}
	done := make(chan answer)
	secret := slices.Clone(passphrase) // the caller may wipe his when ctx ends
	go func() {
		defer clear(secret)
		keys, err := c.open(secret, l.Keys)
		select {
		case done <- answer{keys, err}:
		case <-ctx.Done():
			keys.Close()
		}
	}()
	select {
	case a := <-done:
		return a.keys, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Config) open(passphrase []byte, m KeyMemory) (*Keys, error) {
	if m == nil {
		m = ordinary{}
	}
	derived, err := scrypt.Key(passphrase, c.salt, c.n, c.r, c.p, KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	wrap, err := contentCipher(derived, m)
	if err != nil {
		return nil, err
	}
	defer m.Wipe(wrap)
	master, err := openBlock(wrap, nil, c.encryptedKey, blockData(0, nil))
	if err != nil {
		return nil, ErrKey
	}
	defer clear(master)
	return NewKeys(master, c.raw64, m)
}

// Keys open what is encrypted.
type Keys struct {
	memory  KeyMemory
	master  []byte
	content cipher.AEAD
	names   cipher.Block
	base64  *base64.Encoding
}

// NewKeys returns the keys that a master key gives, in the memory m if it is not
// nil. Raw64 is the feature of that name; it matters for names only.
func NewKeys(master []byte, raw64 bool, m KeyMemory) (*Keys, error) {
	if len(master) != KeySize {
		return nil, fmt.Errorf("a master key of %d bytes", len(master))
	}
	if m == nil {
		m = ordinary{}
	}
	k := &Keys{memory: m, base64: base64.URLEncoding.Strict()}
	if raw64 {
		k.base64 = base64.RawURLEncoding.Strict()
	}
	if err := k.fill(master); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (k *Keys) fill(master []byte) (err error) {
	if k.master, err = k.memory.Alloc(KeySize); err != nil {
		return err
	}
	copy(k.master, master)
	if k.content, err = contentCipher(master, k.memory); err != nil {
		return err
	}
	k.names, err = expand(master, "EME filename encryption", k.memory)
	return err
}

// Close wipes the keys. Nobody may read any more. It may be called on nil.
func (k *Keys) Close() {
	if k == nil {
		return
	}
	clear(k.master)
	k.memory.Wipe(k.content)
	k.memory.Wipe(k.names)
}

// Export writes the master key to b, of KeySize bytes, for NewKeys in another
// process.
func (k *Keys) Export(b []byte) { copy(b[:KeySize], k.master) }

func contentCipher(key []byte, m KeyMemory) (cipher.AEAD, error) {
	block, err := expand(key, "AES-GCM file content encryption", m)
	if err != nil {
		return nil, err
	}
	defer m.Wipe(block) // the other one has a copy
	a, err := cipher.NewGCMWithNonceSize(block, ivSize)
	if err == nil {
		err = m.Keep(a)
	}
	return a, err
}

// expand makes the key of one use from key.
func expand(key []byte, use string, m KeyMemory) (cipher.Block, error) {
	b, err := hkdf.Key(sha256.New, key, nil, use, KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	block, err := aes.NewCipher(b)
	if err == nil {
		err = m.Keep(block)
	}
	return block, err
}
