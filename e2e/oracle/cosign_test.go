package oracle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	theirs "github.com/sylabs/sif/v2/pkg/sif"

	"singularity/sif"
	"singularity/sign"
)

const (
	refName    = "org.opencontainers.image.ref.name"
	sigType    = "application/vnd.dev.cosign.simplesigning.v1+json"
	sigKey     = "dev.cosignproject.cosign/signature"
	squashType = "application/vnd.sylabs.image.layer.v1.squashfs"
)

// ociSIF is an OCI-SIF in the making, by their libraries.
type ociSIF struct {
	t      *testing.T
	inputs []theirs.DescriptorInput
	index  v1.IndexManifest
}

func (o *ociSIF) add(typ theirs.DataType, mediaType types.MediaType, data []byte) v1.Descriptor {
	o.t.Helper()
	h, size, err := v1.SHA256(bytes.NewReader(data))
	must(o.t, err)
	in, err := theirs.NewDescriptorInput(typ, bytes.NewReader(data))
	must(o.t, err)
	o.inputs = append(o.inputs, in)
	return v1.Descriptor{MediaType: mediaType, Digest: h, Size: size}
}

func (o *ociSIF) marshal(mediaType types.MediaType, v any) v1.Descriptor {
	o.t.Helper()
	data, err := json.Marshal(v)
	must(o.t, err)
	return o.add(theirs.DataOCIBlob, mediaType, data)
}

func (o *ociSIF) image(layers ...v1.Descriptor) v1.Descriptor {
	config := v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	d := o.marshal(types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: o.marshal(types.OCIConfigJSON, config), Layers: layers})
	return d
}

func (o *ociSIF) write() string {
	o.index.SchemaVersion, o.index.MediaType = 2, types.OCIImageIndex
	data, err := json.Marshal(o.index)
	must(o.t, err)
	o.add(theirs.DataOCIRootIndex, types.OCIImageIndex, data)
	path := filepath.Join(o.t.TempDir(), "image.oci.sif")
	f, err := theirs.CreateContainerAtPath(path, theirs.OptCreateDeterministic(), theirs.OptCreateWithDescriptors(o.inputs...),
		theirs.OptCreateWithDescriptorCapacity(int64(len(o.inputs)+4)))
	must(o.t, err)
	must(o.t, f.UnloadContainer())
	return path
}

func cosignVerify(t *testing.T, path string, key crypto.PublicKey) (*sign.CosignResult, error) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	fi, _ := f.Stat()
	image, err := sif.Open(f, fi.Size())
	must(t, err)
	p, err := sign.NewPublicKey(key, "")
	must(t, err)
	return sign.VerifyCosign(t.Context(), image, p)
}

// TestCosignOurs signs an OCI-SIF of the reference library, and reads the
// signature with that library and those of cosign.
func TestCosignOurs(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	o := &ociSIF{t: t}
	image := o.image(o.add(theirs.DataOCIBlob, squashType, []byte("layer")))
	o.index.Manifests = []v1.Descriptor{image}
	path := o.write()
	for range 2 { // a second signature replaces index and manifest
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		fi, _ := f.Stat()
		must(t, sign.SignCosign(t.Context(), f, fi.Size(), k, time.Now()))
		must(t, f.Close())
	}
	f, err := theirs.LoadContainerFromPath(path, theirs.OptLoadWithFlag(os.O_RDONLY))
	must(t, err)
	defer f.UnloadContainer()
	read := func(d theirs.Descriptor, err error) []byte {
		t.Helper()
		must(t, err)
		b, err := io.ReadAll(d.GetReader())
		must(t, err)
		return b
	}
	var index v1.IndexManifest
	must(t, json.Unmarshal(read(f.GetDescriptor(theirs.WithDataType(theirs.DataOCIRootIndex))), &index))
	want := "_cosign:" + strings.Replace(image.Digest.String(), ":", "-", 1) + ".sig"
	if len(index.Manifests) != 2 || index.Manifests[0].Digest != image.Digest || index.Manifests[1].Annotations[refName] != want {
		t.Fatalf("index %+v", index)
	}
	var manifest v1.Manifest
	must(t, json.Unmarshal(read(f.GetDescriptor(theirs.WithOCIBlobDigest(index.Manifests[1].Digest))), &manifest))
	var config v1.ConfigFile
	must(t, json.Unmarshal(read(f.GetDescriptor(theirs.WithOCIBlobDigest(manifest.Config.Digest))), &config))
	if len(manifest.Layers) != 2 || len(config.RootFS.DiffIDs) != 2 {
		t.Fatalf("%+v %+v", manifest, config)
	}
	verifier, err := signature.LoadECDSAVerifier(k.Public().(*ecdsa.PublicKey), crypto.SHA256)
	must(t, err)
	for _, l := range manifest.Layers {
		text := read(f.GetDescriptor(theirs.WithOCIBlobDigest(l.Digest)))
		sig, err := base64.StdEncoding.DecodeString(l.Annotations[sigKey])
		must(t, err)
		must(t, verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(text)))
		var p payload.SimpleContainerImage
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		must(t, d.Decode(&p))
		if l.MediaType != sigType || p.Critical.Type != payload.CosignSignatureType || p.Critical.Image.DockerManifestDigest != image.Digest.String() {
			t.Errorf("%s %+v", l.MediaType, p)
		}
	}
	if n := len(manifest.Layers); n != 2 {
		t.Errorf("%d signatures", n)
	}
}

// TestCosignTheirs verifies a signature that their libraries made, with what
// cosign puts into a payload.
func TestCosignTheirs(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := signature.LoadECDSASigner(k, crypto.SHA256)
	must(t, err)
	o := &ociSIF{t: t}
	image := o.image(o.add(theirs.DataOCIBlob, squashType, []byte("layer")))
	var text payload.SimpleContainerImage
	text.Critical.Type = payload.CosignSignatureType
	text.Critical.Image.DockerManifestDigest = image.Digest.String()
	text.Optional = map[string]any{"creator": "somebody", "timestamp": 1700000000}
	data, err := json.Marshal(text)
	must(t, err)
	sig, err := signer.SignMessage(bytes.NewReader(data))
	must(t, err)
	layer := o.add(theirs.DataOCIBlob, sigType, data)
	layer.Annotations = map[string]string{sigKey: base64.StdEncoding.EncodeToString(sig)}
	holder := o.image(layer)
	holder.Annotations = map[string]string{refName: "_cosign:" + strings.Replace(image.Digest.String(), ":", "-", 1) + ".sig"}
	o.index.Manifests = []v1.Descriptor{image, holder}
	path := o.write()
	r, err := cosignVerify(t, path, k.Public())
	if err != nil || len(r.Payloads) != 1 || !bytes.Equal(r.Payloads[0], data) || len(r.Warnings) != 0 {
		t.Errorf("%v %v", r, err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	if _, err := cosignVerify(t, path, other.Public()); err == nil {
		t.Error("verified by another key")
	}
}
