package server

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"singularity/pgp"
	"singularity/server/builder"
	"singularity/server/library"
	"singularity/sign"
	"singularity/sign/keyfile"
)

// seal reads the key by which the builder signs what was built; nil if there is
// none.
func (c *Config) seal() (*builder.Seal, error) {
	if c.BuildSignKey == "" {
		return nil, nil
	}
	text, err := secret(c.BuildSignKey, "", "the key of the builder")
	if err != nil {
		return nil, err
	}
	s := &builder.Seal{Dir: c.Data, Blob: library.BlobName}
	if ring, e := pgp.ParseRing([]byte(text)); e == nil && len(ring.Keys()) == 1 {
		err = openPGPSeal(s, ring.Keys()[0])
	} else {
		err = rawSeal(s, []byte(text))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the key in %q for builds: %w", c.BuildSignKey, err)
	}
	return s, nil
}

func openPGPSeal(s *builder.Seal, k *pgp.Key) error {
	if !k.Secret() || k.Protected() {
		return errors.New("a secret key without a passphrase is wanted")
	}
	public, err := k.Public()
	if err != nil {
		return err
	}
	armored, err := public.Armor()
	if err != nil {
		return err
	}
	s.Name, s.Public = k.Fingerprint().String(), string(armored)
	s.Signer = func(at time.Time) sign.Signer { return sign.OpenPGP(k, nil, at) }
	return nil
}

func rawSeal(s *builder.Seal, text []byte) error {
	key, err := keyfile.Private(text, func() ([]byte, error) { return nil, errors.New("it has a passphrase") })
	if err != nil {
		return err
	}
	signer, err := sign.DSSE(key)
	if err != nil {
		return err
	}
	public, err := publicPEM(key)
	if err != nil {
		return err
	}
	if s.Name, err = sign.KeyID(key.Public()); err != nil {
		return err
	}
	s.Public, s.Attest = public, key
	s.Signer = func(time.Time) sign.Signer { return signer }
	return nil
}

func publicPEM(key crypto.Signer) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), err
}

// secretsKey reads the key of stored passwords, and makes it at the first start.
func (c *Config) secretsKey() ([]byte, error) {
	name := c.BuildSecrets
	if name == "" {
		name = filepath.Join(c.Data, "build-secrets.key")
		key := make([]byte, 32)
		rand.Read(key)
		// Whole or absent: a link does not replace what another server made.
		part := name + ".new"
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			err := os.WriteFile(part, key, 0o600)
			if err == nil {
				err = os.Link(part, name)
			}
			os.Remove(part)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
	}
	st, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of stored passwords: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 || st.Size() != 32 {
		return nil, fmt.Errorf("cannot use the key of stored passwords in %q: 32 bytes with mode 0600 are wanted", name)
	}
	return os.ReadFile(name)
}
