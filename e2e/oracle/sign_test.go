package oracle

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/sylabs/sif/v2/pkg/integrity"
	theirs "github.com/sylabs/sif/v2/pkg/sif"

	"singularity/pgp"
	"singularity/sif"
	"singularity/sign"
)

// signer makes a key, in their form and in ours.
func signer(t *testing.T, name string, algo packet.PublicKeyAlgorithm) (*openpgp.Entity, *pgp.Key) {
	t.Helper()
	curve := packet.Curve25519
	if algo == packet.PubKeyAlgoECDSA {
		curve = packet.CurveNistP256
	}
	e, err := openpgp.NewEntity(name, "c", name+"@example.org", &packet.Config{Algorithm: algo, RSABits: 2048, Curve: curve})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.SerializePrivateWithoutSigning(&b, nil); err != nil {
		t.Fatal(err)
	}
	r, err := pgp.ParseRing(b.Bytes())
	if err != nil || len(r.Keys()) != 1 {
		t.Fatal(err, r.Problems())
	}
	return e, r.Keys()[0]
}

// signable writes an image with objects in groups 1, 2 and 3 and returns its path.
func signable(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.sif")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var in []sif.Input
	for _, o := range objects() {
		if o.group != 0 {
			in = append(in, o.ours())
		}
	}
	if _, err := sif.Create(f, sif.CreateOptions{LaunchScript: sif.LaunchScript}, in...); err != nil {
		t.Fatal(err)
	}
	return path
}

func signOurs(t *testing.T, path string, sel sign.Selection, k *pgp.Key) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, _ := f.Stat()
	now := time.Now()
	if _, err := sign.Sign(context.Background(), f, fi.Size(), sign.Request{Selection: sel, Signer: sign.OpenPGP(k, nil, now), Now: now, Trees: true}); err != nil {
		t.Fatal(err)
	}
}

func signTheirs(t *testing.T, path string, opts ...integrity.SignerOpt) {
	t.Helper()
	f, err := theirs.LoadContainerFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.UnloadContainer()
	s, err := integrity.NewSigner(f, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sign(); err != nil {
		t.Fatal(err)
	}
}

func verifyOurs(t *testing.T, path string, sel sign.Selection, keys ...*pgp.Key) error {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, _ := f.Stat()
	image, err := sif.Open(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	ring, _ := pgp.ParseRing(nil)
	for _, k := range keys {
		ring.Add(k)
	}
	_, err = sign.Verify(context.Background(), image, sign.Options{Selection: sel, Now: time.Now(),
		Keyrings: []sign.Keyring{{Origin: sign.Local, Ring: ring}}})
	return err
}

func verifyTheirs(t *testing.T, path string, ring openpgp.EntityList, opts ...integrity.VerifierOpt) error {
	t.Helper()
	f, err := theirs.LoadContainerFromPath(path, theirs.OptLoadWithFlag(os.O_RDONLY))
	if err != nil {
		t.Fatal(err)
	}
	defer f.UnloadContainer()
	v, err := integrity.NewVerifier(f, append(opts, integrity.OptVerifyWithKeyRing(ring))...)
	if err != nil {
		return err
	}
	return v.Verify()
}

func TestSignaturesBothWays(t *testing.T) {
	for name, algo := range map[string]packet.PublicKeyAlgorithm{"RSA": packet.PubKeyAlgoRSA, "EdDSA": packet.PubKeyAlgoEdDSA, "ECDSA": packet.PubKeyAlgoECDSA} {
		e, k := signer(t, name, algo)
		path := signable(t)
		signOurs(t, path, sign.Selection{}, k)
		if err := verifyTheirs(t, path, openpgp.EntityList{e}); err != nil {
			t.Errorf("%s: they do not verify ours: %v", name, err)
		}
		signTheirs(t, path, integrity.OptSignWithEntity(e))
		if err := verifyOurs(t, path, sign.Selection{}, k); err != nil {
			t.Errorf("%s: we do not verify theirs: %v", name, err)
		}
	}
}

func TestSelectionsBothWays(t *testing.T) {
	e, k := signer(t, "A", packet.PubKeyAlgoEdDSA)
	path := signable(t)
	signOurs(t, path, sign.Selection{Group: 2}, k)
	if err := verifyTheirs(t, path, openpgp.EntityList{e}, integrity.OptVerifyGroup(2)); err != nil {
		t.Errorf("group: %v", err)
	}
	path = signable(t)
	signOurs(t, path, sign.Selection{Object: 3}, k)
	if err := verifyTheirs(t, path, openpgp.EntityList{e}, integrity.OptVerifyObject(3)); err != nil {
		t.Errorf("object: %v", err)
	}
	path = signable(t)
	signTheirs(t, path, integrity.OptSignWithEntity(e), integrity.OptSignObjects(3), integrity.OptSignGroup(2))
	for _, sel := range []sign.Selection{{Group: 2}, {Object: 3}} {
		if err := verifyOurs(t, path, sel, k); err != nil {
			t.Errorf("%+v: %v", sel, err)
		}
	}
}

// Both give the same verdict, in the same words, on images that are not as they
// were signed.
func TestVerdictsAgree(t *testing.T) {
	e, k := signer(t, "A", packet.PubKeyAlgoEdDSA)
	_, stranger := signer(t, "B", packet.PubKeyAlgoEdDSA)
	const table, slot = 4096, 585
	cases := map[string]struct {
		by     *pgp.Key
		sel    sign.Selection
		change func(b []byte, f *sif.File)
	}{
		"unsigned":       {},
		"unchanged":      {by: k},
		"unknown key":    {by: stranger},
		"one object":     {by: k, sel: sign.Selection{Object: 1}},
		"one group":      {by: k, sel: sign.Selection{Group: 1}},
		"launch script":  {by: k, change: func(b []byte, f *sif.File) { b[3] ^= 1 }},
		"image id":       {by: k, change: func(b []byte, f *sif.File) { b[50] ^= 1 }},
		"header arch":    {by: k, change: func(b []byte, f *sif.File) { b[46] = '7' }},
		"name":           {by: k, change: func(b []byte, f *sif.File) { b[table+slot+73] ^= 1 }},
		"created":        {by: k, change: func(b []byte, f *sif.File) { b[table+41] ^= 1 }},
		"data":           {by: k, change: func(b []byte, f *sif.File) { b[f.Objects()[1].Off] ^= 1 }},
		"group number":   {by: k, change: func(b []byte, f *sif.File) { b[table+9] = 5 }},
		"fingerprint":    {by: k, change: func(b []byte, f *sif.File) { b[table+(len(f.Objects())-1)*slot+205] ^= 1 }},
		"garbage object": {by: k, change: func(b []byte, f *sif.File) { o := f.Objects()[len(f.Objects())-3]; copy(b[o.Off:], "*************") }},
	}
	for name, c := range cases {
		path := signable(t)
		if c.by != nil {
			signOurs(t, path, c.sel, c.by)
		}
		if c.change != nil {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := sif.Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			c.change(b, f)
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		ours, theirs := verifyOurs(t, path, sign.Selection{}, k), verifyTheirs(t, path, openpgp.EntityList{e})
		if text(ours) != text(theirs) {
			t.Errorf("%s:\nwe say   %s\nthey say %s", name, text(ours), text(theirs))
		}
	}
}

func text(err error) string {
	if err == nil {
		return "good"
	}
	return strings.TrimSpace(err.Error())
}
