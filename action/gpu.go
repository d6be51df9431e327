package action

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/host"
	"singularity/host/elf"
	"singularity/image"
	"singularity/plan"
)

// devicesVariable names the descriptor with the edits of CDI devices.
const devicesVariable = "SINGULARITY_DEVICES_FD"

// maxEdits bounds the edits of CDI devices, in bytes.
const maxEdits = 4 << 20

// maxLibrary bounds a library of the image that is looked into, in bytes.
const maxLibrary = 64 << 20

// drivers finds the GPU drivers that the options or the administrator ask for,
// and the edits of CDI devices.
func (s *starter) drivers(h *plan.HostFacts) error {
	o, c := s.o, s.conf
	cli := o.NVCCLI || c.UseNvidiaContainerCLI && o.NV
	nv := !o.NoNV && (o.NV || o.NVCCLI || c.AlwaysUseNV)
	rocm := !o.NoROCm && (o.ROCm || c.AlwaysUseROCm)
	if nv && rocm {
		s.log.Warning("--nv and --rocm cannot be used together. Only --nv will be applied.")
		rocm = false
	}
	var err error
	switch {
	case nv && cli:
		devices := "all"
		if o.Contain || o.ContainAll || o.Compat {
			devices = "none"
		}
		h.Drivers, err = host.NvidiaCLI(c.NvidiaContainerCLIPath, os.Environ(), devices)
		if missing := new(host.MissingToolError); errors.As(err, &missing) {
			err = Fatal(err, "install the NVIDIA container toolkit, set \"nvidia-container-cli path\" in singularity.conf, or use --nv")
		}
	case nv:
		h.Drivers, err = host.FindDrivers("nv", s.driverSearch())
	case rocm:
		h.Drivers, err = host.FindDrivers("rocm", s.driverSearch())
	}
	if err != nil {
		return err
	}
	h.Edits, err = deviceEdits(o.Devices)
	return err
}

func (s *starter) driverSearch() host.DriverSearch { return DriverSearch(s.conf, s.o.ConfigFile) }

// DriverSearch says where the drivers of GPUs are looked for; file is the
// configuration that the caller named, or "".
func DriverSearch(c *conf.Config, file string) host.DriverSearch {
	path := c.RootSearchPath
	if os.Getuid() != 0 {
		path = strings.ReplaceAll(c.UserSearchPath, "$PATH", os.Getenv("PATH"))
	}
	dirs := []string{conf.Dir()}
	if file != "" {
		dirs = []string{filepath.Dir(file), dirs[0]}
	}
	return host.DriverSearch{ConfDirs: dirs, Ldconfig: c.LdconfigPath, Path: path}
}

// deviceEdits reads what singularity-cli made of the names of CDI devices; nil
// without any.
func deviceEdits(devices []string) (*host.Edits, error) {
	if len(devices) == 0 {
		return nil, nil
	}
	word, ok := os.LookupEnv(devicesVariable)
	os.Unsetenv(devicesVariable)
	fd, err := strconv.Atoi(word)
	if !ok || err != nil || fd < 3 {
		return nil, host.ErrEdits
	}
	f := os.NewFile(uintptr(fd), "devices")
	if f == nil {
		return nil, host.ErrEdits
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEdits+1))
	if err != nil || len(b) > maxEdits {
		return nil, host.ErrEdits
	}
	return host.DecodeEdits(b)
}

// NeedsDevices tells whether a start must first go to singularity-cli, which
// reads the device files of CDI.
func NeedsDevices(o *plan.Options) bool {
	_, found := os.LookupEnv(devicesVariable)
	return len(o.Devices) > 0 && !found
}

// StartWithDevices becomes the program singularity with the command line that
// this process has, and hands e to it.
func StartWithDevices(e *host.Edits) error {
	b := e.Encode()
	if len(b) > maxEdits {
		return host.ErrEdits
	}
	fd, err := unix.MemfdCreate("devices", 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "devices")
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	os.Setenv(devicesVariable, strconv.Itoa(fd))
	return Become("singularity", append([]string{"singularity"}, os.Args[1:]...))
}

// imageLibraries finds the libraries of an image for machines of one kind.
type imageLibraries struct {
	files   image.Files
	resolve func(string) (string, plan.PathKind)
	native  elf.Target
	dirs    []string
}

// libraryFacts lets the plan ask about libraries, if it will.
func (s *starter) libraryFacts() {
	h, im := &s.facts.Host, &s.facts.Image
	native, ok := elf.Native()
	if !ok || len(h.Drivers.Libraries) == 0 && (h.Edits == nil || len(h.Edits.Libraries) == 0) {
		return
	}
	l := &imageLibraries{files: s.files, resolve: im.Resolve, native: native}
	l.dirs = []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib", "/usr/local/lib64"}
	for _, dir := range []string{"/lib", "/usr/lib"} {
		names, _ := s.files.ReadDir(dir)
		for _, n := range names {
			if strings.Contains(n, "-linux-gnu") {
				l.dirs = append(l.dirs, dir+"/"+n)
			}
		}
	}
	im.Library = func(name string) bool { return l.find(name) != nil }
	im.Glibc = func() string {
		if f := l.find("libc.so.6"); f != nil {
			return elf.Glibc(f.Offers)
		}
		return ""
	}
}

// find returns the library of that name that the machine can load, or nil.
func (l *imageLibraries) find(name string) *elf.File {
	for _, dir := range l.dirs {
		at, kind := l.resolve(dir + "/" + name)
		if kind != plan.Other {
			continue
		}
		b, err := l.files.ReadFile(at, maxLibrary)
		if err != nil {
			continue
		}
		if f, err := elf.Read(bytes.NewReader(b)); err == nil && f.Target == l.native {
			return f
		}
	}
	return nil
}
