package build

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/build/stepcache"
	"singularity/host"
)

// bundle is the temporary directory of a build. Security: its mode is 0700
// from the start, as the scripts and setuid files in it are not for others.
type bundle struct {
	dir    string
	rootfs string   // of the stage that is built: in dir, or the sandbox that is updated in place
	lock   *os.File // dir, locked as long as the build lives
}

// open makes the temporary directory and the root file system in it.
func (b *builder) open() error {
	bundle := &bundle{}
	parent := filepath.Dir(b.target.path)
	prefix := besidePrefix
	if !b.o.Sandbox {
		// A sandbox is renamed into place, so it grows beside its target.
		var err error
		if parent, err = filepath.Abs(b.tempDir()); err != nil {
			return err
		}
		prefix = tempPrefix
	}
	removeStale(parent, prefix)
	if b.o.Keep {
		prefix = strings.Replace(prefix, "temp", "kept", 1)
	}
	dir, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return fmt.Errorf("cannot make the build directory: %w", err)
	}
	if !b.o.Keep {
		b.temporary(dir)
	}
	bundle.dir = dir
	if bundle.lock, err = lockDir(dir); err != nil {
		return errors.Join(fmt.Errorf("cannot lock the build directory: %w", err), os.Remove(dir))
	}
	b.bundle = bundle
	b.o.Log.Verbose("Working in " + dir)
	return nil
}

// openRoot makes and opens the root file system of a stage.
func (b *builder) openRoot() error {
	if !b.inPlace {
		if err := os.Mkdir(b.bundle.rootfs, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(b.bundle.rootfs, 0o755); err != nil {
			return err
		}
	}
	if b.memory && !b.inPlace {
		if err := b.mountMemory(); err != nil {
			return err
		}
	}
	if err := b.checkMountFlags(); err != nil {
		return err
	}
	return b.openRootDir()
}

func (b *builder) openRootDir() error {
	fd, err := unix.Open(b.bundle.rootfs, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: b.bundle.rootfs, Err: err}
	}
	b.root = os.NewFile(uintptr(fd), b.bundle.rootfs)
	return nil
}

// mountMemory puts the root file system of the stage in memory.
func (b *builder) mountMemory() error {
	if err := unix.Mount("tmpfs", b.bundle.rootfs, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("cannot keep what is encrypted in memory during the build: %w", err)
	}
	return nil
}

// rootInMemory changes to a root file system in memory, while it is empty still.
func (b *builder) rootInMemory() error {
	b.root.Close()
	if err := b.mountMemory(); err != nil {
		return err
	}
	if err := b.openRootDir(); err != nil {
		return err
	}
	b.stages[len(b.stages)-1].root = b.root
	b.o.Log.Verbose("The image is encrypted: building in memory")
	return nil
}

// checkMountFlags looks whether programs can run where the build works.
func (b *builder) checkMountFlags() error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.bundle.rootfs, &st); err != nil {
		return err
	}
	parent := filepath.Dir(b.bundle.dir)
	if st.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("cannot build in %q: its file system is mounted noexec, so no program of the image can run there; choose another directory with --tmpdir or SINGULARITY_TMPDIR", parent)
	}
	if st.Flags&unix.ST_NODEV != 0 && b.o.Owners == RealRoot {
		b.o.Log.Warning(fmt.Sprintf("The file system of %q is mounted nodev: device nodes made during the build cannot be used", parent))
	}
	return nil
}

// close removes everything but the target.
func (b *builder) close() error {
	for _, s := range b.stages {
		s.root.Close()
	}
	if err := b.base.close(); err != nil {
		b.o.Log.Verbose("Cannot close the image of layers: " + err.Error())
	}
	defer b.bundle.lock.Close()
	if b.o.Keep {
		b.o.Log.Info("Build directory kept: " + b.bundle.dir)
		return nil
	}
	return removeTree(b.bundle.dir)
}

// workDir makes an empty private directory for an agent, which is removed with
// all others.
func (b *builder) workDir() (string, error) { return os.MkdirTemp(b.bundle.dir, "work") }

// How the names of temporary files begin.
const (
	tempPrefix   = "build-temp-"
	besidePrefix = ".build-temp-" // in the directory of a sandbox that is made
	imagePrefix  = ".build-"      // an image that is being written, which ends in ".sif"
)

// temporary tells the name of a temporary file to who would remove it.
func (b *builder) temporary(path string) {
	if b.o.Temporary != nil {
		b.o.Temporary(path)
	}
}

