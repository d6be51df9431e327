// Package shell is the embedded shell, mvdan.cc/sh: a subset of bash.
//
// It works in two places, which must not be mixed up. On the host it evaluates
// environment files (Files), which are scripts of the user, with the user's
// rights, a limit of time and no input; what they set is the result. In a
// container whose image has no /bin/sh it is that shell (Main): a copy of
// singularity-cli in memory, sealed, that the launcher leaves as a descriptor
// to execute and nothing else. Scripts of an image only ever run there.
//
// Limits: the size of a script, the depth of its syntax and of its calls. What
// a script in a container uses beyond that is the container's.
//
// Files: shell.go (the parser and its limits), file.go (environment files),
// quote.go (what the interpreter takes otherwise than shells do), main.go (the shell of a container), exec.go (how programs are started), builtin.go
// (kill, umask).
package shell

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// Limits of a script.
const (
	maxText   = 4 << 20 // bytes, in a container
	maxSyntax = 1000    // commands and words inside each other
	maxFrames = 10000   // of Go functions, of which a call takes about ten
)

// parse reads a script. Errors name line and column.
func parse(name, text string) (*syntax.File, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("the script is larger than %d KiB", maxText>>10)
	}
	if line := tooDeep(text); line > 0 {
		return nil, fmt.Errorf("line %d: brackets are nested more than %d deep", line, maxSyntax)
	}
	f, err := syntax.NewParser().Parse(strings.NewReader(quote(text)), name)
	if err != nil {
		return nil, where(err)
	}
	depth, deepest := 0, uint(0)
	syntax.Walk(f, func(n syntax.Node) bool {
		if n == nil {
			depth--
			return true
		}
		if depth++; depth > maxSyntax*8 && deepest == 0 {
			deepest = n.Pos().Line()
		}
		return true
	})
	if deepest > 0 {
		return nil, fmt.Errorf("line %d: commands are nested too deeply", deepest)
	}
	return f, nil
}

// tooDeep returns the line where more brackets and braces are open than any
// script has, or 0: the parser calls itself for each, and the stack of a
// program ends.
func tooDeep(text string) int {
	open, line := 0, 1
	for i := range len(text) {
		switch text[i] {
		case '\n':
			line++
		case '(', '{', '[':
			if open++; open > maxSyntax {
				return line
			}
		case ')', '}', ']':
			open = max(0, open-1)
		}
	}
	return 0
}

// where puts the place of a syntax error in front, without the name of the file.
func where(err error) error {
	if e, ok := errors.AsType[syntax.ParseError](err); ok {
		return fmt.Errorf("line %d, column %d: %s", e.Pos.Line(), e.Pos.Col(), e.Text)
	}
	if e, ok := errors.AsType[syntax.LangError](err); ok {
		return fmt.Errorf("line %d, column %d: %s is not known to this shell", e.Pos.Line(), e.Pos.Col(), e.Feature)
	}
	return err
}

// checkDepth is an error if calls are nested deeper than the stack allows. It
// looks at every 64th call, since to count takes long.
func (s *shell) checkDepth(ctx context.Context) error {
	var pc [1]uintptr
	if s.calls.Add(1)%64 == 0 && runtime.Callers(maxFrames, pc[:]) > 0 {
		return fmt.Errorf("line %d: calls are nested too deeply", interp.HandlerCtx(ctx).Pos.Line())
	}
	return nil
}
