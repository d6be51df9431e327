// Package conf gives meaning to the administrator's files: singularity.conf and
// what the build fixed (version, prefix). It imports the standard library only,
// because the privileged helper links it.
//
// In goes the text of singularity.conf, out comes a Config: one field per
// directive. The file belongs to the administrator, but its text is still
// checked strictly, as a rule that is misread in silence is a rule that does
// not hold: a line that is no assignment, a value outside its set, a number out
// of range and a directive set twice are errors. Unknown directives are
// ignored, so that one file serves several versions.
//
// The package decides nothing: whether a file may be missing, and who must own
// it, is for its callers.
//
// Files: config.go (the table of directives and Config), parse.go (the reader),
// template.go (the default file), capability.go (reading capability.json).
package conf

// Version and Prefix are fixed at link time by the Makefile.
var (
	Version = "0.0.0-dev"
	Prefix  = "/usr/local"
)

// PackageName stands before the version in the output of --version, where
// scripts look for it.
const PackageName = "singularity-ce"

// Path returns the path of the installed singularity.conf.
func Path() string { return Prefix + "/etc/singularity/singularity.conf" }
