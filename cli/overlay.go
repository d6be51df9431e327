package cli

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/extfs"
	"singularity/image"
	"singularity/image/overlay"
	"singularity/sif"
)

func newOverlayCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "overlay",
		Short: "Make and change overlays, which keep what a container writes",
		Long: "Make an overlay, a file system that lies over the root of a container and keeps what is written there: " +
			"an ext3 file of its own, or a partition in a SIF image.",
		Example: "  $ singularity overlay create --size 1024 changes.img\n" +
			"  $ singularity shell --overlay changes.img debian.sif",
	}
	c.AddCommand(newOverlayCreateCommand(log), newOverlaySealCommand(log), newOverlaySyncCommand())
	return c
}

// overlayOptions are the flags of overlay create.
type overlayOptions struct {
	size   int64 // MiB
	sparse bool
	dirs   []string
}

func newOverlayCreateCommand(log *action.Log) *cobra.Command {
	var o overlayOptions
	c := &cobra.Command{
		Use:   "create [options] <image>",
		Short: "Make an overlay: a new file, or a partition in a SIF image",
		Long: "Make an ext3 file that is an overlay. If image is a SIF image that exists, the overlay becomes a partition in it, which containers of it " +
			"then show, and write to with --writable. The image must not be signed or encrypted and have no overlay yet.",
		Example: "  $ singularity overlay create changes.img\n" +
			"  $ singularity overlay create --sparse --create-dir /opt/my debian.sif",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.size < overlay.MinSize>>20 || o.size > 1<<30 {
				return usageError(c, fmt.Errorf("--size must be at least %d, in MiB", overlay.MinSize>>20))
			}
			return overlayCreate(log, args[0], o)
		},
	}
	f := c.Flags()
	f.Int64VarP(&o.size, "size", "s", overlay.MinSize>>20, "size in `MiB`")
	f.BoolVarP(&o.sparse, "sparse", "S", false, "take space on the disk only when it is written to")
	f.StringSliceVar(&o.dirs, "create-dir", nil, "make this `directory` in the overlay; may be repeated")
	return c
}

func (o *overlayOptions) make(f *os.File) error {
	err := overlay.Create(f, overlay.Options{Size: o.size << 20, Sparse: o.sparse, Dirs: o.dirs, UID: os.Getuid(), GID: os.Getgid(), TempDir: tempDir("")})
	if m, ok := errors.AsType[*overlay.MissingError](err); ok {
		return &action.Failure{Err: err, Code: 1, Hint: "install the package " + m.Package}
	}
	return err
}

// overlayCreate makes an overlay at path.
func overlayCreate(log *action.Log, path string, o overlayOptions) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrExist) {
		return overlayAdd(log, path, o)
	}
	if err != nil {
		return exitOne(fmt.Errorf("cannot create overlay: %w", err))
	}
	err = o.make(f)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
		return overlayError("cannot create overlay "+path, err)
	}
	log.Verbose("Overlay " + path + " created")
	return nil
}

// overlayError keeps the hint of err.
func overlayError(what string, err error) error {
	f := &action.Failure{Err: fmt.Errorf("%s: %w", what, err), Code: 1}
	if inner, ok := errors.AsType[*action.Failure](err); ok {
		f.Hint = inner.Hint
	}
	return f
}

// overlayAdd adds an overlay partition to the SIF image at path.
func overlayAdd(log *action.Log, path string, o overlayOptions) error {
	what := "cannot add an overlay to " + path
	im, err := image.OpenParts(path, false)
	if err != nil {
		return overlayError(what, err)
	}
	defer im.Close()
	if err := takesOverlay(im); err != nil {
		return overlayError(what, err)
	}
	tmp, err := os.CreateTemp(tempDir(""), "overlay-")
	if err != nil {
		return overlayError(what, err)
	}
	defer tmp.Close()
	if err := os.Remove(tmp.Name()); err != nil {
		return overlayError(what, err)
	}
	// It is copied without its holes; only the copy takes space.
	own := o
	own.sparse = true
	if err := own.make(tmp); err != nil {
		return overlayError(what, err)
	}
	err = editSIF(path, func(e *sif.Editor) error {
		// The image may have changed before it was locked.
		if err := overlayAllowed(e.File()); err != nil {
			return err
		}
		root, err := e.File().Primary()
		if err != nil {
			return err
		}
		p, _ := root.Partition()
		_, err = e.Add(sif.Input{Type: sif.DataPartition, Name: "overlay.img", Group: root.Group,
			Extra: sif.Partition{FS: sif.FSExt3, Type: sif.PartOverlay, Arch: p.Arch}.Extra(),
			Write: func(w *io.OffsetWriter) (int64, error) { return o.size << 20, copyImage(w, tmp, o.size<<20, o.sparse) }})
		return err
	})
	if err != nil {
		return overlayError(what, err)
	}
	log.Verbose("Overlay partition added to " + path)
	return nil
}

// takesOverlay tells why an image cannot have an overlay partition.
func takesOverlay(im *image.Image) error {
	switch im.Kind {
	case image.Sandbox:
		return errors.New("it is a directory, which is writable itself")
	case image.Ext3:
		return errors.New("it is an ext3 image, which is writable itself or an overlay already")
	case image.Squashfs:
		return errors.New("it is a squashfs image; only a SIF image can hold a partition")
	}
	return overlayAllowed(im.SIF)
}

