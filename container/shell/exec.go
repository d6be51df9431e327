package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"singularity/container/env"
	"singularity/linux/entry"
)

// killTime is what a program gets to end by itself.
const killTime = 2 * time.Second

// shell is one running script with those that it starts in this process.
type shell struct {
	name  string
	line  atomic.Uint32 // of the command that runs
	calls atomic.Uint64 // commands so far
	end   bool          // programs end with this process
	// inside tells that this is the container's shell: a script for a shell
	// that the image does not have is run here.
	inside  bool
	prompts bool // a person types the commands
	// look, if not nil, sees the variables at the next command, which ends the
	// script.
	look func(expand.Environ)
	// replaceAt is the place of an "exec" behind which nothing is to be done: its
	// program takes this process.
	replaceAt syntax.Pos
	sourcing  atomic.Pointer[string] // the script that "." opens next

	mu       sync.Mutex
	children map[*os.Process]bool
	signal   syscall.Signal // that asked for the end while a program ran
}

// runner makes the interpreter for one script.
func (s *shell) runner(vars expand.Environ, dir string, params []string, in io.Reader, out, errs io.Writer) (*interp.Runner, error) {
	if dir == "" {
		dir = directory()
	}
	return interp.New(interp.Env(vars), interp.Dir(dir), interp.Params(params...), interp.StdIO(in, out, errs),
		interp.CallHandler(s.call), interp.OpenHandler(s.open), interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return s.exec }))
}

// call sees every command before it runs.
func (s *shell) call(ctx context.Context, args []string) ([]string, error) {
	hc := interp.HandlerCtx(ctx)
	if s.look != nil {
		s.look(hc.Env)
		return nil, errCollected
	}
	s.line.Store(uint32(hc.Pos.Line()))
	switch args[0] {
	case "eval":
		args = []string{"eval", quote(strings.Join(args[1:], " "))}
	case ".", "source":
		if len(args) > 1 {
			s.sourcing.Store(&args[1])
		}
	case "kill", "umask":
		args = builtin(args, hc.Stdout, hc.Stderr)
	}
	return args, s.checkDepth(ctx)
}

// script is a file that is read as a script.
type script struct{ *strings.Reader }

func (script) Write([]byte) (int, error) { return 0, fs.ErrInvalid }
func (script) Close() error              { return nil }

// open opens files for redirections and, as scripts, for ".".
func (s *shell) open(ctx context.Context, path string, flag int, perm fs.FileMode) (io.ReadWriteCloser, error) {
	f, err := interp.DefaultOpenHandler()(ctx, path, flag, perm)
	name := s.sourcing.Load()
	if err != nil || name == nil || filepath.Base(*name) != filepath.Base(path) || !s.sourcing.CompareAndSwap(name, nil) {
		return f, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err == nil && len(text) > maxText {
		err = &fs.PathError{Op: "read", Path: path, Err: syscall.EFBIG}
	}
	return script{strings.NewReader(quote(string(text)))}, err
}

// exec starts a program and waits for its end.
func (s *shell) exec(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	s.line.Store(uint32(hc.Pos.Line()))
	path, err := interp.LookPathDir(hc.Dir, hc.Env, args[0])
	if err != nil {
		if s.inside && env.IsShell(args[0]) {
			return exitError(s.nested(hc).main(ctx, args[1:]))
		}
		return s.missing(hc, args[0])
	}
	vars := setenv(hc.Env)
	if s.replaceAt.IsValid() && hc.Pos == s.replaceAt && hc.Stdin == os.Stdin && hc.Stdout == os.Stdout && hc.Stderr == os.Stderr && os.Chdir(hc.Dir) == nil {
		err = syscall.Exec(path, args, vars)
	} else {
		err = s.start(ctx, hc, path, args, vars)
	}
	if s.inside && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOEXEC)) && isScript(path) {
		return exitError(s.nested(hc).file(ctx, path, args[1:]))
	}
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		fmt.Fprintf(hc.Stderr, "%s: line %d: %s: %v\n", s.name, hc.Pos.Line(), args[0], e)
		return interp.ExitStatus(126)
	}
	return err
}

