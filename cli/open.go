package cli

import (
	"errors"

	"singularity/image"
)

// An openedImage is an image from which metadata is read.
type openedImage struct {
	tree  image.Tree
	close func() error
}

// openImage opens the image called path; its content tells its kind.
func openImage(path string) (*openedImage, error) {
	d, err := image.OpenDir(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	return &openedImage{tree: d, close: d.Close}, nil
}

// Close releases what openImage opened.
func (i *openedImage) Close() error { return i.close() }

// metadata returns what the image says about itself.
func (i *openedImage) metadata() (*metadata, error) { return readMetadata(i.tree) }
