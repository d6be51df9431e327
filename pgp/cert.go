package pgp

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Limits of a Cert. What an owner needs is far below them.
const (
	MaxCertSize     = 256 << 10 // as it comes in, in bytes
	MaxUserIDs      = 50
	MaxSubkeys      = 50
	maxUserID       = 1024
	maxCertPacket   = 64 << 10
	maxCertSig      = 16 << 10
	maxSelf         = 4   // self-signatures of a part: three by date, one by expiry
	maxRevocations  = 16  // of a part
	maxVerification = 600 // signatures that one Cert has us check
)

// ErrLimit tells that a key is larger than a Cert may be.
var ErrLimit = errors.New("key is too large")

// ErrSecret tells that data holds a secret key where none belongs.
var ErrSecret = errors.New("this is a secret key, which must never leave its owner")

// Cert is a public key reduced to what its owner vouches for: the key itself,
// user ids with a self-signature, sub-keys with a binding, and every revocation.
// Signatures of others are not in it, nor is what nobody signed.
//
// Certs of one key merge: the result does not depend on the order, and merging
// again changes nothing. Nobody but the owner can make one grow.
type Cert struct {
	primary []byte // body of the packet
	key     *packet.PublicKey
	direct  part
	uids    map[string]*part
	subkeys map[Fingerprint]*part
}

// part is the key, a user id or a sub-key with the owner's signatures on it.
type part struct {
	body   []byte
	key    *packet.PublicKey // of a sub-key
	self   map[string]*certSig
	revoke map[string]*certSig
}

// certSig is a signature that was checked. The id is of what was signed, not of
// the signature, which anybody can write down in more than one way.
type certSig struct {
	id      string
	body    []byte
	created int64
	expires int64 // when the part ends by it
}

// UserID is a user id of a Cert.
type UserID struct {
	Text    string
	Created time.Time // of the newest self-signature
	Revoked bool
}

// ReadCerts reads at most limit public keys, binary or armored, and returns the
// usable ones. A block may hold a revocation alone, as "gpg --gen-revoke" writes
// it: known returns the Certs that such a one could be of. What is damaged,
// foreign or unsigned is left out; an error tells why nothing was left.
func ReadCerts(data []byte, limit int, known func(keyID uint64) []*Cert) (list []*Cert, err error) {
	defer guard(&err)
	if isArmored(data) {
		if data, err = dearmor(data); err != nil {
			return nil, err
		}
	}
	all, err := packets(data)
	if err != nil {
		return nil, err
	}
	var why error
	count := 0
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].tag != tagPublicKey && all[n].tag != tagSecretKey {
			n++
		}
		one := all[:n]
		all = all[n:]
		if count++; count > limit {
			return nil, fmt.Errorf("%w: at most %d keys come at once", ErrLimit, limit)
		}
		c, e := readCert(one, MaxCertSize, known)
		if errors.Is(e, ErrSecret) || errors.Is(e, ErrLimit) {
			return nil, e
		}
		if e != nil {
			why = e
			continue
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, cmp.Or(why, errors.New("no OpenPGP key in the data"))
	}
	return list, nil
}

// ReadCert reads what Bytes of a Cert gave. That may be twice as large as what
// comes in, since a revocation is always added.
func ReadCert(data []byte) (c *Cert, err error) {
	defer guard(&err)
	list, err := packets(data)
	if err != nil || len(list) == 0 {
		return nil, errFraming
	}
	return readCert(list, 2*MaxCertSize, nil)
}

