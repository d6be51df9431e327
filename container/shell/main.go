package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// Main is a shell with the arguments args, in a container. It returns the exit
// status.
func Main(args []string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &shell{name: "sh", inside: true}
	got := make(chan os.Signal, 8)
	signal.Notify(got, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	in := &instance{shell: s, vars: expand.ListEnviron(os.Environ()...), dir: directory(), in: os.Stdin, out: os.Stdout, errs: os.Stderr}
	go func() {
		for sig := range got {
			s.got(sig.(syscall.Signal))
		}
	}()
	in.first = true
	code := in.main(ctx, args)
	if n := s.ending(); n != 0 {
		die(n)
	}
	return code
}

// die ends this process by a signal.
func die(sig syscall.Signal) {
	signal.Reset(sig)
	syscall.Kill(os.Getpid(), sig)
	select {}
}

// instance is a shell with its own variables and streams: that of the process,
// or one that a script calls.
type instance struct {
	shell *shell
	vars  expand.Environ
	dir   string
	in    io.Reader
	out   io.Writer
	errs  io.Writer
	first bool // it runs what the kernel was to execute
}

// nested is a shell that a script calls.
func (s *shell) nested(hc interp.HandlerContext) *instance {
	return &instance{shell: s, vars: expand.ListEnviron(setenv(hc.Env)...), dir: hc.Dir, in: hc.Stdin, out: hc.Stdout, errs: hc.Stderr}
}

// main does what the arguments say, as of any shell: -c TEXT [NAME ARG...],
// FILE [ARG...], or commands from the standard input.
func (in *instance) main(ctx context.Context, args []string) int {
	var set []string
	command := false
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		word := args[0]
		args = args[1:]
		if word == "--" {
			break
		}
		if strings.HasPrefix(word, "--") {
			continue // --norc, --login
		}
		flags := ""
		for _, f := range word[1:] {
			switch f {
			case 'c':
				command = true
			case 's', 'i', 'l':
			default:
				flags += string(f)
			}
		}
		if flags != "" {
			set = append(set, word[:1]+flags)
			if strings.HasSuffix(flags, "o") && len(args) > 0 {
				set = append(set, args[0])
				args = args[1:]
			}
		}
	}
	switch {
	case command && len(args) == 0:
		return in.fail(2, errors.New("-c: a command is wanted"))
	case command:
		name, params := "sh", []string(nil)
		if len(args) > 1 {
			name, params = args[1], args[2:]
		}
		return in.text(ctx, name, args[0], set, params)
	case len(args) > 0:
		return in.script(ctx, args[0], set, args[1:])
	}
	return in.input(ctx, set)
}

// file runs the script at path.
func (in *instance) file(ctx context.Context, path string, args []string) int {
	in.first = true
	return in.script(ctx, path, nil, args)
}

func (in *instance) script(ctx context.Context, path string, set, args []string) int {
	f, err := os.Open(path)
	if err != nil {
		return in.fail(127, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	f.Close()
	if err != nil {
		return in.fail(126, err)
	}
	if line, _, _ := strings.Cut(string(text), "\n"); strings.Contains(line, "\x00") {
		return in.fail(126, errors.New(path+": this is no script"))
	}
	if in.first {
		set = append(shebang(string(text)), set...)
	}
	return in.text(ctx, path, string(text), set, args)
}

// shebang returns the options in the first line of a script.
func shebang(text string) []string {
	line, _, _ := strings.Cut(text, "\n")
	words := strings.Fields(line)
	if strings.HasPrefix(line, "#!") && len(words) == 2 && len(words[1]) > 1 && words[1][0] == '-' && strings.Trim(words[1][1:], "aefnux") == "" {
		return words[1:]
	}
	return nil
}

// text runs the script text, whose $0 is name.
func (in *instance) text(ctx context.Context, name, text string, set, args []string) int {
	f, err := parse(name, text)
	if err != nil {
		return in.fail(2, fmt.Errorf("%s: %w", name, err))
	}
	r, err := in.runner(set, args)
	if err != nil {
		return in.fail(2, err)
	}
	s := in.shell
	outer := s.name
	s.name = name
	defer func() { s.name = outer }()
	if i := replaceable(f); i >= 0 && in.own() {
		rest := *f
		rest.Stmts, f.Stmts = f.Stmts[i:], f.Stmts[:i]
		if err := r.Run(ctx, f); r.Exited() {
			return in.status(err)
		}
		s.replaceAt, f = rest.Stmts[0].Cmd.(*syntax.CallExpr).Args[0].Pos(), &rest
		defer func() { s.replaceAt = syntax.Pos{} }()
	}
	return in.status(r.Run(ctx, f))
}

// own tells whether the streams are those of the process.
func (in *instance) own() bool {
	return in.in == os.Stdin && in.out == os.Stdout && in.errs == os.Stderr
}

func (in *instance) runner(set, args []string) (*interp.Runner, error) {
	return in.shell.runner(in.vars, in.dir, append(append(set, "--"), args...), in.in, in.out, in.errs)
}

// status is the exit status for the end of a script.
func (in *instance) status(err error) int {
	if err == nil {
		return 0
	}
	if st, ok := errors.AsType[interp.ExitStatus](err); ok {
		return int(st)
	}
	return in.fail(2, err)
}

func (in *instance) fail(code int, err error) int {
	fmt.Fprintln(in.errs, "sh: "+err.Error())
	return code
}

// oneByte reads a byte at a time: what follows a command belongs to it.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	return o.r.Read(p)
}

// input runs the commands that come from the standard input.
func (in *instance) input(ctx context.Context, set []string) int {
	r, err := in.runner(set, nil)
	if err != nil || in.in == nil {
		return in.status(err)
	}
	r.Reset()
	if f, ok := in.in.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		in.shell.prompts = err == nil
	}
	prompt := func(name, usual string) {
		if v := in.vars.Get(name); in.shell.prompts && v.IsSet() {
			io.WriteString(in.errs, v.Str)
		} else if in.shell.prompts {
			io.WriteString(in.errs, usual)
		}
	}
	p := syntax.NewParser()
	code, ended, trapped := 0, false, false
	for !ended {
		prompt("PS1", "$ ")
		err := p.Interactive(oneByte{in.in}, func(list []*syntax.Stmt) bool {
			if p.Incomplete() {
				prompt("PS2", "> ")
				return true
			}
			for _, st := range list {
				node := syntax.Node(st)
				if trapped = trapped || traps(st); !trapped {
					// A file ends with its traps; it has a name for $0.
					node = &syntax.File{Name: "sh", Stmts: []*syntax.Stmt{st}}
				}
				code = in.status(r.Run(ctx, node))
				if ended = r.Exited(); ended {
					return false
				}
			}
			prompt("PS1", "$ ")
			return true
		})
		if err == nil {
			break
		}
		code = in.fail(2, where(err))
		ended = ended || !in.shell.prompts || errors.Is(err, io.EOF)
		if e, ok := errors.AsType[syntax.ParseError](err); ok && e.Incomplete {
			ended = true // the input ends in the midst of a command
		}
	}
	if trapped && !r.Exited() {
		if err := r.Run(ctx, new(syntax.File)); r.Exited() {
			code = in.status(err) // of an exit in the trap
		}
	}
	return code
}