// overlayAllowed tells why a SIF cannot have an overlay partition.
func overlayAllowed(f *sif.File) error {
	for _, o := range f.Objects() {
		switch p, ok := o.Partition(); {
		case o.Type == sif.DataOCIRootIndex:
			return errors.New("it is an OCI-SIF image; an overlay in one is not supported")
		case o.Type == sif.DataSignature:
			return errors.New("it is signed; the signature would not hold any more")
		case ok && (p.FS == sif.FSEncryptedSquashfs || p.FS == sif.FSGocryptfsSquashfs):
			return errors.New("it is encrypted; an overlay would hold plain data")
		case ok && p.Type == sif.PartOverlay:
			return errors.New("it has an overlay partition already")
		}
	}
	_, err := f.Primary()
	return err
}

// copyImage copies size bytes from the file r, all or those that are no holes.
func copyImage(w *io.OffsetWriter, r *os.File, size int64, sparse bool) error {
	for off := int64(0); off < size; {
		from, end := off, size
		if sparse {
			var err error
			if from, err = unix.Seek(int(r.Fd()), off, unix.SEEK_DATA); err == unix.ENXIO {
				break
			} else if err != nil {
				return err
			}
			if end, err = unix.Seek(int(r.Fd()), from, unix.SEEK_HOLE); err != nil {
				return err
			}
		}
		if _, err := io.Copy(io.NewOffsetWriter(w, from), io.NewSectionReader(r, from, end-from)); err != nil {
			return err
		}
		off = end
	}
	// The last byte gives the object its size.
	var last [1]byte
	if _, err := r.ReadAt(last[:], size-1); err != nil {
		return err
	}
	_, err := w.WriteAt(last[:], size-1)
	return err
}

func newOverlaySealCommand(log *action.Log) *cobra.Command {
	return &cobra.Command{
		Use:   "seal <image>",
		Short: "Make the overlay partition of a SIF image read-only and small",
		Long: "Replace the ext3 overlay partition of a SIF image by a squashfs one with the same content. Containers show it as before; " +
			"nothing can be written to it any more, and the image can be signed.",
		Example: "  $ singularity overlay seal debian.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := overlaySeal(args[0]); err != nil {
				return overlayError("cannot seal the overlay of "+args[0], err)
			}
			log.Verbose("Overlay of " + args[0] + " sealed")
			return nil
		},
	}
}

// overlaySeal replaces the ext3 overlay partition of the SIF image at path.
func overlaySeal(path string) error {
	w, err := openLocked(path)
	if err != nil {
		return err
	}
	defer w.Close()
	fi, err := w.Stat()
	if err != nil {
		return err
	}
	now, _, err := sourceDate()
	if err != nil {
		return err
	}
	e, err := sif.Edit(w, fi.Size())
	if err != nil {
		return err
	}
	e.Time = now
	old, err := sealable(e.File())
	if err != nil {
		return err
	}
	ext, err := extfs.Open(e.File().Reader(old), old.Size)
	if err != nil {
		return err
	}
	p, _ := old.Partition()
	p.FS = sif.FSSquashfs
	// The new one is there before the old one goes.
	_, err = e.Add(sif.Input{Type: sif.DataPartition, Name: "overlay.sqfs", Group: old.Group, Extra: p.Extra(),
		Write: func(w *io.OffsetWriter) (int64, error) { return overlay.Seal(w, ext, sha256.Sum256) }})
	if err != nil {
		return err
	}
	if err := e.Delete(old.ID, sif.DeleteOptions{}); err != nil {
		return err
	}
	// Nothing refers to that space; giving it back may be beyond the file system.
	if err := unix.Fallocate(int(w.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, old.Off, old.Size); err != nil && err != unix.EOPNOTSUPP {
		return err
	}
	return w.Sync()
}

// sealable returns the overlay partition of f that can be sealed.
func sealable(f *sif.File) (sif.Object, error) {
	list := f.Objects()
	if slices.ContainsFunc(list, func(o sif.Object) bool { return o.Type == sif.DataOCIRootIndex }) {
		return sif.Object{}, errors.New("it is an OCI-SIF image; an overlay in one is not supported")
	}
	if slices.ContainsFunc(list, func(o sif.Object) bool { return o.Type == sif.DataSignature }) {
		return sif.Object{}, errors.New("it is signed; the signature would not hold any more")
	}
	sealed := false
	for _, o := range list {
		p, ok := o.Partition()
		if !ok || p.Type != sif.PartOverlay {
			continue
		}
		if p.FS == sif.FSExt3 {
			return o, nil
		}
		sealed = true
	}
	if sealed {
		return sif.Object{}, errors.New("its overlay is sealed already")
	}
	return sif.Object{}, errors.New("it has no overlay partition")
}

func newOverlaySyncCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sync <image>",
		Short: "Bring the digests of an image up to date with its overlay",
		Long: "Only an OCI-SIF image keeps digests of its overlay. This version writes to no overlay of an OCI-SIF image, so there is nothing to bring up to date; " +
			"in a SIF image an overlay has no digest.",
		Example: "  $ singularity overlay sync image.oci.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			im, err := image.OpenParts(args[0], false)
			if err != nil {
				return overlayError("cannot sync the overlay of "+args[0], err)
			}
			defer im.Close()
			f := &action.Failure{Err: errors.New("it is no OCI-SIF image: its overlay has no digests"), Code: 1,
				Hint: "nothing is to be done; to sign a SIF image with what was written to its overlay, make that read-only first: singularity overlay seal"}
			if im.Kind == image.SIF && slices.ContainsFunc(im.SIF.Objects(), func(o sif.Object) bool { return o.Type == sif.DataOCIRootIndex }) {
				f.Err, f.Hint = errors.New("it is an OCI-SIF image; an overlay in one is not supported"), ""
			}
			return overlayError("cannot sync the overlay of "+args[0], f)
		},
	}
}
