package sbom

import (
	"io"
	"path"
	"strings"
)

// usrPath writes a path below one of the directories that became links into
// /usr in its present form, so that both name one file.
func usrPath(p string) string {
	p = strings.TrimPrefix(p, "/")
	first, _, _ := strings.Cut(p, "/")
	switch first {
	case "bin", "sbin", "lib", "lib32", "lib64", "libx32":
		return "usr/" + p
	}
	return p
}

// want asks for the owner of path.
func (r *reader) want(path string) { r.owned[usrPath(path)] = "" }

// claim notes that the system package called name brought path, if anybody asks.
func (r *reader) claim(path, name string) {
	if key := usrPath(path); name != "" {
		if _, asked := r.owned[key]; asked {
			r.owned[key] = name
		}
	}
}

// setOwners finds the owners of the files that told of packages of a language.
func (r *reader) setOwners() {
	r.readDpkgLists()
	for i := range r.inv.Packages {
		p := &r.inv.Packages[i]
		switch p.Type {
		case "deb", "apk", "rpm":
		default:
			p.Owner = r.owned[usrPath(p.Path)]
		}
	}
}

// readDpkgLists reads the lists of files of every package of dpkg.
func (r *reader) readDpkgLists() {
	if len(r.owned) == 0 {
		return
	}
	for _, e := range r.lists {
		pkg, _, _ := strings.Cut(strings.TrimSuffix(path.Base(e.Path), ".list"), ":")
		r.stream(e, func(_ string, in io.Reader) error {
			return r.eachLine(in, func(line []byte) { r.claim(string(line), pkg) })
		})
	}
}
