package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
	"singularity/linux/safepath"
)

// files copies what %files names from the host. Links of the host are
// followed, those of the image only inside it; owner is root, modes are kept.
func (b *builder) files(ctx context.Context) error {
	if !b.wants("files") {
		return nil
	}
	for _, set := range b.stage.Files {
		for _, c := range set.Copies {
			if err := b.copyLine(ctx, c); err != nil {
				return fmt.Errorf("line %d: %w", c.Line, err)
			}
		}
	}
	return nil
}

func (b *builder) copyLine(ctx context.Context, c deffile.Copy) error {
	sources, err := filepath.Glob(c.Source)
	if err != nil {
		return fmt.Errorf("cannot copy %q: %w", c.Source, err)
	}
	if len(sources) == 0 {
		return fmt.Errorf("cannot copy %q: no such file on this host", c.Source)
	}
	for _, src := range sources {
		dest := c.Dest
		switch {
		case dest == "":
			dest = src
		case strings.HasSuffix(dest, "/"), len(sources) > 1, b.isDir(dest):
			dest = path.Join(dest, filepath.Base(src))
		}
		b.o.Log.Verbose(fmt.Sprintf("Copying %q to %q", src, dest))
		cp := copier{ctx: ctx, root: b.root}
		if err := cp.copy(src, dest); err != nil {
			return fmt.Errorf("cannot copy %q to %q: %w", src, dest, err)
		}
	}
	return nil
}

// isDir tells whether name is a directory of the image, perhaps through links.
func (b *builder) isDir(name string) bool {
	f, err := safepath.Open(b.root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// copier copies from the host to the image.
type copier struct {
	ctx  context.Context
	root *os.File
}

// copy copies src, a path of the host, to dest, a path of the image.
func (c *copier) copy(src, dest string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case 0:
		return c.file(src, dest, info)
	case fs.ModeDir:
		return c.dir(src, dest, info)
	case fs.ModeNamedPipe:
		dir, err := safepath.Mkdir(c.root, path.Dir(dest), 0o755)
		if err != nil {
			return err
		}
		defer dir.Close()
		return unix.Mkfifoat(int(dir.Fd()), path.Base(dest), uint32(info.Mode().Perm()))
	}
	return fmt.Errorf("%q is neither a file nor a directory", src)
}

func (c *copier) dir(src, dest string, info fs.FileInfo) error {
	own, err := c.root.Stat()
	if err != nil {
		return err
	}
	// A copy of / or of the temporary directory would copy the copy.
	if os.SameFile(own, info) {
		return nil
	}
	d, err := safepath.Mkdir(c.root, dest, unixMode(info.Mode()))
	if err != nil {
		return err
	}
	d.Close()
	names, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := c.copy(filepath.Join(src, n.Name()), path.Join(dest, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) file(src, dest string, info fs.FileInfo) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	dir, err := safepath.Mkdir(c.root, path.Dir(dest), 0o755)
	if err != nil {
		return err
	}
	dir.Close()
	out, err := c.create(dest)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = unix.Fchmod(int(out.Fd()), unixMode(info.Mode()))
	}
	return errors.Join(err, out.Close())
}

// create opens dest for writing, through links in the image; what cannot be
// written to is replaced.
func (c *copier) create(dest string) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC | unix.O_NONBLOCK | unix.O_NOCTTY
	out, err := safepath.Open(c.root, dest, flags, 0o600)
	if err == nil {
		var info fs.FileInfo
		if info, err = out.Stat(); err == nil && info.Mode().IsRegular() {
			return out, nil
		}
		// Security: a device of a base image must not get the data.
		out.Close()
	}
	if errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	if err := removeEntry(c.root, dest); err != nil {
		return nil, err
	}
	return safepath.Open(c.root, dest, flags|unix.O_EXCL, 0o600)
}

// unixMode returns the permission bits of a file's mode as chmod takes them.
func unixMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		bits |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		bits |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		bits |= unix.S_ISVTX
	}
	return bits
}

// fixPerms gives the owner of every file read and write access to it, and
// search access to directories.
func fixPerms(root *os.File) error {
	return walkTree(root, func(dir *os.File, name, at string, st *unix.Stat_t) error {
		add := uint32(0o600)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			add = 0o700
		case unix.S_IFREG:
		default:
			return nil
		}
		if st.Mode&add == add {
			return nil
		}
		return unix.Fchmodat(int(dir.Fd()), name, st.Mode&0o7777|add, 0)
	})
}
