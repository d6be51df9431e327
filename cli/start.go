package cli

import (
	"errors"
	"os"

	"singularity/action"
)

// startElsewhere starts a container with what the program singularity cannot
// do, limits of resources, or becomes that program, which starts containers
// from local images faster. Other kinds of images are refused, as no program of
// ours fetches them.
func startElsewhere(log *action.Log, image string) error {
	scheme := action.Scheme(image)
	if scheme != "" && scheme != "instance" {
		return action.Fatal(errors.New("cannot start "+image+": images of the kind \""+scheme+"\" are not supported"),
			"name a SIF file or a directory on this host")
	}
	v, err := invocation()
	if err != nil {
		return err
	}
	switch {
	case scheme == "instance":
		if v.Limited() {
			log.Warning("Limits are ignored: the instance has its own")
		}
		return action.Fatal(errors.New("cannot join "+image+": instances are not supported"), "name a SIF file or a directory on this host")
	case v.Limited():
		status, err := action.Start(v, action.Extensions{Limit: limit}, log)
		if err != nil {
			return err
		}
		return exitStatus(status)
	}
	return action.Become("singularity", append([]string{"singularity"}, os.Args[1:]...))
}

// invocation reads the command line again, by the parser that knows the fields.
func invocation() (*action.Invocation, error) {
	v := new(action.Invocation)
	rest, err := action.ParseGlobal(v, os.Args[1:], os.Getenv)
	if err != nil {
		return nil, err
	}
	verb := action.LookupVerb(rest[0])
	if verb == nil {
		return nil, errors.New("no container is started by the command " + rest[0])
	}
	return v, action.ParseVerb(v, verb, rest[1:], os.Getenv)
}
