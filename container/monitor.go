package container

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/linux/entry"
	"singularity/linux/signals"
)

// monitor stands for the container towards the caller: it passes signals on,
// stops when the container stops, and waits.
type monitor struct {
	next  func() (caught, bool) // waits for a signal; false if the container must be killed
	watch func(fd int)          // lets next return signal 0 when that connection ends
	stop  func()
}

// caught is a signal that came to this process.
type caught struct {
	sig syscall.Signal
	// terminal tells that the kernel sent it, as it does for keys; from a
	// source that cannot tell it is set as well.
	terminal bool
}

// newMonitor starts to catch signals, so that none is lost between the clone
// and the wait.
func newMonitor(done <-chan struct{}) *monitor {
	if entry.Read().Masked && done == nil {
		if src, err := signals.Open(entry.Blocked); err == nil {
			next := func() (caught, bool) {
				sig, kernel := src.Read()
				return caught{sig, kernel}, true
			}
			return &monitor{next: next, watch: src.Watch, stop: func() {}}
		}
	}
	return notified(done)
}

// notified catches signals through the Go runtime, for a program without the
// entry stub.
func notified(done <-chan struct{}) *monitor {
	ch := make(chan os.Signal, 64)
	var list []os.Signal
	for n := syscall.Signal(1); n < 65; n++ {
		// What was ignored at the start (nohup) stays so.
		if entry.Blocked&(1<<(n-1)) != 0 && !signal.Ignored(n) {
			list = append(list, n)
		}
	}
	signal.Notify(ch, list...)
	watch := func(fd int) {
		go func() {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, -1)
			ch <- syscall.Signal(0)
		}()
	}
	return &monitor{watch: watch, stop: func() { signal.Stop(ch) }, next: func() (caught, bool) {
		select {
		case <-done:
			done = nil
			return caught{}, false
		case s := <-ch:
			return caught{s.(syscall.Signal), true}, true
		}
	}}
}

// wait forwards signals until the child ends, and returns its status, or why it
// could not start.
func (m *monitor) wait(c *child) (syscall.WaitStatus, error) {
	if c.hold != nil {
		m.watch(c.hold.fd)
	}
	for {
		if ws, ended := c.poll(); ended {
			if err := <-c.failed; err != nil {
				return 0, err
			}
			return ws, nil
		}
		s, ok := m.next()
		switch {
		case !ok:
			syscall.Kill(c.pid, syscall.SIGKILL)
		case s.sig == syscall.SIGCHLD || s.sig == 0:
			// poll looks at the children and at the holder.
		case forward(s):
			syscall.Kill(c.pid, s.sig)
		case s.sig == syscall.SIGTSTP && c.init:
			// The terminal has stopped the program behind process 1.
			c.suspend(s.sig)
		}
	}
}

// poll looks at all children that changed state.
func (c *child) poll() (syscall.WaitStatus, bool) {
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
			c.suspend(ws.StopSignal())
			continue
		}
		return ws, true
	}
	if c.server != nil && c.server.ended() || c.hold != nil && ended(c.hold.fd) {
		// Without its server the root file system is gone.
		syscall.Kill(c.pid, syscall.SIGKILL)
	}
	return 0, false
}

// suspend stops this process as the child stopped, for the shell to see, and
// continues both when it is continued.
func (c *child) suspend(sig syscall.Signal) {
	if !IsTerminal() && sig != syscall.SIGTSTP {
		return
	}
	syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	syscall.Kill(c.pid, syscall.SIGCONT)
}

// forward tells whether a signal that came to this process must be passed on.
// What a terminal sends goes to its whole foreground process group, of which
// the container's program is a part: it has those signals already.
func forward(s caught) bool {
	switch s.sig {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGWINCH, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT:
		return !s.terminal || !inForeground()
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
	runtime.LockOSThread()
	signal.Reset(sig)
	signals.Default(sig)
	syscall.Kill(os.Getpid(), sig)
	return 128 + int(sig)
}
