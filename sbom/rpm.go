package sbom

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	rpmdb "github.com/knqyf263/go-rpmdb/pkg"
	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver that rpmdb opens rpmdb.sqlite with

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

// readRPM reads a database of rpm.
func (r *reader) readRPM(e image.Entry) {
	list, err := r.listRPM(e)
	if err != nil {
		r.gap("%s: %v", e.Path, err)
		return
	}
	for _, p := range list {
		if p.Name == "gpg-pubkey" { // a key, kept like a package
			continue
		}
		q := Package{Type: "rpm", Name: p.Name, Version: p.Version + "-" + p.Release, Arch: p.Arch, License: p.License, Path: e.Path}
		if p.Epoch != nil && *p.Epoch != 0 {
			q.Version = fmt.Sprintf("%d:%s", *p.Epoch, q.Version)
		}
		q.Source, q.SourceVersion = splitSourceRPM(p.SourceRpm)
		r.add(q)
		if len(r.owned) == 0 {
			continue
		}
		names, err := p.InstalledFileNames()
		if err != nil {
			r.gap("%s: files of %q: %v", e.Path, p.Name, err)
		}
		for _, n := range names {
			r.claim(n, p.Name)
		}
	}
}

// listRPM decodes the database. The library opens files by name only, so it is
// given one in memory.
func (r *reader) listRPM(e image.Entry) ([]*rpmdb.PackageInfo, error) {
	c, done, err := content(e, maxDatabase)
	if err != nil {
		return nil, err
	}
	defer done()
	f, err := memoryFile(c)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	db, err := rpmdb.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return db.ListPackages()
}

// memoryFile copies a database into memory. A SQLite file whose header says that
// it has a write-ahead log would be opened together with that: the copy is
// marked as one without, since rpm writes the log back when it ends.
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
	head := make([]byte, 20)
	if n, _ := f.ReadAt(head, 0); n == len(head) && bytes.HasPrefix(head, []byte("SQLite format 3\x00")) {
		if _, err := f.WriteAt([]byte{1, 1}, 18); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
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
