package cli

import (
	"errors"
	"os"

	"singularity/action"
	"singularity/host/cdi"
)

// startElsewhere becomes the program singularity, which starts containers from
// local images, with what it cannot find out itself: the edits of CDI devices.
// Other kinds of images are refused, as no program of ours fetches them.
func startElsewhere(log *action.Log, image string) error {
	if scheme := action.Scheme(image); scheme != "" {
		return action.Fatal(errors.New("cannot start "+image+": images of the kind \""+scheme+"\" are not supported"),
			"name a SIF file or a directory on this host")
	}
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
	if len(v.Options.Devices) == 0 {
		return action.Become("singularity", append([]string{"singularity"}, os.Args[1:]...))
	}
	edits, notes, err := cdi.Resolve(v.Options.Devices, v.Options.CDIDirs)
	for _, n := range notes {
		log.Warning(n)
	}
	if err != nil {
		return action.Fatal(err, "device files come with the vendor's driver, e.g. sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml; --cdi-dirs names other directories")
	}
	return action.StartWithDevices(edits)
}
