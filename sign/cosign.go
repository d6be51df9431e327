package sign

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"singularity/sif"
)

// Cosign signatures of the image in an OCI-SIF: an image of their own beside it,
// each layer of which is one payload with its signature as an annotation.
const (
	cosignPrefix     = "_cosign:"
	cosignLayerType  = "application/vnd.dev.cosign.simplesigning.v1+json"
	cosignAnnotation = "dev.cosignproject.cosign/signature"
	cosignType       = "cosign container image signature"

	maxPayloadSize      = 64 << 10
	maxCosignSignatures = 64
)

var (
	// ErrNoCosign says that no cosign signature of the image is good.
	ErrNoCosign = errors.New("no valid signatures found")
	// ErrSigned says that a cosign signature would break the signatures that
	// an image has.
	ErrSigned = errors.New("the image has signatures of its groups, which a cosign signature would break")
)

// cosignName is the name of the image with the signatures of the manifest d.
func cosignName(d sif.Digest) string {
	return cosignPrefix + strings.Replace(string(d), ":", "-", 1) + ".sig"
}

// payload returns the text that is signed.
func payload(manifest sif.Digest) []byte {
	return []byte(`{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"` + string(manifest) +
		`"},"type":"` + cosignType + `"},"optional":null}`)
}

// checkPayload tells what is wrong with a signed text that is to be about
// manifest.
//
// Security: a signature that is good says nothing before its text was read: it
// may be of another kind, or about another image (SC-105, SC-106).
func checkPayload(text []byte, manifest sif.Digest) error {
	var typ, about, reference string
	d := decoder{json.NewDecoder(bytes.NewReader(text))}
	field := func(name string, p *string) func() error {
		return func() error { return d.object(map[string]func() error{name: d.into(p)}) }
	}
	err := d.whole(map[string]func() error{
		"critical": func() error {
			return d.object(map[string]func() error{
				"identity": field("docker-reference", &reference),
				"image":    field("docker-manifest-digest", &about),
				"type":     d.into(&typ),
			})
		},
	})
	switch {
	case err != nil:
		return fmt.Errorf("payload not valid: %w", err)
	case typ != cosignType:
		return fmt.Errorf("payload is of type %q, want %q", typ, cosignType)
	case about != string(manifest):
		return fmt.Errorf("payload is about another image: %q, this one is %q", about, manifest)
	}
	return nil
}

// cosigned returns the layers of the signatures of the image, and the descriptor
// of the image that holds them; there may be none.
func (o *ociSIF) cosigned() (layers []ociDescriptor, holder []ociDescriptor, err error) {
	name := cosignName(o.image.Digest)
	for _, s := range o.signatures {
		if s.Annotations[refName] == name {
			holder = append(holder, s)
		}
	}
	switch {
	case len(holder) == 0:
		return nil, nil, nil
	case len(holder) > 1:
		return nil, nil, fmt.Errorf("the index names %q more than once", name)
	}
	m, err := o.manifest(holder[0])
	if err != nil {
		return nil, nil, err
	}
	if len(m.layers) > maxCosignSignatures {
		return nil, nil, fmt.Errorf("the image has %d cosign signatures, the limit is %d", len(m.layers), maxCosignSignatures)
	}
	return m.layers, holder, nil
}

// CosignResult is what VerifyCosign found.
type CosignResult struct {
	Payloads []json.RawMessage // of the signatures that are good
	Warnings []string          // text from the image is quoted in them
}

// VerifyCosign checks all blobs of the OCI-SIF f against their digests, and the
// cosign signatures of the image in it by key. One that is good is enough.
func VerifyCosign(ctx context.Context, f *sif.File, key *PublicKey) (*CosignResult, error) {
	r := &CosignResult{}
	o, err := openOCI(f)
	if err != nil {
		return r, err
	}
	covered, err := o.check(ctx)
	if err != nil {
		return r, err
	}
	layers, holder, err := o.cosigned()
	if err != nil {
		return r, err
	}
	for i, layer := range layers {
		text, err := o.verifyCosign(layer, key)
		if err != nil {
			r.Warnings = append(r.Warnings, fmt.Sprintf("cosign signature %d: %v", i+1, err))
			continue
		}
		r.Payloads = append(r.Payloads, text)
	}
	if len(r.Payloads) == 0 {
		return r, ErrNoCosign
	}
	signatures, err := o.reach(holder...)
	if err != nil {
		return r, err
	}
	maps.Copy(covered, signatures)
	for _, obj := range f.Objects() {
		d, _ := obj.Digest()
		if !covered[d] && obj.Type != sif.DataSignature && obj.ID != o.root.ID {
			r.Warnings = append(r.Warnings, fmt.Sprintf("object %d (%s) is not covered by the signature", obj.ID, obj.Type))
		}
	}
	return r, nil
}

