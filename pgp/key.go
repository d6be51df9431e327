package pgp

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
)

// Fingerprint is the fingerprint of a version 4 key.
type Fingerprint [20]byte

// String returns the fingerprint as 40 upper-case hexadecimal digits.
func (f Fingerprint) String() string { return strings.ToUpper(hex.EncodeToString(f[:])) }

// ParseFingerprint reads 40 hexadecimal digits of any case, with or without 0x.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	digits := strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X")
	if b, err := hex.DecodeString(digits); err == nil && len(b) == len(f) {
		copy(f[:], b)
		return f, nil
	}
	return f, fmt.Errorf("%q is no fingerprint: want 40 hexadecimal digits", s)
}

// ErrPassphrase tells that a passphrase does not fit the secret key.
var ErrPassphrase = errors.New("wrong passphrase")

// Key is an OpenPGP key with its user ids and sub-keys, public or secret.
type Key struct {
	raw    []byte
	entity *openpgp.Entity
	open   bool // a secret packet is stored without protection
}

// parseKey reads one key from raw, which must hold nothing else.
func parseKey(raw []byte) (k *Key, err error) {
	defer guard(&err)
	list, err := packets(raw)
	if err != nil {
		return nil, err
	}
	if tag := list[0].tag; tag != tagPublicKey && tag != tagSecretKey {
		return nil, fmt.Errorf("first packet has tag %d, want a public or secret key", tag)
	}
	if body := list[0].body(); len(body) == 0 || body[0] != 4 {
		return nil, errors.New("key is not of version 4")
	}
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, err
	}
	if len(e.PrimaryKey.Fingerprint) != len(Fingerprint{}) {
		return nil, errors.New("key is not of version 4")
	}
	if self, _ := e.PrimarySelfSignature(); self == nil {
		return nil, errors.New("key has no valid self-signature")
	}
	clear := func(p *packet.PrivateKey) bool { return p != nil && !p.Dummy() && !p.Encrypted }
	open := clear(e.PrivateKey) ||
		slices.ContainsFunc(e.Subkeys, func(s openpgp.Subkey) bool { return clear(s.PrivateKey) })
	return &Key{raw: bytes.Clone(raw), entity: e, open: open}, nil
}

func (k *Key) list() openpgp.EntityList { return openpgp.EntityList{k.entity} }

// Fingerprint returns the fingerprint of the primary key.
func (k *Key) Fingerprint() Fingerprint {
	var f Fingerprint
	copy(f[:], k.entity.PrimaryKey.Fingerprint)
	return f
}

// UserIDs returns the self-signed user ids, the primary one first. The text is
// what the key's owner chose and may hold any byte.
func (k *Key) UserIDs() []string {
	var ids []string
	for name := range k.entity.Identities {
		ids = append(ids, name)
	}
	slices.Sort(ids)
	if main := k.entity.PrimaryIdentity(); main != nil {
		i := slices.Index(ids, main.Name)
		ids = slices.Insert(slices.Delete(ids, i, i+1), 0, main.Name)
	}
	return ids
}

// UserID returns the primary user id.
func (k *Key) UserID() string { return k.UserIDs()[0] }

// Created returns the creation time of the primary key.
func (k *Key) Created() time.Time { return k.entity.PrimaryKey.CreationTime }

// Bits returns the size of the primary key in bits, 0 if it has none.
func (k *Key) Bits() int {
	n, err := k.entity.PrimaryKey.BitLength()
	if err != nil {
		return 0
	}
	return int(n)
}

// Expires returns when the primary key expires, or the zero time for never.
func (k *Key) Expires() time.Time {
	self, _ := k.entity.PrimarySelfSignature()
	if self == nil || self.KeyLifetimeSecs == nil || *self.KeyLifetimeSecs == 0 {
		return time.Time{}
	}
	return k.Created().Add(time.Duration(*self.KeyLifetimeSecs) * time.Second)
}

