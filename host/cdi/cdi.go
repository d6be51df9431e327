// Package cdi reads the device files of the Container Device Interface (CDI,
// specification 1.1): which mounts, nodes and variables a device needs in a
// container.
//
// In: the names of devices, "vendor/class=name", and the directories with files,
// each JSON or YAML. Out: host.Edits. Of two files in different directories that
// describe one device the one in the later directory counts; in one directory
// they make the device unusable.
//
// Trust: the files are the administrator's in the standard directories, or
// whatever the caller names. They are read with limits, and what they ask for
// carries the caller's rights only. Hooks are programs that a device file wants
// run on the host, or beside the container: they are never run. What those of
// NVIDIA do for libraries, names and a loader cache, is reached without them:
// each library among the mounts is listed under the name that programs ask for.
package cdi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"singularity/host"
	"singularity/host/elf"
)

// Dirs are the standard directories; the last one wins.
var Dirs = []string{"/etc/cdi", "/var/run/cdi"}

// Limits of device files.
const (
	maxFileSize = 4 << 20
	maxFiles    = 1024
	maxEdits    = 65536 // of one file
)

// spec is a device file.
type spec struct {
	Version string `yaml:"cdiVersion"`
	Kind    string `yaml:"kind"`
	Edits   edits  `yaml:"containerEdits"`
	Devices []struct {
		Name  string `yaml:"name"`
		Edits edits  `yaml:"containerEdits"`
	} `yaml:"devices"`

	path string
}

type edits struct {
	Env   []string `yaml:"env"`
	Nodes []struct {
		Path        string `yaml:"path"`
		HostPath    string `yaml:"hostPath"`
		Permissions string `yaml:"permissions"`
	} `yaml:"deviceNodes"`
	Mounts []struct {
		HostPath string   `yaml:"hostPath"`
		Path     string   `yaml:"containerPath"`
		Type     string   `yaml:"type"`
		Options  []string `yaml:"options"`
	} `yaml:"mounts"`
	Hooks []struct {
		Name string   `yaml:"hookName"`
		Path string   `yaml:"path"`
		Args []string `yaml:"args"`
	} `yaml:"hooks"`
	GIDs []uint32 `yaml:"additionalGIDs"`
	RDT  any      `yaml:"intelRdt"`
}

// found is a device as files describe it.
type found struct {
	spec  *spec
	edits *edits
	// also names another file of the same directory with the same device.
	also string
}

// Resolve returns what the named devices add to a container. The notes are
// warnings for the user: about hooks, which are not run, and files that cannot
// be read.
func Resolve(names, dirs []string) (e *host.Edits, notes []string, err error) {
	if len(dirs) == 0 {
		dirs = Dirs
	}
	devices, notes := scan(dirs)
	r := resolver{e: new(host.Edits), notes: notes, seen: map[*edits]bool{}}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, r.notes, err
		}
		d, ok := devices[name]
		switch {
		case !ok:
			return nil, r.notes, fmt.Errorf("cannot find device %q in the device files of %s%s", name, strings.Join(dirs, ", "), others(devices))
		case d.also != "":
			return nil, r.notes, fmt.Errorf("device %q is described twice: in %s and %s", name, d.spec.path, d.also)
		}
		for _, x := range []*edits{&d.spec.Edits, d.edits} {
			if err := r.add(x, d.spec.path); err != nil {
				return nil, r.notes, fmt.Errorf("device %q of %s: %w", name, d.spec.path, err)
			}
		}
	}
	return r.e, r.notes, nil
}

// others lists a few devices that there are.
func others(devices map[string]found) string {
	var names []string
	for n := range devices {
		names = append(names, n)
	}
	if len(names) == 0 {
		return ": they hold no device"
	}
	slices.Sort(names)
	if len(names) > 8 {
		names = append(names[:8], "...")
	}
	return "; they have " + strings.Join(names, ", ")
}

// checkName refuses what is no name of a device.
func checkName(s string) error {
	vendor, rest, ok := strings.Cut(s, "/")
	class, name, ok2 := strings.Cut(rest, "=")
	if !ok || !ok2 || !word(vendor, "._-") || !word(class, "_-.") || !word(name, "_-.:") {
		return fmt.Errorf("device %q is not of the form vendor/class=name", s)
	}
	return nil
}

// word tells whether s has letters, digits and the characters of more only.
func word(s, more string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return s != ""
}

// scan reads the files of all directories.
func scan(dirs []string) (map[string]found, []string) {
	devices := map[string]found{}
	var notes []string
	for _, dir := range dirs {
		names, err := os.ReadDir(dir)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				notes = append(notes, "Cannot read the device files of "+dir+": "+err.Error())
			}
			continue
		}
		here := map[string]bool{}
		for i, n := range names {
			if ext := filepath.Ext(n.Name()); i >= maxFiles || ext != ".json" && ext != ".yaml" {
				continue
			}
			s, err := readSpec(filepath.Join(dir, n.Name()))
			if err != nil {
				notes = append(notes, "Ignoring device file "+filepath.Join(dir, n.Name())+": "+err.Error())
				continue
			}
			for i := range s.Devices {
				name := s.Kind + "=" + s.Devices[i].Name
				if here[name] {
					d := devices[name]
					d.also = s.path
					devices[name] = d
					continue
				}
				here[name] = true
				devices[name] = found{spec: s, edits: &s.Devices[i].Edits}
			}
		}
	}
	return devices, notes
}

