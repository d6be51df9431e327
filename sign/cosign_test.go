package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"singularity/sif"
)

func newECDSA(t testing.TB) (*ecdsa.PrivateKey, *PublicKey) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPublicKey(k.Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	return k, p
}

// ociBuilder puts blobs together.
type ociBuilder struct {
	in        []sif.Input
	manifests []ociDescriptor
}

func (b *ociBuilder) blob(mediaType string, data []byte) ociDescriptor {
	d := ociDescriptor{MediaType: mediaType, Size: int64(len(data)), Digest: sif.Digest(digestOf(crypto.SHA256, data).String())}
	b.in = append(b.in, sif.Input{Type: sif.DataOCIBlob, Group: 1, Extra: d.Digest.Extra(), Data: bytes.NewReader(data)})
	return d
}

func (b *ociBuilder) image(name string, layers ...ociDescriptor) ociDescriptor {
	text, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "layers": layers,
		"config": b.blob(configType, fmt.Appendf(nil, `{"layers":%d}`, len(layers)))})
	if err != nil {
		panic(err)
	}
	d := b.blob(manifestType, text)
	if name != "" {
		d.Annotations = map[string]string{refName: name}
	}
	b.manifests = append(b.manifests, d)
	return d
}

func (b *ociBuilder) index() []byte {
	text, err := json.Marshal(map[string]any{"schemaVersion": 2, "annotations": map[string]string{"kept": "yes"}, "manifests": b.manifests})
	if err != nil {
		panic(err)
	}
	return text
}

// write makes the OCI-SIF, with the given index.
func (b *ociBuilder) write(t testing.TB, index []byte, slots int) *storage {
	t.Helper()
	s := &storage{}
	in := append(b.in, sif.Input{Type: sif.DataOCIRootIndex, Group: 1, Data: bytes.NewReader(index),
		Extra: sif.Digest(digestOf(crypto.SHA256, index).String()).Extra()})
	if _, err := sif.Create(s, sif.CreateOptions{Deterministic: true, Slots: slots}, in...); err != nil {
		t.Fatal(err)
	}
	return s
}

// newOCI returns a builder with one image, whose content begins with data.
func newOCI(data string) (*ociBuilder, ociDescriptor) {
	b := &ociBuilder{}
	layer := b.blob("application/vnd.sylabs.image.layer.v1.squashfs", append([]byte(data), bytes.Repeat([]byte("layer"), 1000)...))
	return b, b.image("", layer)
}

func ociImage(t testing.TB, slots int) *storage {
	b, _ := newOCI("")
	return b.write(t, b.index(), slots)
}

func (s *storage) cosign(t testing.TB, k crypto.Signer) {
	t.Helper()
	if err := SignCosign(t.Context(), s, int64(len(s.b)), k, now); err != nil {
		t.Fatal(err)
	}
}

func (s *storage) verifyCosign(t testing.TB, p *PublicKey) (*CosignResult, error) {
	t.Helper()
	return VerifyCosign(t.Context(), s.open(t), p)
}

func TestCosign(t *testing.T) {
	k, p := newECDSA(t)
	other, po := newECDSA(t)
	s := ociImage(t, 8)
	if r, err := s.verifyCosign(t, p); !errors.Is(err, ErrNoCosign) || len(r.Payloads) != 0 {
		t.Errorf("no signature: %v", err)
	}
	s.cosign(t, k)
	r, err := s.verifyCosign(t, p)
	if err != nil || len(r.Payloads) != 1 || len(r.Warnings) != 0 {
		t.Fatalf("%v %v", r, err)
	}
	o, err := openOCI(s.open(t))
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Payloads[0]) != string(payload(o.image.Digest)) {
		t.Errorf("payload %s", r.Payloads[0])
	}
	if !bytes.Contains(o.text, []byte(`"annotations":{"kept":"yes"}`)) {
		t.Errorf("index %s", o.text)
	}
	if !s.open(t).Header().Deterministic() {
		t.Error("the image has times")
	}
	if r, err := s.verifyCosign(t, po); !errors.Is(err, ErrNoCosign) || len(r.Warnings) != 1 {
		t.Errorf("another key: %v %v", r, err)
	}
	// More signatures need no more room, and leave the others.
	for i := range 3 {
		s.cosign(t, other)
		if n := len(s.open(t).Objects()); n != 7 {
			t.Errorf("%d objects", n)
		}
		r, err := s.verifyCosign(t, po)
		if err != nil || len(r.Payloads) != i+1 || len(r.Warnings) != 1 {
			t.Fatalf("%v %v", r, err)
		}
	}
	if _, err := s.verifyCosign(t, p); err != nil {
		t.Error(err)
	}
}