func readCert(list []rawPacket, limit int, known func(uint64) []*Cert) (*Cert, error) {
	size := 0
	for _, p := range list {
		if p.tag == tagSecretKey || p.tag == tagSecretSubkey {
			return nil, ErrSecret
		}
		size += len(p.data)
	}
	if size > limit {
		return nil, fmt.Errorf("%w: it has %d bytes, the limit is %d", ErrLimit, size, limit)
	}
	if list[0].tag == tagSignature {
		return readRevocation(list[0], known)
	}
	if list[0].tag != tagPublicKey {
		return nil, fmt.Errorf("first packet has tag %d, want a public key", list[0].tag)
	}
	key, err := publicKey(list[0])
	if err != nil {
		return nil, err
	}
	c := &Cert{primary: list[0].body(), key: key, uids: map[string]*part{}, subkeys: map[Fingerprint]*part{}}
	if err := c.fill(list[1:]); err != nil {
		return nil, err
	}
	c.trim()
	return c, c.Check()
}

// readRevocation makes a Cert of a revocation of a whole key that is known.
func readRevocation(p rawPacket, known func(uint64) []*Cert) (*Cert, error) {
	probe, err := packet.Read(bytes.NewReader(p.data))
	sig, ok := probe.(*packet.Signature)
	if err != nil || !ok || sig.SigType != packet.SigTypeKeyRevocation || sig.IssuerKeyId == nil || known == nil {
		return nil, errors.New("a signature comes without the key it is of")
	}
	for _, k := range known(*sig.IssuerKeyId) {
		c := &Cert{primary: k.primary, key: k.key, uids: map[string]*part{}, subkeys: map[Fingerprint]*part{}}
		c.add(&c.direct, p)
		if len(c.direct.revoke) > 0 {
			return c, nil
		}
	}
	return nil, errors.New("a revocation comes of a key that is not known here")
}

// publicKey reads a primary key or a sub-key of a kind that still is safe.
func publicKey(p rawPacket) (*packet.PublicKey, error) {
	if len(p.data) > maxCertPacket {
		return nil, fmt.Errorf("%w: a packet has %d bytes", ErrLimit, len(p.data))
	}
	if body := p.body(); len(body) == 0 || body[0] != 4 {
		return nil, errors.New("key is not of version 4")
	}
	parsed, err := packet.Read(bytes.NewReader(p.data))
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*packet.PublicKey)
	if !ok {
		return nil, errFraming
	}
	bits, _ := key.BitLength()
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoRSAEncryptOnly:
		if bits < MinBits || bits > 8192 {
			return nil, fmt.Errorf("RSA key of %d bits is not accepted: want %d to 8192", bits, MinBits)
		}
	case packet.PubKeyAlgoECDSA, packet.PubKeyAlgoECDH, packet.PubKeyAlgoEdDSA,
		packet.PubKeyAlgoX25519, packet.PubKeyAlgoX448, packet.PubKeyAlgoEd25519, packet.PubKeyAlgoEd448:
	default:
		return nil, fmt.Errorf("key algorithm %d is not accepted", key.PubKeyAlgo)
	}
	// Security: bytes behind the numbers of a key are not in its fingerprint.
	var out bytes.Buffer
	if err := key.Serialize(&out); err != nil {
		return nil, err
	}
	if canonical, err := nextPacket(out.Bytes()); err != nil || !bytes.Equal(canonical.body(), p.body()) {
		return nil, errors.New("key packet is not in its canonical form")
	}
	return key, nil
}

// fill reads what follows the primary key.
func (c *Cert) fill(list []rawPacket) error {
	at, checks := &c.direct, 0
	for _, p := range list {
		switch p.tag {
		case tagUserID:
			at = nil
			if text := p.body(); validUserID(text) {
				if c.uids[string(text)] == nil {
					c.uids[string(text)] = &part{body: text}
				}
				at = c.uids[string(text)]
			}
		case tagPublicSubkey:
			at = nil
			if key, err := publicKey(p); err == nil {
				f := Fingerprint(key.Fingerprint)
				if c.subkeys[f] == nil {
					c.subkeys[f] = &part{body: p.body(), key: key}
				}
				at = c.subkeys[f]
			} else if errors.Is(err, ErrLimit) {
				return err
			}
		case tagSignature:
			if at != nil && c.claims(p) && checks < maxVerification {
				checks++
				c.add(at, p)
			}
		default: // a picture, or what nobody knows yet, with its signatures
			at = nil
		}
	}
	return nil
}

