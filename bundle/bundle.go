// Package bundle carries what a site needs across an air gap: images, public
// keys, policy and advisory data in one file.
//
// A bundle is a SIF with one object for each file and a manifest, so that it is
// signed and verified like an image, by the same programs. Create writes one,
// Open reads the manifest of one, Import puts the files into a directory.
//
// Trust: a bundle is hostile until its signature has been verified, which is for
// the caller to do before Import, on the same open file. Import relies on the
// manifest alone, checks the SHA-256 of every file while it copies, and gives a
// file its name when all of it is there. An older bundle than the last of a
// directory is refused: it would bring back revoked keys and forget advisories.
package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/sif"
)

// Kind is what a file in a bundle is for, and the directory that Import puts it
// in.
type Kind string

// The kinds.
const (
	Images     Kind = "images"
	Keys       Kind = "keys"
	Policy     Kind = "policy"
	Advisories Kind = "advisories"
)

// Kinds are all kinds, in the order in which they are written: what is small and
// decides comes first.
var Kinds = []Kind{Policy, Keys, Advisories, Images}

// manifestName is the object that lists the others, stateName the file that
// remembers the last bundle in a directory.
const (
	manifestName = "bundle.json"
	stateName    = ".bundle.json"
	version      = 1
)

// Bounds of a bundle.
const (
	maxItems = 10_000
	maxName  = 128
)

// Item is one file of a bundle.
type Item struct {
	Kind   Kind   `json:"kind"`
	Name   string `json:"name"` // without directories
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Object uint32 `json:"object"` // id in the SIF
	Path   string `json:"-"`      // of the file, for Create
}

