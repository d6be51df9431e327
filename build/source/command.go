package source

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	keptLines    = 20               // last lines of output, shown when a program fails
	maxLine      = 4096             // bytes of a line of output
	killDelay    = 10 * time.Second // for a program to clean up after SIGTERM
	packageNames = "mmdebstrap or debootstrap"
)

// MissingToolError says that a host program is not installed.
type MissingToolError struct {
	Tools   string // the programs of which one is needed
	Package string // the packages that hold them
}

func (e *MissingToolError) Error() string { return "cannot find " + e.Tools + " on this host" }

// findTool looks for a program in the directories of root, which a user's PATH
// may lack, after those of PATH.
//
// Security: exec.LookPath refuses a program found in the current directory.
func findTool(name string) (string, bool) {
	if p, err := exec.LookPath(name); err == nil {
		return p, true
	}
	for _, dir := range []string{"/usr/local/sbin/", "/usr/sbin/", "/sbin/", "/usr/bin/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			return p, true
		}
	}
	return "", false
}

// rpmTool is a program that makes systems of RPM packages, and what it needs.
type rpmTool struct {
	program, rpm string
	dir          string // a private directory
	env          []string
}

// rpmTools finds the first of the programs names, which people know as what, in
// the package pack; and rpm. The database is where the distributions of RPM
// packages have it, whatever this host's own does.
func rpmTools(c Config, what, pack string, names ...string) (*rpmTool, error) {
	t, ok := &rpmTool{}, false
	for _, n := range names {
		if t.program, ok = findTool(n); ok {
			break
		}
	}
	if !ok {
		return nil, &MissingToolError{Tools: what, Package: pack}
	}
	if t.rpm, ok = findTool("rpm"); !ok {
		return nil, &MissingToolError{Tools: "rpm", Package: "rpm"}
	}
	var err error
	if t.dir, err = c.WorkDir(); err != nil {
		return nil, err
	}
	t.env = withEnv(c.Env, "HOME="+t.dir, "LC_ALL=C")
	return t, os.WriteFile(filepath.Join(t.dir, ".rpmmacros"), []byte("%_var /var\n%_dbpath /var/lib/rpm\n"), 0o600)
}

// packages asks the database of rootfs what is installed.
func (t *rpmTool) packages(ctx context.Context, rootfs string) (*Packages, error) {
	var lines []string
	args := []string{t.rpm, "--root", rootfs, "-qa", "--qf", "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH}\n"}
	if err := run(ctx, args, t.env, func(s string) { lines = append(lines, s) }); err != nil {
		return nil, fmt.Errorf("cannot list the installed packages: %w", err)
	}
	return newPackages(lines), nil
}

// run starts a host program and gives each line of its output to line, until
// it ends. Its last lines are part of the error.
func run(ctx context.Context, args, env []string, line func(string)) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	var last []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := bufio.NewReaderSize(r, maxLine)
		for {
			s, err := in.ReadSlice('\n')
			if text := strings.TrimRight(string(s), "\r\n"); text != "" {
				line(text)
				if last = append(last, text); len(last) > keptLines {
					last = slices.Delete(last, 0, 1)
				}
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return
			}
		}
	}()
	err := cmd.Run()
	w.Close()
	<-done
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s failed: %w; its last lines were:\n%s", cmd.Args[0], err, strings.Join(last, "\n"))
	}
	return nil
}
