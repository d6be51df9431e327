package image

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"singularity/sif"
)

// Part is a file system in an image file.
type Part struct {
	ID        uint32 // of the object, in a SIF
	Format    Format
	Off, Size int64 // in bytes of the file
}

// OpenParts opens the file at path for what is in it: unlike Open, it asks for
// no root partition. With write the file is open for writing too.
func OpenParts(path string, write bool) (*Image, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	fd, err := unix.Open(abs, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == unix.EISDIR {
		fd, err = unix.Open(abs, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: abs, Err: err}
	}
	im := &Image{Path: abs, File: os.NewFile(uintptr(fd), abs), parts: true}
	if err := im.identify(); err != nil {
		im.File.Close()
		return nil, err
	}
	return im, nil
}

// Part returns the file system in the object id of a SIF; 0 is the root
// partition, or all of a file of another kind.
func (im *Image) Part(id uint32) (Part, error) {
	if im.Kind != SIF {
		if id != 0 {
			return Part{}, errors.New("it has no object " + strconv.Itoa(int(id)) + ": it is not a SIF")
		}
		return Part{Format: im.Format, Off: im.Off, Size: im.Size}, nil
	}
	if id == 0 {
		o, err := im.SIF.Primary()
		if err != nil {
			return Part{}, err
		}
		return im.part(o)
	}
	o, ok := im.SIF.Object(id)
	if !ok {
		return Part{}, errors.New("it has no object " + strconv.Itoa(int(id)))
	}
	return im.part(o)
}

func (im *Image) part(o sif.Object) (Part, error) {
	head := make([]byte, min(int64(probeSize), o.Size))
	if _, err := im.File.ReadAt(head, o.Off); err != nil && err != io.EOF {
		return Part{}, err
	}
	p := Part{ID: o.ID, Format: detect(head), Off: o.Off, Size: o.Size}
	if p.Format == FormatNone {
		return p, errors.New("object " + strconv.Itoa(int(o.ID)) + " holds no squashfs or ext3 file system")
	}
	return p, nil
}

// Overlays returns the overlay partitions that belong to the root partition of
// a SIF, in the order of the file.
func (im *Image) Overlays() ([]Part, error) {
	if im.Kind != SIF {
		return nil, nil
	}
	root, err := im.SIF.Primary()
	if err != nil {
		return nil, nil
	}
	var out []Part
	for _, o := range im.SIF.Objects() {
		p, ok := o.Partition()
		if !ok || p.Type != sif.PartOverlay || o.Group != root.Group {
			continue
		}
		part, err := im.part(o)
		if err != nil {
			return nil, errors.New("overlay partition: " + err.Error())
		}
		out = append(out, part)
	}
	return out, nil
}

// Data returns the squashfs layer of a data container, an OCI-SIF that holds one
// and no more.
func (im *Image) Data() (Part, error) {
	found, ociSIF := Part{}, false
	if im.Kind == SIF {
		for _, o := range im.SIF.Objects() {
			if o.Type == sif.DataOCIRootIndex {
				ociSIF = true
			}
			if o.Type != sif.DataOCIBlob {
				continue
			}
			p, err := im.part(o)
			if err != nil || p.Format != FormatSquashfs {
				continue // a manifest or a config
			}
			if found.Format != FormatNone {
				return Part{}, errors.New("not a data container: it has more than one layer")
			}
			found = p
		}
	}
	if !ociSIF || found.Format == FormatNone {
		return Part{}, errors.New("not a data container (an OCI-SIF made by data package)")
	}
	return found, nil
}

// Open opens the file tree of p, a part of im, as OpenFiles does.
func (im *Image) Open(p Part) (files Files, fsys any, err error) {
	r, err := im.section(p.ID, p.Off, p.Size)
	if err != nil {
		return nil, nil, err
	}
	return OpenFiles(p.Format, r)
}
