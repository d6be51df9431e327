package host

import (
	"bytes"
	_ "embed"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"singularity/conf"
	"singularity/host/elf"
)

// Library is a shared library of the host for a container.
type Library struct {
	Name string // what programs ask for
	Path string // absolute, on the host
	// IfMissing says that the image's own is to be preferred.
	IfMissing bool
	// Glibc is the version of the GNU C library that it needs, "" for none.
	Glibc string
}

// Program is a program of the host for a container.
type Program struct{ Name, Path string }

// Drivers are what a container gets to use the GPUs of the host.
type Drivers struct {
	Vendor    string // "nv" or "rocm", "" for none
	Libraries []Library
	Programs  []Program
	Devices   []string // absolute paths of nodes, or directories of them
	Sockets   []string // absolute paths
}

// The lists that hold where none is installed.
var (
	//go:embed nvliblist.conf
	nvList string
	//go:embed rocmliblist.conf
	rocmList string
)

// DriverSearch says where FindDrivers looks.
type DriverSearch struct {
	// ConfDirs may hold the lists of the administrator; the first one counts.
	ConfDirs []string
	// Ldconfig is run to list libraries; empty means that the cache of the
	// loader is read.
	Ldconfig string
	// Path are the directories of programs, with colons between them.
	Path string
}

// finder looks for drivers. Tests give it another root.
type finder struct {
	root     string // before every path; empty for this machine
	ldconfig string
	path     []string
	native   elf.Target
}

// maxLinks bounds the names that lead to one library by an absolute path.
const maxLinks = 64

// FindDrivers finds what the list of a vendor, "nv" or "rocm", names on this
// machine. What is not there is left out; the error is about the list.
func FindDrivers(vendor string, s DriverSearch) (Drivers, error) {
	f := finder{ldconfig: s.Ldconfig, path: filepath.SplitList(s.Path)}
	var ok bool
	if f.native, ok = elf.Native(); !ok {
		return Drivers{Vendor: vendor}, errors.New("cannot choose libraries of the host: this processor is not known")
	}
	return f.find(vendor, s.ConfDirs...)
}

func (f *finder) find(vendor string, confDirs ...string) (Drivers, error) {
	d := Drivers{Vendor: vendor}
	name, text := "nvliblist.conf", nvList
	if vendor == "rocm" {
		name, text = "rocmliblist.conf", rocmList
	}
	for _, dir := range confDirs {
		path := filepath.Join(dir, name)
		if err := conf.CheckSite(path); err != nil {
			return d, err
		}
		b, err := readFile(path)
		if err == nil {
			text = string(b)
			break
		} else if !errors.Is(err, os.ErrNotExist) {
			return d, err
		}
	}
	list := parseLibList(text)
	d.Libraries = f.choose(list.libs)
	for _, p := range list.programs {
		if path := f.program(p); path != "" {
			d.Programs = append(d.Programs, Program{p, path})
		}
	}
	switch vendor {
	case "nv":
		d.Devices = f.devices("nvidia")
		if p := "/var/run/nvidia-persistenced/socket"; f.mode(p)&syscall.S_IFMT == syscall.S_IFSOCK {
			d.Sockets = append(d.Sockets, p)
		}
	case "rocm":
		d.Devices = append(f.devices("dri"), f.devices("kfd")...)
	}
	return d, nil
}

// libList is a list of an administrator.
type libList struct {
	libs     []libPattern
	programs []string
}

// libPattern is the beginning of the names of libraries, or an absolute path.
type libPattern struct {
	text      string
	ifMissing bool
}

func parseLibList(text string) libList {
	var l libList
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case strings.HasPrefix(f[0], "/") || strings.Contains(f[0], ".so"):
			l.libs = append(l.libs, libPattern{f[0], len(f) > 1 && f[1] == "if-missing"})
		case !strings.Contains(f[0], "/"):
			l.programs = append(l.programs, f[0])
		}
	}
	return l
}

// choose finds for each name that a pattern begins the first library that this
// machine can load. The order of the list decides nothing else: a variant for
// another machine may well come first.
func (f *finder) choose(patterns []libPattern) []Library {
	var out []Library
	have := map[string]bool{}
	add := func(c cached, ifMissing bool) {
		if have[c.name] {
			return
		}
		if lib, ok := f.library(c); ok {
			have[c.name] = true
			lib.IfMissing = ifMissing
			out = append(out, lib)
		}
	}
	all := f.libraries()
	for _, p := range patterns {
		if strings.HasPrefix(p.text, "/") {
			for _, c := range f.links(p.text) {
				add(c, p.ifMissing)
			}
			continue
		}
		for _, c := range all {
			if strings.HasPrefix(c.name, p.text) {
				add(c, p.ifMissing)
			}
		}
	}
	return out
}

