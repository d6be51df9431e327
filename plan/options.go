// Package plan decides what a container is: from the options of a person, the
// facts of the host and those of the image it makes data that package container
// carries out. It is pure: it opens no file and asks the system nothing, so
// that each rule is a row in a table test.
//
// In go Options, as the command line and the environment gave them. They come
// from the caller and carry the caller's rights only; what an administrator
// forbids is checked here against the configuration, and again by whoever acts
// with more rights than the caller.
//
// Files: options.go (what a person may ask for), bind.go (the small languages
// of --bind and --mount).
package plan

// Options are what a person asked for: one field per flag of the action
// commands. The zero value is a plain start.
type Options struct {
	// ConfigFile is the singularity.conf to read; empty means the installed one.
	ConfigFile string

	// Bind holds values of --bind, each one or more specs as ParseBinds reads
	// them, command line first, then the environment.
	Bind []string
	// Mount holds values of --mount, each one or more lines as ParseMounts
	// reads them, in the same order.
	Mount []string

	// CleanEnv keeps the environment of the host out.
	CleanEnv bool
	// Env holds "NAME=value" words from --env. A name occurs once; the last
	// value given for it wins.
	Env []string
	// NoEval sets environment values as they stand, without one evaluation by
	// a shell.
	NoEval bool

	// Cwd is the working directory in the container; empty means the default.
	Cwd string
	// Home is "src[:dest]" from --home; empty means the home of the caller.
	Home string
	// NoHome leaves the home directory unmounted.
	NoHome bool
	// NoMount names mounts to leave out: proc, sys, dev, devpts, home, tmp,
	// hostfs, cwd, bind-paths or an absolute destination.
	NoMount []string
	// Contain gives a minimal /dev and empty home and temporary directories.
	Contain bool

	// Writable writes to the image itself.
	Writable bool
	// Fakeroot is uid 0 in a user namespace.
	Fakeroot bool
	// Userns asks for a user namespace even where none is needed.
	Userns bool
	// NoPrivs drops all capabilities.
	NoPrivs bool
	// KeepPrivs keeps the capabilities of root.
	KeepPrivs bool
	// NoUmask uses 0022 in place of the umask of the caller.
	NoUmask bool

	// Shell is the program that the shell verb starts; empty means the default.
	Shell string
	// TmpDir is the directory for temporary files; empty means the default.
	TmpDir string
}

// Binds returns what --bind asked for, then what --mount asked for.
func (o *Options) Binds() ([]Bind, error) {
	var all []Bind
	for _, s := range o.Bind {
		b, err := ParseBinds(s)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	for _, s := range o.Mount {
		b, err := ParseMounts(s)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}
