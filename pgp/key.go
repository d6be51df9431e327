package pgp

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
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
	raw     []byte          // all packets as they were read
	public  []byte          // the same without the secret parts
	entity  *openpgp.Entity // read from public
	primary *rawPacket      // the secret primary key, nil if there is none
	locked  bool            // primary is protected by a passphrase
	open    bool            // a secret packet is stored without protection
	signer  *packet.PrivateKey
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
	k = &Key{raw: bytes.Clone(raw)}
	if err := k.split(); err != nil {
		return nil, err
	}
	k.entity, err = openpgp.ReadEntity(packet.NewReader(bytes.NewReader(k.public)))
	if err != nil {
		return nil, err
	}
	if self, _ := k.entity.PrimarySelfSignature(); self == nil {
		return nil, errors.New("key has no valid self-signature")
	}
	return k, nil
}

// split sets what is known from the packets alone.
func (k *Key) split() error {
	list, err := packets(k.raw)
	if err != nil {
		return err
	}
	for i, p := range list {
		if p.tag != tagSecretKey && p.tag != tagSecretSubkey {
			k.public = append(k.public, p.data...)
			continue
		}
		public, how, err := publicPart(p)
		if err != nil {
			return err
		}
		k.public = append(k.public, public...)
		k.open = k.open || how == inClear
		if i == 0 && how != isDummy {
			k.primary, k.locked = &p, how == byPassphrase
		}
	}
	return nil
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

// Algorithm returns the number of the primary key's algorithm in OpenPGP.
func (k *Key) Algorithm() int { return int(k.entity.PrimaryKey.PubKeyAlgo) }

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
func (k *Key) Secret() bool { return k.primary != nil }

// SecretPackets tells whether any packet holds something secret, or stands in
// for one that does.
func (k *Key) SecretPackets() bool { return !bytes.Equal(k.public, k.raw) }

// HasID tells whether the key or one of its sub-keys has that 64-bit id.
func (k *Key) HasID(id uint64) bool { return len(k.list().KeysById(id)) > 0 }

// Locked tells whether signing needs a passphrase first (see Unlock).
func (k *Key) Locked() bool { return k.locked && k.signer == nil }

// Protected tells whether a passphrase protects every secret packet as it is
// stored, those of sub-keys included.
func (k *Key) Protected() bool { return !k.open }

// Unlock makes the secret primary key usable for signing, in memory only. It
// takes some time even if no passphrase is needed.
func (k *Key) Unlock(passphrase []byte) (err error) {
	defer guard(&err)
	if !k.Secret() {
		return errors.New("key has no secret part")
	}
	if k.signer != nil {
		return nil
	}
	p, err := packet.Read(bytes.NewReader(k.primary.data))
	if err != nil {
		return fmt.Errorf("cannot read secret key: %w", err)
	}
	secret, ok := p.(*packet.PrivateKey)
	if !ok || !bytes.Equal(secret.Fingerprint, k.entity.PrimaryKey.Fingerprint) {
		return errors.New("cannot read secret key")
	}
	if secret.Encrypted && secret.Decrypt(passphrase) != nil {
		return ErrPassphrase
	}
	k.signer = secret
	return nil
}

// Bytes returns the binary packets of the key as they were read or made.
func (k *Key) Bytes() []byte { return bytes.Clone(k.raw) }

// Armor returns the armored form of the key, ending in a line feed.
func (k *Key) Armor() ([]byte, error) {
	kind := openpgp.PublicKeyType
	if k.SecretPackets() {
		kind = openpgp.PrivateKeyType
	}
	return armored(kind, k.raw)
}

// ArmorPublic returns public keys, which may be several, as one armored block.
func ArmorPublic(keys []byte) ([]byte, error) { return armored(openpgp.PublicKeyType, keys) }

// armored writes RFC 9580, section 6.2. A key server does little else.
func armored(kind string, raw []byte) ([]byte, error) {
	if len(raw) == 0 {
		return nil, errors.New("there is nothing to armor")
	}
	const line = 48 // bytes, 64 characters
	out := make([]byte, 0, 100+2*len(kind)+len(raw)*65/48)
	out = append(out, "-----BEGIN "+kind+"-----\n\n"...)
	for p := range slices.Chunk(raw, line) {
		out = append(base64.StdEncoding.AppendEncode(out, p), '\n')
	}
	sum := crc24(raw)
	out = base64.StdEncoding.AppendEncode(append(out, '='), []byte{byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return append(out, "\n-----END "+kind+"-----\n"...), nil
}

// crc24 is the checksum of armor, four bits at a time: a table of 256 entries
// would be made at each start of programs that need none.
func crc24(p []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, c := range p {
		crc ^= uint32(c) << 16
		crc = crc<<4 ^ crcTable[crc>>20&15]
		crc = crc<<4 ^ crcTable[crc>>20&15]
	}
	return crc & 0xffffff
}

// crcTable holds n*0x864cfb in the arithmetic of the checksum.
var crcTable = [16]uint32{0, 0x864cfb, 0x8ad50d, 0x0c99f6, 0x93e6e1, 0x15aa1a, 0x1933ec, 0x9f7f17,
	0xa18139, 0x27cdc2, 0x2b5434, 0xad18cf, 0x3267d8, 0xb42b23, 0xb8b2d5, 0x3efe2e}

// Public returns the key without its secret parts; all other packets stay.
func (k *Key) Public() (*Key, error) { return parseKey(k.public) }

// Protect returns the key with every secret packet protected by passphrase.
// Packets that are protected already must open with old.
func (k *Key) Protect(old, passphrase []byte) (_ *Key, err error) {
	defer guard(&err)
	list, err := packets(k.raw)
	if err != nil {
		return nil, err
	}
	secrets := map[int]*packet.PrivateKey{}
	var all []*packet.PrivateKey
	for i, p := range list {
		if p.tag != tagSecretKey && p.tag != tagSecretSubkey {
			continue
		}
		parsed, err := packet.Read(bytes.NewReader(p.data))
		if err != nil {
			return nil, fmt.Errorf("cannot read secret key: %w", err)
		}
		secret := parsed.(*packet.PrivateKey)
		if !secret.Dummy() && secret.Encrypted && secret.Decrypt(old) != nil {
			return nil, ErrPassphrase
		}
		secrets[i] = secret
		all = append(all, secret)
	}
	if err := packet.EncryptPrivateKeys(all, passphrase, protection()); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for i, p := range list {
		if secrets[i] == nil {
			out.Write(p.data)
		} else if err := secrets[i].Serialize(&out); err != nil {
			return nil, err
		}
	}
	return parseKey(out.Bytes())
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
