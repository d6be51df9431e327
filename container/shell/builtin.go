package shell

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// builtin does what the interpreter lacks of a shell's own commands, kill and
// umask, and returns the command that has the status of it.
func builtin(args []string, out, errs io.Writer) []string {
	do := kill
	if args[0] == "umask" {
		do = func(args []string) error { return umask(args, out) }
	}
	if err := do(args[1:]); err != nil {
		fmt.Fprintf(errs, "%s: %v\n", args[0], err)
		return []string{"false"}
	}
	return []string{"true"}
}

// kill sends a signal to processes: [-NAME | -NUMBER | -s NAME] ID...
func kill(args []string) error {
	sig := syscall.SIGTERM
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' && args[0] != "--" {
		name := args[0][1:]
		if args = args[1:]; name == "s" && len(args) > 0 {
			name, args = args[0], args[1:]
		}
		n, err := strconv.Atoi(name)
		if sig = syscall.Signal(n); err != nil {
			sig = unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
		}
		if sig == 0 && name != "0" {
			return fmt.Errorf("no signal is called %q", name)
		}
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return fmt.Errorf("the id of a process is wanted")
	}
	var failed error
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err != nil {
			return fmt.Errorf("%q is not the id of a process", a)
		}
		if pid == os.Getpid() && (sig == syscall.SIGTERM || sig == syscall.SIGHUP || sig == syscall.SIGINT) {
			die(sig) // no handler of ours is asked
		}
		if err := syscall.Kill(pid, sig); err != nil {
			failed = fmt.Errorf("%d: %w", pid, err)
		}
	}
	return failed
}

// umask prints the mask of new files, or sets it to an octal number.
func umask(args []string, out io.Writer) error {
	if len(args) == 0 {
		old := syscall.Umask(0)
		syscall.Umask(old)
		_, err := fmt.Fprintf(out, "%04o\n", old)
		return err
	}
	mask, err := strconv.ParseUint(args[0], 8, 9)
	if err != nil {
		return fmt.Errorf("%q is not an octal number", args[0])
	}
	syscall.Umask(int(mask))
	return nil
}
