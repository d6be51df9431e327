package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// poll waits for ok, looking again and again for at most 20 seconds.
func poll(ts *testscript.TestScript, what string, ok func() bool, more ...*string) {
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			for _, m := range more {
				what += "\n" + *m
			}
			ts.Fatalf("%s", what)
		}
	}
}

// ptyCommand runs a command on a terminal of its own: pty FILE COMMAND... The
// file holds lines "send TEXT" and "expect TEXT", in Go's string syntax without
// the quotes.
func ptyCommand(ts *testscript.TestScript, neg bool, args []string) {
	script := ts.ReadFile(args[0])
	master, slave, err := openPTY()
	ts.Check(err)
	defer master.Close()
	path := args[1]
	if !strings.Contains(path, "/") {
		path = ts.Getenv("PREFIX") + "/bin/" + path
	}
	if strings.HasPrefix(args[1], "/") {
		path = args[1]
	}
	cmd := exec.Command(path, args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Dir = ts.Getenv("WORK")
	for _, k := range []string{"PATH", "HOME", "PREFIX", "MARK", "SIF", "SANDBOX", "E2E_IGNORE_FLAG"} {
		cmd.Env = append(cmd.Env, k+"="+ts.Getenv(k))
	}
	cmd.Env = append(cmd.Env, "TERM=dumb", "PS1=prompt> ")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(cmd.Start())
	slave.Close()
	data := make(chan []byte, 100)
	go func() {
		defer close(data)
		for {
			b := make([]byte, 4096)
			n, err := master.Read(b)
			if n > 0 {
				data <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	var seen, all bytes.Buffer
	fail := func(format string, a ...any) {
		cmd.Process.Kill()
		cmd.Wait()
		ts.Fatalf(format+"\nthe terminal shows:\n%s", append(a, all.String())...)
	}
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		verb, text, _ := strings.Cut(line, " ")
		text, err := strconv.Unquote(`"` + text + `"`)
		ts.Check(err)
		if verb == "send" {
			_, err := master.WriteString(text)
			ts.Check(err)
			continue
		}
		timeout := time.After(20 * time.Second)
		for !strings.Contains(seen.String(), text) {
			select {
			case b, ok := <-data:
				if !ok {
					fail("the terminal was closed before %q", text)
				}
				seen.Write(b)
				all.Write(b)
			case <-timeout:
				fail("no %q", text)
			}
		}
		rest := seen.String()
		rest = rest[strings.Index(rest, text)+len(text):]
		seen.Reset()
		seen.WriteString(rest)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if (err != nil) != neg {
			ts.Fatalf("%v: %v\n%s", args, err, all.String())
		}
	case <-time.After(20 * time.Second):
		fail("%v does not end", args)
	}
}

// openPTY opens a new terminal.
func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	return master, slave, err
}