func TestCosignKeys(t *testing.T) {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []crypto.Signer{ed, r} {
		s := ociImage(t, 8)
		s.cosign(t, k)
		p, _ := NewPublicKey(k.Public(), "")
		if _, err := s.verifyCosign(t, p); err != nil {
			t.Errorf("%T: %v", k, err)
		}
	}
}

func TestCosignRefusals(t *testing.T) {
	k, p := newECDSA(t)
	plain := create(t, inputs()...)
	if err := SignCosign(t.Context(), plain, int64(len(plain.b)), k, now); !errors.Is(err, ErrNotOCISIF) {
		t.Errorf("a plain SIF: %v", err)
	}
	if _, err := plain.verifyCosign(t, p); !errors.Is(err, ErrNotOCISIF) {
		t.Errorf("a plain SIF: %v", err)
	}
	signed := ociImage(t, 16)
	signed.sign(t, alice(), Selection{})
	if err := SignCosign(t.Context(), signed, int64(len(signed.b)), k, now); !errors.Is(err, ErrSigned) {
		t.Errorf("signed: %v", err)
	}
	full := ociImage(t, 6)
	before := bytes.Clone(full.b)
	if err := SignCosign(t.Context(), full, int64(len(full.b)), k, now); !errors.Is(err, sif.ErrTableFull) || !bytes.Equal(before, full.b) {
		t.Errorf("full: %v", err)
	}
	damaged := ociImage(t, 8)
	damaged.b[damaged.open(t).Objects()[0].Off+100] ^= 1
	if err := SignCosign(t.Context(), damaged, int64(len(damaged.b)), k, now); err == nil || !strings.Contains(err.Error(), "compromised: 1") {
		t.Errorf("damaged: %v", err)
	}
}

// A group signature made afterwards covers the cosign signature too.
func TestCosignThenGroups(t *testing.T) {
	k, p := newECDSA(t)
	s := ociImage(t, 16)
	s.cosign(t, k)
	s.sign(t, alice(), Selection{})
	if r, err := s.verifyCosign(t, p); err != nil || len(r.Warnings) != 0 {
		t.Errorf("%v %v", r, err)
	}
	if _, err := s.verify(t, Options{}); err != nil {
		t.Error(err)
	}
}

// Whatever bit of a blob or of the index changes, nothing verifies.
func TestCosignDamage(t *testing.T) {
	k, p := newECDSA(t)
	s := ociImage(t, 8)
	s.cosign(t, k)
	for _, o := range s.open(t).Objects() {
		step := max(1, o.Size/97)
		for at := o.Off; at < o.Off+o.Size; at += step {
			s.b[at] ^= 4
			if _, err := s.verifyCosign(t, p); err == nil {
				t.Fatalf("object %d verifies with a changed byte %d", o.ID, at-o.Off)
			}
			s.b[at] ^= 4
		}
	}
}

