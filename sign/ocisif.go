package sign

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"singularity/oci/document"
	"singularity/sif"
)

// ErrNotOCISIF says that an image is a SIF, but not one that holds an OCI image.
var ErrNotOCISIF = errors.New("not an OCI-SIF image")

// Limits of what an OCI-SIF may name.
const (
	maxManifests = 1024
	maxLayers    = 1024
)

const (
	manifestType       = "application/vnd.oci.image.manifest.v1+json"
	dockerManifestType = "application/vnd.docker.distribution.manifest.v2+json"
	configType         = "application/vnd.oci.image.config.v1+json"
	refName            = "org.opencontainers.image.ref.name"
)

// ociDescriptor points to a blob.
type ociDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Size        int64             `json:"size"`
	Digest      sif.Digest        `json:"digest"`
	Annotations map[string]string `json:"annotations,omitempty"`

	raw json.RawMessage // as it was read
}

// ociManifest is one image.
type ociManifest struct {
	config ociDescriptor
	layers []ociDescriptor
}

// blobs are all that m names.
func (m *ociManifest) blobs() []ociDescriptor { return append([]ociDescriptor{m.config}, m.layers...) }

// ociSIF is an OCI-SIF: an index, and blobs by their digests.
type ociSIF struct {
	f     *sif.File
	root  sif.Object // the index
	text  []byte     // of the index
	found map[sif.Digest]sif.Object

	image      ociDescriptor   // the one image that is no signature
	signatures []ociDescriptor // of this image and others
}

// openOCI reads the index of f.
func openOCI(f *sif.File) (*ociSIF, error) {
	o := &ociSIF{f: f, found: map[sif.Digest]sif.Object{}}
	var roots []sif.Object
	for _, obj := range f.Objects() {
		d, _ := obj.Digest()
		switch obj.Type {
		case sif.DataOCIRootIndex:
			roots = append(roots, obj)
		case sif.DataOCIBlob:
			o.found[d] = obj
		}
	}
	if len(roots) == 0 {
		return nil, ErrNotOCISIF
	}
	// Security: with two, each program could take another one.
	if len(roots) > 1 {
		return nil, errors.New("OCI-SIF image not valid: it has more than one index")
	}
	o.root = roots[0]
	var err error
	if o.text, err = o.object(o.root); err != nil {
		return nil, err
	}
	if err := o.readIndex(); err != nil {
		return nil, fmt.Errorf("index of the OCI-SIF image not valid: %w", err)
	}
	return o, nil
}

// OCILayer is a layer of the image in an OCI-SIF.
type OCILayer struct {
	MediaType string
	Object    sif.Object
}

// OCILayers returns the layers of the image in the OCI-SIF f, the lowest first. The index
// and the manifest are what their digests say; the layers are not hashed.
func OCILayers(f *sif.File) ([]OCILayer, error) {
	o, err := openOCI(f)
	if err != nil {
		return nil, err
	}
	m, err := o.manifest(o.image)
	if err != nil {
		return nil, err
	}
	var list []OCILayer
	for _, d := range m.layers {
		obj, err := o.blob(d)
		if err != nil {
			return nil, err
		}
		list = append(list, OCILayer{d.MediaType, obj})
	}
	return list, nil
}

// object returns the data of a small object, once its digest is right.
func (o *ociSIF) object(obj sif.Object) ([]byte, error) {
	data, err := o.f.ReadAll(obj)
	if err != nil {
		return nil, err
	}
	if want, _ := obj.Digest(); digestOf(crypto.SHA256, data).String() != string(want) {
		return nil, damagedBlob(obj)
	}
	return data, nil
}

func damagedBlob(obj sif.Object) error {
	return fmt.Errorf("data object integrity compromised: %d: it does not have the digest of its descriptor", obj.ID)
}

// blob returns the object that d points to.
func (o *ociSIF) blob(d ociDescriptor) (sif.Object, error) {
	obj, ok := o.found[d.Digest]
	switch {
	case !ok:
		return obj, fmt.Errorf("the image has no blob %s", d.Digest)
	case obj.Size != d.Size:
		return obj, fmt.Errorf("blob %s has %d bytes, not %d", d.Digest, obj.Size, d.Size)
	}
	return obj, nil
}

// read returns the content of the small blob that d points to.
func (o *ociSIF) read(d ociDescriptor) ([]byte, error) {
	obj, err := o.blob(d)
	if err != nil {
		return nil, err
	}
	return o.object(obj)
}

// readIndex sorts what the index names.
func (o *ociSIF) readIndex() error {
	if err := document.Check(o.text, "", true); err != nil {
		return err
	}
	var list []ociDescriptor
	d := decoder{json.NewDecoder(bytes.NewReader(o.text))}
	if err := d.whole(map[string]func() error{
		"manifests": func() (err error) { list, err = d.descriptors(maxManifests); return err },
	}); err != nil {
		return err
	}
	var images []ociDescriptor
	for _, m := range list {
		if strings.HasPrefix(m.Annotations[refName], cosignPrefix) {
			o.signatures = append(o.signatures, m)
		} else {
			images = append(images, m)
		}
	}
	if len(images) != 1 {
		return fmt.Errorf("it names %d images, want one", len(images))
	}
	o.image = images[0]
	return nil
}

