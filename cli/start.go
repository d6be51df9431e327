package cli

import (
	"errors"
	"fmt"
	"os"

	"singularity/action"
	"singularity/container/shell"
	"singularity/host/cdi"
)

// startElsewhere starts a container with what the program singularity cannot
// do: control groups, which limits and instances want, and encrypted images. Every other start it
// hands back to that program, which starts containers from local images faster,
// with the edits of CDI devices where devices are asked for. Other kinds of
// images are refused, as no program of ours fetches them.
func startElsewhere(log *action.Log, image string) error {
	scheme := action.Scheme(image)
	if scheme != "" && scheme != "instance" {
		return action.Fatal(errors.New("cannot start "+image+": images of the kind \""+scheme+"\" are not supported"),
			"name a SIF file or a directory on this host")
	}
	v, verb, err := invocation()
	if err != nil {
		return err
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
	case scheme == "" && (v.Limited() || verb.Set&action.Instances != 0 || action.Encrypted(v.Image)):
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

// extensions are what this program adds to a start.
var extensions = action.Extensions{Limit: limit, Leave: leave, Unlock: unlock, Program: "/proc/self/exe"}

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
