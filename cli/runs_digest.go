package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/host"
	"singularity/linux/fsuser"
	"singularity/runlog"
)

// maxDigests bounds the images whose digests are remembered.
const maxDigests = 10_000

// errLater says that there was no time left for a digest.
var errLater = errors.New("there is no time left in this round")

// digests finds the digests of images that run, each by one reading: what a file was
// found to be is remembered for as long as it is the same one.
type digests struct {
	path  string // of the memory; "" for none
	until time.Time
	known map[string]string
	order []string // keys of known, the longest known first
	users map[uint32]runUser
	dirty bool
}

// digestsPath is where digests are remembered.
func digestsPath() string {
	return filepath.Join(conf.Localstatedir(), "singularity", "run-digests")
}

// openDigests reads the memory at path. One that others could have written, or that
// is no such file, is as good as none.
func openDigests(path string, budget time.Duration) *digests {
	d := &digests{path: path, until: time.Now().Add(budget), known: map[string]string{}, users: map[uint32]runUser{}}
	if path == "" {
		return d
	}
	if abs, err := filepath.Abs(path); err == nil {
		d.path = abs
	}
	f, err := conf.OpenOwned(d.path)
	if err != nil {
		return d
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxDigests*256))
	for lines.Scan() {
		key, sum, ok := strings.Cut(lines.Text(), " ")
		if ok && len(sum) == len("sha256:")+64 && strings.HasPrefix(sum, "sha256:") && len(d.order) < maxDigests {
			d.keep(key, sum)
		}
	}
	d.dirty = false
	return d
}

func (d *digests) keep(key, sum string) {
	if _, known := d.known[key]; !known {
		d.order = append(d.order, key)
	}
	d.known[key], d.dirty = sum, true
}

// save keeps what was found for the next time.
func (d *digests) save() error {
	if !d.dirty || d.path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
		return err
	}
	var b strings.Builder
	for _, key := range d.order[max(0, len(d.order)-maxDigests):] {
		b.WriteString(key + " " + d.known[key] + "\n")
	}
	return writeFileWhole(d.path, []byte(b.String()), 0o600)
}

// of is the digest of the image of r, "" if that is no file or no longer the same
// one. It fails with errLater if the time for reading images is over.
//
// Security: the path is the word of a user. So the file is opened with the rights of
// that user, who learns nothing by its digest, and must be the one that the record
// describes.
func (d *digests) of(ctx context.Context, r *runlog.Record) (string, error) {
	if r.Digest != "" {
		return r.Digest, nil
	}
	f, err := fsuser.Open(r.Image, int(r.UID), d.user(r.UID).groups)
	if err != nil {
		return "", nil
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !r.Same(f) {
		return "", nil
	}
	// Who may write to the file may set back the time of its last change, but not that of its inode.
	key := fmt.Sprintf("%d:%d:%d:%d:%d", st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
	if sum := d.known[key]; sum != "" {
		return sum, nil
	}
	sum, err := d.read(ctx, f, st.Size)
	if err != nil {
		return "", err
	}
	var after unix.Stat_t
	if unix.Fstat(int(f.Fd()), &after) != nil || after.Ctim != st.Ctim || after.Size != st.Size {
		return "", nil
	}
	d.keep(key, sum)
	return sum, nil
}

// read hashes f, in the time that is left. A file system that never answers holds up
// one goroutine, not the program.
func (d *digests) read(ctx context.Context, f *os.File, size int64) (string, error) {
	ctx, cancel := context.WithDeadline(ctx, d.until)
	defer cancel()
	own, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	type result struct {
		sum string
		err error
	}
	done := make(chan result, 1)
	go func() {
		g := os.NewFile(uintptr(own), f.Name())
		defer g.Close()
		h := sha256.New()
		for at := int64(0); at < size && ctx.Err() == nil; at += 8 << 20 {
			if _, err := io.Copy(h, io.NewSectionReader(g, at, min(8<<20, size-at))); err != nil {
				done <- result{"", err}
				return
			}
		}
		done <- result{fmt.Sprintf("sha256:%x", h.Sum(nil)), ctx.Err()}
	}()
	select {
	case r := <-done:
		if r.err == nil {
			return r.sum, nil
		}
	case <-ctx.Done():
	}
	return "", errLater
}

// runUser is who a record is of.
type runUser struct {
	name   string
	groups []int
}

// nobodysGroup is a group without files: users that no database knows have no other.
const nobodysGroup = 65534

// user looks uid up, once.
func (d *digests) user(uid uint32) runUser {
	if u, known := d.users[uid]; known {
		return u
	}
	u := runUser{strconv.FormatUint(uint64(uid), 10), []int{nobodysGroup}}
	if entry, err := host.LookupUser(int(uid), nobodysGroup); err == nil && entry.Name != "" {
		u.name = entry.Name
		if groups, err := host.GroupsOf(entry); err == nil && len(groups) > 0 {
			u.groups = groups
		}
	}
	d.users[uid] = u
	return u
}