// Manifest lists what a bundle holds.
type Manifest struct {
	Version int       `json:"version"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Items   []Item    `json:"items"`
}

func (m *Manifest) check() error {
	seen := map[string]bool{}
	if m.Version != version {
		return fmt.Errorf("its manifest has version %d, known is %d", m.Version, version)
	}
	if m.Name == "" || len(m.Name) > maxName || strings.ContainsFunc(m.Name, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return errors.New("its name is not usable: printable ASCII without spaces, at most 128 characters")
	}
	if len(m.Items) > maxItems {
		return fmt.Errorf("it has over %d files", maxItems)
	}
	for _, x := range m.Items {
		key := string(x.Kind) + "/" + x.Name
		switch {
		case !slices.Contains(Kinds, x.Kind):
			return fmt.Errorf("a file has the unknown kind %q", x.Kind)
		case !plainName(x.Name):
			return fmt.Errorf("%q cannot be the name of a file", x.Name)
		case seen[key]:
			return fmt.Errorf("%q is there twice", key)
		case x.Size < 0 || len(x.SHA256) != 64:
			return fmt.Errorf("%q has no size or digest", key)
		}
		seen[key] = true
	}
	return nil
}

// plainName tells whether s is a file name that is safe in any directory.
func plainName(s string) bool {
	return s != "" && len(s) <= maxName && s[0] != '.' && s[0] != '-' && s == path.Base(s) && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '/' || c == '\\' || c > 0x7f })
}

// Create writes a bundle called name of items, whose Path is set, to w. tell is
// called with the bytes written so far and of all; it may be nil.
func Create(ctx context.Context, w sif.Storage, name string, created time.Time, items []Item, tell func(done, total int64)) (*Manifest, error) {
	m := &Manifest{Version: version, Name: name, Created: created.UTC().Truncate(time.Second), Items: slices.Clone(items)}
	slices.SortStableFunc(m.Items, func(a, b Item) int { return slices.Index(Kinds, a.Kind) - slices.Index(Kinds, b.Kind) })
	var total, done int64
	inputs := make([]sif.Input, 0, len(items)+1)
	for i := range m.Items {
		x := &m.Items[i]
		if !plainName(x.Name) {
			return nil, fmt.Errorf("%q cannot be a name in a bundle: letters, digits and such, without spaces, at most %d", x.Name, maxName)
		}
		st, err := os.Stat(x.Path)
		if err != nil {
			return nil, err
		}
		if !st.Mode().IsRegular() {
			return nil, fmt.Errorf("%q is no regular file", x.Path)
		}
		total += st.Size()
		x.Object = uint32(i + 1)
		x.SHA256 = strings.Repeat("0", 64)
		inputs = append(inputs, sif.Input{Type: sif.DataGeneric, Group: sif.DefaultGroup, Name: string(x.Kind) + "/" + x.Name, Align: 4096, Write: func(out *io.OffsetWriter) (int64, error) {
			f, err := os.Open(x.Path)
			if err != nil {
				return 0, err
			}
			defer f.Close()
			h := sha256.New()
			x.Size, err = io.Copy(io.MultiWriter(out, h, meter{ctx, &done, total, tell}), f)
			x.SHA256 = fmt.Sprintf("%x", h.Sum(nil))
			return x.Size, err
		}})
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	// Last, when the digests are known.
	inputs = append(inputs, sif.Input{Type: sif.DataJSON, Group: sif.DefaultGroup, Name: manifestName, Write: func(out *io.OffsetWriter) (int64, error) {
		b, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return 0, err
		}
		return io.Copy(out, bytes.NewReader(b))
	}})
	_, err := sif.Create(w, sif.CreateOptions{Time: m.Created, Slots: len(inputs) + 16}, inputs...)
	return m, err
}

// meter tells how far a copy is, and ends it with ctx.
type meter struct {
	ctx   context.Context
	done  *int64
	total int64
	tell  func(done, total int64)
}

func (m meter) Write(b []byte) (int, error) {
	*m.done += int64(len(b))
	if m.tell != nil {
		m.tell(*m.done, m.total)
	}
	return len(b), m.ctx.Err()
}

// Bundle is an open bundle.
type Bundle struct {
	Manifest Manifest
	// Object is that of the manifest: a signature must cover it.
	Object sif.Object
	f      *sif.File
}

// Open reads the manifest of the bundle in f. Nothing of it is trusted yet.
func Open(f *sif.File) (*Bundle, error) {
	o, ok := f.Named(sif.DataJSON, manifestName)
	if !ok {
		return nil, errors.New("it is no bundle: it has no manifest")
	}
	b, err := f.ReadAll(o)
	if err != nil {
		return nil, err
	}
	x := &Bundle{Object: o, f: f}
	if err := json.Unmarshal(b, &x.Manifest); err != nil {
		return nil, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if err := x.Manifest.check(); err != nil {
		return nil, err
	}
	return x, nil
}

// ErrOlder is the cause of the refusal of an old bundle.
var ErrOlder = errors.New("it is older than the last bundle of this directory")

// Import puts the files of b, whose signature the caller has verified, below
// dir, in directories of their kinds. Files of the last bundle of the same name
// are replaced one by one; those that this one does not have stay. After an
// error every file is the old or the new one, and the bundle can be imported
// again.
func (b *Bundle) Import(ctx context.Context, dir string, older bool, tell func(done, total int64)) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	last, err := readState(root)
	if err != nil {
		return err
	}
	if !older && b.Manifest.Created.Before(last.Created) {
		return fmt.Errorf("%w: %s of %s, the last was %s of %s", ErrOlder, b.Manifest.Name, b.Manifest.Created.Format(time.RFC3339), last.Name, last.Created.Format(time.RFC3339))
	}
	var total, done int64
	for _, x := range b.Manifest.Items {
		total += x.Size
	}
	for _, x := range b.Manifest.Items {
		if err := b.put(root, x, meter{ctx, &done, total, tell}); err != nil {
			return fmt.Errorf("cannot import %s/%s: %w", x.Kind, x.Name, err)
		}
	}
	text, err := json.Marshal(b.Manifest)
	if err != nil {
		return err
	}
	return replace(root, stateName, func(w io.Writer) error { _, err := w.Write(text); return err })
}

func readState(root *os.Root) (Manifest, error) {
	var m Manifest
	text, err := root.ReadFile(stateName)
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%s in the directory is damaged: %w", stateName, err)
	}
	return m, nil
}

// put copies one file.
func (b *Bundle) put(root *os.Root, x Item, progress meter) error {
	o, ok := b.f.Object(x.Object)
	if !ok || o.Size != x.Size || o.Name != string(x.Kind)+"/"+x.Name {
		return errors.New("the bundle does not hold what its manifest says")
	}
	if err := root.MkdirAll(string(x.Kind), 0o755); err != nil {
		return err
	}
	return replace(root, string(x.Kind)+"/"+x.Name, func(w io.Writer) error {
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(w, h, progress), b.f.Reader(o)); err != nil {
			return err
		}
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != x.SHA256 {
			return fmt.Errorf("its digest is not that of the manifest: %s", got)
		}
		return nil
	})
}

// replace gives what write writes the name path, once it is whole and on disk.
func replace(root *os.Root, name string, write func(io.Writer) error) error {
	dir, base := path.Split(name)
	tmp := dir + ".new-" + base
	if err := root.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		root.Remove(tmp)
		return err
	}
	d, err := root.Open(path.Clean("./" + dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