func readSpec(path string) (*spec, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Size() > maxFileSize:
		return nil, errors.New("the file is too large")
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	s, err := parse(b)
	if s != nil {
		s.path = path
	}
	return s, err
}

// parse reads a device file. JSON is YAML, so one reader does for both.
func parse(b []byte) (*spec, error) {
	s := new(spec)
	if err := yaml.Unmarshal(b, s); err != nil {
		return nil, err
	}
	vendor, class, ok := strings.Cut(s.Kind, "/")
	major, _, _ := strings.Cut(s.Version, ".")
	switch {
	case major != "0" && major != "1":
		return nil, fmt.Errorf("cdiVersion %q is not known", s.Version)
	case !ok || !word(vendor, "._-") || !word(class, "_-."):
		return nil, fmt.Errorf("kind %q is not of the form vendor/class", s.Kind)
	case len(s.Devices) == 0:
		return nil, errors.New("it describes no device")
	}
	n := s.Edits.size()
	for i := range s.Devices {
		if !word(s.Devices[i].Name, "_-.:") {
			return nil, fmt.Errorf("device name %q is not valid", s.Devices[i].Name)
		}
		n += s.Devices[i].Edits.size()
	}
	if n > maxEdits {
		return nil, errors.New("it asks for too much")
	}
	return s, nil
}

func (x *edits) size() int { return 1 + len(x.Env) + len(x.Nodes) + len(x.Mounts) + len(x.Hooks) }

// resolver collects edits.
type resolver struct {
	e     *host.Edits
	notes []string
	seen  map[*edits]bool // what several devices of a file share
}

func (r *resolver) note(s string) {
	if !slices.Contains(r.notes, s) {
		r.notes = append(r.notes, s)
	}
}

func (r *resolver) add(x *edits, file string) error {
	if r.seen[x] {
		return nil
	}
	r.seen[x] = true
	for _, v := range x.Env {
		name, _, ok := strings.Cut(v, "=")
		if !ok || !word(name, "_") || strings.ContainsRune(v, 0) {
			return fmt.Errorf("env %q is not NAME=value", v)
		}
		r.e.Env = append(r.e.Env, v)
	}
	if err := r.nodes(x); err != nil {
		return err
	}
	if err := r.mounts(x); err != nil {
		return err
	}
	for _, h := range x.Hooks {
		r.note("Not running the " + h.Name + " hook " + h.Path + " of " + file + ": hooks of device files are never run")
	}
	if len(x.GIDs) > 0 {
		r.note("Not adding the groups that " + file + " asks for: an ordinary user cannot gain groups")
	}
	if x.RDT != nil {
		r.note("Not applying intelRdt of " + file + ": it needs root")
	}
	return nil
}

// absolute refuses a path that is not one.
func absolute(p string) error {
	if !filepath.IsAbs(p) || strings.ContainsRune(p, 0) {
		return fmt.Errorf("path %q is not absolute", p)
	}
	return nil
}

func (r *resolver) nodes(x *edits) error {
	for _, n := range x.Nodes {
		src := n.HostPath
		if src == "" {
			src = n.Path
		}
		if err := errors.Join(absolute(n.Path), absolute(src)); err != nil {
			return err
		}
		info, err := os.Stat(src)
		switch {
		case err != nil:
			return fmt.Errorf("no device node %s on this host", src)
		case info.Mode()&os.ModeDevice == 0:
			return fmt.Errorf("%s is not a device node", src)
		}
		r.e.Nodes = append(r.e.Nodes, host.EditNode{Source: filepath.Clean(src), Destination: filepath.Clean(n.Path)})
	}
	return nil
}

func (r *resolver) mounts(x *edits) error {
	for _, m := range x.Mounts {
		if m.Type != "" && m.Type != "bind" && m.Type != "none" {
			r.note("Not mounting a " + m.Type + " on " + m.Path + ": device files may ask for binds only")
			continue
		}
		if err := errors.Join(absolute(m.HostPath), absolute(m.Path)); err != nil {
			return err
		}
		if _, err := os.Stat(m.HostPath); err != nil {
			return fmt.Errorf("no path %s on this host", m.HostPath)
		}
		src := filepath.Clean(m.HostPath)
		r.e.Mounts = append(r.e.Mounts, host.EditMount{Source: src, Destination: filepath.Clean(m.Path), ReadOnly: slices.Contains(m.Options, "ro")})
		if strings.Contains(filepath.Base(src), ".so") {
			r.library(src)
		}
	}
	return nil
}

// library lists a mounted library under the name that programs ask for.
func (r *resolver) library(path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	native, ok := elf.Native()
	info, err := f.Stat()
	if !ok || err != nil || !info.Mode().IsRegular() {
		return
	}
	e, err := elf.Read(f)
	if err != nil || e.Target != native || e.SOName == "" || strings.Contains(e.SOName, "/") {
		return
	}
	r.e.Libraries = append(r.e.Libraries, host.Library{Name: e.SOName, Path: path, Glibc: elf.Glibc(e.Needs)})
}
