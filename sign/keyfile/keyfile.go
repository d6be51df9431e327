// Package keyfile reads and writes PEM files of keys that sign images with DSSE:
// PKCS#8 plain and encrypted, the older RSA and EC forms, also with the old
// encryption of PEM itself, and the form of cosign and sigstore; public keys as
// OpenSSH writes them too.
//
// A file belongs to the user, yet may come from anywhere: sizes and the costs of
// key derivation are bounded, and every other cipher than those named is refused.
//
// Specs: RFC 5958 and 8018 (PKCS#8, PBES2), RFC 8410, RFC 5915, RFC 1421.
package keyfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// MaxSize bounds a key file, in bytes.
const MaxSize = 1 << 20

// ErrPassphrase says that a passphrase does not open the key.
var ErrPassphrase = errors.New("wrong passphrase")

// Private returns the private key of a PEM file. It calls passphrase, once, if
// the key is encrypted.
func Private(data []byte, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	block, err := firstBlock(data, func(b *pem.Block) bool { return b.Type != "EC PARAMETERS" })
	if err != nil {
		return nil, err
	}
	der := block.Bytes
	ask := func(open func(pass []byte) ([]byte, error)) error {
		pass, err := passphrase()
		if err != nil {
			return err
		}
		defer clear(pass)
		der, err = open(pass)
		return err
	}
	switch {
	case x509.IsEncryptedPEMBlock(block): //nolint:staticcheck // the old form is still around
		err = ask(func(pass []byte) ([]byte, error) {
			der, err := x509.DecryptPEMBlock(block, pass) //nolint:staticcheck
			if errors.Is(err, x509.IncorrectPasswordError) {
				err = ErrPassphrase
			}
			return der, err
		})
	case block.Type == "ENCRYPTED PRIVATE KEY":
		err = ask(func(pass []byte) ([]byte, error) { return openPKCS8(der, pass) })
	case block.Type == "ENCRYPTED SIGSTORE PRIVATE KEY", block.Type == "ENCRYPTED COSIGN PRIVATE KEY":
		err = ask(func(pass []byte) ([]byte, error) { return openSigstore(block.Bytes, pass) })
	}
	if err != nil {
		return nil, err
	}
	key, err := parsePrivate(block.Type, der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}

func parsePrivate(typ string, der []byte) (any, error) {
	switch typ {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(der)
	case "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(der)
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return nil, errors.New("it holds a public key, a private one is wanted")
	case "OPENSSH PRIVATE KEY":
		return nil, errors.New("it is in the form of OpenSSH: ssh-keygen -p -m PKCS8 -f FILE changes it")
	}
	return nil, fmt.Errorf("it holds %q, no private key", typ)
}

// Public returns the public key of a PEM file, or of a line as OpenSSH writes it.
func Public(data []byte) (crypto.PublicKey, error) {
	if isSSH(data) {
		return publicSSH(data)
	}
	block, err := firstBlock(data, func(*pem.Block) bool { return true })
	if err != nil {
		return nil, err
	}
	var key any
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		return nil, errors.New("it holds a certificate: use --certificate")
	default:
		return nil, fmt.Errorf("it holds %q, no public key", block.Type)
	}
	if err != nil {
		return nil, err
	}
	switch key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return key, nil
	}
	return nil, fmt.Errorf("a key of type %T cannot sign images: use RSA, ECDSA or Ed25519", key)
}

// isSSH tells whether data begin with a key of OpenSSH.
func isSSH(data []byte) bool {
	return bytes.HasPrefix(data, []byte("ssh-")) || bytes.HasPrefix(data, []byte("ecdsa-sha2-"))
}

// publicSSH reads one line of OpenSSH: type, key and comment.
func publicSSH(data []byte) (crypto.PublicKey, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	parsed, _, _, rest, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil, errors.New("it holds no key of OpenSSH that can be read")
	}
	// Security: with two keys it would hang on their order who is trusted.
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("it holds more than one line")
	}
	if k, ok := parsed.(ssh.CryptoPublicKey); ok {
		switch key := k.CryptoPublicKey().(type) {
		case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
			if t := parsed.Type(); !strings.Contains(t, "@") { // certificates, and keys that sign more than the message
				return key, nil
			}
		}
	}
	return nil, fmt.Errorf("a key of type %q cannot sign images: use RSA, ECDSA or Ed25519", parsed.Type())
}

// firstBlock returns the first PEM block that wanted takes.
func firstBlock(data []byte, wanted func(*pem.Block) bool) (*pem.Block, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		return nil, errors.New("it is no PEM file")
	}
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("it holds no key in PEM form")
		}
		if wanted(block) {
			return block, nil
		}
		data = rest
	}
}