// validUserID tells whether a user id may be shown: clients print it as it is.
func validUserID(b []byte) bool {
	return len(b) > 0 && len(b) <= maxUserID && utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool {
		return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
	})
}

// claims tells whether a signature says that it is the owner's. Those of others
// cost nothing more than this.
func (c *Cert) claims(p rawPacket) bool {
	if len(p.data) > maxCertSig {
		return false
	}
	parsed, err := packet.Read(bytes.NewReader(p.data))
	sig, ok := parsed.(*packet.Signature)
	return err == nil && ok && sig.Version == 4 && sig.CheckKeyIdOrFingerprint(c.key)
}

// add checks a signature on a part and keeps it if it is the owner's.
func (c *Cert) add(at *part, p rawPacket) {
	key := at.key
	body, err := canonicalSig(p.body(), c.key, key)
	if err != nil {
		return
	}
	parsed, err := packet.Read(bytes.NewReader(writePacket(tagSignature, body)))
	sig, ok := parsed.(*packet.Signature)
	if err != nil || !ok {
		return
	}
	revocation, err := c.verify(at, sig)
	if err != nil {
		return
	}
	n := 6 + int(binary.BigEndian.Uint16(body[4:]))
	id := sha256.Sum256(body[:n])
	s := &certSig{id: hex.EncodeToString(id[:]), body: body, created: sig.CreationTime.Unix(), expires: math.MaxInt64}
	if sig.KeyLifetimeSecs != nil && *sig.KeyLifetimeSecs != 0 {
		base := c.key.CreationTime
		if key != nil {
			base = key.CreationTime
		}
		s.expires = base.Unix() + int64(*sig.KeyLifetimeSecs)
	}
	at.put(s, revocation)
}

func (p *part) put(s *certSig, revocation bool) {
	to := &p.self
	if revocation {
		to = &p.revoke
	}
	if *to == nil {
		*to = map[string]*certSig{}
	}
	// Security: of two forms of one signature the first stays, so that a
	// stranger cannot change a byte of what is served.
	if (*to)[s.id] == nil {
		(*to)[s.id] = s
	}
}

// verify checks a signature of the owner on a part of the key.
func (c *Cert) verify(at *part, sig *packet.Signature) (revocation bool, err error) {
	switch {
	case at == &c.direct && sig.SigType == packet.SigTypeKeyRevocation:
		return true, c.key.VerifyRevocationSignature(sig)
	case at == &c.direct && sig.SigType == packet.SigTypeDirectSignature:
		return false, c.key.VerifyDirectKeySignature(sig)
	case at == &c.direct:
	case at.key != nil && sig.SigType == packet.SigTypeSubkeyBinding:
		return false, c.key.VerifyKeySignature(at.key, sig)
	case at.key != nil && sig.SigType == packet.SigTypeSubkeyRevocation:
		return true, c.key.VerifySubkeyRevocationSignature(sig, at.key)
	case at.key != nil:
	case sig.SigType >= packet.SigTypeGenericCert && sig.SigType <= packet.SigTypePositiveCert:
		return false, c.key.VerifyUserIdSignature(string(at.body), c.key, sig)
	case sig.SigType == packet.SigTypeCertificationRevocation:
		return true, c.key.VerifyUserIdSignature(string(at.body), c.key, sig)
	}
	return false, errors.New("signature of a kind that does not belong here")
}