// signatureLayer adds a payload and its signature to b.
func (b *ociBuilder) signatureLayer(t testing.TB, k crypto.Signer, text []byte) ociDescriptor {
	t.Helper()
	p, err := NewPublicKey(k.Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signMessage(k, p, text)
	if err != nil {
		t.Fatal(err)
	}
	d := b.blob(cosignLayerType, text)
	d.Annotations = map[string]string{cosignAnnotation: base64.StdEncoding.EncodeToString(sig)}
	return d
}

// A signature that is good, of a text that is not about this image, is none
// (SC-105, SC-106). Each has its reason.
func TestSC105_SC106_CosignPayloads(t *testing.T) {
	k, p := newECDSA(t)
	_, other := newOCI("another image")
	for name, c := range map[string]struct {
		text func(sif.Digest) string
		want string
	}{
		"good":          {func(d sif.Digest) string { return string(payload(d)) }, ""},
		"another image": {func(sif.Digest) string { return string(payload(other.Digest)) }, "another image"},
		"another type": {func(d sif.Digest) string {
			return strings.Replace(string(payload(d)), cosignType, "atomic container signature", 1)
		}, `of type "atomic`},
		"no digest":   {func(sif.Digest) string { return string(payload("")) }, "another image"},
		"upper case":  {func(d sif.Digest) string { return strings.ToUpper(string(payload(d))) }, "not valid"},
		"no critical": {func(sif.Digest) string { return `{"optional":null}` }, `no key "critical"`},
		"digest twice": {func(d sif.Digest) string {
			return strings.Replace(string(payload(other.Digest)), `"image":{`, `"image":{"docker-manifest-digest":"`+string(d)+`",`, 1)
		}, "twice"},
		"critical twice": {func(d sif.Digest) string {
			return strings.Replace(string(payload(d)), `{"critical"`, `{"critical":null,"critical"`, 1)
		}, "not valid"},
		"another after it": {func(d sif.Digest) string { return string(payload(d)) + string(payload(d)) }, "text after"},
		"null":             {func(sif.Digest) string { return "null" }, "not valid"},
		"empty":            {func(sif.Digest) string { return "" }, "not valid"},
		"statement":        {func(sif.Digest) string { return `{"_type":"https://in-toto.io/Statement/v1"}` }, "not valid"},
		"huge":             {func(d sif.Digest) string { return string(payload(d)) + strings.Repeat(" ", maxPayloadSize) }, "limit"},
	} {
		b, d := newOCI("")
		b.image(cosignName(d.Digest), b.signatureLayer(t, k, []byte(c.text(d.Digest))))
		r, err := b.write(t, b.index(), 16).verifyCosign(t, p)
		if c.want == "" {
			if err != nil || len(r.Payloads) != 1 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, ErrNoCosign) || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], c.want) {
			t.Errorf("%s: %v %q, want %q", name, err, r.Warnings, c.want)
		}
	}
}