// manifest reads the manifest that desc points to.
func (o *ociSIF) manifest(desc ociDescriptor) (*ociManifest, error) {
	if desc.MediaType != manifestType && desc.MediaType != dockerManifestType {
		return nil, fmt.Errorf("%s is of type %q, not an image", desc.Digest, desc.MediaType)
	}
	text, err := o.read(desc)
	if err != nil {
		return nil, err
	}
	m, err := decodeOCIManifest(text, desc.MediaType)
	if err != nil {
		return nil, fmt.Errorf("manifest %s not valid: %w", desc.Digest, err)
	}
	return m, nil
}

func decodeOCIManifest(text []byte, mediaType string) (*ociManifest, error) {
	if err := document.Check(text, mediaType, false); err != nil {
		return nil, err
	}
	var m ociManifest
	d := decoder{json.NewDecoder(bytes.NewReader(text))}
	err := d.whole(map[string]func() error{
		"config": func() (err error) { m.config, err = d.descriptor(); return err },
		"layers": func() (err error) { m.layers, err = d.descriptors(maxLayers); return err },
	})
	return &m, err
}

// check hashes all blobs, and sees that the image is whole. It returns the blobs
// that the image consists of.
func (o *ociSIF) check(ctx context.Context) (map[sif.Digest]bool, error) {
	h := newHashing(o.f)
	jobs := map[uint32]*hashJob{}
	for _, obj := range o.f.Objects() {
		if _, ok := obj.Digest(); ok {
			jobs[obj.ID] = h.want(crypto.SHA256, obj)
		}
	}
	if err := h.run(ctx); err != nil {
		return nil, err
	}
	for _, obj := range o.f.Objects() {
		if want, ok := obj.Digest(); ok && jobs[obj.ID].sum(crypto.SHA256).String() != string(want) {
			return nil, damagedBlob(obj)
		}
	}
	return o.reach(o.image)
}

// reach returns the blobs of the images that descs point to.
func (o *ociSIF) reach(descs ...ociDescriptor) (map[sif.Digest]bool, error) {
	reached := map[sif.Digest]bool{}
	for _, desc := range descs {
		m, err := o.manifest(desc)
		if err != nil {
			return nil, err
		}
		for _, d := range append(m.blobs(), desc) {
			if _, err := o.blob(d); err != nil {
				return nil, err
			}
			reached[d.Digest] = true
		}
	}
	return reached, nil
}

// withSignature returns the text of the index with desc in place of the
// signatures of the same name. All else stays.
func (o *ociSIF) withSignature(desc ociDescriptor) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(o.text, &fields); err != nil {
		return nil, err
	}
	list := []json.RawMessage{o.image.raw}
	for _, s := range o.signatures {
		if s.Annotations[refName] != desc.Annotations[refName] {
			list = append(list, s.raw)
		}
	}
	text, err := json.Marshal(desc)
	if err != nil {
		return nil, err
	}
	if fields["manifests"], err = json.Marshal(append(list, text)); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// whole reads an object and the end of the text.
func (d decoder) whole(fields map[string]func() error) error {
	if err := d.object(fields); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("text after it")
	}
	return nil
}

func (d decoder) descriptors(most int) (list []ociDescriptor, err error) {
	err = d.array(func() error {
		if len(list) == most {
			return fmt.Errorf("more than %d entries", most)
		}
		desc, err := d.descriptor()
		list = append(list, desc)
		return err
	})
	return list, err
}

func (d decoder) descriptor() (desc ociDescriptor, err error) {
	if err := d.Decode(&desc.raw); err != nil {
		return desc, err
	}
	in := decoder{json.NewDecoder(bytes.NewReader(desc.raw))}
	err = in.objectWith(map[string]func() error{
		"mediaType": in.into(&desc.MediaType),
		"size":      in.into(&desc.Size),
		"digest": func() error {
			sum, err := in.digest()
			if err == nil && sum.hash != crypto.SHA256 {
				err = fmt.Errorf("digest %s is not of SHA-256", sum)
			}
			desc.Digest = sif.Digest(sum.String())
			return err
		},
	}, map[string]func() error{"annotations": func() (err error) { desc.Annotations, err = in.strings(); return err }})
	if err == nil && desc.Size < 0 {
		err = fmt.Errorf("size %d", desc.Size)
	}
	return desc, err
}

// strings reads an object of strings, each key once.
func (d decoder) strings() (map[string]string, error) {
	out := map[string]string{}
	if err := d.delim('{'); err != nil {
		return nil, err
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := t.(string)
		if _, ok := out[key]; ok {
			return nil, fmt.Errorf("key %q twice", key)
		}
		var value string
		if err := d.into(&value)(); err != nil {
			return nil, err
		}
		out[key] = value
	}
	return out, d.delim('}')
}
