package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// A cached is a library that the dynamic loader of the host would find.
type cached struct {
	name string // what programs ask for
	path string // absolute
}

// maxCached bounds the entries of ld.so.cache.
const maxCached = 1 << 17

// errCache says that ld.so.cache is not what the GNU C library reads.
var errCache = errors.New("ld.so.cache has no entries of the GNU C library")

// Sizes of the structures in ld.so.cache, in bytes. The file is in the byte
// order of the machine.
const (
	oldHeaderSize = 16 // magic, number of entries
	oldEntrySize  = 12 // flags, name, path
	newHeaderSize = 48 // magic, entries, size of strings, flags, extensions
	newEntrySize  = 24 // flags, name, path, version of the system, capabilities
)

const (
	oldMagic = "ld.so-1.7.0"
	newMagic = "glibc-ld.so.cache1.1"
)

// parseLDCache reads the entries of ld.so.cache. Those for certain processors
// only are left out, since each has a general one beside it.
func parseLDCache(b []byte) ([]cached, error) {
	if bytes.HasPrefix(b, []byte(oldMagic)) && len(b) >= oldHeaderSize {
		// The old table comes first, the new one behind it where 8 bytes align.
		n := uint64(binary.NativeEndian.Uint32(b[12:]))
		skip := (oldHeaderSize + n*oldEntrySize + 7) &^ 7
		if skip > uint64(len(b)) {
			return nil, errCache
		}
		b = b[skip:]
	}
	if !bytes.HasPrefix(b, []byte(newMagic)) || len(b) < newHeaderSize {
		return nil, errCache
	}
	n := int64(binary.NativeEndian.Uint32(b[20:]))
	if n > maxCached || newHeaderSize+n*newEntrySize > int64(len(b)) {
		return nil, errCache
	}
	var list []cached
	for i := range n {
		e := b[newHeaderSize+i*newEntrySize:]
		if binary.NativeEndian.Uint64(e[16:]) != 0 {
			continue
		}
		name, path := cacheText(b, binary.NativeEndian.Uint32(e[4:])), cacheText(b, binary.NativeEndian.Uint32(e[8:]))
		if name == "" || strings.Contains(name, "/") || !strings.HasPrefix(path, "/") {
			continue
		}
		list = append(list, cached{name, path})
	}
	return list, nil
}

// cacheText returns the string at an offset, "" if there is no sane one.
func cacheText(b []byte, at uint32) string {
	if int64(at) >= int64(len(b)) {
		return ""
	}
	b = b[at:min(int64(len(b)), int64(at)+4096)]
	end := bytes.IndexByte(b, 0)
	if end < 0 {
		return ""
	}
	return string(b[:end])
}

// parseLdconfig reads what ldconfig -p prints: lines "name (flags) => path".
func parseLdconfig(b []byte) []cached {
	var list []cached
	for line := range bytes.Lines(b) {
		left, path, ok := strings.Cut(strings.TrimSpace(string(line)), " => ")
		name, flags, _ := strings.Cut(left, " (")
		if ok && !strings.Contains(flags, "hwcap") && name != "" && !strings.Contains(name, "/") && strings.HasPrefix(path, "/") {
			list = append(list, cached{name, path})
		}
	}
	return list
}

// driverDirs hold libraries that the cache may not know: those that a container
// around this one was given, and the places of NixOS and of Windows.
var driverDirs = [...]string{"/.singularity.d/libs", "/run/opengl-driver/lib", "/usr/lib/wsl/lib"}

// plainDirs are searched on a system without a cache.
var plainDirs = [...]string{"/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"}

// libraries lists the libraries of this machine, those that come first win.
func (f *finder) libraries() []cached {
	list := f.listDirs(driverDirs[:])
	var found []cached
	if f.ldconfig != "" {
		if b, err := askPath(f.ldconfig, askTimeout, "-p"); err == nil {
			found = parseLdconfig(b)
		}
	} else if b, err := readFile(f.root + "/etc/ld.so.cache"); err == nil {
		found, _ = parseLDCache(b)
	}
	if found == nil {
		found = f.listDirs(plainDirs[:])
	}
	return append(list, found...)
}

func (f *finder) listDirs(dirs []string) []cached {
	var list []cached
	for _, dir := range dirs {
		names, err := os.ReadDir(f.root + dir)
		if err != nil {
			continue
		}
		for _, n := range names {
			if strings.Contains(n.Name(), ".so") && len(list) < maxCached {
				list = append(list, cached{n.Name(), filepath.Join(dir, n.Name())})
			}
		}
	}
	return list
}