// Whatever else is odd about the images of an OCI-SIF makes nothing verify.
func TestSC105_CosignHostile(t *testing.T) {
	k, p := newECDSA(t)
	for name, c := range map[string]struct {
		build func(b *ociBuilder, d ociDescriptor, layer ociDescriptor) []byte
		want  string
	}{
		"signatures of another image": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			b.image(cosignName("sha256:"+sif.Digest(strings.Repeat("0", 64))), l)
			return b.index()
		}, "no valid signatures"},
		"two images of signatures": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			b.image(cosignName(d.Digest), l)
			b.image(cosignName(d.Digest))
			return b.index()
		}, "more than once"},
		"two images": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			b.image(cosignName(d.Digest), l)
			b.image("second")
			return b.index()
		}, "names 2 images"},
		"no layers": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			b.image(cosignName(d.Digest))
			return b.index()
		}, "not valid"},
		"another type of layer": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			l.MediaType = "application/octet-stream"
			b.image(cosignName(d.Digest), l)
			return b.index()
		}, "no valid signatures"},
		"no annotation": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			l.Annotations = nil
			b.image(cosignName(d.Digest), l)
			return b.index()
		}, "no valid signatures"},
		"too many": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			var all []ociDescriptor
			for range maxCosignSignatures + 1 {
				all = append(all, l)
			}
			b.image(cosignName(d.Digest), all...)
			return b.index()
		}, "the limit is"},
		"a missing blob": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			b.image(cosignName(d.Digest), l)
			b.in = b.in[1:]
			return b.index()
		}, "no blob"},
		"another size": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			b.image(cosignName(d.Digest), l)
			b.manifests[0].Size++
			return b.index()
		}, "bytes, not"},
		"manifest and index at once": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			b.image(cosignName(d.Digest), l)
			return append([]byte(`{"layers":[],`), b.index()[1:]...)
		}, "at once"},
		"manifests twice": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			b.image(cosignName(d.Digest), l)
			return append([]byte(`{"manifests":[],`), b.index()[1:]...)
		}, "twice"},
		"no JSON": {func(b *ociBuilder, d, l ociDescriptor) []byte { return []byte("index") }, "not valid"},
		"null":    {func(b *ociBuilder, d, l ociDescriptor) []byte { return []byte("null") }, "not valid"},
		"SHA-512": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			return bytes.ReplaceAll(b.index(), []byte("sha256:"), []byte("sha512:"))
		}, "not valid"},
		"null size": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			return bytes.Replace(b.index(), fmt.Appendf(nil, `"size":%d`, d.Size), []byte(`"size":null`), 1)
		}, "null"},
		"a nested index": {func(b *ociBuilder, d, l ociDescriptor) []byte {
			b.manifests[0].MediaType = "application/vnd.oci.image.index.v1+json"
			return b.index()
		}, "not an image"},
	} {
		b, d := newOCI("")
		layer := b.signatureLayer(t, k, payload(d.Digest))
		s := b.write(t, c.build(b, d, layer), 16)
		if _, err := s.verifyCosign(t, p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// Nor do two indexes, of which another program could take the other one.
	b, d := newOCI("")
	b.image(cosignName(d.Digest), b.signatureLayer(t, k, payload(d.Digest)))
	one := b.index()
	b.in = append(b.in, sif.Input{Type: sif.DataOCIRootIndex, Group: 1, Data: bytes.NewReader(one), Extra: sif.Digest(digestOf(crypto.SHA256, one).String()).Extra()})
	if _, err := b.write(t, append(one, ' '), 16).verifyCosign(t, p); err == nil || !strings.Contains(err.Error(), "more than one index") {
		t.Errorf("two indexes: %v", err)
	}
}

// What the signature does not reach is named.
func TestCosignUncovered(t *testing.T) {
	k, p := newECDSA(t)
	b, d := newOCI("")
	b.image(cosignName(d.Digest), b.signatureLayer(t, k, payload(d.Digest)))
	b.blob("", []byte("stowaway"))
	r, err := b.write(t, b.index(), 16).verifyCosign(t, p)
	if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "not covered") {
		t.Errorf("%v %v", r, err)
	}
}

// FuzzOCISIF puts any bytes in the place of the index: nothing verifies unless
// it is the index of the signed image.
func FuzzOCISIF(f *testing.F) {
	k, p := newECDSA(f)
	b, d := newOCI("")
	b.image(cosignName(d.Digest), b.signatureLayer(f, k, payload(d.Digest)))
	index := b.index()
	f.Add(index)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"","size":0,"digest":"","annotations":null}]}`))
	blobs := b.in
	var data [][]byte
	for _, in := range blobs {
		text := make([]byte, in.Data.(*bytes.Reader).Len())
		in.Data.(*bytes.Reader).ReadAt(text, 0)
		data = append(data, text)
	}
	f.Fuzz(func(t *testing.T, index []byte) {
		b := &ociBuilder{}
		for i, in := range blobs {
			in.Data = bytes.NewReader(data[i])
			b.in = append(b.in, in)
		}
		s := b.write(t, index, 16)
		r, err := s.verifyCosign(t, p)
		if err == nil && (len(r.Payloads) == 0 || !bytes.Contains(index, []byte(d.Digest))) {
			t.Errorf("%q verifies", index)
		}
		if SignCosign(t.Context(), s, int64(len(s.b)), k, now) == nil {
			if _, err := s.verifyCosign(t, p); err != nil {
				t.Errorf("%q: signed, but %v", index, err)
			}
		}
	})
}
