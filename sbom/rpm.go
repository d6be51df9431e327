package sbom

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver for rpmdb.sqlite
	"modernc.org/sqlite/vfs"

	"singularity/image"
)

// isRPM tells whether path is a database of rpm: SQLite, its own NDB, or the
// hash of Berkeley DB that older systems have.
func isRPM(path string) bool {
	dir, name := filepath.Split(path)
	switch dir {
	case "var/lib/rpm/", "usr/lib/sysimage/rpm/", "usr/share/rpm/":
	default:
		return false
	}
	return name == "rpmdb.sqlite" || name == "Packages.db" || name == "Packages"
}

// readRPM reads a database of rpm: headers of packages, one after another.
func (r *reader) readRPM(e image.Entry) {
	err := r.eachHeader(e, func(b []byte) error {
		h, err := parseHeader(b)
		if err != nil {
			return err
		}
		r.addRPM(h, e.Path)
		return r.ctx.Err()
	})
	if err != nil {
		r.gap("%s: %v", e.Path, err)
	}
}

func (r *reader) addRPM(h rpmHeader, path string) {
	name := h.text(tagName)
	if name == "gpg-pubkey" { // a key, kept like a package
		return
	}
	p := Package{Type: "rpm", Name: name, Version: h.text(tagVersion) + "-" + h.text(tagRelease), Arch: h.text(tagArch), License: h.text(tagLicense), Path: path}
	if epoch := h.numbers(tagEpoch); len(epoch) == 1 && epoch[0] != 0 {
		p.Version = fmt.Sprintf("%d:%s", epoch[0], p.Version)
	}
	p.Source, p.SourceVersion = splitSourceRPM(h.text(tagSourceRPM))
	r.add(p)
	if len(r.owned) == 0 {
		return
	}
	bases, dirs := h.texts(tagBaseNames), h.texts(tagDirNames)
	for i, d := range h.numbers(tagDirIndexes) {
		if i < len(bases) && int64(d) < int64(len(dirs)) && len(dirs[d])+len(bases[i]) <= maxPath {
			r.claim(dirs[d]+bases[i], name)
		}
	}
}

// eachHeader calls fn with every header in the database e, of which it makes a copy in
// memory: SQLite opens files by name only, and the others are read at many places.
func (r *reader) eachHeader(e image.Entry, fn func([]byte) error) error {
	c, done, err := content(e, maxDatabase)
	if err != nil {
		return err
	}
	defer done()
	f, err := memoryFile(c)
	if err != nil {
		return err
	}
	defer f.Close()
	switch filepath.Base(e.Path) {
	case "rpmdb.sqlite":
		return r.eachInSQLite(e, f, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), fn)
	case "Packages.db":
		return eachInNDB(f, e.Size, fn)
	}
	d, err := openBDB(f, e.Size)
	if err != nil {
		return err
	}
	return d.each(fn)
}

