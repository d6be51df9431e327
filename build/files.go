package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
	"singularity/linux/safepath"
)

// filesStep copies what %files and %appfiles name from the host, or what %files
// names from other stages.
func (b *builder) filesStep(name string, fromStage bool) step {
	return step{
		name: name, recheck: true,
		key: func(ctx context.Context) (string, error) {
			var parts []string
			err := b.eachCopy(fromStage, func(c *copyLine) error {
				digests, err := c.copy(ctx, nil)
				// Where exactly a copy goes depends on the steps before.
				for _, d := range digests {
					parts = append(parts, d.Source, c.dest, d.key)
				}
				return err
			})
			return joinParts(append(parts, strconv.FormatBool(b.o.FixPerms && !fromStage))), err
		},
		run: func(ctx context.Context) error {
			err := b.eachCopy(fromStage, func(c *copyLine) error {
				digests, err := c.copy(ctx, b.root)
				b.origin().Files = append(b.origin().Files, digests...)
				return err
			})
			if err == nil && b.o.FixPerms && !fromStage {
				err = fixPerms(b.root)
			}
			return err
		},
	}
}

// copyLine is a line of %files with all that it means.
type copyLine struct {
	b         *builder
	line      deffile.Copy
	stage     *stageRoot // to copy from; nil is the host
	stageName string
	dest      string // where the copy goes; a directory for several or if it ends in "/"
}

// eachCopy calls do for the lines of %files, and of %appfiles.
func (b *builder) eachCopy(fromStage bool, do func(*copyLine) error) error {
	at := func(c *copyLine) error {
		if err := do(c); err != nil {
			return fmt.Errorf("%s:%d: %w", b.o.Spec, c.line.Line, err)
		}
		return nil
	}
	for _, set := range b.stage.Files {
		if (set.From != "") != fromStage {
			continue
		}
		var from *stageRoot
		for _, s := range b.stages[:len(b.stages)-1] {
			if fromStage && s.name == set.From {
				from = s
			}
		}
		for _, c := range set.Copies {
			dest := c.Dest
			if dest == "" {
				dest = c.Source
			}
			if err := at(&copyLine{b: b, line: c, stage: from, stageName: set.From, dest: dest}); err != nil {
				return err
			}
		}
	}
	if fromStage {
		return nil
	}
	for _, a := range b.stage.Apps {
		for _, c := range a.Files {
			// Without a destination the copy is in the app's directory.
			dest := path.Join(appRoot(a.Name), c.Dest)
			if c.Dest == "" || strings.HasSuffix(c.Dest, "/") {
				dest += "/"
			}
			if err := at(&copyLine{b: b, line: c, dest: dest}); err != nil {
				return err
			}
		}
	}
	return nil
}

// copy copies what the line names below root, and returns what was copied. With
// a nil root it only looks at it.
func (l *copyLine) copy(ctx context.Context, root *os.File) ([]fileOrigin, error) {
	where, sources, err := "on this host", []string(nil), error(nil)
	prefix := ""
	if l.stageName == "" {
		prefix = l.prefix()
		sources, err = filepath.Glob(prefix + l.pattern(prefix))
	} else {
		where = fmt.Sprintf("in stage %q", l.stageName)
		sources, err = globTree(l.stage.root, l.line.Source)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot copy %q: %w", l.line.Source, err)
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("cannot copy %q: no such file %s", l.line.Source, where)
	}
	var list []fileOrigin
	for _, src := range sources {
		dest := l.dest
		switch {
		case l.line.Dest == "" && !strings.HasSuffix(dest, "/"):
			dest = strings.TrimPrefix(src, prefix) // of a pattern, the names that it stands for
		case strings.HasSuffix(dest, "/"), len(sources) > 1, l.b.isDir(dest):
			dest = path.Join(dest, filepath.Base(src))
		}
		c := &copier{ctx: ctx, root: root, tree: sha256.New()}
		if root != nil {
			l.b.o.Log.Verbose(fmt.Sprintf("Copying %q to %q", src, dest))
		}
		if l.stageName == "" {
			err = c.copy(src, dest, "")
		} else {
			err = c.copyStage(l.stage.root, src, dest)
		}
		if err != nil {
			return list, fmt.Errorf("cannot copy %q to %q: %w", src, dest, err)
		}
		list = append(list, fileOrigin{
			Stage: l.stageName, Source: strings.TrimPrefix(src, prefix), Destination: path.Join("/", dest), Digest: c.digest(), key: hex.EncodeToString(c.tree.Sum(nil)),
		})
	}
	return list, nil
}

// prefix is what comes before a name of the host's: nothing, but where the files
// came from another machine.
func (l *copyLine) prefix() string {
	o := &l.b.o
	switch {
	case o.FilesRoot == "":
		return ""
	case filepath.IsAbs(l.line.Source):
		return o.FilesRoot
	}
	return filepath.Join(o.FilesRoot, path.Join("/", o.FilesDir)) + "/"
}

// pattern is the name to look for behind prefix.
//
// Security: below a root, ".." leads nowhere else.
func (l *copyLine) pattern(prefix string) string {
	if prefix == "" {
		return l.line.Source
	}
	clean := path.Join("/", l.line.Source)
	if strings.HasSuffix(prefix, "/") {
		return clean[1:]
	}
	return clean
}

