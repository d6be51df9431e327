// Package sbom finds the packages in an image and writes them as a software bill
// of materials.
//
// Read walks the tree of an image and takes what the package managers recorded
// there: dpkg, apk and rpm for the system; modules in Go programs, dist-info of
// Python, package.json and locks of npm, locks of cargo for what lies beside it.
// Nothing is run and nothing fetched. Encode writes CycloneDX 1.6 or SPDX 2.3,
// Decode reads both back, ours and others', by the purls in them.
//
// Trust: whoever made the image wrote all of this. Sizes, counts and lengths are
// bounded (see the constants); what exceeds them or cannot be understood is left
// out and named in Gaps, so that a short list never passes for a whole one. The
// databases of SQLite, and programs, are decoded by libraries that were not made for
// hostile bytes: Read belongs in a process of its own (cli and server start one).
//
// Files: sbom.go (types, the walk), system.go (dpkg, apk), rpm.go with bdb.go, ndb.go and wal.go (forms of its
// database), language.go
// (Go, Python, npm, cargo), owner.go (which system package owns a file), purl.go
// (names across formats), cyclonedx.go, spdx.go.
package sbom

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"singularity/image"
)

// Bounds of what is read from one image.
const (
	maxFiles    = 4 << 20   // entries of the tree
	maxPackages = 250_000   // packages that are kept
	maxField    = 512       // bytes of a name or version
	maxDatabase = 512 << 20 // bytes of a package database
	maxMetadata = 4 << 20   // bytes of a file about one package
	maxLock     = 64 << 20  // bytes of a lock file
	maxCargo    = 8 << 20   // bytes of one of cargo, whose decoder needs much memory
	maxGaps     = 100       // gaps that are named
	maxProgram  = 4 << 30   // bytes of a program that is looked into
	maxSearched = 512 << 20 // bytes that are read of one
)

// Package is one package of an image.
type Package struct {
	// Type is that of a purl: deb, apk, rpm, golang, pypi, npm, cargo.
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch,omitempty"` // of modules of Go: GOARCH
	// Source and SourceVersion are the source package, where they differ.
	Source        string `json:"source,omitempty"`
	SourceVersion string `json:"sourceVersion,omitempty"`
	License       string `json:"license,omitempty"`
	// Path is the file that told, from the root of the image.
	Path string `json:"path,omitempty"`
	// Owner is the system package that brought Path, "" for none. Advisories for
	// that one count then: distributions correct faults without a new version.
	Owner string `json:"owner,omitempty"`
}

// Distro is the distribution that an image is made of, from its os-release.
type Distro struct {
	ID      string `json:"id,omitempty"`      // debian, ubuntu, alpine, rocky
	Version string `json:"version,omitempty"` // VERSION_ID
	Name    string `json:"name,omitempty"`    // PRETTY_NAME
}

// Inventory is what an image contains.
type Inventory struct {
	Distro   Distro    `json:"distro"`
	Packages []Package `json:"packages"`
	// Gaps say what could not be read, so that the list may lack packages.
	Gaps []string `json:"gaps,omitempty"`
}

// reader collects an inventory.
type reader struct {
	ctx   context.Context
	files image.Files
	inv   Inventory
	full  bool
	// databases are those of package managers, lists the files of dpkg's packages.
	databases, lists []image.Entry
	wal              *image.Entry // write-ahead log of rpm's database
	// owned are the files whose owner is asked for, in the form of usrPath.
	owned map[string]string
}

// Read lists the packages in the tree f. It fails only if the tree cannot be
// walked or ctx ends; what cannot be understood becomes a gap.
func Read(ctx context.Context, f image.Files) (*Inventory, error) {
	r := &reader{ctx: ctx, files: f, owned: map[string]string{}}
	r.readDistro()
	if err := image.Each(f, maxFiles, r.visit); err != nil {
		return nil, fmt.Errorf("cannot list the packages of the image: %w", err)
	}
	r.readSystem()
	r.setOwners()
	r.inv.tidy()
	return &r.inv, nil
}

// tidy sorts the packages and leaves one of equal ones.
func (inv *Inventory) tidy() {
	slices.SortFunc(inv.Packages, func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name),
			strings.Compare(a.Version, b.Version), strings.Compare(a.Arch, b.Arch), strings.Compare(a.Path, b.Path))
	})
	inv.Packages = slices.CompactFunc(inv.Packages, func(a, b Package) bool {
		return a.Type == b.Type && a.Name == b.Name && a.Version == b.Version && a.Arch == b.Arch && a.Path == b.Path
	})
}

// add keeps p if it has a usable name.
func (r *reader) add(p Package) {
	if p.Name == "" || !plainField(p.Name) || !plainField(p.Version) || !plainField(p.Source) || !plainField(p.SourceVersion) || !plainField(p.Arch) {
		r.gap("%s: an entry without a usable name or version", p.Path)
		return
	}
	if len(p.License) > maxField || !plainText(p.License) {
		p.License = ""
	}
	if len(r.inv.Packages) >= maxPackages {
		if !r.full {
			r.full = true
			r.inv.Gaps = append(r.inv.Gaps, fmt.Sprintf("over %d packages: the rest is left out", maxPackages))
		}
		return
	}
	r.inv.Packages = append(r.inv.Packages, p)
}

// gap notes something that could not be read.
func (r *reader) gap(format string, args ...any) {
	switch n := len(r.inv.Gaps); {
	case n < maxGaps:
		r.inv.Gaps = append(r.inv.Gaps, fmt.Sprintf(format, args...))
	case n == maxGaps:
		r.inv.Gaps = append(r.inv.Gaps, "and more of that kind")
	}
}

// plainField tells whether s may be a name or a version: printable ASCII or
// letters, without spaces.
func plainField(s string) bool {
	return len(s) <= maxField && plainText(s) && !strings.ContainsAny(s, " \t")
}

// plainText tells whether s is text without control characters.
func plainText(s string) bool {
	return strings.ToValidUTF8(s, "\x00") == s && !strings.ContainsFunc(s, func(c rune) bool {
		return c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x2028 || c == 0x2029 || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069 || c == 0xfeff
	})
}

// readDistro reads os-release.
func (r *reader) readDistro() {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		text, err := r.files.ReadFile(path, 64<<10)
		if err != nil {
			continue
		}
		r.inv.Distro = parseRelease(string(text))
		return
	}
}

// parseRelease reads os-release(5).
func parseRelease(text string) Distro {
	var d Distro
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		value = strings.Trim(value, `"'`)
		if !plainText(value) || len(value) > maxField {
			continue
		}
		switch key {
		case "ID":
			d.ID = strings.ToLower(value)
		case "VERSION_ID":
			d.Version = value
		case "PRETTY_NAME":
			d.Name = value
		}
	}
	return d
}

// content opens a file that Each has come to for reading from its start.
func content(e image.Entry, limit int64) (*io.SectionReader, func(), error) {
	if e.Size > limit {
		return nil, nil, fmt.Errorf("it is larger than %d bytes", limit)
	}
	c, err := e.Open()
	if err != nil {
		return nil, nil, err
	}
	return io.NewSectionReader(c, 0, e.Size), func() { c.Close() }, nil
}