func (s *shell) missing(hc interp.HandlerContext, name string) error {
	reason, status := "command not found", interp.ExitStatus(127)
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(hc.Dir, path)
		}
		reason = "no such file or directory"
		if st, err := os.Stat(path); err == nil {
			reason, status = "permission denied", 126
			if st.IsDir() {
				reason = "is a directory"
			}
		}
	}
	fmt.Fprintf(hc.Stderr, "%s: line %d: %s: %s\n", s.name, hc.Pos.Line(), name, reason)
	return status
}

// start runs a program as a child.
func (s *shell) start(ctx context.Context, hc interp.HandlerContext, path string, args, vars []string) error {
	cmd := exec.CommandContext(ctx, path)
	cmd.Args, cmd.Env, cmd.Dir = args, vars, hc.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = hc.Stdin, hc.Stdout, hc.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killTime
	runtime.LockOSThread() // the parent of a child is a thread
	defer runtime.UnlockOSThread()
	if s.end {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	if err := s.begin(cmd); err != nil {
		return err
	}
	err := cmd.Wait()
	s.ended(cmd.Process)
	if n := s.ending(); n != 0 {
		die(n)
	}
	if ee, ok := errors.AsType[*exec.ExitError](err); ok {
		if ws := ee.Sys().(syscall.WaitStatus); ws.Signaled() {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if n := ws.Signal(); s.inside && !s.prompts && (n == syscall.SIGINT || n == syscall.SIGQUIT) {
				die(n) // the key was meant for the script too
			}
			return interp.ExitStatus(128 + ws.Signal())
		}
		return interp.ExitStatus(ee.ExitCode())
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

// withMask calls f with the signals blocked that were when this program began.
func withMask(f func() error) error {
	st := entry.Read()
	if !st.Masked {
		return f()
	}
	var old unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{Val: [16]uint64{st.Mask}}, &old); err != nil {
		return err
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	return f()
}

// begin starts cmd. Until it is known as a child no signal is dealt with.
func (s *shell) begin(cmd *exec.Cmd) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := withMask(cmd.Start); err != nil {
		return err
	}
	if s.children == nil {
		s.children = map[*os.Process]bool{}
	}
	s.children[cmd.Process] = true
	return nil
}

func (s *shell) ended(p *os.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.children, p)
}

// got deals with a signal: it ends the shell, at once or, where it is passed on
// to programs, when these have ended.
func (s *shell) got(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.children) == 0 {
		if !s.prompts || sig == syscall.SIGHUP {
			die(sig)
		}
		return
	}
	if sig == syscall.SIGINT || sig == syscall.SIGQUIT {
		return // a terminal sends those to all
	}
	s.signal = sig
	for p := range s.children {
		p.Signal(sig)
	}
}

func (s *shell) ending() syscall.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signal
}

// isScript tells whether the file at path is a script for a shell that is not
// there.
func isScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	return env.IsScript(head[:n])
}

func exitError(code int) error {
	if code == 0 {
		return nil
	}
	return interp.ExitStatus(code)
}

// replaceable returns the number of the first statement of f that is a plain
// "exec" and may replace this process; -1 if there is none.
func replaceable(f *syntax.File) int {
	found := -1
	for i, st := range f.Stmts {
		call, ok := st.Cmd.(*syntax.CallExpr)
		if ok && len(call.Args) > 1 && call.Args[0].Lit() == "exec" && len(call.Assigns) == 0 && len(st.Redirs) == 0 && !st.Background && !st.Negated && !st.Coprocess {
			found = i
			break
		}
	}
	if found < 0 {
		return -1
	}
	plain := !traps(f)
	syntax.Walk(f, func(n syntax.Node) bool {
		if st, ok := n.(*syntax.Stmt); ok && st.Background {
			plain = false // it is part of this process
		}
		return plain
	})
	syntax.Walk(f.Stmts[found], func(n syntax.Node) bool {
		switch n.(type) {
		case *syntax.CmdSubst, *syntax.ProcSubst:
			plain = false
		}
		return plain
	})
	if !plain {
		return -1
	}
	return found
}

// traps tells whether n sets a trap, which is to be run at the end.
func traps(n syntax.Node) (found bool) {
	syntax.Walk(n, func(n syntax.Node) bool {
		if call, ok := n.(*syntax.CallExpr); ok && len(call.Args) > 0 && call.Args[0].Lit() == "trap" {
			found = true
		}
		return !found
	})
	return found
}
