package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// What an environment file may take.
const (
	fileTime   = time.Minute
	slowTime   = 5 * time.Second
	fileMemory = 256 << 20 // bytes
	// The parser calls itself for each part of a pipeline: it needs up to
	// 1.7 KiB of stack for a byte, of which a program has 1 GB.
	fileText = 256 << 10
)

// Files evaluates environment files on the host.
type Files struct {
	Output io.Writer // what the scripts print
	// Slow, if not nil, is told once when a script takes long, with the line
	// that it is at.
	Slow  func(name string, line uint)
	Limit time.Duration // for one file; 0 for the usual one
}

// Variables evaluates the text of the file called name, with the variables of
// environ and the positional parameters args, and returns the variables that it
// sets, exported or not.
func (f *Files) Variables(name, text string, environ, args []string) ([]string, error) {
	if len(text) > fileText {
		return nil, fmt.Errorf("a file that needs a shell may have %d KiB, and it has %d", fileText>>10, len(text)>>10)
	}
	file, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	s := &shell{name: name, end: true}
	host := &hostVariables{Environ: expand.ListEnviron(environ...)}
	r, err := s.runner(host, "", append([]string{"--"}, args...), nil, f.Output, f.Output)
	if err != nil {
		return nil, err
	}
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	defer syscall.Umask(mask)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go f.watch(ctx, cancel, s)
	err = r.Run(ctx, file)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if _, isStatus := errors.AsType[interp.ExitStatus](err); err != nil && (!isStatus || r.Exited()) {
		if isStatus {
			err = fmt.Errorf("line %d: the script ended with %w", s.line.Load(), err)
		}
		return nil, err
	}
	return s.collect(r, host)
}

// watch ends a script that takes too long or too much.
func (f *Files) watch(ctx context.Context, cancel context.CancelCauseFunc, s *shell) {
	limit := f.Limit
	if limit == 0 {
		limit = fileTime
	}
	begin, told := time.Now(), f.Slow == nil
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.HeapAlloc > fileMemory {
			runtime.GC() // some of it is rubbish
			runtime.ReadMemStats(&m)
		}
		switch took := time.Since(begin); {
		case m.HeapAlloc > fileMemory:
			cancel(fmt.Errorf("line %d: it uses more than %d MiB of memory", s.line.Load(), fileMemory>>20))
		case took > limit:
			cancel(fmt.Errorf("line %d: it has not ended after %v", s.line.Load(), limit))
		case took > slowTime && !told:
			told = true
			f.Slow(s.name, uint(s.line.Load()))
		}
	}
}

// hostVariables are the variables that a script begins with.
type hostVariables struct {
	expand.Environ
	hidden bool // shows none of them, so that only what the script set is left
}

func (h *hostVariables) Each(f func(string, expand.Variable) bool) {
	if !h.hidden {
		h.Environ.Each(f)
	}
}

// errCollected ends the command by which collect looks at the variables.
var errCollected = errors.New("collected")

// collect returns what the script set.
func (s *shell) collect(r *interp.Runner, host *hostVariables) ([]string, error) {
	var out []string
	host.hidden = true
	s.look = func(e expand.Environ) {
		e.Each(func(name string, v expand.Variable) bool {
			if v.IsSet() && v.Kind == expand.String {
				out = append(out, name+"="+v.Str)
			}
			return true
		})
	}
	look := &syntax.Stmt{Cmd: &syntax.CallExpr{Args: []*syntax.Word{{Parts: []syntax.WordPart{&syntax.Lit{Value: "true"}}}}}}
	if err := r.Run(context.Background(), look); !errors.Is(err, errCollected) {
		return nil, errors.New("cannot tell what the script set")
	}
	return out, nil
}

// setenv returns the exported variables of e.
func setenv(e expand.Environ) []string {
	at, out := map[string]int{}, []string(nil)
	e.Each(func(name string, v expand.Variable) bool {
		i, known := at[name]
		word := ""
		if v.IsSet() && v.Exported && v.Kind == expand.String {
			word = name + "=" + v.Str
		}
		if known {
			out[i] = word
		} else {
			at[name] = len(out)
			out = append(out, word)
		}
		return true
	})
	list := out[:0]
	for _, word := range out {
		if word != "" && !strings.Contains(word, "\x00") {
			list = append(list, word)
		}
	}
	return list
}

// directory returns the working directory, or the root if that is gone.
func directory() string {
	if dir, err := os.Getwd(); err == nil {
		return dir
	}
	return "/"
}
