package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/cli/unlock"
	"singularity/container/shell"
	"singularity/fetch"
	"singularity/fetch/recent"
	"singularity/host/cdi"
)

// startElsewhere starts a container with what the program singularity cannot
// do: control groups, which limits and instances want, networks, and images that must
// be fetched. Every other start it hands back to that program, which
// starts containers from local images faster, with the edits of CDI devices where
// devices are asked for.
func startElsewhere(c *cobra.Command, log *action.Log, image string) error {
	var ref *fetch.Ref
	if action.Remote(image) {
		var err error
		if ref, err = startReference(image); err != nil {
			return err
		}
	}
	v, verb, err := invocation()
	if err != nil {
		return err
	}
	if ref != nil {
		temporary, err := fetchForStart(c, log, v, verb, ref)
		if err != nil {
			return explainFetch(err)
		}
		if temporary != nil {
			return runAndRemove(temporary)
		}
	}
	files := shell.Files{Output: os.Stderr, Slow: func(name string, line uint) {
		log.Info(fmt.Sprintf("Still evaluating environment file %q (line %d)", name, line))
	}}
	if _, err := v.EnvFiles(files.Variables); err != nil {
		return err
	}
	switch {
	case action.NeedsDevices(&v.Options):
		return startWithDevices(log, v)
	case action.Scheme(image) != "instance" && (v.Limited() || v.Networked() || verb.Set&action.Instances != 0):
		status, err := action.Start(v, os.Args, extensions, log)
		if err != nil {
			return err
		}
		return exitStatus(status)
	}
	if err := v.ShareFileEnv(); err != nil {
		return err
	}
	return action.Become("singularity", append([]string{"singularity"}, os.Args[1:]...))
}

// startReference reads the reference of an image that is not a file here.
func startReference(image string) (*fetch.Ref, error) {
	ref, err := fetch.Parse(image, nil)
	if unknown, ok := errors.AsType[*fetch.SchemeError](err); ok {
		return nil, action.Fatal(fmt.Errorf("cannot start %q: images of the kind %q are not supported", image, unknown.Scheme),
			"name a SIF file or a directory on this host, or an image by docker://, oras://, library:// or https://")
	}
	return ref, err
}

// fetchForStart fetches the image of v and puts the file in its place, in v and
// in the command line. It returns an image that is not in the cache, which
// somebody has to remove when the container has ended.
func fetchForStart(c *cobra.Command, log *action.Log, v *action.Invocation, verb *action.Verb, ref *fetch.Ref) (*fetch.Image, error) {
	po := &v.Options
	o := &fetchOptions{noHTTPS: po.NoHTTPS, disableCache: po.DisableCache, dockerLogin: po.DockerLogin, authFile: po.AuthFile,
		tmpDir: po.TmpDir, dockerHost: po.DockerHost, username: po.DockerUsername, password: po.DockerPassword, library: os.Getenv("SINGULARITY_LIBRARY")}
	if err := o.ask(c, log, ref); err != nil {
		return nil, err
	}
	ctx, stop := interrupted(c.Context())
	defer stop()
	bar := newTransferBar(log)
	defer bar.clear()
	f, err := o.fetcher(ctx, log, bar)
	if err != nil {
		return nil, err
	}
	f.Window, f.Stale, f.Registry.Connect = recent.Window(os.Getenv), true, startConnect
	image, err := f.Fetch(ctx, ref)
	switch {
	case ctx.Err() != nil:
		return nil, exitOne(errors.New("fetching the image was interrupted"))
	case err != nil:
		return nil, err
	}
	os.Args = v.WithImage(os.Args, image.Path)
	if image.Cached {
		return nil, nil
	}
	if verb.Set&action.Instances != 0 {
		image.Close()
		return nil, action.Fatal(fmt.Errorf("cannot start an instance from %q without the cache: its image would be removed under it", ref.Text), "pull the image to a file")
	}
	return image, nil
}

// runAndRemove carries out the command line in another process, and removes the
// image when that has ended.
func runAndRemove(image *fetch.Image) error {
	defer image.Close()
	exe := ""
	for _, exe = range action.ProgramPaths("singularity") {
		if _, err := os.Stat(exe); err == nil {
			break
		}
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			passOn(cmd, sig)
		case err := <-done:
			return childStatus(cmd, err)
		}
	}
}

// passOn passes a signal on to a process, but for those that are about ourselves
// and those of a terminal's keys, which the process has got as well.
func passOn(cmd *exec.Cmd, sig os.Signal) {
	switch sig {
	case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGTSTP, syscall.SIGWINCH:
		return
	case syscall.SIGINT, syscall.SIGQUIT:
		if action.IsTerminal(0) {
			return
		}
	}
	cmd.Process.Signal(sig)
}

func childStatus(cmd *exec.Cmd, err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); !ok && err != nil {
		return err
	}
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return exitStatus(128 + int(ws.Signal()))
	}
	return exitStatus(cmd.ProcessState.ExitCode())
}

// extensions are what this program adds to a start.
var extensions = func() action.Extensions {
	e := unlock.Extensions()
	e.Limit, e.Network, e.UserNet, e.Leave, e.Program = limit, network, userNet, leave, "/proc/self/exe"
	return e
}()

func startWithDevices(log *action.Log, v *action.Invocation) error {
	edits, notes, err := cdi.Resolve(v.Options.Devices, v.Options.CDIDirs)
	for _, n := range notes {
		log.Warning(n)
	}
	if err != nil {
		return action.Fatal(err, "device files come with the vendor's driver, e.g. sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml; --cdi-dirs names other directories")
	}
	if err := v.ShareFileEnv(); err != nil {
		return err
	}
	return action.StartWithDevices(edits)
}

// invocation reads the command line again, by the parser that knows the fields.
func invocation() (*action.Invocation, *action.Verb, error) {
	v := new(action.Invocation)
	verb, err := action.Parse(v, os.Args, action.NewLog())
	if err == nil && verb == nil {
		err = errors.New("this command starts no container")
	}
	return v, verb, err
}