// canonicalSig returns the body of a signature with an unhashed area of ours.
//
// Security: that area is not signed. Anybody could write there what makes the
// key large or unreadable.
func canonicalSig(b []byte, issuer, subkey *packet.PublicKey) ([]byte, error) {
	if len(b) < 6 || b[0] != 4 {
		return nil, errFraming
	}
	n := 6 + int(binary.BigEndian.Uint16(b[4:]))
	if len(b) < n+2 {
		return nil, errFraming
	}
	m := n + 2 + int(binary.BigEndian.Uint16(b[n:]))
	if len(b) < m {
		return nil, errFraming
	}
	area := binary.BigEndian.AppendUint64([]byte{9, subpacketIssuer}, issuer.KeyId)
	if subkey != nil {
		if e := embedded(b[n+2 : m]); e != nil {
			e, err := canonicalSig(e, subkey, nil)
			if err != nil {
				return nil, err
			}
			area = append(area, 255)
			area = binary.BigEndian.AppendUint32(area, uint32(len(e)+1))
			area = append(append(area, subpacketEmbedded), e...)
		}
	}
	if len(area) > math.MaxUint16 {
		return nil, errFraming
	}
	out := binary.BigEndian.AppendUint16(bytes.Clone(b[:n]), uint16(len(area)))
	return append(append(out, area...), b[m:]...), nil
}

// embedded finds the signature of a sub-key in the unhashed area of a binding.
func embedded(area []byte) []byte {
	for len(area) > 0 {
		var head, size int
		switch n := int(area[0]); {
		case n < 192:
			head, size = 1, n
		case n < 255 && len(area) >= 2:
			head, size = 2, (n-192)<<8+int(area[1])+192
		case n == 255 && len(area) >= 5:
			head, size = 5, be32(area[1:])
		default:
			return nil
		}
		if size == 0 || size > len(area)-head {
			return nil
		}
		if area[head]&0x7f == subpacketEmbedded {
			return area[head+1 : head+size]
		}
		area = area[head+size:]
	}
	return nil
}

func writePacket(tag int, body []byte) []byte {
	out := []byte{0xc0 | byte(tag)}
	switch n := len(body); {
	case n < 192:
		out = append(out, byte(n))
	case n < 8384:
		out = append(out, byte((n-192)>>8)+192, byte(n-192))
	default:
		out = binary.BigEndian.AppendUint32(append(out, 255), uint32(n))
	}
	return append(out, body...)
}

// trim drops parts that nothing vouches for, and signatures beyond the limits.
func (c *Cert) trim() {
	c.direct.trim()
	for text, p := range c.uids {
		if p.trim(); len(p.self)+len(p.revoke) == 0 {
			delete(c.uids, text)
		}
	}
	for f, p := range c.subkeys {
		if p.trim(); len(p.self)+len(p.revoke) == 0 {
			delete(c.subkeys, f)
		}
	}
}

// trim keeps the newest self-signatures and the one that holds longest, and the
// first revocations: what is newest by one order is so in any union, so Certs
// merge in any order to the same.
func (p *part) trim() {
	list := p.sorted(p.self)
	if len(list) >= maxSelf {
		slices.Reverse(list)
		longest := slices.MaxFunc(list, func(a, b *certSig) int { return cmp.Or(cmp.Compare(a.expires, b.expires), strings.Compare(a.id, b.id)) })
		p.self = map[string]*certSig{longest.id: longest}
		for _, s := range list[:maxSelf-1] {
			p.self[s.id] = s
		}
	}
	if list = p.sorted(p.revoke); len(list) > maxRevocations {
		for _, s := range list[maxRevocations:] {
			delete(p.revoke, s.id)
		}
	}
}

// sorted gives signatures by date.
func (p *part) sorted(m map[string]*certSig) []*certSig {
	var list []*certSig
	for _, s := range m {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *certSig) int { return cmp.Or(cmp.Compare(a.created, b.created), strings.Compare(a.id, b.id)) })
	return list
}

