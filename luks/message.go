package luks

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	messageType = "MESSAGE"
	secretSize  = 64
	minRSABits  = 2048
	maxRSABits  = 16384

	// MaxPEMSize is the most bytes that a key or message in PEM may have.
	MaxPEMSize = 64 << 10
)

// NewSecret returns a random passphrase, to be wrapped with an RSA key. It
// lies in memory of l.
func NewSecret(l Limits) ([]byte, error) {
	b, err := l.keys(secretSize)
	if err != nil {
		return nil, err
	}
	_, err = rand.Read(b)
	return b, err
}

// ParsePublicKey reads an RSA public key, PKCS #1 or PKIX, in PEM.
func ParsePublicKey(text []byte) (*rsa.PublicKey, error) {
	der, err := derOf(text)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		any, err2 := x509.ParsePKIXPublicKey(der)
		if err2 != nil {
			return nil, errors.New("it holds no RSA public key")
		}
		var ok bool
		if key, ok = any.(*rsa.PublicKey); !ok {
			return nil, errors.New("it holds a public key of another kind than RSA")
		}
	}
	return key, checkBits(key.N.BitLen())
}

// ParsePrivateKey reads an RSA private key, PKCS #1 or PKCS #8 and not
// encrypted, in PEM.
func ParsePrivateKey(text []byte) (*rsa.PrivateKey, error) {
	der, err := derOf(text)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		any, err2 := x509.ParsePKCS8PrivateKey(der)
		if err2 != nil {
			return nil, errors.New("it holds no RSA private key that can be used as it is")
		}
		var ok bool
		if key, ok = any.(*rsa.PrivateKey); !ok {
			return nil, errors.New("it holds a private key of another kind than RSA")
		}
	}
	return key, checkBits(key.N.BitLen())
}

func derOf(text []byte) ([]byte, error) {
	if len(text) > MaxPEMSize {
		return nil, fmt.Errorf("%d bytes are more than a key has", len(text))
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it holds no PEM block")
	}
	return block.Bytes, nil
}

func checkBits(n int) error {
	if n < minRSABits || n > maxRSABits {
		return fmt.Errorf("an RSA key of %d bits is not accepted, only of %d to %d", n, minRSABits, maxRSABits)
	}
	return nil
}

// WrapKey encrypts secret for the holder of key's private half: RSA-OAEP with
// SHA-256, as a DER octet string, as PEM.
func WrapKey(key *rsa.PublicKey, secret []byte) ([]byte, error) {
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, secret, nil)
	if err != nil {
		return nil, err
	}
	der, err := asn1.Marshal(wrapped)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: messageType, Bytes: der}), nil
}

// UnwrapKey decrypts what WrapKey encrypted.
func UnwrapKey(key *rsa.PrivateKey, message []byte) ([]byte, error) {
	if len(message) > MaxPEMSize {
		return nil, ErrMessage
	}
	block, _ := pem.Decode(message)
	if block == nil || block.Type != messageType {
		return nil, ErrMessage
	}
	var wrapped []byte
	if rest, err := asn1.Unmarshal(block.Bytes, &wrapped); err != nil || len(rest) > 0 {
		return nil, ErrMessage
	}
	secret, err := rsa.DecryptOAEP(sha256.New(), nil, key, wrapped, nil)
	if err != nil || len(secret) == 0 {
		return nil, ErrMessage
	}
	return secret, nil
}
