// Package source fills the empty root file system of an image: one file for
// each bootstrap agent of a definition.
//
// A stage's header goes in, with the directory to fill; the files of a base
// system are in it afterwards. The agents trust the person who wrote the
// definition with which mirror, image and packages to take; what those hold is
// checked by the tools (signatures of a package mirror) or by the readers of
// image formats.
//
// An agent never starts a program out of the directory it fills by itself:
// only debootstrap and mmdebstrap do, in a chroot, as installing packages
// means running their scripts. All of them believe to be root, of the host or
// of a user namespace.
//
// Files: source.go (the agents), debootstrap.go, fetched.go, localimage.go, oci.go, scratch.go,
// command.go (running a host program).
package source

import (
	"context"
	"fmt"

	"singularity/build/deffile"
)

// Source is the origin of a base system.
type Source interface {
	// Fetch fills the directory rootfs, which is empty. After an error its
	// content is of no use.
	Fetch(ctx context.Context, rootfs string) error
}

// Log takes messages for people.
type Log interface {
	Info(msg string)
	Warning(msg string)
	Verbose(msg string)
}

// Config is what the agents need from their caller.
type Config struct {
	Log Log
	Env []string // environment of host programs
	// Extract unpacks the image file or directory at path into rootfs.
	Extract func(ctx context.Context, path, rootfs string) error
	// OCI fills rootfs with the image of layers that a reference names.
	OCI func(ctx context.Context, ref, rootfs string) error
	// Registries tells that OCI knows references that begin with docker://.
	Registries bool
	// FetchImage returns the path of the SIF image that a reference names, and
	// what to call when it is not needed any more.
	FetchImage func(ctx context.Context, ref string) (path string, done func(), err error)
	// Include are packages to install besides those of the header.
	Include []string
}

// UnsupportedError says that an agent is known but not part of this version.
type UnsupportedError struct {
	Agent string
	Line  int
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("line %d: bootstrap agent %q is not part of this version; it has debootstrap, docker, docker-archive, docker-daemon, library, localimage, oci, oci-archive, oras, scratch and shub", e.Line, e.Agent)
}

// New returns the source that the header of a stage names.
func New(s *deffile.Stage, c Config) (Source, error) {
	if s.Agent() == "docker" && c.Registries {
		return newOCI(s, c)
	}
	switch agent := s.Agent(); agent {
	case "scratch":
		return scratch{}, nil
	case "localimage":
		return newLocalImage(s, c)
	case "docker-archive", "docker-daemon", "oci", "oci-archive":
		return newOCI(s, c)
	case "library", "oras", "shub":
		return newFetched(s, c)
	case "debootstrap":
		return newDebootstrap(s, c), nil
	default:
		return nil, &UnsupportedError{Agent: agent, Line: s.Line}
	}
}
