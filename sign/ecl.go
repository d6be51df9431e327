package sign

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/conf/ecl"
	"singularity/sif"
	"singularity/sign/keyring"
)

// ListName is the name of the execution control list in the site's directory.
const ListName = "ecl.toml"

// ReadList reads the execution control list of the directory site. A list that is
// not there is not activated.
func ReadList(site string) (*ecl.Config, error) {
	path := filepath.Join(site, ListName)
	if err := conf.CheckSite(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return &ecl.Config{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", path)
	}
	text, err := conf.ReadAll(f, ecl.MaxSize)
	var c *ecl.Config
	if err == nil {
		c, err = ecl.Parse(text, filepath.EvalSymlinks)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use %q: %w", path, err)
	}
	return c, nil
}

// Decision is what the execution control list says of an image.
type Decision struct {
	Group   *ecl.Group // whose rule decides; nil if there is none
	Signers []string   // fingerprints of those who signed every group of objects
	Err     error      // why the image may not run; nil if it may
}

// ErrNoGroup says that no group of the list is for the image's directory.
var ErrNoGroup = errors.New("not part of any execgroup")

// Decide judges the image f, which is the file at path, by an activated list.
// Only the administrator's ring counts. With how Lazy the partitions that have a
// hash tree are not read: whoever runs the image must read it through the trees.
func Decide(ctx context.Context, f *sif.File, path, site string, c *ecl.Config, how How, now time.Time) *Decision {
	d := &Decision{Group: c.Group(filepath.Dir(path))}
	if d.Group == nil {
		d.Err = fmt.Errorf("%s %w", path, ErrNoGroup)
		return d
	}
	ring, err := keyring.Global(site, nil).Read()
	if err != nil {
		d.Err = err
		return d
	}
	r, err := Verify(ctx, f, Options{Keyrings: []Keyring{{Origin: Global, Ring: ring}}, Now: now, How: how, Legacy: c.LegacyInsecure})
	if err != nil {
		d.Err = fmt.Errorf("image signature not valid: %w", err)
		return d
	}
	all, any := r.signers()
	for fp := range all {
		d.Signers = append(d.Signers, fp)
	}
	slices.Sort(d.Signers)
	d.Err = d.Group.Allows(all, any)
	return d
}

// signers returns the fingerprints of those who made a good signature of every
// group of objects, and of any.
func (r *Result) signers() (all, any map[string]bool) {
	groups := map[uint32]map[string]bool{}
	any = map[string]bool{}
	for _, s := range r.Signatures {
		if groups[s.Group] == nil {
			groups[s.Group] = map[string]bool{}
		}
		if s.Err == nil && s.Key != nil {
			fp := s.Key.Fingerprint().String()
			groups[s.Group][fp], any[fp] = true, true
		}
	}
	all = map[string]bool{}
	for fp := range any {
		all[fp] = true
		for _, g := range groups {
			all[fp] = all[fp] && g[fp]
		}
		if !all[fp] {
			delete(all, fp)
		}
	}
	return all, any
}
