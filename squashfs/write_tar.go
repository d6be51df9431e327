package squashfs

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Limits on a tar archive where TarOptions names none.
const (
	defaultTarSize    = 1 << 40
	defaultTarEntries = 1 << 22
)

// TarOptions limits what is taken from a tar archive, which may be hostile.
type TarOptions struct {
	MaxSize    int64 // bytes of all contents, holes included; zero means 1 TiB
	MaxEntries int   // zero means 4 Mi
}

// AddTar adds all entries of a tar archive in the GNU, PAX or older formats,
// with hard links, devices, sparse files and the attributes of SCHILY.xattr
// records. Attributes outside user., trusted. and security. (POSIX access
// lists) have no place in the format and are left out. Names may begin with "/"
// or "./"; a name with ".." is refused.
func (w *Writer) AddTar(r io.Reader, o TarOptions) error {
	if o.MaxSize == 0 {
		o.MaxSize = defaultTarSize
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = defaultTarEntries
	}
	tr := tar.NewReader(bufio.NewReaderSize(r, 256<<10))
	for n, size := 0, int64(0); ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the tar archive: %w", err)
		}
		if n >= o.MaxEntries {
			return fmt.Errorf("cannot take more than %d entries from a tar archive", o.MaxEntries)
		}
		e, ok, err := TarEntry(h)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		// Security: a few bytes of archive can announce a hole of many terabytes.
		if e.Size > o.MaxSize-size {
			return fmt.Errorf("cannot take more than %d bytes of contents from a tar archive: %q has %d", o.MaxSize, e.Path, e.Size)
		}
		size += e.Size
		if err := w.Add(e, tr); err != nil {
			return err
		}
	}
}

// TarEntry translates the header of an archive entry; ok is false for one that
// is no entry. Path and Hardlink have neither a leading "/" nor "." in them.
func TarEntry(h *tar.Header) (e Entry, ok bool, err error) {
	if e.Path, err = tarPath(h.Name); err != nil {
		return e, false, err
	}
	if h.Uid < 0 || int64(h.Uid) > math.MaxUint32 || h.Gid < 0 || int64(h.Gid) > math.MaxUint32 {
		return e, false, fmt.Errorf("cannot add %q: owner %d:%d is not within 32 bits", h.Name, h.Uid, h.Gid)
	}
	e.UID, e.GID, e.ModTime = uint32(h.Uid), uint32(h.Gid), h.ModTime.Unix()
	e.Mode = uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		e.Mode |= ModeRegular
		e.Size = h.Size
	case tar.TypeDir:
		e.Mode |= ModeDir
	case tar.TypeSymlink:
		e.Mode |= ModeSymlink
		e.Target = h.Linkname
	case tar.TypeLink:
		if e.Hardlink, err = tarPath(h.Linkname); err != nil {
			return e, false, err
		}
		if e.Hardlink == "" {
			return e, false, fmt.Errorf("cannot link %q to the root", h.Name)
		}
	case tar.TypeChar, tar.TypeBlock:
		e.Mode |= ModeBlock
		if h.Typeflag == tar.TypeChar {
			e.Mode = e.Mode&^ModeType | ModeChar
		}
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return e, false, fmt.Errorf("cannot add %q: device %d:%d is not within 12 and 20 bits", h.Name, h.Devmajor, h.Devminor)
		}
		e.Rdev = uint32(h.Devmajor<<8 | h.Devminor&0xff | h.Devminor&^0xff<<12)
	case tar.TypeFifo:
		e.Mode |= ModeFIFO
	case tar.TypeXGlobalHeader:
		return e, false, nil
	default:
		return e, false, fmt.Errorf("cannot add %q: tar entry of unknown type %q", h.Name, h.Typeflag)
	}
	e.Xattrs = tarXattrs(h)
	return e, true, nil
}

// tarPath brings a name to the form of Entry.Path.
func tarPath(name string) (string, error) {
	if !strings.HasPrefix(name, "/") && !strings.Contains(name, "//") && !strings.Contains(name, ".") && !strings.HasSuffix(name, "/") {
		return name, nil
	}
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch p {
		case "", ".":
		case "..":
			// Security: such a name would lead out of the directory it is unpacked in.
			return "", fmt.Errorf("cannot add %q: the name contains \"..\"", name)
		default:
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/"), nil
}

func tarXattrs(h *tar.Header) []Xattr {
	var list []Xattr
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok {
			continue
		}
		if _, ok := xattrKind(name); ok {
			list = append(list, Xattr{name, []byte(value)})
		}
	}
	return list
}
