package conf

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A File is an image as the limits see it: what its descriptor says, so that no
// path is walked a second time.
type File struct {
	Path     string // absolute, without links; "" if it has none any more
	UID, GID int    // -1 if they cannot be told
}

// FileOf returns what the limits look at.
func FileOf(f *os.File) (File, error) {
	var st syscall.Stat_t
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err = errors.Join(err, syscall.Fstat(int(f.Fd()), &st)); err != nil {
		return File{}, err
	}
	if st.Nlink == 0 || !strings.HasPrefix(path, "/") {
		path = ""
	}
	return File{Path: path, UID: int(st.Uid), GID: int(st.Gid)}, nil
}

// Names finds the numbers of users and groups. A name that is not found is
// nobody's.
type Names struct {
	User, Group func(name string) (id int, ok bool)
}

// The formats of images that the directives "allow container ..." tell apart.
const (
	FormatSIF       = "sif"
	FormatEncrypted = "encrypted"
	FormatSquashfs  = "squashfs"
	FormatExtfs     = "extfs"
	FormatDir       = "dir"
)

// A Check is what one directive says of an image: why it keeps that from being used,
// "" if it does not. One that does is an error.
type Check struct{ Directive, Reason string }

func (c *Check) Error() string { return c.Reason }

// Checks asks every directive about an image of that format. Nobody is exempt
// here: that the limits do not bind root is the caller's to know.
func (c *Config) Checks(format string, f File, n Names) []Check {
	list := []Check{c.checkFormat(format)}
	limit := func(directive, reason string, words []string, holds func(word string) bool) {
		check := Check{Directive: directive}
		if len(words) > 0 && !slices.ContainsFunc(words, holds) {
			check.Reason = "singularity image is not " + reason
		}
		list = append(list, check)
	}
	limit("limit container paths", "in an allowed configured path", c.LimitContainerPaths, func(dir string) bool { return within(f.Path, dir) })
	limit("limit container groups", "owned by required group(s)", c.LimitContainerGroups, func(name string) bool { return is(f.GID, name, n.Group) })
	limit("limit container owners", "owned by required user(s)", c.LimitContainerOwners, func(name string) bool { return is(f.UID, name, n.User) })
	return list
}

// CheckImage returns the first refusal of Checks, or nil.
func (c *Config) CheckImage(format string, f File, n Names) error {
	for _, check := range c.Checks(format, f, n) {
		if check.Reason != "" {
			return &check
		}
	}
	return nil
}

// Limited tells whether there are limits on where images lie and whose they
// are, for which a File is needed.
func (c *Config) Limited() bool {
	return len(c.LimitContainerPaths)+len(c.LimitContainerGroups)+len(c.LimitContainerOwners) > 0
}

func (c *Config) checkFormat(format string) Check {
	check := Check{Directive: "allow container " + format}
	allowed := map[string]bool{FormatSIF: c.AllowContainerSIF, FormatEncrypted: c.AllowContainerEncrypted,
		FormatSquashfs: c.AllowContainerSquashfs, FormatExtfs: c.AllowContainerExtfs, FormatDir: c.AllowContainerDir}
	if !allowed[format] {
		names := map[string]string{FormatSIF: "unencrypted SIF", FormatEncrypted: "encrypted SIF", FormatSquashfs: "squashFS", FormatExtfs: "extFS", FormatDir: "sandbox"}
		check.Reason = "configuration disallows users from running " + cmp.Or(names[format], format) + " containers"
	}
	return check
}

// within tells whether path is dir or lies below it. Links on the way to dir are
// the administrator's and are followed.
func within(path, dir string) bool {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil || !filepath.IsAbs(dir) || path == "" {
		return false
	}
	return path == real || real == "/" || strings.HasPrefix(path, real) && path[len(real)] == '/'
}

// is tells whether id is that of name, which may be a number.
func is(id int, name string, lookup func(string) (int, bool)) bool {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int(n) == id
	}
	n, ok := lookup(name)
	return ok && n == id && id >= 0
}
