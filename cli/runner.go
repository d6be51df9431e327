package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/build"
	"singularity/container"
	"singularity/plan"
)

// runInRootfs is the build's Runner: it starts a container from a directory, as
// the root that the build is, in a PID namespace of its own, so that nothing
// which the program leaves behind outlives it.
func runInRootfs(log *action.Log) build.Runner {
	return func(ctx context.Context, s build.RunSpec) error {
		p, err := rootfsPlan(&s)
		if err != nil {
			return err
		}
		in, closeIn, err := inputFile(s.Stdin)
		if err != nil {
			return err
		}
		defer closeIn()
		var copies sync.WaitGroup
		out, closeOut, err := outputFile(s.Stdout, &copies)
		if err != nil {
			return err
		}
		errs, closeErr, err := outputFile(s.Stderr, &copies)
		if err != nil {
			closeOut()
			return err
		}
		h := container.Hooks{Warning: log.Warning, Debug: log.Debug, Done: ctx.Done(), Stdio: [3]*os.File{in, out, errs}}
		ws, err := container.Run(p, nil, h)
		if container.NoProc(err) {
			log.Debug(err.Error() + ": using the host's")
			p.Namespaces.PID = false
			p.HostProc()
			ws, err = container.Run(p, nil, h)
		}
		closeOut()
		closeErr()
		copies.Wait()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err
		case ws.Signaled():
			return &build.ExitError{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
		case ws.ExitStatus() != 0:
			return &build.ExitError{Code: ws.ExitStatus()}
		}
		return nil
	}
}

// rootfsPlan plans the container of s.
func rootfsPlan(s *build.RunSpec) (*plan.Plan, error) {
	var st unix.Stat_t
	if err := unix.Stat(s.Rootfs, &st); err != nil {
		return nil, &os.PathError{Op: "open", Path: s.Rootfs, Err: err}
	}
	p := &plan.Plan{
		Namespaces: plan.Namespaces{PID: true},
		IDs:        plan.IDs{Mode: plan.HostIDs, FakeDevices: s.Owners == build.MappedRoot},
		Root:       plan.Root{Kind: plan.DirRoot, Path: s.Rootfs, Dev: st.Dev, Ino: st.Ino, Writable: s.Writable},
		Mounts: []plan.Mount{
			{Kind: plan.Proc, Destination: "/proc", Tag: "kernel"},
			{Source: "/sys", Destination: "/sys", Optional: true, Tag: "kernel"},
			{Source: "/dev", Destination: "/dev", Devices: true, Tag: "kernel"},
			{Source: "/tmp", Destination: "/tmp", Optional: true, Tag: "tmp"},
			{Source: "/var/tmp", Destination: "/var/tmp", Optional: true, Tag: "tmp"},
		},
		Process: plan.Process{Args: s.Args, Env: s.Env, Dirs: []string{s.Cwd}, Umask: -1, Shell: "/bin/sh", Paths: plan.Search(s.Args[0], s.Env)},
	}
	if s.TmpfsSize > 0 {
		p.Layers = []plan.Layer{{Kind: plan.TmpfsLayer, Path: "memory", Size: s.TmpfsSize, Writable: true}}
	}
	for _, b := range s.Binds {
		dst := b.Dest
		if dst == "" {
			dst = b.Source
		}
		p.Mounts = append(p.Mounts, plan.Mount{Source: b.Source, Destination: dst, ReadOnly: b.ReadOnly, Tag: "user"})
	}
	for _, f := range s.Files {
		p.Files = append(p.Files, plan.File{Path: f.Path, Perm: 0o644, Load: func([]byte) ([]byte, error) { return f.Data, nil }})
	}
	return p, nil
}

// inputFile returns a file to read r from.
func inputFile(r io.Reader) (*os.File, func(), error) {
	if f, ok := r.(*os.File); ok {
		return f, func() {}, nil
	}
	if r != nil {
		return nil, nil, errors.New("a program in a container reads from a file only")
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { f.Close() }, nil
}

// outputFile returns a file whose content goes to w. The second result closes
// it on this side, after which copies ends with the last writer.
func outputFile(w io.Writer, copies *sync.WaitGroup) (*os.File, func(), error) {
	if f, ok := w.(*os.File); ok {
		return f, func() {}, nil
	}
	if w == nil {
		w = io.Discard
	}
	r, f, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	copies.Go(func() {
		io.Copy(w, r)
		r.Close()
	})
	return f, func() { f.Close() }, nil
}
