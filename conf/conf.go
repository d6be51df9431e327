// Package conf gives meaning to the administrator's files: singularity.conf and
// what the build fixed (version, prefix). It imports the standard library only,
// because the privileged helper links it.
package conf

// Version and Prefix are fixed at link time by the Makefile.
var (
	Version = "0.0.0-dev"
	Prefix  = "/usr/local"
)
