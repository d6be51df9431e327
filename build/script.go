package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
	"singularity/linux/safepath"
)

const (
	killDelay    = 10 * time.Second // for a script to end after SIGTERM
	postScript   = "/.post.script"  // in the image while %post runs
	postLabels   = "/.build.labels" // what $SINGULARITY_LABELS names
	environment  = "/.singularity.d/env/91-environment.sh"
	containerEnv = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// hostScript runs %pre or %setup on the host.
func (b *builder) hostScript(ctx context.Context, name string) error {
	sec, ok := b.script(name)
	if !ok {
		return nil
	}
	// Security: whoever builds a stranger's definition should know that this
	// is not confined; old definitions rely on it, so it has to run.
	b.o.Log.Warning(fmt.Sprintf("%%%s of %s runs on this host, outside the container (--section can leave it out)", name, b.o.Spec))
	b.o.Log.Info("Running " + name + " scriptlet")
	file := filepath.Join(b.bundle.dir, name+".sh")
	if err := os.WriteFile(file, []byte(sec.Text), 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	args := append(append([]string{"-ex"}, strings.Fields(sec.Args)...), file)
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	cmd.Env = append(append([]string{}, b.o.Env...),
		"SINGULARITY_ROOTFS="+b.bundle.rootfs, "SINGULARITY_ENVIRONMENT="+filepath.Join(b.bundle.rootfs, environment))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = b.o.Stdin, b.o.Stdout, b.o.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	if err := cmd.Run(); err != nil {
		return &ScriptError{Section: name, Err: err}
	}
	return nil
}

// postBlock is a part of %post that runs in one interpreter.
type postBlock struct {
	name string // for messages
	args []string
	text string
}

// blockMark begins a line of %post that divides it where steps are kept.
const blockMark = "#%step"

// postBlocks returns the scripts of %post and of the %appinstall sections: one,
// unless %post has an interpreter of its own, or is to be divided.
func (b *builder) postBlocks(divide bool) []postBlock {
	var list []postBlock
	sec, ok := b.script("post")
	shell := []string{"/bin/sh", "-ex"}
	if ok {
		shell = interpreter(sec)
		list = append(list, postBlock{name: "post", args: shell, text: sec.Text})
		if divide {
			list = divided(list[0])
		}
	}
	install := b.appInstall()
	own := strings.HasPrefix(sec.Args, "-c")
	switch {
	case install == "":
	case ok && !own:
		list[len(list)-1].text += install
	default:
		list = append(list, postBlock{name: "appinstall", args: []string{"/bin/sh", "-ex"}, text: install})
	}
	return list
}

// divided cuts a block at its marks.
func divided(b postBlock) []postBlock {
	var list []postBlock
	part := postBlock{name: b.name, args: b.args}
	for s := range strings.Lines(b.text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(s), blockMark); ok && (rest == "" || rest[0] == ' ') {
			if strings.TrimSpace(part.text) != "" {
				list = append(list, part)
			}
			part = postBlock{name: strings.TrimSpace("post step " + strings.TrimSpace(rest)), args: b.args}
		}
		part.text += s
	}
	return append(list, part)
}

// runBlock runs a part of %post in the container.
func (b *builder) runBlock(ctx context.Context, p postBlock) error {
	if err := b.checkRunnable("post", p.args[0]); err != nil {
		return err
	}
	if err := b.checkBinds(); err != nil {
		return err
	}
	// Security: the name must not be a link of the base system's making, nor
	// stay in the image.
	if err := removeEntry(b.root, postScript); err != nil {
		return err
	}
	defer removeEntry(b.root, postScript)
	if err := writeNew(b.root, strings.TrimPrefix(postScript, "/"), []byte(p.text), 0o700); err != nil {
		return err
	}
	err := b.run(ctx, RunSpec{
		Args:     append(slices.Clip(p.args), postScript),
		Env:      append(b.containerEnv(), "SINGULARITY_ENVIRONMENT="+environment, "SINGULARITY_LABELS="+postLabels),
		Writable: true,
	})
	if err != nil {
		return &ScriptError{Section: "post", Err: err}
	}
	return nil
}

// readLabels keeps the labels that %post wrote and removes their file.
func (b *builder) readLabels() error {
	b.labels = map[string]string{}
	text, err := readSmall(b.root, postLabels)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the labels that %%post wrote: %w", err)
	}
	for _, l := range deffile.Labels(string(text)) {
		b.labels[l.Key] = l.Value
	}
	return removeEntry(b.root, postLabels)
}

