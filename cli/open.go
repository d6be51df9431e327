package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"singularity/action"
	"singularity/cli/unlock"
	"singularity/image"
	"singularity/sif"
)

// openImage opens the image called path to look into it. The error of a file
// that is not there or may not be read is the bare cause, for messages that
// name the image themselves.
func openImage(path string) (*image.Image, error) {
	im, err := image.Open(path)
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, p.Err
	}
	return im, err
}

// openToList opens the image called path to list its packages: an OCI-SIF too, which has
// no root partition.
func openToList(path string) (*image.Image, error) {
	im, err := openImage(path)
	if errors.Is(err, image.ErrOCISIF) {
		return image.OpenParts(path, false)
	}
	return im, err
}

// isOCISIF tells whether im is an image in OCI form.
func isOCISIF(im *image.Image) bool {
	return im.SIF != nil && slices.ContainsFunc(im.SIF.Objects(), func(o sif.Object) bool { return o.Type == sif.DataOCIRootIndex })
}

// metadataName is the object of a SIF in which build keeps what inspect shows.
const metadataName = "inspect-metadata.json"

// imageMetadata returns what an image says about itself: the metadata object of
// a SIF, else what the files in the image say. The definition file is that of
// the SIF, if it has one.
func imageMetadata(im *image.Image) (*metadata, error) {
	if im.SIF == nil {
		return treeMetadata(im)
	}
	deffile, err := sifDeffile(im.SIF)
	if err != nil {
		return nil, err
	}
	var m *metadata
	if o, ok := im.SIF.Named(sif.DataJSON, metadataName); ok {
		data, err := im.SIF.ReadAll(o)
		if err != nil {
			return nil, err
		}
		if m, err = parseMetadata(data); err != nil {
			return nil, err
		}
	} else if m, err = treeMetadata(im); err != nil {
		return nil, err
	}
	if deffile != "" {
		m.Deffile = deffile
	}
	return m, nil
}

// treeMetadata reads the files in the image. An encrypted one opens with the key
// in the environment.
func treeMetadata(im *image.Image) (*metadata, error) {
	if im.Format.Encrypted() {
		source := unlock.Find("", false)
		if source.None() {
			return nil, action.Fatal(errors.New("what it says about itself is encrypted"), "give its key by "+unlock.PassphraseVariable+" or "+unlock.PEMVariable)
		}
		var err error
		if im.Plain, _, err = source.Open(im); err != nil {
			return nil, err
		}
	}
	files, _, err := im.Files()
	if err != nil {
		return nil, fmt.Errorf("cannot read its files: %w", err)
	}
	return readMetadata(files)
}

// sifDeffile returns the definition file of a SIF, or "".
func sifDeffile(f *sif.File) (string, error) {
	for _, o := range f.Objects() {
		if o.Type == sif.DataDefFile {
			data, err := f.ReadAll(o)
			return string(data), err
		}
	}
	return "", nil
}