// Revoked tells whether the key was revoked by its owner, judged at now.
func (k *Key) Revoked(now time.Time) bool { return k.entity.Revoked(now) }

// Secret tells whether the secret part of the primary key is there.
func (k *Key) Secret() bool { return k.entity.PrivateKey != nil && !k.entity.PrivateKey.Dummy() }

// Locked tells whether signing needs a passphrase first (see Unlock).
func (k *Key) Locked() bool { return k.Secret() && k.entity.PrivateKey.Encrypted }

// Protected tells whether a passphrase protects every secret packet as it is
// stored, those of sub-keys included.
func (k *Key) Protected() bool { return !k.open }

// Unlock makes the secret primary key usable for signing, in memory only.
func (k *Key) Unlock(passphrase []byte) (err error) {
	defer guard(&err)
	if !k.Secret() {
		return errors.New("key has no secret part")
	}
	if k.entity.PrivateKey.Encrypted && k.entity.PrivateKey.Decrypt(passphrase) != nil {
		return ErrPassphrase
	}
	return nil
}

// Bytes returns the binary packets of the key as they were read or made.
func (k *Key) Bytes() []byte { return bytes.Clone(k.raw) }

// Armor returns the armored form of the key, ending in a line feed.
func (k *Key) Armor() ([]byte, error) {
	kind := openpgp.PublicKeyType
	if k.entity.PrivateKey != nil {
		kind = openpgp.PrivateKeyType
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, kind, nil)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(k.raw); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// Public returns the key without its secret parts; all other packets stay.
func (k *Key) Public() (*Key, error) {
	return k.rewrite(func(p []*packet.PrivateKey) ([]serializer, error) {
		public := make([]serializer, len(p))
		for i := range p {
			public[i] = &p[i].PublicKey
		}
		return public, nil
	})
}

// Protect returns the key with every secret packet protected by passphrase.
// Packets that are protected already must open with old.
func (k *Key) Protect(old, passphrase []byte) (*Key, error) {
	return k.rewrite(func(p []*packet.PrivateKey) ([]serializer, error) {
		out := make([]serializer, len(p))
		for i := range p {
			out[i] = p[i]
			if !p[i].Dummy() && p[i].Encrypted && p[i].Decrypt(old) != nil {
				return nil, ErrPassphrase
			}
		}
		return out, packet.EncryptPrivateKeys(p, passphrase, protection())
	})
}

// protection is how secret packets are protected: readable for every client,
// with the largest iteration count that the format can express.
func protection() *packet.Config {
	return &packet.Config{
		DefaultCipher: packet.CipherAES256,
		S2KConfig: &s2k.Config{
			S2KMode:  s2k.IteratedSaltedS2K,
			Hash:     crypto.SHA256,
			S2KCount: 65011712,
		},
	}
}

type serializer interface {
	Serialize(w io.Writer) error
}

// rewrite returns the key with its secret packets replaced by what change makes
// of them, one for one.
func (k *Key) rewrite(change func([]*packet.PrivateKey) ([]serializer, error)) (_ *Key, err error) {
	defer guard(&err)
	list, err := packets(k.raw)
	if err != nil {
		return nil, err
	}
	var secrets []*packet.PrivateKey
	for _, p := range list {
		if p.tag != tagSecretKey && p.tag != tagSecretSubkey {
			continue
		}
		parsed, err := packet.Read(bytes.NewReader(p.data))
		if err != nil {
			return nil, fmt.Errorf("cannot read secret key packet: %w", err)
		}
		secrets = append(secrets, parsed.(*packet.PrivateKey))
	}
	changed, err := change(secrets)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, p := range list {
		if p.tag != tagSecretKey && p.tag != tagSecretSubkey {
			out.Write(p.data)
			continue
		}
		if err := changed[0].Serialize(&out); err != nil {
			return nil, err
		}
		changed = changed[1:]
	}
	return parseKey(out.Bytes())
}
