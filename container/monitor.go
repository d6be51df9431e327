package container

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// monitor stands for the container towards the caller: it passes signals on,
// stops when the container stops, and waits.
type monitor struct {
	signals chan os.Signal
}

// newMonitor starts to catch signals, so that none is lost between the clone
// and the wait.
func newMonitor() *monitor {
	m := &monitor{signals: make(chan os.Signal, 64)}
	var list []os.Signal
	for n := syscall.Signal(1); n < 65; n++ {
		switch n {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGURG, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, 32, 33, 34:
			// Not to be caught, the Go runtime's own, or a fault here.
			continue
		case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGTSTP:
			// What was ignored at the start (nohup) stays so.
			if signal.Ignored(n) {
				continue
			}
		}
		list = append(list, n)
	}
	signal.Notify(m.signals, list...)
	return m
}

func (m *monitor) stop() { signal.Stop(m.signals) }

// wait forwards signals until the child ends, and returns its status, or why it
// could not start.
func (m *monitor) wait(c *child, done <-chan struct{}) (syscall.WaitStatus, error) {
	for {
		ws, ended := m.poll(c)
		if ended {
			err := <-c.failed
			if err != nil {
				return 0, err
			}
			return ws, nil
		}
		select {
		case <-done:
			syscall.Kill(c.pid, syscall.SIGKILL)
			done = nil
		case s := <-m.signals:
			sig := s.(syscall.Signal)
			// poll looks at the children after SIGCHLD.
			if sig != syscall.SIGCHLD && sig != syscall.SIGPIPE && forward(sig) {
				syscall.Kill(c.pid, sig)
			}
		}
	}
}

// poll looks at all children that changed state.
func (m *monitor) poll(c *child) (syscall.WaitStatus, bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(c.pid, &ws, syscall.WNOHANG|syscall.WUNTRACED, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, true
		}
		if pid == 0 {
			break
		}
		if ws.Stopped() {
			m.suspend(c, ws.StopSignal())
			continue
		}
		return ws, true
	}
	if c.server != nil && c.server.ended() {
		// Without its server the root file system is gone.
		syscall.Kill(c.pid, syscall.SIGKILL)
	}
	return 0, false
}

// suspend stops this process as the child stopped, for the shell to see, and
// continues both when it is continued.
func (m *monitor) suspend(c *child, sig syscall.Signal) {
	if !IsTerminal() && sig != syscall.SIGTSTP {
		return
	}
	syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	syscall.Kill(c.pid, syscall.SIGCONT)
}

// forward tells whether a signal that came to this process must be passed on.
// What a terminal sends goes to its whole foreground process group, of which
// the container's program is a part: it has those signals already.
func forward(sig syscall.Signal) bool {
	switch sig {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGWINCH, syscall.SIGTTIN, syscall.SIGTTOU:
		return !inForeground()
	case syscall.SIGHUP:
		return true
	}
	return true
}

// inForeground tells whether this process belongs to the foreground process
// group of a terminal on one of the standard descriptors.
func inForeground() bool {
	for fd := range 3 {
		if g, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && g == unix.Getpgrp() {
			return true
		}
	}
	return false
}

// Exit ends this process as the container's program ended: with its status, or
// by the same signal, so that a shell sees a signal death.
func Exit(ws syscall.WaitStatus) int {
	if !ws.Signaled() {
		return ws.ExitStatus()
	}
	sig := ws.Signal()
	// The core, if any, is the program's, not ours.
	syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	signal.Reset(sig)
	syscall.Kill(os.Getpid(), sig)
	return 128 + int(sig)
}