// isDir tells whether name is a directory of the image, perhaps through links.
func (b *builder) isDir(name string) bool {
	f, err := safepath.Open(b.root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// copier copies from the host or from another stage to the image, and takes
// the digest of what it copies.
type copier struct {
	ctx  context.Context
	root *os.File  // nil: only the digest is wanted
	tree hash.Hash // of all entries
	file string    // hexadecimal digest of the last file
	all  int       // entries
}

// digest is that of the file that was copied, or of the list of a directory's
// entries with theirs.
func (c *copier) digest() string {
	if c.all == 1 && c.file != "" {
		return "sha256:" + c.file
	}
	return fmt.Sprintf("tree-sha256:%x", c.tree.Sum(nil))
}

// note adds an entry to the digest.
func (c *copier) note(at string, mode uint32, more string) {
	c.all++
	fmt.Fprintf(c.tree, "%q %o %s\n", at, mode, more)
}

// copy copies src, a path of the host, to dest, a path of the image; at is the
// path from where the copy begins. Links of the host are followed, those of the
// image only inside it; owner is root, modes are kept.
func (c *copier) copy(src, dest, at string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case 0:
		return c.hostFile(src, dest, at, info)
	case fs.ModeDir:
		return c.dir(src, dest, at, info)
	case fs.ModeNamedPipe:
		c.note(at, unix.S_IFIFO|unixMode(info.Mode()), "")
		if c.root == nil {
			return nil
		}
		return c.fifo(dest, unixMode(info.Mode()))
	}
	return fmt.Errorf("%q is neither a file nor a directory", src)
}

func (c *copier) fifo(dest string, mode uint32) error {
	dir, err := safepath.Mkdir(c.root, path.Dir(dest), 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unlink(dir, path.Base(dest)); err != nil {
		return err
	}
	if err := unix.Mkfifoat(int(dir.Fd()), path.Base(dest), 0o600); err != nil {
		return err
	}
	return unix.Fchmodat(int(dir.Fd()), path.Base(dest), mode&0o777, 0)
}

func (c *copier) dir(src, dest, at string, info fs.FileInfo) error {
	c.note(at, unix.S_IFDIR|unixMode(info.Mode()), "")
	if c.root != nil {
		own, err := c.root.Stat()
		if err != nil {
			return err
		}
		// A copy of / or of the temporary directory would copy the copy.
		if os.SameFile(own, info) {
			return nil
		}
		d, err := safepath.Mkdir(c.root, dest, unixMode(info.Mode()))
		if err != nil {
			return err
		}
		d.Close()
	}
	names, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := c.copy(filepath.Join(src, n.Name()), path.Join(dest, n.Name()), path.Join(at, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) hostFile(src, dest, at string, info fs.FileInfo) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	return c.content(in, dest, at, unixMode(info.Mode()), nil)
}

// content copies an open file to dest, gives it its mode and what attributes
// sets before.
func (c *copier) content(in io.Reader, dest, at string, mode uint32, attributes func(f *os.File) error) error {
	h := sha256.New()
	from := io.TeeReader(readerUntil{c.ctx, in}, h)
	defer func() {
		c.file = hex.EncodeToString(h.Sum(nil))
		c.note(at, unix.S_IFREG|mode, c.file)
	}()
	if c.root == nil {
		_, err := io.Copy(io.Discard, from)
		return err
	}
	dir, err := safepath.Mkdir(c.root, path.Dir(dest), 0o755)
	if err != nil {
		return err
	}
	dir.Close()
	out, err := c.create(dest)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, from, make([]byte, copyChunk))
	if err == nil && attributes != nil {
		err = attributes(out)
	}
	if err == nil {
		err = unix.Fchmod(int(out.Fd()), mode)
	}
	return errors.Join(err, out.Close())
}

// copyChunk is how many bytes of a file are copied at a time: each file has such a
// buffer, and there may be ten thousand.
const copyChunk = 128 << 10

// create opens dest for writing, through links in the image; what cannot be
// written to is replaced.
func (c *copier) create(dest string) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC | unix.O_NONBLOCK | unix.O_NOCTTY
	out, err := safepath.Open(c.root, dest, flags, 0o600)
	if err == nil {
		var info fs.FileInfo
		if info, err = out.Stat(); err == nil && info.Mode().IsRegular() {
			return out, nil
		}
		// Security: a device of a base image must not get the data.
		out.Close()
	}
	if errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	if err := removeEntry(c.root, dest); err != nil {
		return nil, err
	}
	return safepath.Open(c.root, dest, flags|unix.O_EXCL, 0o600)
}

// unixMode returns the permission bits of a file's mode as chmod takes them.
func unixMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		bits |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		bits |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		bits |= unix.S_ISVTX
	}
	return bits
}

// fixPerms gives the owner of every file read and write access to it, and
// search access to directories.
func fixPerms(root *os.File) error {
	return walkTree(root, func(dir *os.File, name, at string, st *unix.Stat_t) error {
		add := uint32(0o600)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			add = 0o700
		case unix.S_IFREG:
		default:
			return nil
		}
		if st.Mode&add == add {
			return nil
		}
		return unix.Fchmodat(int(dir.Fd()), name, st.Mode&0o7777|add, 0)
	})
}
