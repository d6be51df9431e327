package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"singularity/action"
	"singularity/oci"
)

// convert returns what makes a SIF of an image of layers: a build from that
// image alone, in a process of its own, since a build is root of a user
// namespace.
func (o *fetchOptions) convert(log *action.Log) func(ctx context.Context, ref, path string) error {
	return func(ctx context.Context, ref, path string) error {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		argv := []string{"build", "--force"}
		if log.Level <= action.LevelInfo && !action.IsTerminal(2) {
			argv = append([]string{"--quiet"}, argv...)
		}
		if o.arch != "" {
			argv = append(argv, "--arch", o.arch)
		}
		if o.platform != "" {
			argv = append(argv, "--platform", o.platform)
		}
		if o.tmpDir != "" {
			argv = append(argv, "--tmpdir", o.tmpDir)
		}
		cmd := exec.CommandContext(ctx, exe, append(argv, path, ref)...)
		cmd.Env = append(without(os.Environ(), "SINGULARITY_SECTION", "SINGULARITY_SANDBOX", "SINGULARITY_UPDATE", "SINGULARITY_BIND", "SINGULARITY_BINDPATH"), o.environ()...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 10 * time.Second
		// One that is killed takes the build along.
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		err = cmd.Run()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() > 0 {
				return exitStatus(e.ExitCode()) // the build has said what is wrong
			}
			return fmt.Errorf("cannot convert %q: %w", ref, err)
		}
		return nil
	}
}

// environ gives the options to the build, where its own flags would show
// secrets to others or are not there.
func (o *fetchOptions) environ() []string {
	env := []string{"SINGULARITY_DOCKER_LOGIN=false", "SINGULARITY_NO_HTTPS=" + strconv.FormatBool(o.noHTTPS)}
	for key, value := range map[string]string{"AUTHFILE": o.authFile, "DOCKER_USERNAME": o.username, "DOCKER_PASSWORD": o.password, "DOCKER_HOST": o.dockerHost} {
		if value != "" {
			env = append(env, "SINGULARITY_"+key+"="+value)
		}
	}
	return env
}

// local returns what finds the digest of an image of layers on this host.
func (o *fetchOptions) local() func(ctx context.Context, ref string) (string, error) {
	return func(ctx context.Context, ref string) (string, error) {
		p, err := oci.ParsePlatform(o.arch, o.platform)
		if err != nil {
			return "", err
		}
		img, err := oci.Open(ctx, ref, oci.Options{Platform: &p, DockerHost: o.dockerHost, TempDir: o.temporary(), Getenv: os.Getenv})
		if err != nil {
			return "", err
		}
		defer img.Close()
		s, err := img.Source()
		if err != nil {
			return "", err
		}
		return s.Digest, nil
	}
}
