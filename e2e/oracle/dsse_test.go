package oracle

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sylabs/sif/v2/pkg/integrity"
	theirs "github.com/sylabs/sif/v2/pkg/sif"

	"singularity/sif"
	"singularity/sign"
)

// TestDSSEBothWays signs with key files on one side and verifies on the other.
func TestDSSEBothWays(t *testing.T) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"RSA": r, "ECDSA": p, "Ed25519": ed} {
		path := signable(t)
		signer, err := sign.DSSE(key)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		fi, _ := f.Stat()
		if _, err := sign.Sign(context.Background(), f, fi.Size(), sign.Request{Signer: signer, Now: time.Now(), Trees: true}); err != nil {
			t.Fatal(err)
		}
		f.Close()
		verifier, err := signature.LoadVerifier(key.Public(), crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		verify := func() error {
			f, err := theirs.LoadContainerFromPath(path, theirs.OptLoadWithFlag(os.O_RDONLY))
			if err != nil {
				t.Fatal(err)
			}
			defer f.UnloadContainer()
			v, err := integrity.NewVerifier(f, integrity.OptVerifyWithVerifier(verifier))
			if err != nil {
				return err
			}
			return v.Verify()
		}
		if err := verify(); err != nil {
			t.Errorf("%s: they do not verify ours: %v", name, err)
		}
		ss, err := signature.LoadSigner(key, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		signTheirs(t, path, integrity.OptSignWithSigner(ss))
		public, err := sign.NewPublicKey(key.Public(), name)
		if err != nil {
			t.Fatal(err)
		}
		f, err = os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		fi, _ = f.Stat()
		image, err := sif.Open(f, fi.Size())
		if err != nil {
			t.Fatal(err)
		}
		result, err := sign.Verify(context.Background(), image, sign.Options{Now: time.Now(), Keys: []*sign.PublicKey{public}})
		if err != nil || len(result.Signatures) != 6 {
			t.Errorf("%s: we do not verify theirs: %d signatures, %v", name, len(result.Signatures), err)
		}
		f.Close()
	}
}