// library looks into a candidate.
func (f *finder) library(c cached) (Library, bool) {
	r, err := openPlain(f.root + c.path)
	if err != nil {
		return Library{}, false
	}
	defer r.Close()
	e, err := elf.Read(r)
	if err != nil || e.Target != f.native {
		return Library{}, false
	}
	return Library{Name: c.name, Path: c.path, Glibc: elf.Glibc(e.Needs)}, true
}

// openPlain opens a regular file; the name may be that of a FIFO.
func openPlain(path string) (*os.File, error) {
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := r.Stat(); err != nil || !info.Mode().IsRegular() {
		r.Close()
		return nil, errors.New("not a regular file")
	}
	return r, nil
}

// links returns a path and the other names in its directory that lead to the
// same file.
func (f *finder) links(path string) []cached {
	want, err := os.Stat(f.root + path)
	if err != nil {
		return nil
	}
	list := []cached{{filepath.Base(path), path}}
	dir, base := filepath.Split(path)
	stem, _, _ := strings.Cut(base, ".so")
	names, _ := os.ReadDir(f.root + dir)
	for _, n := range names {
		if n.Name() == base || !strings.HasPrefix(n.Name(), stem+".so") || len(list) == maxLinks {
			continue
		}
		if info, err := os.Stat(f.root + dir + n.Name()); err == nil && os.SameFile(info, want) {
			list = append(list, cached{n.Name(), dir + n.Name()})
		}
	}
	return list
}

func (f *finder) program(name string) string {
	for _, dir := range f.path {
		if !filepath.IsAbs(dir) {
			continue
		}
		p := filepath.Join(dir, name)
		if m := f.mode(p); m&syscall.S_IFMT == syscall.S_IFREG && m&0o111 != 0 {
			return p
		}
	}
	return ""
}

func (f *finder) mode(path string) uint32 {
	var st syscall.Stat_t
	if syscall.Stat(f.root+path, &st) != nil {
		return 0
	}
	return st.Mode
}

// devices lists what in /dev has a name that begins so.
func (f *finder) devices(prefix string) []string {
	names, err := os.ReadDir(f.root + "/dev")
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range names {
		if strings.HasPrefix(n.Name(), prefix) && (n.IsDir() || n.Type()&os.ModeDevice != 0) {
			out = append(out, "/dev/"+n.Name())
		}
	}
	return out
}

// NvidiaCLI finds the NVIDIA drivers by nvidia-container-cli, which knows the
// parts of the installed driver; path is absolute or empty for the one of the
// system. Of env only the variables NVIDIA_* count; devices is what
// NVIDIA_VISIBLE_DEVICES means where it is not set. The program only lists: it
// neither mounts nor needs privilege.
func NvidiaCLI(path string, env []string, devices string) (Drivers, error) {
	d := Drivers{Vendor: "nv"}
	var err error
	if path == "" {
		if path, err = findTool("nvidia-container-cli"); err != nil {
			return d, err
		}
	}
	for _, v := range env {
		if s, ok := strings.CutPrefix(v, "NVIDIA_VISIBLE_DEVICES="); ok {
			devices = s
		}
	}
	args := []string{"--user", "list", "--libraries", "--binaries", "--ipcs"}
	if devices != "" && devices != "none" && devices != "void" {
		args = append(args, "--device="+devices)
	}
	b, err := askPath(path, 10*askTimeout, args...)
	if err != nil {
		return d, errors.New("cannot list the NVIDIA driver with " + path + ": " + err.Error())
	}
	f := finder{}
	f.native, _ = elf.Native()
	f.sort(&d, b)
	return d, nil
}

// sort puts the paths that nvidia-container-cli printed where they belong.
func (f *finder) sort(d *Drivers, b []byte) {
	for line := range bytes.Lines(b) {
		p := strings.TrimSpace(string(line))
		base := filepath.Base(p)
		switch {
		case !filepath.IsAbs(p) || filepath.Clean(p) != p:
		case strings.HasPrefix(p, "/dev/"):
			d.Devices = append(d.Devices, p)
		case f.mode(p)&syscall.S_IFMT == syscall.S_IFSOCK:
			d.Sockets = append(d.Sockets, p)
		case strings.Contains(base, ".so"):
			for _, c := range f.links(p) {
				if lib, ok := f.library(c); ok {
					d.Libraries = append(d.Libraries, lib)
				}
			}
		case f.mode(p)&syscall.S_IFMT == syscall.S_IFREG:
			d.Programs = append(d.Programs, Program{base, p})
		}
	}
}
