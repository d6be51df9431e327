// Package worker builds what the remote builder hands out: each build in a fresh
// sandbox, by our own singularity, as nobody in particular.
//
// In go tasks, from the server's internal listener, which this worker shows its
// certificate to; out go signs of life, the log, and the image, by the public
// library. Two processes stand between this one and a definition: a keeper
// (keeper.go), which has the limits, the way to the network and the end of the
// build, and the first process of the sandbox (inside.go), which is root of a user
// namespace, makes the sandbox, and starts singularity in another user namespace
// below. When any of the three dies, all below it dies.
//
// Security: a definition is hostile (SC-159). The sandbox has user, mount,
// PID, IPC, UTS, network and control group namespaces of its own: no process, file or
// socket of the host is in sight but programs and certificates, read-only. Its network
// has one way out, a proxy of ours that refuses what is not public but the
// library. What a build can read there is a token that reads what its user may
// read, and ends with the build; the one that writes the image exists only after the
// build's last process has ended. %pre and %setup run in the sandbox (SC-098).
//
//   - worker.go: the loop; task.go: one build; calls.go: of the server
//   - keeper.go, ids.go, limits.go: outside of a sandbox; inside.go, disk.go: in it
//   - proxy.go: the network; output.go: the log; arch.go: what can be built
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a worker.
type Options struct {
	Name    string
	Slots   int
	Server  string       // the internal listener, https://HOST:PORT
	HTTP    *http.Client // with the certificate of the worker
	Dir     string       // where builds work
	IDs     uint32       // first of the ids that builds get if this is root
	Program string       // singularity
	CA      []byte       // PEM of authorities that builds trust beside the system's
	Allow   []string     // networks and hosts that builds reach though they are not public
	Log     *slog.Logger
}

// Worker is one worker.
type Worker struct {
	o     Options
	self  string
	archs []string
	lock  *os.File
}

// Open looks at the host and makes the directory ready. What builds of an earlier
// worker left there is removed.
func Open(o Options) (*Worker, error) {
	w := &Worker{o: o}
	if err := w.open(); err != nil {
		return nil, fmt.Errorf("cannot start a worker: %w", err)
	}
	return w, nil
}

func (w *Worker) open() error {
	var err error
	if w.self, err = os.Executable(); err != nil {
		return err
	}
	if w.o.Program, err = findProgram(w.o.Program, w.self); err != nil {
		return err
	}
	if _, err := parseAllow(w.o.Allow); err != nil {
		return err
	}
	if err := os.MkdirAll(w.o.Dir, 0o700); err != nil {
		return err
	}
	if w.lock, err = os.Open(w.o.Dir); err != nil {
		return err
	}
	if err := unix.Flock(int(w.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another worker uses %q: each needs a directory of its own", w.o.Dir)
	}
	left, err := filepath.Glob(filepath.Join(w.o.Dir, "job-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := w.remove(dir, 0); err != nil {
			return fmt.Errorf("what an earlier build left in %q stays: %w", dir, err)
		}
	}
	w.archs, err = w.probe()
	return err
}

// findProgram finds singularity: named, beside this program, or in PATH.
func findProgram(named, self string) (string, error) {
	list := []string{named}
	if named == "" {
		list = []string{filepath.Join(filepath.Dir(self), "singularity")}
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			list = append(list, filepath.Join(dir, "singularity"))
		}
	}
	for _, name := range list {
		if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() && filepath.IsAbs(name) {
			return filepath.EvalSymlinks(name)
		}
	}
	return "", errors.New("singularity is not beside this program and not in PATH: name it by worker_program")
}

// Archs are the architectures that can be built here.
func (w *Worker) Archs() []string { return w.archs }

// Run builds until ctx ends; then what is being built is given back. A worker
// that is to end gently gets drain: nothing new then, and Run returns when the
// last build has ended.
func (w *Worker) Run(ctx context.Context, drain <-chan struct{}) {
	defer w.lock.Close()
	var slots sync.WaitGroup
	for slot := range w.o.Slots {
		slots.Go(func() { w.serve(ctx, drain, slot) })
	}
	slots.Wait()
}

// serve takes one build after another.
func (w *Worker) serve(ctx context.Context, drain <-chan struct{}, slot int) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-drain:
			stop()
		case <-asking.Done():
		}
	}()
	wait := time.Duration(0)
	for asking.Err() == nil {
		t, err := w.claim(asking)
		switch {
		case err != nil && asking.Err() == nil:
			wait = min(max(2*wait, 200*time.Millisecond), 10*time.Second)
			w.o.Log.Warn("cannot ask for a build", "error", err.Error(), "again in", wait.String())
			select {
			case <-asking.Done():
			case <-time.After(wait):
			}
		case err == nil && t != nil:
			wait = 0
			w.do(ctx, t, slot)
		}
	}
}

// hostName is the name of a worker that has none.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "worker"
	}
	return strings.ToLower(name)
}

// DefaultName names a worker after the host.
func DefaultName() string { return hostName() }
