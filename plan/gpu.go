package plan

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"singularity/host"
	"singularity/host/elf"
)

// libsDir is where the loader of a container finds the libraries of the host.
const libsDir = "/.singularity.d/libs"

// maxNamed bounds the libraries that one warning names.
const maxNamed = 4

// drivers plans what the container gets to use devices of the host: libraries
// in /.singularity.d/libs, programs in /usr/bin, sockets, nodes, and what the
// device files of CDI ask for.
func (m *maker) drivers() error {
	if g := &m.f.Host.Drivers; g.Vendor != "" {
		if slices.ContainsFunc(g.Libraries, func(l host.Library) bool { return !l.IfMissing }) {
			m.libraries(g.Libraries)
		} else { // what every vendor has is of no use without a driver
			m.note("Could not find any " + g.Vendor + " libraries on this host!")
		}
		if len(g.Programs) == 0 {
			m.note("Could not find any " + g.Vendor + " files on this host!")
		}
		for _, p := range g.Programs {
			m.file(p.Path, "/usr/bin/"+p.Name)
		}
		for _, s := range g.Sockets {
			m.bind(Mount{Source: s, Destination: s, Optional: true, Tag: "files"})
		}
		for _, d := range g.Devices {
			m.node(d, d)
		}
	}
	m.edits()
	if err := m.containLibs(); err != nil {
		return err
	}
	if m.lost > 0 {
		m.note("Not showing " + strconv.Itoa(m.lost) + " files of the host: files are not created in a writable image; leave --writable out, or make empty ones in " + libsDir + " first")
	}
	return nil
}

// file plans a file of the host in a directory that the runtime fills. A
// writable image would need a file as the mount point.
func (m *maker) file(src, dst string) {
	if _, kind := m.f.Image.Resolve(dst); kind == Missing && m.o.Writable {
		m.lost++
		return
	}
	m.bind(Mount{Source: src, Destination: dst, ReadOnly: true, Optional: true, Tag: "files"})
}

// node plans a device node, which the host's whole /dev shows by itself.
func (m *maker) node(src, dst string) {
	if under(dst, "/dev") && m.off("dev") {
		return
	}
	for i := range m.p.Mounts {
		if b := &m.p.Mounts[i]; src == dst && b.Source == "/dev" && b.Destination == "/dev" && under(dst, "/dev") {
			return
		}
	}
	m.bind(Mount{Source: src, Destination: dst, Devices: true, Optional: true, Tag: "dev"})
}

// edits plans what CDI asks for.
func (m *maker) edits() {
	e := m.f.Host.Edits
	if e == nil {
		return
	}
	for _, b := range e.Mounts {
		m.bind(Mount{Source: b.Source, Destination: b.Destination, ReadOnly: b.ReadOnly, Optional: true, Tag: "device"})
	}
	for _, n := range e.Nodes {
		m.node(n.Source, n.Destination)
	}
	m.libraries(e.Libraries)
}

// containLibs plans the files of --containlibs.
func (m *maker) containLibs() error {
	for _, l := range m.o.ContainLibs {
		src := m.absolute(l)
		if m.f.Host.Path(src) != Other {
			return missingSource(src)
		}
		m.file(src, libsDir+"/"+path.Base(src))
	}
	return nil
}

// libraries plans libraries of the host. Those that every vendor has are left
// to the image where it has them, and left out where they could not be loaded:
// the host's may need a newer C library than the image has. Those of a driver
// have no substitute, so they come in with a warning.
func (m *maker) libraries(list []host.Library) {
	if len(list) == 0 {
		return
	}
	glibc := ""
	if m.f.Image.Glibc != nil {
		if glibc = m.f.Image.Glibc(); glibc == "" {
			m.note("The image has no GNU C library: its programs cannot load libraries of the host; use an image of a distribution with glibc")
		}
	}
	var late []string
	newest := ""
	for _, l := range list {
		tooNew := glibc != "" && elf.Newer(l.Glibc, glibc)
		if l.IfMissing && (tooNew || m.f.Image.Library != nil && m.f.Image.Library(l.Name)) {
			continue
		}
		if tooNew {
			late = append(late, l.Name)
			if elf.Newer(l.Glibc, newest) {
				newest = l.Glibc
			}
		}
		m.file(l.Path, libsDir+"/"+l.Name)
	}
	if len(late) > 0 {
		m.note("Libraries of the host need glibc " + newest + " and the image has " + glibc + ": programs cannot load " + some(late) + "; use an image with a newer C library")
	}
}

// some names the first few of a list.
func some(list []string) string {
	if len(list) <= maxNamed {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:maxNamed], ", ") + " and " + strconv.Itoa(len(list)-maxNamed) + " more"
}