// RemoveAbandoned removes what a build that was killed left under a name that
// it gave to Options.Temporary.
//
// Security: the name comes from a process that ran scripts of a stranger. It is
// used only if a build makes such names, and a directory only if it is private,
// this user's own and locked by nobody.
func RemoveAbandoned(path string) error {
	var st unix.Stat_t
	name := filepath.Base(path)
	if err := unix.Lstat(path, &st); err != nil {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	isDir := strings.HasPrefix(name, tempPrefix) || strings.HasPrefix(name, besidePrefix)
	switch {
	case isDir && st.Mode == unix.S_IFDIR|0o700 && int(st.Uid) == os.Getuid():
		lock, err := lockDir(path)
		if err != nil {
			return fmt.Errorf("cannot remove %q: %w", path, err)
		}
		defer lock.Close()
		return removeTree(path)
	case stepcache.IsTemporary(path) && st.Mode&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == os.Getuid():
		return os.Remove(path)
	case strings.HasPrefix(name, imagePrefix) && strings.HasSuffix(name, ".sif") && st.Mode&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == os.Getuid():
		return os.Remove(path)
	}
	return fmt.Errorf("cannot remove %q: no build made it", path)
}

// staleAge is how old a build directory is at least before its lock is tried,
// for one that is just being made.
const staleAge = time.Minute

// lockDir opens and locks dir, unless another process has it locked.
func lockDir(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// removeStale removes the directories of builds that were killed before they
// could clean up: they are this user's own, and nobody locks them any more.
// What cannot be removed stays for the next build.
func removeStale(parent, prefix string) {
	names, err := filepath.Glob(filepath.Join(parent, prefix+"*"))
	if err != nil {
		return
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Lstat(name, &st) != nil || st.Mode != unix.S_IFDIR|0o700 || int(st.Uid) != os.Getuid() ||
			time.Since(time.Unix(st.Mtim.Sec, 0)) < staleAge {
			continue
		}
		if lock, err := lockDir(name); err == nil {
			_ = removeTree(name)
			lock.Close()
		}
	}
}

// removeTree removes dir, also where modes in it forbid that.
//
// Security: a script may have left a mount of the host in the tree, and
// removing through it would destroy the host's files. So mounts go first, and
// if one stays nothing is removed.
func removeTree(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	openModes(dir)
	return os.RemoveAll(dir)
}

// openModes lets the owner into every directory below dir. What fails shows
// when the tree is removed.
func openModes(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d == nil || !d.IsDir() {
			return nil
		}
		if err == nil {
			return os.Chmod(path, 0o700) // called before the directory is read
		}
		return fs.SkipDir
	})
}

// unmountBelow takes away every mount below dir.
func unmountBelow(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	points, err := mountsBelow(real)
	if err != nil {
		return err
	}
	for _, p := range points {
		_ = unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // looked at again below
	}
	if len(points) > 0 {
		if points, err = mountsBelow(real); err != nil {
			return err
		}
	}
	if len(points) > 0 {
		return fmt.Errorf("cannot go on with %q mounted below the build directory: unmount it, then remove %q", points[0], dir)
	}
	return nil
}

// mountsBelow returns the mount points below dir, the latest first.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var points []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	s := bufio.NewScanner(f)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 4 {
			if p := unescape.Replace(fields[4]); strings.HasPrefix(p, dir+"/") {
				points = append(points, p)
			}
		}
	}
	slices.Reverse(points)
	return points, s.Err()
}

// fullSize is the free space below which a failure is put down to it, in
// bytes: a program in a container can only say that it failed.
const fullSize = 256 << 10

// explain adds to err that a file system is full, if one is.
func (b *builder) explain(err error) error {
	places := []struct {
		use host.Use
		dir string
	}{{host.Target, filepath.Dir(b.target.path)}}
	if b.bundle != nil && !b.o.Sandbox {
		places = append(places, struct {
			use host.Use
			dir string
		}{host.Temporary, filepath.Dir(b.bundle.dir)})
	}
	_, known := errors.AsType[*host.SpaceError](err)
	for i, p := range places {
		full, ok := errors.AsType[*host.SpaceError](host.CheckRoom(p.use, p.dir, fullSize))
		switch {
		case known:
		case ok:
			full.Need, full.Err = 0, err
			return full
		case i == len(places)-1 && (errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)):
			return host.ExplainSpace(err, p.use, p.dir, 0)
		}
	}
	return err
}