// memoryFile copies a database into memory.
func memoryFile(in io.Reader) (*os.File, error) {
	fd, err := unix.MemfdCreate("rpmdb", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "rpmdb")
	if _, err := io.Copy(f, in); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// oneFile is a file system in which every name is that file. SQLite would follow
// the link in /proc to a name that does not exist.
type oneFile string

func (n oneFile) Open(string) (fs.File, error) { return os.Open(string(n)) }

// eachInSQLite reads the copy f of the SQLite database e, after what is in the
// log beside it has been brought in. The copy is marked as one without a log.
func (r *reader) eachInSQLite(e image.Entry, f *os.File, name string, fn func([]byte) error) error {
	if r.wal != nil && r.wal.Path == e.Path+"-wal" {
		c, done, err := content(*r.wal, maxDatabase)
		if err != nil {
			return err
		}
		defer done()
		if err := applyWAL(f, bufio.NewReaderSize(c, 1<<20)); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt([]byte{1, 1}, 18); err != nil {
		return err
	}
	system, v, err := vfs.New(oneFile(name))
	if err != nil {
		return err
	}
	defer v.Close()
	db, err := sql.Open("sqlite", "file:rpmdb.sqlite?immutable=1&mode=ro&vfs="+system)
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.QueryContext(r.ctx, "SELECT blob FROM Packages")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var b sql.RawBytes
		if err := rows.Scan(&b); err != nil {
			return err
		}
		if err := fn(b); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Tags of a header of rpm.
const (
	tagName       = 1000
	tagVersion    = 1001
	tagRelease    = 1002
	tagEpoch      = 1003
	tagLicense    = 1014
	tagArch       = 1022
	tagSourceRPM  = 1044
	tagDirIndexes = 1116
	tagBaseNames  = 1117
	tagDirNames   = 1118
)

// Bounds of a header: bytes, of which rpm itself allows 256 MiB, and strings of one tag;
// and of a path in it.
const (
	maxHeader = 64 << 20
	maxNames  = 2 << 20
	maxPath   = 4096
)

// rpmHeader is a header of rpm without its index: tag to where its values are.
type rpmHeader struct {
	data []byte
	tags map[uint32][3]uint32 // type, offset, count
}

// parseHeader reads a header as the database has it (rpm's doc/manual/format.md):
// two counts, an index of 16 bytes for each tag, and the values.
func parseHeader(b []byte) (rpmHeader, error) {
	bad := errors.New("a header of a package is damaged")
	if len(b) < 8 || len(b) > maxHeader {
		return rpmHeader{}, bad
	}
	n, size := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if n < 1 || 8+16*n+size > int64(len(b)) {
		return rpmHeader{}, bad
	}
	h := rpmHeader{data: b[8+16*n : 8+16*n+size], tags: make(map[uint32][3]uint32, n)}
	for i := range n {
		x := b[8+16*i:]
		e := [3]uint32{binary.BigEndian.Uint32(x[4:]), binary.BigEndian.Uint32(x[8:]), binary.BigEndian.Uint32(x[12:])}
		if int64(e[1]) > size || int64(e[2]) > size {
			continue // regions have offsets of their own
		}
		h.tags[binary.BigEndian.Uint32(x)] = e
	}
	return h, nil
}

// Types of values.
const (
	typeInt32  = 4
	typeString = 6
	typeList   = 8
	typeI18N   = 9
)

// texts are the strings of a tag.
func (h rpmHeader) texts(tag uint32) []string {
	e, ok := h.tags[tag]
	if !ok || e[0] != typeString && e[0] != typeList && e[0] != typeI18N {
		return nil
	}
	if e[2] > maxNames {
		return nil
	}
	rest := h.data[e[1]:]
	var list []string
	for range e[2] {
		s, after, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return nil
		}
		list, rest = append(list, string(s)), after
	}
	return list
}

// text is the only, or first, string of a tag.
func (h rpmHeader) text(tag uint32) string {
	e, ok := h.tags[tag]
	if !ok || e[0] != typeString && e[0] != typeI18N {
		return ""
	}
	s, _, _ := bytes.Cut(h.data[e[1]:], []byte{0})
	return string(s)
}

// numbers are the integers of a tag.
func (h rpmHeader) numbers(tag uint32) []uint32 {
	e, ok := h.tags[tag]
	if !ok || e[0] != typeInt32 || int64(e[1])+4*int64(e[2]) > int64(len(h.data)) {
		return nil
	}
	list := make([]uint32, e[2])
	for i := range list {
		list[i] = binary.BigEndian.Uint32(h.data[e[1]+4*uint32(i):])
	}
	return list
}

// splitSourceRPM takes "bash-5.1.8-6.el9.src.rpm" apart.
func splitSourceRPM(s string) (name, version string) {
	var ok bool
	if s, _, ok = cutLast(s, "."); !ok { // .rpm
		return "", ""
	}
	if s, _, ok = cutLast(s, "."); !ok { // .src
		return "", ""
	}
	rest, release, ok := cutLast(s, "-")
	if !ok {
		return "", ""
	}
	name, v, ok := cutLast(rest, "-")
	if !ok {
		return "", ""
	}
	return name, v + "-" + release
}
