package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"singularity/fetch/recent"
)

// KeepTime is how long an image is safe from eviction after its last use: a
// container on another host may have it open, and a file server may not know.
const KeepTime = 24 * time.Hour

// staleTime is the age from which a file of an unknown writer is a leftover.
const staleTime = 48 * time.Hour

// Entry is a file of the cache.
type Entry struct {
	Type, Name string
	Path       string
	Size       int64
	Created    time.Time // the time of modification
	Used       time.Time
	// Temporary is set for a file that is being written or was abandoned.
	Temporary bool
}

// List returns the entries of the types, those of Others among them, and of all
// Types if there are none, in the order of types and names.
func (c *Cache) List(types ...string) ([]Entry, error) {
	var list []Entry
	for _, t := range slices.Concat(Types, Others) {
		if !slices.Contains(types, t) && (len(types) > 0 || slices.Contains(Others, t)) {
			continue
		}
		dir := filepath.Join(c.Root, t)
		if t == "blob" {
			dir = filepath.Join(dir, "blobs", "sha256")
		}
		found, err := listDir(t, dir)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

// listDir finds our files in dir.
//
// Security: the user may have named a directory of their own for the cache.
// Only a regular file of the user's, with a name that we give, is ours.
func listDir(kind, dir string) ([]Entry, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Entry
	for _, f := range files {
		name, temporary := f.Name(), false
		if rest, ok := strings.CutPrefix(name, "tmp_"); ok {
			digest, _, _ := strings.Cut(rest, "_")
			name, temporary = digest, true
		}
		if !isName(name) && !isOther(kind, name) {
			continue
		}
		fi, err := f.Info()
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		st := fi.Sys().(*syscall.Stat_t)
		if int(st.Uid) != os.Geteuid() {
			continue
		}
		used := time.Unix(st.Atim.Unix())
		if fi.ModTime().After(used) {
			used = fi.ModTime()
		}
		list = append(list, Entry{Type: kind, Name: f.Name(), Path: filepath.Join(dir, f.Name()), Size: fi.Size(), Created: fi.ModTime(), Used: used, Temporary: temporary})
	}
	return list, nil
}

// Busy tells whether e is being written, as far as that is known.
func (e *Entry) Busy() bool {
	if !e.Temporary {
		return false
	}
	nonce := e.Name[strings.LastIndexByte(e.Name, '_')+1:]
	return !deadHere(nonce) && time.Since(e.Created) < staleTime
}

// Remove deletes entries that List returned.
func (c *Cache) Remove(e Entry) error {
	err := os.Remove(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// RemoveRefs forgets what references named.
func (c *Cache) RemoveRefs() {
	files, _ := os.ReadDir(filepath.Join(c.Root, "ref"))
	for _, f := range files {
		if strings.HasPrefix(f.Name(), recent.Prefix) && f.Type().IsRegular() {
			os.Remove(filepath.Join(c.Root, "ref", f.Name()))
		}
	}
}

// evict makes room: the images that were not used for longest go, but not
// keep.
func (c *Cache) evict(keep string) {
	if c.Size <= 0 {
		return
	}
	list, err := c.List()
	if err != nil {
		return
	}
	var total int64
	for i := range list {
		total += list[i].Size
	}
	slices.SortFunc(list, func(a, b Entry) int { return a.Used.Compare(b.Used) })
	for i := range list {
		e := &list[i]
		if total <= c.Size {
			return
		}
		if e.Name == keep || e.Busy() || !e.Temporary && time.Since(e.Used) < KeepTime {
			continue
		}
		if c.Remove(*e) == nil {
			total -= e.Size
			if c.Evicted != nil {
				c.Evicted(*e)
			}
		}
	}
}