// interpreter returns how %post is run: by sh, or by what "-c" names.
func interpreter(sec deffile.Section) []string {
	words := strings.Fields(sec.Args)
	if len(words) > 1 && words[0] == "-c" {
		return words[1:]
	}
	return append([]string{"/bin/sh", "-ex"}, words...)
}

// checkRunnable tells early what would otherwise be a puzzling failure.
func (b *builder) checkRunnable(section, program string) error {
	if program != "/bin/sh" {
		return nil
	}
	f, err := safepath.Open(b.root, program, unix.O_PATH, 0)
	if err != nil {
		return fmt.Errorf("cannot run %%%s: the image has no %s", section, program)
	}
	return f.Close()
}

// checkBinds tells which --bind cannot be mounted in an image that is written
// to, where no mount point can be made.
func (b *builder) checkBinds() error {
	for _, m := range b.o.Binds {
		dest := m.Dest
		if dest == "" {
			dest = m.Source
		}
		if f, err := safepath.Open(b.root, dest, unix.O_PATH, 0); err == nil {
			f.Close()
		} else if !slices.ContainsFunc(hostMounts, func(dir string) bool { return within(dest, dir) }) {
			return fmt.Errorf("cannot bind %q: the image has no %q to mount it on: make it in %%setup, or with %%files", m.Source, dest)
		}
	}
	return nil
}

// hostMounts are directories of the host that every container shows.
var hostMounts = []string{"/dev", "/tmp", "/var/tmp"}

// test runs the test script of the image, as the test command would.
func (b *builder) test(ctx context.Context) error {
	_, ok := b.script("test")
	if !ok || b.o.NoTest {
		return nil
	}
	if err := b.checkRunnable("test", "/bin/sh"); err != nil {
		return err
	}
	b.o.Log.Info("Running testscript")
	err := b.run(ctx, RunSpec{
		Args: []string{"/.singularity.d/actions/test"}, TmpfsSize: b.o.TestTmpfs,
		Env: append(b.containerEnv(), "SINGULARITY_CONTAINER="+b.target.path, "SINGULARITY_NAME="+filepath.Base(b.target.path)),
	})
	if err != nil {
		return &ScriptError{Section: "test", Err: err}
	}
	return nil
}

// run runs a program in the container with what %post and %test share.
func (b *builder) run(ctx context.Context, s RunSpec) error {
	s.Rootfs, s.Cwd, s.Binds, s.Owners = b.bundle.rootfs, "/", b.o.Binds, b.o.Owners
	s.Stdin, s.Stdout, s.Stderr = b.o.Stdin, b.o.Stdout, b.o.Stderr
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		// A host without the file is not in the way of a build.
		if data, err := os.ReadFile(name); err == nil {
			s.Files = append(s.Files, File{Path: name, Data: data})
		}
	}
	const aptDir = "/etc/apt/apt.conf.d"
	if f, err := safepath.Open(b.root, aptDir, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil && b.o.Owners == SingleID {
		f.Close()
		// apt reads its ids back after giving up root and would fail.
		s.Files = append(s.Files, File{Path: aptDir + "/zz-build", Data: []byte("APT::Sandbox::User \"root\";\n")})
	}
	s.Binds = slices.Concat(s.Binds, b.driverBinds())
	var points []File
	for _, d := range s.Binds[len(b.o.Binds):] {
		points = append(points, File{Path: d.Dest})
	}
	usable, undoBinds := b.mountPoints(points)
	defer undoBinds()
	s.Binds = slices.DeleteFunc(s.Binds, func(d Bind) bool {
		isPoint := func(list []File) bool {
			return slices.ContainsFunc(list, func(f File) bool { return f.Path == d.Dest })
		}
		return isPoint(points) && !isPoint(usable)
	})
	var undo func()
	s.Files, undo = b.mountPoints(s.Files)
	defer undo()
	return b.o.Run(ctx, s)
}

// runTool runs a program of the image for an agent and returns its output.
func (b *builder) runTool(ctx context.Context, args ...string) (string, error) {
	var out strings.Builder
	err := b.o.Run(ctx, RunSpec{
		Rootfs: b.bundle.rootfs, Args: args, Env: b.containerEnv(), Cwd: "/", Writable: true, Owners: b.o.Owners,
		Stdout: &out, Stderr: b.o.Stderr,
	})
	return out.String(), err
}

