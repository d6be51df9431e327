package action

import (
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/container"
	"singularity/plan"
)

// cleanerName is the first argument of a process that removes a temporary
// sandbox when nobody holds the other end of its standard input any more: a word
// that no verb is.
const cleanerName = "@cleaner"

// sandbox is a temporary sandbox: a directory with one called root in it. It
// goes even when this process is killed, by the cleaner; when the cleaner is, by
// this process; and when both are, by the next start that makes one.
type sandbox struct {
	dir     string
	lock    *os.File // the directory, locked for as long as this process lives
	cleaner *os.Process
	hold    *os.File // the cleaner's input
}

// newSandbox makes a temporary sandbox in the directory parent, and removes
// those of this user that were left there.
func newSandbox(parent string) (*sandbox, error) {
	// Locks tell who lives on this run of this kernel only.
	mark := "rootfs-"
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil && len(id) > 8 {
		mark += string(id[:8]) + "-"
		sweepSandboxes(filepath.Join(parent, mark))
	}
	for range 16 {
		b, err := tryParent(filepath.Join(parent, mark))
		if err == nil || !errors.Is(err, os.ErrExist) && !errors.Is(err, os.ErrNotExist) {
			return b, err
		}
		if _, err := os.Stat(parent); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("other programs remove it again and again")
}

// tryParent makes the directory that begins with prefix, and its cleaner first, so
// that no kill finds a directory without one.
//
// Security: the cleaner removes whatever has the name by then, so nobody must be
// able to guess it.
func tryParent(prefix string) (*sandbox, error) {
	var r [16]byte
	if _, err := unix.Getrandom(r[:], 0); err != nil {
		return nil, err
	}
	b := &sandbox{dir: prefix + hex.EncodeToString(r[:])}
	if err := b.startCleaner(); err != nil {
		return nil, err
	}
	err := os.Mkdir(b.dir, 0o700)
	if err != nil {
		b.cleaner.Kill() // what is there is somebody else's
		b.end()
		return nil, err
	}
	// Another start may take the directory for a forgotten one until the lock
	// is held.
	if b.lock, err = os.Open(b.dir); err == nil {
		unix.Flock(int(b.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) // not every file system can
		_, err = os.Stat(b.dir)
	}
	if err != nil {
		b.end()
		return nil, err
	}
	return b, nil
}

// sweepSandboxes removes the temporary sandboxes of this user whose names begin
// with prefix and that no process holds any more.
func sweepSandboxes(prefix string) {
	parent := filepath.Dir(prefix)
	names, _ := os.ReadDir(parent)
	for _, n := range names {
		dir := filepath.Join(parent, n.Name())
		if !strings.HasPrefix(dir, prefix) {
			continue
		}
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && int(st.Uid) == os.Getuid() && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			removeTree(dir)
		}
		unix.Close(fd)
	}
}

// startCleaner starts the process that removes the sandbox later.
func (b *sandbox) startCleaner() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	b.cleaner, err = os.StartProcess("/proc/self/exe", []string{"singularity", cleanerName, b.dir}, &os.ProcAttr{
		Env: []string{"SINGULARITY_SERVER=1"}, Files: []*os.File{r, nil, os.Stderr}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		w.Close()
		return err
	}
	b.hold = w
	return nil
}

// remove has the sandbox removed and waits for that.
func (b *sandbox) remove(log *Log) {
	if b == nil || b.hold == nil {
		return
	}
	log.Info("Cleaning up image temporary dir(s)...")
	if b.end() {
		return
	}
	// The cleaner was killed.
	if err := removeTree(b.dir); err != nil {
		log.Warning("Cannot remove the temporary sandbox: " + err.Error())
	}
}

// end has the cleaner do its work and tells whether it has.
func (b *sandbox) end() bool {
	b.hold.Close()
	b.hold = nil
	st, err := b.cleaner.Wait()
	if b.lock != nil {
		b.lock.Close()
	}
	return err == nil && st.Exited()
}

// cleanerMain is the life of a cleaner: it returns the exit status.
func cleanerMain(dir string) int {
	container.CloseInherited(3)
	io.Copy(io.Discard, os.Stdin)
	if err := removeTree(dir); err != nil {
		NewLog().Warning("Cannot remove the temporary sandbox: " + err.Error())
		return 1
	}
	return 0
}

// removeTree removes the directory dir with all that is in it.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	// A directory that its owner may not write to keeps what is in it.
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	err := os.RemoveAll(dir)
	if err != nil && os.Getuid() != 0 {
		err = removeAsRoot(dir, err)
	}
	return err
}

// removeAsRoot removes dir as root of a user namespace, who may remove what
// belongs to subordinate ids. Without any the first failure stays.
func removeAsRoot(dir string, first error) error {
	uids, gids, err := IDRanges(os.Getuid())
	if err != nil {
		return first
	}
	p := &plan.Plan{
		IDs:     plan.IDs{Mode: plan.Ranges, UID: os.Getuid(), GID: os.Getgid(), UIDMap: uids, GIDMap: gids},
		Root:    plan.Root{Kind: plan.HostRoot},
		Process: plan.Process{Paths: []string{"/proc/self/exe"}, Args: []string{"singularity", cleanerName, dir}, Env: []string{"SINGULARITY_SERVER=1"}, Dirs: []string{"/"}, Umask: -1},
	}
	null, err := os.Open(os.DevNull) // the end of its input has it begin
	if err != nil {
		return err
	}
	defer null.Close()
	ws, err := container.Run(p, nil, container.Hooks{Stdio: [3]*os.File{null}})
	if err == nil && ws.ExitStatus() != 0 {
		err = first
	}
	return err
}
