// Package source fills the empty root file system of an image: one file for
// each bootstrap agent of a definition.
//
// A stage's header goes in, with the directory to fill; the files of a base
// system are in it afterwards, and Config.Record has been told where they come
// from. The agents trust the person who wrote the definition with which mirror,
// image and packages to take; what those hold is checked by the tools
// (signatures of a package mirror) or by the readers of image formats.
//
// No agent starts a program out of the directory it fills by itself but the
// package tools, in a chroot, as installing packages means running their
// scripts; busybox does it through Config.Run, in a container. All of them
// believe to be root, of the host or of a user namespace.
//
// Values of the header become arguments and lines of configuration of host
// programs: each agent refuses those that would be taken for options or for
// more than one line.
//
// Files: source.go (the agents), origin.go (where files come from), command.go
// (running a host program), chroot.go (what package tools need and leave);
// debootstrap.go, yum.go (and dnf), zypper.go, arch.go, busybox.go, fetched.go,
// http.go, localimage.go, oci.go, scratch.go.
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

// Keyed is a Source that can tell what Fetch would bring without bringing it.
// Others depend on what a mirror has at the moment.
type Keyed interface {
	// Key returns a text that is the same as long as Fetch brings the same,
	// usually a digest.
	Key(ctx context.Context) (string, error)
}

// Log takes messages for people.
type Log interface {
	Info(msg string)
	Warning(msg string)
	Verbose(msg string)
}

// Config is what the agents need from their caller. New alone needs none of it.
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
	// Digest returns the digest of a file, or of a directory's files.
	Digest func(ctx context.Context, path string) (string, error)
	// Verify checks the signatures of the SIF at path, by every key of require,
	// and returns the fingerprints of those who signed it.
	Verify func(ctx context.Context, path string, require []string) ([]string, error)
	// Run runs a program of the root file system in a container and returns its
	// output.
	Run func(ctx context.Context, args ...string) (string, error)
	// Record is told where the base system comes from.
	Record func(Origin)
	// WorkDir makes an empty private directory that is removed after the build.
	WorkDir func() (string, error)
	// Quiet says that the user named the image itself, and nobody asks who made it.
	Quiet bool
	// Include are packages to install besides those of the header.
	Include []string
}

// UnsupportedError says that an agent is known but not part of this version.
type UnsupportedError struct {
	Agent string
	Line  int
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("line %d: bootstrap agent %q is not part of this version", e.Line, e.Agent)
}

// New returns the source that the header of a stage names. It refuses what the
// agent could not do, before any work is done.
func New(s *deffile.Stage, c Config) (Source, error) {
	switch agent := s.Agent(); {
	case agent == "docker" && c.Registries:
		return newOCI(s, c)
	case (agent == "library" || agent == "oras" || agent == "shub") && c.FetchImage != nil:
		return newFetched(s, c)
	}
	switch agent := s.Agent(); agent {
	case "scratch":
		return scratch{}, nil
	case "localimage":
		return newLocalImage(s, c)
	case "docker-archive", "docker-daemon", "oci", "oci-archive":
		return newOCI(s, c)
	case "http", "https":
		return newHTTP(s, c)
	case "debootstrap":
		return newDebootstrap(s, c)
	case "yum", "dnf":
		return newYum(s, c)
	case "zypper":
		return newZypper(s, c)
	case "arch":
		return newArch(s, c)
	case "busybox":
		return newBusybox(s, c)
	default:
		return nil, &UnsupportedError{Agent: agent, Line: s.Line}
	}
}
