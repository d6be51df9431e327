package sbom

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/textproto"
	"path"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"singularity/image"
)

// visit looks at one file of the image.
func (r *reader) visit(e image.Entry) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if e.Mode.IsDir() {
		switch e.Path {
		case "proc", "sys", "dev":
			return fs.SkipDir
		}
		return nil
	}
	if !e.Mode.IsRegular() {
		return nil
	}
	dir, name := path.Split(e.Path)
	switch parent := path.Base(dir); {
	case isSystem(e.Path):
		r.databases = append(r.databases, e)
	case name == "rpmdb.sqlite-wal":
		r.wal = &e
	case dir == "var/lib/dpkg/info/" && strings.HasSuffix(name, ".list"):
		r.lists = append(r.lists, e)
	case name == "METADATA" && strings.HasSuffix(parent, ".dist-info"),
		name == "PKG-INFO" && strings.HasSuffix(parent, ".egg-info"),
		strings.HasSuffix(name, ".egg-info"):
		r.one(e, maxMetadata, r.readPython)
	case name == "package.json" && inModules(dir):
		r.one(e, maxMetadata, r.readNPM)
	case name == "package-lock.json" || name == "npm-shrinkwrap.json":
		r.one(e, maxLock, r.readNPMLock)
	case name == "Cargo.lock":
		r.one(e, maxCargo, r.readCargo)
	case e.Mode&0o111 != 0 && e.Size > 64<<10 && e.Size < maxProgram:
		r.program(e)
	}
	return nil
}

// one reads a small file whole and hands it to read.
func (r *reader) one(e image.Entry, limit int64, read func(string, []byte) error) {
	c, done, err := content(e, limit)
	if err == nil {
		defer done()
		var b []byte
		if b, err = io.ReadAll(c); err == nil {
			r.want(e.Path)
			err = read(e.Path, b)
		}
	}
	if err != nil {
		r.gap("%s: %v", e.Path, err)
	}
}

// readPython reads the head of the core metadata of a Python package.
func (r *reader) readPython(path string, b []byte) error {
	p := Package{Type: "pypi", Path: path}
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(value) > maxField {
			continue
		}
		v := textproto.TrimString(string(value))
		switch string(key) {
		case "Name":
			p.Name = v
		case "Version":
			p.Version = v
		case "License", "License-Expression":
			p.License = v
		}
	}
	if p.Name != "" {
		r.add(p)
	}
	return nil
}

// inModules tells whether dir, with a slash at its end, is that of a package
// directly in a node_modules.
func inModules(dir string) bool {
	up := path.Dir(path.Clean(dir))
	if strings.HasPrefix(path.Base(up), "@") {
		up = path.Dir(up)
	}
	return path.Base(up) == "node_modules"
}

func (r *reader) readNPM(path string, b []byte) error {
	var m struct {
		Name, Version string
		License       any
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	license, _ := m.License.(string)
	if m.Name != "" && m.Version != "" {
		r.add(Package{Type: "npm", Name: m.Name, Version: m.Version, License: license, Path: path})
	}
	return nil
}

// npmLock is a lock file: versions 2 and 3 name paths, version 1 a tree.
type npmLock struct {
	Packages map[string]struct {
		Name, Version string
		Link          bool
	}
	Dependencies map[string]npmDependency
}

type npmDependency struct {
	Version      string
	Dependencies map[string]npmDependency
}

func (r *reader) readNPMLock(path string, b []byte) error {
	var l npmLock
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	for at, p := range l.Packages {
		_, name, ok := cutLast(at, "node_modules/")
		if !ok || p.Link || p.Version == "" {
			continue
		}
		if p.Name != "" {
			name = p.Name
		}
		r.add(Package{Type: "npm", Name: name, Version: p.Version, Path: path})
	}
	if len(l.Packages) == 0 {
		r.addNPM(l.Dependencies, path)
	}
	return nil
}

func (r *reader) addNPM(deps map[string]npmDependency, path string) {
	for name, d := range deps {
		if !strings.Contains(d.Version, ":") { // not a file or an address
			r.add(Package{Type: "npm", Name: name, Version: d.Version, Path: path})
		}
		r.addNPM(d.Dependencies, path)
	}
}

// cutLast is strings.Cut at the last sep.
func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func (r *reader) readCargo(path string, b []byte) error {
	// Security: a key of millions of parts takes the decoder minutes.
	for line := range bytes.Lines(b) {
		if len(line) > maxLine {
			return errors.New("a line is too long for what cargo writes")
		}
	}
	var l struct {
		Package []struct{ Name, Version, Source string }
	}
	if err := toml.Unmarshal(b, &l); err != nil {
		return err
	}
	for _, p := range l.Package {
		if p.Source != "" { // else it is the project itself
			r.add(Package{Type: "cargo", Name: p.Name, Version: p.Version, Path: path})
		}
	}
	return nil
}

// program takes the modules that the Go linker recorded in a program.
func (r *reader) program(e image.Entry) {
	c, err := e.Open()
	if err != nil {
		r.gap("%s: %v", e.Path, err)
		return
	}
	defer c.Close()
	var magic [4]byte
	if n, err := c.ReadAt(magic[:], 0); n < 4 || string(magic[:]) != "\x7fELF" {
		if n < 4 && err != nil && err != io.EOF {
			r.gap("%s: %v", e.Path, err)
		}
		return
	}
	info, err := readBuildInfo(&bounded{io.NewSectionReader(c, 0, e.Size), maxSearched})
	if err != nil {
		if !isNoGo(err) {
			r.gap("%s: %v", e.Path, err)
		}
		return
	}
	r.want(e.Path)
	r.addGo(info, e.Path)
}

// bounded reads no more than is left of it: the reader of ELF keeps as much in memory as
// a program claims to have.
type bounded struct {
	io.ReaderAt
	left int64
}

func (b *bounded) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, fmt.Errorf("over %d bytes were searched for what it is made of", maxSearched)
	}
	return b.ReaderAt.ReadAt(p, off)
}

// readBuildInfo turns a panic of the standard reader of ELF, which is not meant
// for hostile files, into an error.
func readBuildInfo(c io.ReaderAt) (info *buildinfo.BuildInfo, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not a well-formed program: %v", p)
		}
	}()
	return buildinfo.Read(c)
}

// isNoGo tells whether err only says that a program was not written in Go, or is
// none that could be started. The standard library has no value for that.
func isNoGo(err error) bool {
	return strings.Contains(err.Error(), "not a Go executable") || strings.Contains(err.Error(), "unrecognized file format")
}

func (r *reader) addGo(info *buildinfo.BuildInfo, path string) {
	arch := ""
	for _, s := range info.Settings {
		if s.Key == "GOARCH" {
			arch = s.Value
		}
	}
	if v, ok := strings.CutPrefix(info.GoVersion, "go"); ok {
		v, _, _ = strings.Cut(v, " ")
		v, _, _ = strings.Cut(v, "-")
		r.add(Package{Type: "golang", Name: "stdlib", Version: v, Arch: arch, Path: path})
	}
	module := func(name, version string) {
		version = strings.TrimPrefix(version, "v")
		if version == "(devel)" {
			version = ""
		}
		if name != "" && version != "" {
			r.add(Package{Type: "golang", Name: name, Version: version, Arch: arch, Path: path})
		}
	}
	module(info.Main.Path, info.Main.Version)
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		module(d.Path, d.Version)
	}
}
