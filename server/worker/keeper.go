package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/api"
	"singularity/container/cgroup"
)

// The verbs of this program that are no commands: a keeper, and the first process
// of a sandbox.
const (
	KeeperVerb = "@keeper"
	InsideVerb = "@inside"
)

// spec is what a sandbox shall be. It goes to the keeper and from there inside,
// by pipes: it holds a token.
type spec struct {
	Dir         string          `json:"dir"` // of the build on this host
	IDs         idRange         `json:"ids"`
	Library     string          `json:"library"`    // its address
	Login       []byte          `json:"login"`      // remote.yaml
	Registries  []byte          `json:"registries"` // docker-config.json
	CA          []byte          `json:"ca"`
	Definition  []byte          `json:"definition"`
	Limits      api.BuildLimits `json:"limits"`
	Time        time.Duration   `json:"time"`
	Program     string          `json:"program"`
	Args        []string        `json:"args"`
	Allow       []string        `json:"allow"`
	Arch        string          `json:"arch"`
	Emulate     bool            `json:"emulate"`
	Unpack      bool            `json:"unpack"`
	UnpackLimit int64           `json:"unpackLimit"`
	Remove      bool            `json:"remove"` // nothing but remove what is in Dir
	Probe       bool            `json:"probe"`  // nothing but try
	Grouped     bool            `json:"grouped"`
}

// result is what came of a sandbox.
type result struct {
	Status  int    `json:"status"`            // of the program
	Error   string `json:"error,omitempty"`   // of the sandbox
	Limit   string `json:"limit,omitempty"`   // that was reached: time, disk, memory
	Notes   string `json:"notes,omitempty"`   // for the worker's log
	Emulate bool   `json:"emulate,omitempty"` // programs of other machines can be run here
}

// end is how the build ends, or nil if its program ended well.
func (r *result) end(l *api.BuildLimits) *api.WorkerDone {
	switch {
	case r.Limit == "time":
		return &api.WorkerDone{State: "timed-out", Reason: "it ran for more than " + l.Time.String()}
	case r.Limit == "disk":
		return &api.WorkerDone{State: "failed", Reason: fmt.Sprintf("it wrote more than %d bytes to disk, or made too many files", l.Disk)}
	case r.Limit == "full":
		return &api.WorkerDone{State: "failed", Reason: "the disk of the worker is nearly full"}
	case r.Error != "":
		return &api.WorkerDone{State: "failed", Reason: r.Error}
	case r.Status != 0:
		return &api.WorkerDone{State: "failed", Reason: fmt.Sprintf("it ended with status %d", r.Status)}
	}
	return nil
}

// keep runs a sandbox by a keeper, which dies with this process: it reads its
// standard input, whose end it takes for that.
func (w *Worker) keep(ctx context.Context, s *spec, out io.Writer) (*result, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer from.Close()
	cmd := exec.CommandContext(ctx, w.self, KeeperVerb)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{to}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "DBUS_SESSION_BUS_ADDRESS=" + os.Getenv("DBUS_SESSION_BUS_ADDRESS"), "XDG_RUNTIME_DIR=" + os.Getenv("XDG_RUNTIME_DIR")}
	cmd.WaitDelay = 10 * time.Second
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	to.Close()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	if _, err := stdin.Write(append(text, '\n')); err != nil {
		cmd.Process.Kill()
	}
	r := &result{}
	answer := json.NewDecoder(io.LimitReader(from, 64<<10)).Decode(r)
	ended := cmd.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if answer != nil {
		return nil, errors.Join(fmt.Errorf("the keeper said nothing: %w", answer), ended)
	}
	if r.Notes != "" {
		w.o.Log.Debug("sandbox", "notes", r.Notes)
	}
	return r, nil
}

// Keeper is the keeper's program.
func Keeper() int {
	// What dies with its parent dies with the thread that started it.
	runtime.LockOSThread()
	in := bufio.NewReaderSize(os.Stdin, 64<<10)
	line, err := in.ReadBytes('\n')
	var s spec
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	k := &keeper{spec: &s}
	r := &result{}
	if err == nil {
		r, err = k.run(in)
	}
	if err != nil {
		r.Error = err.Error()
	}
	r.Notes = strings.Join(k.notes, "; ")
	json.NewEncoder(os.NewFile(3, "result")).Encode(r)
	return 0
}

type keeper struct {
	spec  *spec
	notes []string
	limit atomic.Value // string
	child *exec.Cmd
}

func (k *keeper) kill(why string) {
	if why != "" {
		k.limit.CompareAndSwap(nil, why)
	}
	// The first process of a PID namespace takes all others with it.
	k.child.Process.Kill()
}

