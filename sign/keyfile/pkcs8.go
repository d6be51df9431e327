package keyfile

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/scrypt"
)

// Bounds on the cost of a passphrase: some seconds and 256 MiB.
const (
	maxIterations   = 10_000_000
	maxScryptMemory = 256 << 20
)

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
)

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2Params struct {
	KDF, Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

// openPKCS8 decrypts a key that PBES2 protects.
func openPKCS8(der, pass []byte) ([]byte, error) {
	var k encryptedKey
	if err := unmarshal(der, &k); err != nil {
		return nil, err
	}
	if !k.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, fmt.Errorf("its encryption %v is not supported: openssl pkcs8 -topk8 -v2 aes-256-cbc changes it", k.Algorithm.Algorithm)
	}
	var p pbes2Params
	if err := unmarshal(k.Algorithm.Parameters.FullBytes, &p); err != nil {
		return nil, err
	}
	newCipher, size, err := cipherOf(p.Cipher.Algorithm)
	if err != nil {
		return nil, err
	}
	key, err := derive(p.KDF, pass, size)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	var iv []byte
	if err := unmarshal(p.Cipher.Parameters.FullBytes, &iv); err != nil {
		return nil, err
	}
	block, err := newCipher(key)
	if err != nil {
		return nil, err
	}
	if len(iv) != block.BlockSize() || len(k.Data) == 0 || len(k.Data)%block.BlockSize() != 0 {
		return nil, errors.New("its encrypted part has a wrong size")
	}
	out := make([]byte, len(k.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, k.Data)
	// A wrong passphrase shows in the padding, or in what is below it.
	n := int(out[len(out)-1])
	if n == 0 || n > block.BlockSize() || n > len(out) {
		return nil, ErrPassphrase
	}
	for _, b := range out[len(out)-n:] {
		if int(b) != n {
			return nil, ErrPassphrase
		}
	}
	out = out[:len(out)-n]
	var inner asn1.RawValue
	if rest, err := asn1.Unmarshal(out, &inner); err != nil || len(rest) > 0 || inner.Tag != asn1.TagSequence {
		return nil, ErrPassphrase
	}
	return out, nil
}

func unmarshal(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err == nil && len(rest) > 0 {
		err = errors.New("bytes after it")
	}
	if err != nil {
		return fmt.Errorf("the key is damaged: %w", err)
	}
	return nil
}

func cipherOf(id asn1.ObjectIdentifier) (func([]byte) (cipher.Block, error), int, error) {
	switch id.String() {
	case "2.16.840.1.101.3.4.1.2":
		return aes.NewCipher, 16, nil
	case "2.16.840.1.101.3.4.1.22":
		return aes.NewCipher, 24, nil
	case "2.16.840.1.101.3.4.1.42":
		return aes.NewCipher, 32, nil
	case "1.2.840.113549.3.7":
		return des.NewTripleDESCipher, 24, nil
	}
	return nil, 0, fmt.Errorf("its cipher %v is not supported: openssl pkcs8 -topk8 -v2 aes-256-cbc changes it", id)
}

func hashOf(id asn1.ObjectIdentifier) (func() hash.Hash, error) {
	switch id.String() {
	case "", "1.2.840.113549.2.7":
		return sha1.New, nil // the default of the standard
	case "1.2.840.113549.2.9":
		return sha256.New, nil
	case "1.2.840.113549.2.10":
		return sha512.New384, nil
	case "1.2.840.113549.2.11":
		return sha512.New, nil
	}
	return nil, fmt.Errorf("its hash %v is not supported", id)
}

// derive makes the key of size bytes from the passphrase.
func derive(kdf pkix.AlgorithmIdentifier, pass []byte, size int) ([]byte, error) {
	switch {
	case kdf.Algorithm.Equal(oidPBKDF2):
		var p pbkdf2Params
		if err := unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, err
		}
		h, err := hashOf(p.PRF.Algorithm)
		if err != nil {
			return nil, err
		}
		if p.Iterations < 1 || p.Iterations > maxIterations || p.KeyLength != 0 && p.KeyLength != size {
			return nil, fmt.Errorf("it asks for %d rounds of PBKDF2 and %d bytes", p.Iterations, p.KeyLength)
		}
		return pbkdf2.Key(h, string(pass), p.Salt, p.Iterations, size)
	case kdf.Algorithm.Equal(oidScrypt):
		var p scryptParams
		if err := unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, err
		}
		return scryptKey(pass, p.Salt, p.N, p.R, p.P, size)
	}
	return nil, fmt.Errorf("its key derivation %v is not supported", kdf.Algorithm)
}

func scryptKey(pass, salt []byte, n, r, p, size int) ([]byte, error) {
	if n < 2 || r < 1 || p < 1 || p > 16 || r > 1<<10 || n > maxScryptMemory/128/r {
		return nil, fmt.Errorf("it asks for scrypt with N=%d, r=%d, p=%d, which takes too much memory", n, r, p)
	}
	return scrypt.Key(pass, salt, n, r, p, size)
}