// verifyCosign returns the payload of one signature that is good.
func (o *ociSIF) verifyCosign(layer ociDescriptor, key *PublicKey) (json.RawMessage, error) {
	if layer.MediaType != cosignLayerType {
		return nil, fmt.Errorf("it is of type %q, want %q", layer.MediaType, cosignLayerType)
	}
	if layer.Size > maxPayloadSize {
		return nil, fmt.Errorf("payload has %d bytes, the limit is %d", layer.Size, maxPayloadSize)
	}
	text, err := o.read(layer)
	if err != nil {
		return nil, err
	}
	sig, err := base64.StdEncoding.DecodeString(layer.Annotations[cosignAnnotation])
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	if !key.verify(text, sig) {
		return nil, errors.New("it is not of the given key")
	}
	return text, checkPayload(text, o.image.Digest)
}

// SignCosign adds a cosign signature with key to the OCI-SIF of size bytes in w,
// once the digests of all its blobs are right. Others that it has stay.
func SignCosign(ctx context.Context, w sif.Storage, size int64, key crypto.Signer, now time.Time) error {
	public, err := NewPublicKey(key.Public(), "")
	if err != nil {
		return err
	}
	e, err := sif.Edit(w, size)
	if err != nil {
		return err
	}
	e.Time = now
	o, err := openOCI(e.File())
	if err != nil {
		return err
	}
	for _, obj := range e.File().Objects() {
		if obj.Type == sif.DataSignature {
			return ErrSigned
		}
	}
	if _, err := o.check(ctx); err != nil {
		return err
	}
	layers, holder, err := o.cosigned()
	if err != nil {
		return err
	}
	if len(layers) == maxCosignSignatures {
		return fmt.Errorf("the image has %d cosign signatures, which is the limit", len(layers))
	}
	text := payload(o.image.Digest)
	sig, err := signMessage(key, public, text)
	if err != nil {
		return err
	}
	old, err := o.replace(holder)
	if err != nil {
		return err
	}
	add, err := o.newSignature(layers, text, sig)
	if err != nil {
		return err
	}
	_, err = e.Replace(old, add...)
	return err
}

// newSignature returns the objects of an image of signatures: those in layers and
// one of text. The last is a new index.
func (o *ociSIF) newSignature(layers []ociDescriptor, text, sig []byte) ([]sif.Input, error) {
	var add []sif.Input
	blob := func(mediaType string, data []byte) ociDescriptor {
		d := ociDescriptor{MediaType: mediaType, Size: int64(len(data)), Digest: sif.Digest(digestOf(crypto.SHA256, data).String())}
		if _, ok := o.found[d.Digest]; !ok {
			add = append(add, sif.Input{Type: sif.DataOCIBlob, Group: o.root.Group, Extra: d.Digest.Extra(), Data: bytes.NewReader(data)})
		}
		return d
	}
	layer := blob(cosignLayerType, text)
	layer.Annotations = map[string]string{cosignAnnotation: base64.StdEncoding.EncodeToString(sig)}
	var raw []json.RawMessage
	var ids []sif.Digest
	for _, l := range layers {
		raw, ids = append(raw, l.raw), append(ids, l.Digest)
	}
	last, err := json.Marshal(layer)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{"architecture": "", "os": "", "config": struct{}{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": append(ids, layer.Digest)}})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType,
		"config": blob(configType, config), "layers": append(raw, last)})
	if err != nil {
		return nil, err
	}
	desc := blob(manifestType, manifest)
	desc.Annotations = map[string]string{refName: cosignName(o.image.Digest)}
	index, err := o.withSignature(desc)
	if err != nil {
		return nil, err
	}
	return append(add, sif.Input{Type: sif.DataOCIRootIndex, Group: o.root.Group,
		Extra: sif.Digest(digestOf(crypto.SHA256, index).String()).Extra(), Data: bytes.NewReader(index)}), nil
}

// replace forgets the objects that nothing needs any more once the signatures in
// holder are elsewhere, the index and what only holder consists of, and returns
// them.
func (o *ociSIF) replace(holder []ociDescriptor) ([]uint32, error) {
	ids := []uint32{o.root.ID}
	if len(holder) == 0 {
		return ids, nil
	}
	kept := []ociDescriptor{o.image}
	for _, s := range o.signatures {
		if s.Digest != holder[0].Digest {
			kept = append(kept, s)
		}
	}
	used, err := o.reach(kept...)
	if err != nil {
		return nil, err
	}
	m, err := o.manifest(holder[0])
	if err != nil {
		return nil, err
	}
	for _, l := range m.layers { // they go on in the new image
		used[l.Digest] = true
	}
	for _, d := range []ociDescriptor{holder[0], m.config} {
		if obj, err := o.blob(d); err == nil && !used[d.Digest] {
			ids = append(ids, obj.ID)
			delete(o.found, d.Digest)
		}
	}
	return ids, nil
}
