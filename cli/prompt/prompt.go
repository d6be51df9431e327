// Package prompt asks people, or the script on standard input, for what a verb
// needs to know: lines, passphrases, choices.
package prompt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/term"

	"singularity/action"
)

// MaxAnswer bounds a line that is read from people or scripts, in bytes.
const MaxAnswer = 4096

// A Prompter asks questions: on the terminal if standard input is one, else it
// reads a line of standard input for each. Questions go to standard error,
// because standard output is for results.
type Prompter struct {
	in       *bufio.Reader
	Out      io.Writer // for questions
	terminal *os.File  // nil if standard input is none
}

// New returns a prompter that reads answers from in and writes questions to out.
func New(in io.Reader, out io.Writer) *Prompter {
	p := &Prompter{in: bufio.NewReaderSize(in, MaxAnswer), Out: out}
	if f, ok := in.(*os.File); ok && action.IsTerminal(int(f.Fd())) {
		p.terminal = f
	}
	return p
}

// Line asks question and returns the answer without the line's end.
func (p *Prompter) Line(question string) (string, error) {
	io.WriteString(p.Out, question)
	b, err := p.read()
	return strings.TrimSpace(string(b)), err
}

func (p *Prompter) read() ([]byte, error) {
	b, err := p.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("answer is longer than %d bytes", MaxAnswer)
	}
	if err == io.EOF && len(b) == 0 {
		return nil, action.Fatal(errors.New("no answer: standard input has ended"),
			"give the answers as lines of standard input, or as options")
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	answer := bytes.Clone(bytes.TrimRight(b, "\r\n"))
	clear(b) // it may be a passphrase
	return answer, nil
}

// Secret asks for a passphrase, which the terminal does not show.
func (p *Prompter) Secret(question string) ([]byte, error) {
	io.WriteString(p.Out, question)
	if p.terminal == nil {
		b, err := p.read()
		io.WriteString(p.Out, "\n")
		return b, err
	}
	fd := int(p.terminal.Fd())
	if state, err := term.GetState(fd); err == nil {
		defer restoreOnSignal(fd, state)()
	}
	b, err := term.ReadPassword(fd)
	io.WriteString(p.Out, "\n")
	return b, err
}

// Terminal tells whether the answers come from a terminal.
func (p *Prompter) Terminal() bool { return p.terminal != nil }

// restoreOnSignal lets the terminal show input again if the process is ended
// while it is hidden. The function it returns stops that.
func restoreOnSignal(fd int, state *term.State) func() {
	ch, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		select {
		case sig := <-ch:
			term.Restore(fd, state)
			signal.Stop(ch)
			syscall.Kill(os.Getpid(), sig.(syscall.Signal))
		case <-done:
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
	}
}

// NewSecret asks for a passphrase twice. An empty one must be confirmed where
// there is somebody to ask.
func (p *Prompter) NewSecret() ([]byte, error) {
	first, err := p.Secret("Enter a passphrase : ")
	if err != nil {
		return nil, err
	}
	if len(first) == 0 {
		if p.terminal == nil {
			return nil, nil
		}
		answer, err := p.Line("Store the secret key without a passphrase? [y/N] ")
		if err == nil && !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes") {
			err = errors.New("no passphrase given")
		}
		return nil, err
	}
	second, err := p.Secret("Retype your passphrase : ")
	defer clear(second)
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("passphrases do not match")
	}
	return first, err
}

// Choice asks for a number below n.
func (p *Prompter) Choice(question string, n int) (int, error) {
	answer, err := p.Line(question)
	if err != nil {
		return 0, err
	}
	i, err := strconv.Atoi(answer)
	if err != nil || i < 0 || i >= n {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", answer, n-1)
	}
	return i, nil
}
