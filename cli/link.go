package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// link connects the two processes of a build. The one that builds writes the
// names of its temporary files to it, each with a final NUL, so that the other
// can remove them if it is killed; and it reads the end of the connection when
// the other one is killed, in order to clean up by itself.
type link struct{ ours, theirs *os.File }

func newLink() (*link, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &link{os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link")}, nil
}

func (l *link) close() {
	l.ours.Close()
	l.theirs.Close()
}

// left returns the names that came and are still there.
func (l *link) left() []string {
	var text []byte
	b := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(int(l.ours.Fd()), b, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		text = append(text, b[:n]...)
	}
	var names []string
	for _, name := range bytes.Split(text, []byte{0}) {
		if _, err := os.Lstat(string(name)); len(name) > 0 && err == nil {
			names = append(names, string(name))
		}
	}
	return names
}

// openLink returns this process's end of the link that started it, nil if none
// did. No program started from here gets it.
func openLink() *os.File {
	fd, err := strconv.Atoi(os.Getenv(linkVariable))
	if err != nil || fd < 3 {
		return nil
	}
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || kind != unix.AF_UNIX {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "link")
}

// buildContext returns a context that ends when the build shall: at a signal,
// or when the process that started this one is gone.
func buildContext(ctx context.Context, parent *os.File) (context.Context, func()) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// Whoever read the output may be gone too; that must not end the process
	// before it has cleaned up.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if parent == nil {
		return ctx, stop
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for b := make([]byte, 1); ; {
			if n, err := parent.Read(b); n == 0 || err != nil {
				cancel()
				return
			}
		}
	}()
	return ctx, func() { cancel(); stop() }
}

// report writes the name of a temporary file to the parent. A parent that is
// gone cannot clean up, but then this process does.
func report(parent *os.File) func(string) {
	return func(path string) {
		if parent != nil && !strings.ContainsRune(path, 0) {
			_, _ = parent.WriteString(path + "\x00")
		}
	}
}