// Check returns nil if c may be kept and served: every reader can read it.
func (c *Cert) Check() error {
	if len(c.uids) > MaxUserIDs || len(c.subkeys) > MaxSubkeys {
		return fmt.Errorf("%w: at most %d user ids and %d sub-keys", ErrLimit, MaxUserIDs, MaxSubkeys)
	}
	if !slices.ContainsFunc(c.UserIDs(), func(u UserID) bool { return !u.Created.IsZero() }) {
		return errors.New("key has no user id with a valid self-signature")
	}
	_, err := c.Key()
	return err
}

// Merge adds what other has of the same key. The result may fail Check.
func (c *Cert) Merge(other *Cert) {
	if other.Fingerprint() != c.Fingerprint() {
		return
	}
	c.direct.merge(&other.direct)
	for text, p := range other.uids {
		if c.uids[text] == nil {
			c.uids[text] = &part{body: p.body}
		}
		c.uids[text].merge(p)
	}
	for f, p := range other.subkeys {
		if c.subkeys[f] == nil {
			c.subkeys[f] = &part{body: p.body, key: p.key}
		}
		c.subkeys[f].merge(p)
	}
	c.trim()
}

func (p *part) merge(other *part) {
	for _, s := range other.self {
		p.put(s, false)
	}
	for _, s := range other.revoke {
		p.put(s, true)
	}
}

// Revocation returns a Cert with the revocations of the key as a whole alone, or
// nil if there is none. It only serves to be merged.
func (c *Cert) Revocation() *Cert {
	if len(c.direct.revoke) == 0 {
		return nil
	}
	return &Cert{primary: c.primary, key: c.key, direct: part{revoke: c.direct.revoke}}
}

// Bytes returns the packets of c, always in the same order.
func (c *Cert) Bytes() []byte {
	out := writePacket(tagPublicKey, c.primary)
	out = c.direct.append(out)
	for _, u := range c.UserIDs() {
		out = c.uids[u.Text].append(append(out, writePacket(tagUserID, []byte(u.Text))...))
	}
	for _, f := range c.fingerprints() {
		out = c.subkeys[f].append(append(out, writePacket(tagPublicSubkey, c.subkeys[f].body)...))
	}
	return out
}

func (p *part) append(out []byte) []byte {
	for _, s := range p.sorted(p.revoke) {
		out = append(out, writePacket(tagSignature, s.body)...)
	}
	list := p.sorted(p.self)
	slices.Reverse(list) // some readers take the first
	for _, s := range list {
		out = append(out, writePacket(tagSignature, s.body)...)
	}
	return out
}

// Key returns c as a Key.
func (c *Cert) Key() (*Key, error) { return parseKey(c.Bytes()) }

// Fingerprint returns the fingerprint of the primary key.
func (c *Cert) Fingerprint() Fingerprint { return Fingerprint(c.key.Fingerprint) }

func (c *Cert) fingerprints() []Fingerprint {
	var list []Fingerprint
	for f := range c.subkeys {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b Fingerprint) int {
		return cmp.Or(c.subkeys[a].key.CreationTime.Compare(c.subkeys[b].key.CreationTime), bytes.Compare(a[:], b[:]))
	})
	return list
}

// Fingerprints returns those of the primary key and, after it, of the sub-keys.
func (c *Cert) Fingerprints() []Fingerprint {
	return append([]Fingerprint{c.Fingerprint()}, c.fingerprints()...)
}

// UserIDs returns the user ids in the order of their bytes.
func (c *Cert) UserIDs() []UserID {
	var list []UserID
	for text, p := range c.uids {
		u := UserID{Text: text}
		var revoked int64 = math.MinInt64
		for _, s := range p.revoke {
			revoked = max(revoked, s.created)
		}
		for _, s := range p.self {
			if t := time.Unix(s.created, 0).UTC(); t.After(u.Created) {
				u.Created = t
			}
		}
		// A user id that was signed again after its revocation is back.
		u.Revoked = len(p.revoke) > 0 && (u.Created.IsZero() || u.Created.Unix() <= revoked)
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b UserID) int { return strings.Compare(a.Text, b.Text) })
	return list
}
