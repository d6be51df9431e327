// Package conf gives meaning to the administrator's files, singularity.conf and
// capability.json, and to what the build fixed (version, prefix). It imports the
// standard library only, because the privileged helper links it.
//
// In goes the text of singularity.conf, out comes a Config: one field per
// directive. The file belongs to the administrator, but its text is still
// checked strictly, as a rule that is misread in silence is a rule that does
// not hold: a line that is no assignment, a value outside its set, a number out
// of range and a directive set twice are errors. Unknown directives are
// ignored, so that one file serves several versions.
//
// OpenOwned opens such a file only if nobody but root could have written it. The
// limits on images are functions of the open descriptor (limit.go). Whether a file
// may be missing, whom a limit binds, and whether it is a boundary or a rule of the
// house, is for the callers.
//
// Files: config.go (Config, and the directives that the setuid helper enforces),
// others.go (the other directives, and what else the helper does not read),
// parse.go (the reader), capability.go (reading capability.json), owned.go (who may
// write the files), limit.go (which images may be used).
package conf

import "cmp"

// Fixed at link time by the Makefile. The directory of configuration files is that
// below the prefix if it is empty.
var (
	Prefix     = "/usr/local"
	sysconfdir string
)

// Sysconfdir returns the directory of the host's configuration files.
func Sysconfdir() string { return cmp.Or(sysconfdir, Prefix+"/etc") }

// Dir returns the directory of the administrator's files.
func Dir() string { return Sysconfdir() + "/singularity" }

// Path returns the path of the installed singularity.conf.
func Path() string { return Dir() + "/singularity.conf" }