func (k *keeper) run(in io.Reader) (*result, error) {
	s := k.spec
	group := k.group()
	if group != nil {
		defer func() {
			if err := group.Remove(); err != nil {
				k.notes = append(k.notes, err.Error())
			}
		}()
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET)
	k.child = &exec.Cmd{Path: self, Args: []string{self, InsideVerb}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GODEBUG=netdns=go"}, Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles: []*os.File{theirs}, SysProcAttr: &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL, Setsid: true, AmbientCaps: allCapabilities()}}
	err = k.child.Start()
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot make the namespaces of a sandbox: %w", err)
	}
	go func() { // the worker has died
		io.Copy(io.Discard, in)
		k.kill("")
		os.Exit(1)
	}()
	if err := k.enter(group); err != nil {
		k.kill("")
		k.child.Wait()
		return nil, err
	}
	timer := time.AfterFunc(s.Time, func() { k.kill("time") })
	defer timer.Stop()
	return k.wait(ours)
}

// enter puts the child, which waits, under its limits and gives it its ids.
func (k *keeper) enter(group *cgroup.Group) error {
	pid := k.child.Process.Pid
	if group != nil {
		for _, f := range group.Procs() {
			if _, err := f.WriteString(strconv.Itoa(pid)); err != nil {
				return fmt.Errorf("cannot put a build into its control group: %w", err)
			}
		}
	}
	return k.spec.IDs.write(pid)
}

// group makes a control group with the limits, if this process may.
func (k *keeper) group() *cgroup.Group {
	s := k.spec
	if s.Remove || s.Probe {
		return nil
	}
	period := uint64(100_000)
	quota, pids, memory := int64(period)*int64(s.Limits.CPUs), int64(s.Limits.PIDs), s.Limits.Memory
	l := &cgroup.Limits{CPU: cgroup.CPU{Quota: &quota, Period: &period}, PIDs: cgroup.PIDs{Limit: &pids}, Memory: cgroup.Memory{Limit: &memory}}
	g, notes, err := cgroup.New(l, true)
	k.notes = append(k.notes, notes...)
	if err != nil {
		// Without a control group the limits are those of processes (inside.go).
		k.notes = append(k.notes, "no control group: "+err.Error())
		return nil
	}
	s.Grouped = true
	return g
}

// wait sends the spec, serves the way out, and waits for the end.
func (k *keeper) wait(ours *net.UnixConn) (*result, error) {
	s := k.spec
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := ours.Write(append(text, '\n'))
		sent <- err
	}()
	r := &result{}
	listened := make(chan error, 1)
	go func() { listened <- k.listen(ours, r) }()
	err = k.child.Wait()
	ours.SetReadDeadline(time.Now().Add(time.Second)) // what it said last
	<-sent
	e := <-listened
	if limit, _ := k.limit.Load().(string); limit != "" {
		r.Limit = limit
		return r, nil
	}
	if r.Limit != "" || r.Error != "" {
		return r, nil
	}
	if exit, ok := err.(*exec.ExitError); ok {
		if r.Status = exit.ExitCode(); r.Status < 0 {
			r.Status = 137
			r.Error = "it was killed, as it used too much memory" // nobody else does that
		}
		return r, nil
	}
	if e != nil && !errors.Is(e, io.EOF) && !errors.Is(e, os.ErrDeadlineExceeded) && err == nil && !s.Remove {
		return r, e
	}
	return r, err
}

// listen takes from inside the listeners of the proxy, and the result.
func (k *keeper) listen(ours *net.UnixConn, r *result) error {
	buf, oob := make([]byte, 64<<10), make([]byte, 256)
	var text []byte
	for {
		n, on, _, _, err := ours.ReadMsgUnix(buf, oob)
		if n == 0 && err == nil {
			err = io.EOF
		}
		if on > 0 {
			if e := k.serve(oob[:on]); e != nil {
				k.kill("")
				return e
			}
		}
		text = append(text, buf[:n]...)
		if len(text) > 64<<10 {
			text = nil
		}
		for {
			i := strings.IndexByte(string(text), '\n')
			if i < 0 {
				break
			}
			if len(text[:i]) > 1 {
				json.Unmarshal(text[:i], r)
			}
			text = text[i+1:]
		}
		if err != nil {
			return err
		}
	}
}

// serve begins to answer at the listeners that came from inside: the proxy, and
// perhaps one at the library's own address.
func (k *keeper) serve(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		for i, fd := range fds {
			unix.CloseOnExec(fd)
			f := os.NewFile(uintptr(fd), "listener")
			l, err := net.FileListener(f)
			f.Close()
			if err != nil {
				return err
			}
			p, err := newProxy(k.spec)
			if err != nil {
				return err
			}
			if i == 0 {
				go p.serve(l)
			} else {
				go p.forward(l)
			}
		}
	}
	return nil
}

func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "inside")
	f := os.NewFile(uintptr(fds[0]), "outside")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}

// allCapabilities are kept by the first process of a sandbox, in its own user
// namespace, over the start of its program.
func allCapabilities() []uintptr {
	var list []uintptr
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == nil && v == 1 {
			list = append(list, c)
		}
	}
	return list
}