// driverBinds returns what --nv or --rocm show of the host and the image has
// not itself.
func (b *builder) driverBinds() []Bind {
	return slices.DeleteFunc(slices.Clone(b.o.Drivers.Binds), func(d Bind) bool {
		if !d.IfMissing {
			return false
		}
		for _, dir := range []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu"} {
			if f, err := safepath.Open(b.root, path.Join(dir, path.Base(d.Dest)), unix.O_PATH, 0); err == nil {
				f.Close()
				return true
			}
		}
		return false
	})
}

// passedOn are the variables of the host that a container gets. Those of
// hostOnly are about the way to its result.
var (
	hostOnly = []string{
		"TERM", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "ftp_proxy",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "FTP_PROXY",
	}
	passedOn = append([]string{"SOURCE_DATE_EPOCH"}, hostOnly...)
)

// containerEnv is the clean environment of a container.
func (b *builder) containerEnv() []string {
	env := []string{containerEnv, "HOME=/root"}
	if len(b.o.Drivers.Binds) > 0 {
		env = append(env, "LD_LIBRARY_PATH=/.singularity.d/libs")
	}
	for _, name := range passedOn {
		if v := b.o.getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// mountPoints makes an empty file for each of files that the image lacks, and
// returns those that can be mounted; undo takes the empty files away again.
func (b *builder) mountPoints(files []File) (usable []File, undo func()) {
	var made []string
	for _, f := range files {
		p, err := b.mountPoint(f.Path)
		made = append(made, p...)
		if err != nil {
			b.o.Log.Warning(fmt.Sprintf("Skipping %q of the host: it cannot be mounted in the image: %v", f.Path, err))
			continue
		}
		usable = append(usable, f)
	}
	return usable, func() {
		for _, name := range slices.Backward(made) {
			// What a script put something into stays.
			_ = removeEmpty(b.root, name)
		}
	}
}

// mountPoint makes an empty file at name, or where a link at name leads, and
// returns what it made.
func (b *builder) mountPoint(name string) (made []string, err error) {
	for range 10 {
		if f, err := safepath.Open(b.root, name, unix.O_PATH, 0); err == nil {
			return nil, f.Close()
		}
		target, ok := readLink(b.root, name)
		if !ok {
			break
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		name = target
	}
	var missing []string
	for dir := path.Dir(name); dir != "/" && dir != "."; dir = path.Dir(dir) {
		f, err := safepath.Open(b.root, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err == nil {
			f.Close()
			break
		}
		missing = append([]string{dir}, missing...)
	}
	dir, err := safepath.Mkdir(b.root, path.Dir(name), 0o755)
	if err != nil {
		return missing, err
	}
	defer dir.Close()
	return append(missing, name), writeNew(dir, path.Base(name), nil, 0o644)
}

// readLink returns the target of name, a path in the image, if it is a link.
func readLink(root *os.File, name string) (string, bool) {
	dir, err := safepath.Open(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", false
	}
	defer dir.Close()
	target, err := readLinkAt(dir, path.Base(name))
	return target, err == nil
}

// removeEntry removes name from the image, whatever it is, if it is there.
func removeEntry(root *os.File, name string) error {
	dir, err := safepath.Open(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unlink(dir, path.Base(name))
}

// unlink removes a file or a whole directory from dir.
func unlink(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EPERM):
		r, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())))
		if err != nil {
			return err
		}
		defer r.Close()
		return r.RemoveAll(name)
	}
	return &fs.PathError{Op: "remove", Path: path.Join(dir.Name(), name), Err: err}
}

// removeEmpty removes an empty file or directory.
func removeEmpty(root *os.File, name string) error {
	dir, err := safepath.Open(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.Unlinkat(int(dir.Fd()), path.Base(name), unix.AT_REMOVEDIR)
	case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0:
		return unix.Unlinkat(int(dir.Fd()), path.Base(name), 0)
	}
	return nil
}

// writeNew writes a file that is not there yet in the open directory dir, with
// mode perm whatever the umask.
func writeNew(dir *os.File, name string, data []byte, perm uint32) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: path.Join(dir.Name(), name), Err: err}
	}
	f := os.NewFile(uintptr(fd), path.Join(dir.Name(), name))
	_, err = f.Write(data)
	if err == nil {
		err = unix.Fchmod(fd, perm)
	}
	return errors.Join(err, f.Close())
}
