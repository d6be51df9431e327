package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// loop is what a session's shell runs: a line is a command, its end is told by
// a line of our own.
const loop = `while read -r line; do eval "$line" </dev/null; echo "@done $?"; done`

// session is a shell that runs commands one after another and stays what it
// is meanwhile: a container that is not started anew, or a namespace in which
// something is mounted. Neither is part of what a step takes.
type session struct {
	b   *bench
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// session starts argv, which must run a shell with loop.
func (b *bench) session(ctx context.Context, argv ...string) (*session, error) {
	return b.start(b.command(ctx, argv...))
}

func (b *bench) start(c *exec.Cmd) (*session, error) {
	s := &session{b: b, cmd: c}
	s.cmd.Env = append(s.cmd.Env, "BENCH_SCRIPT="+readScript)
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	b.stderr.Truncate(0)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if _, _, err := s.step(":"); err != nil {
		s.close()
		return nil, b.failure(s.cmd, err)
	}
	return s, nil
}

// step runs one line and returns how long it took and what it printed.
func (s *session) step(line string) (time.Duration, string, error) {
	start := time.Now()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		return 0, "", err
	}
	var text strings.Builder
	for {
		l, err := s.out.ReadString('\n')
		if err != nil {
			return 0, "", fmt.Errorf("cannot run %q: %w", line, err)
		}
		status, ok := strings.CutPrefix(l, "@done ")
		if !ok {
			text.WriteString(l)
			continue
		}
		took := time.Since(start)
		if status != "0\n" {
			return took, text.String(), s.b.failure(s.cmd, errors.New("exit status "+strings.TrimSpace(status)))
		}
		return took, text.String(), nil
	}
}

func (s *session) close() {
	s.in.Close()
	s.cmd.Wait()
}

// quote writes words so that a shell reads them back.
func quote(words []string) string {
	var out []string
	for _, w := range words {
		out = append(out, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
	}
	return strings.Join(out, " ")
}
