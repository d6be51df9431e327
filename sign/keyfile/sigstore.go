package keyfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/secretbox"
)

// sigstoreKey is what the block of an encrypted sigstore key holds.
type sigstoreKey struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct {
			N int `json:"N"`
			R int `json:"r"`
			P int `json:"p"`
		} `json:"params"`
		Salt []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

const (
	nonceSize = 24
	boxKey    = 32
)

func openSigstore(data, pass []byte) ([]byte, error) {
	var k sigstoreKey
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&k); err != nil {
		return nil, fmt.Errorf("the key is damaged: %w", err)
	}
	if k.KDF.Name != "scrypt" || k.Cipher.Name != "nacl/secretbox" || len(k.Cipher.Nonce) != nonceSize {
		return nil, fmt.Errorf("its encryption (%q, %q) is not supported", k.KDF.Name, k.Cipher.Name)
	}
	key, err := scryptKey(pass, k.KDF.Salt, k.KDF.Params.N, k.KDF.Params.R, k.KDF.Params.P, boxKey)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	out, ok := secretbox.Open(nil, k.Ciphertext, (*[nonceSize]byte)(k.Cipher.Nonce), (*[boxKey]byte)(key))
	if !ok {
		return nil, ErrPassphrase
	}
	return out, nil
}

// Cosign returns a new pair of keys in PEM form, the private one encrypted, as
// cosign makes them: ECDSA on P-256.
func Cosign(pass []byte) (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	defer clear(der)
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, err
	}
	var k sigstoreKey
	k.KDF.Name, k.Cipher.Name = "scrypt", "nacl/secretbox"
	k.KDF.Params.N, k.KDF.Params.R, k.KDF.Params.P = 1<<16, 8, 1
	k.KDF.Salt, k.Cipher.Nonce = make([]byte, 32), make([]byte, nonceSize)
	rand.Read(k.KDF.Salt)
	rand.Read(k.Cipher.Nonce)
	secret, err := scryptKey(pass, k.KDF.Salt, k.KDF.Params.N, k.KDF.Params.R, k.KDF.Params.P, boxKey)
	if err != nil {
		return nil, nil, err
	}
	defer clear(secret)
	k.Ciphertext = secretbox.Seal(nil, der, (*[nonceSize]byte)(k.Cipher.Nonce), (*[boxKey]byte)(secret))
	text, err := json.Marshal(k)
	if err != nil {
		return nil, nil, errors.New("cannot write the key")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: text}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), nil
}
