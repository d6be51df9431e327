package pgp

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// The sizes of RSA keys that Generate makes, in bits.
const (
	DefaultBits = 4096
	MinBits     = 2048
	MaxBits     = 16384
)

// Options say what key Generate makes.
type Options struct {
	Name, Comment, Email string
	Bits                 int    // DefaultBits if 0
	Passphrase           []byte // none: the secret key is stored in clear
	Time                 time.Time
}

func (o Options) check() error {
	if strings.TrimSpace(o.Name) == "" && strings.TrimSpace(o.Email) == "" {
		return errors.New("a key needs a name or an e-mail address")
	}
	for _, s := range []string{o.Name, o.Comment, o.Email} {
		if !utf8.ValidString(s) || strings.ContainsAny(s, "()<>") || strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("%q has characters that a user id cannot hold: ( ) < > and control characters", s)
		}
	}
	if o.Bits < MinBits || o.Bits > MaxBits {
		return fmt.Errorf("key length %d is outside %d to %d bits", o.Bits, MinBits, MaxBits)
	}
	return nil
}

// Generate makes a secret key: a version 4 RSA key that certifies and signs, one
// user id, and an RSA encryption sub-key. It takes seconds for 4096 bits.
func Generate(o Options) (*Key, error) {
	if o.Bits == 0 {
		o.Bits = DefaultBits
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	e, err := openpgp.NewEntity(o.Name, o.Comment, o.Email, &packet.Config{
		Algorithm:     packet.PubKeyAlgoRSA,
		RSABits:       o.Bits,
		DefaultHash:   crypto.SHA384,
		DefaultCipher: packet.CipherAES256,
		Time:          func() time.Time { return o.Time },
	})
	if err != nil {
		return nil, err
	}
	if len(o.Passphrase) > 0 {
		if err := e.EncryptPrivateKeys(o.Passphrase, protection()); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	if err := e.SerializePrivateWithoutSigning(&b, nil); err != nil {
		return nil, err
	}
	return parseKey(b.Bytes())
}
