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
	// The command line is read again by the parser that knows the fields.
	var v action.Invocation
	rest, err := action.ParseGlobal(&v, os.Args[1:], os.Getenv)
	if err != nil {
		return err
	}
	if verb := action.LookupVerb(rest[0]); verb != nil {
		if err := action.ParseVerb(&v, verb, rest[1:], os.Getenv); err != nil {
			return err
		}
	}
	scheme := action.Scheme(image)
	switch {
	case scheme == "instance" && v.Limited():
		log.Warning("Limits are ignored: the instance has its own")
	case scheme == "" && v.Limited():
		status, err := action.Start(&v, action.Extensions{Limit: limit}, log)
		if err != nil {
			return err
		}
		return exitStatus(status)
	}
	if scheme != "" {
		return action.Fatal(errors.New("cannot start "+image+": images of the kind \""+scheme+"\" are not supported"),
			"name a SIF file or a directory on this host")
	}
	return action.Become("singularity", append([]string{"singularity"}, os.Args[1:]...))
}
