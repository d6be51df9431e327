package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/linux/lockfile"
	"singularity/sif"
)

func newSIFCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:     "sif",
		Aliases: []string{"siftool"},
		Short:   "Show and change the data objects of a SIF image",
		Long: "Show what a SIF image holds, take data objects out, put others in. Objects are numbered; list shows the numbers." +
			"\n\nEvery change of a signed image makes its signatures invalid.",
		Example: "  $ singularity sif list debian.sif\n" +
			"  $ singularity sif dump 1 debian.sif",
	}
	c.AddCommand(newSIFHeaderCommand(log), newSIFListCommand(log), newSIFInfoCommand(log), newSIFDumpCommand(log),
		newSIFNewCommand(), newSIFAddCommand(), newSIFDelCommand(), newSIFSetPrimCommand())
	return c
}

func newSIFHeaderCommand(log *action.Log) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "header [options] <image>",
		Short:   "Show the header of a SIF image",
		Long:    "Show the header of a SIF image: its identity, times and how its space is used.",
		Example: "  $ singularity sif header debian.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return readSIF(log, args[0], func(f *sif.File) error {
				if asJSON {
					return writeIndented(c.OutOrStdout(), headerJSON(f.Header()))
				}
				return writeSIFHeader(c.OutOrStdout(), f.Header())
			})
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

func newSIFListCommand(log *action.Log) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "list [options] <image>",
		Short:   "List the data objects of a SIF image",
		Long:    "List the data objects of a SIF image: number, group, link, place in the file and type. A star marks the partition that runs.",
		Example: "  $ singularity sif list debian.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return readSIF(log, args[0], func(f *sif.File) error {
				if asJSON {
					return writeIndented(c.OutOrStdout(), objectsJSON(f))
				}
				return writeSIFList(c.OutOrStdout(), f.Objects())
			})
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

func newSIFInfoCommand(log *action.Log) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "info [options] <id> <image>",
		Short:   "Show what a SIF image says about a data object",
		Long:    "Show everything that a SIF image says about one data object.",
		Example: "  $ singularity sif info 1 debian.sif",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return readSIFObject(log, args, func(f *sif.File, o sif.Object) error {
				if asJSON {
					return writeIndented(c.OutOrStdout(), objectJSON(o))
				}
				return writeSIFInfo(c.OutOrStdout(), o)
			})
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

func newSIFDumpCommand(log *action.Log) *cobra.Command {
	return &cobra.Command{
		Use:     "dump <id> <image>",
		Short:   "Write the data of an object of a SIF image",
		Long:    "Write the data of an object of a SIF image to standard output, byte for byte.",
		Example: "  $ singularity sif dump 1 debian.sif",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return readSIFObject(log, args, func(f *sif.File, o sif.Object) error {
				n, err := io.Copy(c.OutOrStdout(), f.Reader(o))
				if err == nil && n != o.Size {
					err = io.ErrUnexpectedEOF // the file shrank
				}
				return err
			})
		},
	}
}

func newSIFNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "new <image>",
		Short:   "Create an empty SIF image",
		Long:    "Create a SIF image without data objects, with room for 48. A file of that name is overwritten.",
		Example: "  $ singularity sif new empty.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			now, fixed, err := sourceDate()
			if err != nil {
				return exitOne(err)
			}
			o := sif.CreateOptions{Time: now}
			if fixed {
				// There is no content yet that an id could come from.
				o.IDFrom = func(*sif.File) (sif.ID, error) { return sif.ID{}, nil }
			}
			return newSIF(args[0], o)
		},
	}
}

// newSIF creates the SIF image at path, in place of an image that nobody uses.
func newSIF(path string, o sif.CreateOptions) error {
	mask := unix.Umask(0)
	unix.Umask(mask)
	mode := os.FileMode(0o755 &^ mask)
	old, err := openLocked(path)
	if err == nil {
		defer old.Close()
		var fi os.FileInfo
		if fi, err = old.Stat(); err == nil {
			mode = fi.Mode().Perm()
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return exitOne(fmt.Errorf("cannot create SIF image: %w", err))
	}
	err = createWhole(path, mode, func(w *os.File) error {
		_, err := sif.Create(w, o)
		return err
	})
	if err != nil {
		return sifFailure(path, err)
	}
	return nil
}

// sifFailure is the error of a change of the image at path.
func sifFailure(path string, err error) error {
	return &action.Failure{Err: fmt.Errorf("%q: %w", path, err), Code: 1, Hint: spaceHint(err)}
}

// spaceHint says what to do about a full file system that holds an image, if
// err is about that.
func spaceHint(err error) string {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return "free some space on the file system of the image: it is as it was before"
	}
	return ""
}

func newSIFDelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "del <id> <image>",
		Short: "Delete a data object of a SIF image",
		Long: "Delete a data object of a SIF image. Its data stays in the file, unlisted, until another object overwrites it: " +
			"do not rely on this command to keep a secret.",
		Example: "  $ singularity sif del 1 debian.sif",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := objectID(args[0])
			if err != nil {
				return err
			}
			return editSIF(args[1], func(e *sif.Editor) error { return e.Delete(id, sif.DeleteOptions{}) })
		},
	}
}

func newSIFSetPrimCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "setprim <id> <image>",
		Short:   "Choose the partition of a SIF image that runs",
		Long:    "Make a system partition of a SIF image the primary one, which holds the root file system of containers.",
		Example: "  $ singularity sif setprim 3 debian.sif",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := objectID(args[0])
			if err != nil {
				return err
			}
			return editSIF(args[1], func(e *sif.Editor) error { return e.SetPrimary(id) })
		},
	}
}

// readSIF calls show with the SIF image at path. Oddities of the image become
// warnings.
func readSIF(log *action.Log, path string, show func(*sif.File) error) error {
	r, size, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return exitOne(fmt.Errorf("cannot read SIF image: %w", err))
	}
	defer r.Close()
	f, err := sif.Open(r, size)
	if err != nil {
		return exitOne(fmt.Errorf("cannot read %q: %w", path, err))
	}
	for _, w := range f.Warnings() {
		log.Warning(fmt.Sprintf("%q: %s", path, w))
	}
	if err := show(f); err != nil {
		return exitOne(fmt.Errorf("cannot read %q: %w", path, err))
	}
	return nil
}

// readSIFObject is readSIF for the arguments <id> <image>.
func readSIFObject(log *action.Log, args []string, show func(*sif.File, sif.Object) error) error {
	id, err := objectID(args[0])
	if err != nil {
		return err
	}
	return readSIF(log, args[1], func(f *sif.File) error {
		o, ok := f.Object(id)
		if !ok {
			return fmt.Errorf("the image has no object %d", id)
		}
		return show(f, o)
	})
}

// editSIF calls change with the SIF image at path, which nobody else changes
// meanwhile.
func editSIF(path string, change func(*sif.Editor) error) error {
	now, _, err := sourceDate()
	if err != nil {
		return exitOne(err)
	}
	w, err := openLocked(path)
	if err != nil {
		return exitOne(fmt.Errorf("cannot change SIF image: %w", err))
	}
	fi, err := w.Stat() // only the lock makes the size final
	if err == nil {
		var e *sif.Editor
		if e, err = sif.Edit(w, fi.Size()); err == nil {
			e.Time = now
			err = change(e)
		}
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return sifFailure(path, err)
	}
	return nil
}

// openLocked opens the regular file at path for changes and locks it.
func openLocked(path string) (*os.File, error) {
	w, _, err := openRegular(path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	if err := lockfile.Change(w, path); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// openRegular opens the file at path and returns its size. A FIFO or a device is
// refused, without waiting for its other end.
func openRegular(path string, flags int) (*os.File, int64, error) {
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK, 0o755)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

func objectID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, exitOne(fmt.Errorf("object id %q is not a number", s))
	}
	return uint32(id), nil
}

// sourceDate returns the time that SOURCE_DATE_EPOCH fixes for reproducible
// images; the zero time, which means now, if it is not set.
func sourceDate() (t time.Time, fixed bool, err error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return time.Time{}, false, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, false, fmt.Errorf("SOURCE_DATE_EPOCH is %q, want seconds since 1970", s)
	}
	return time.Unix(n, 0), true, nil
}
