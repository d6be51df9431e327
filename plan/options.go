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
// of --bind and --mount), fusemount.go (that of --fusemount), types.go (what a container is), new.go (New, ids and
// process), mounts.go (the mounts and their order), dev.go (the minimal /dev),
// mode.go (what belongs to OCI mode), namespaces.go (namespaces, host name, name servers), rights.go (what the
// process may do), overlay.go (layers and images), security.go (the language of --security), caps.go (names of
// capabilities), passwd.go.
package plan

// Options are what a person asked for: one field per flag of the action
// commands. The zero value is a plain start.
type Options struct {
	// ConfigFile is the singularity.conf to read; empty means the installed one.
	ConfigFile string

	// Mounts.

	// Bind holds values of --bind, each one or more specs as ParseBinds reads
	// them, command line first, then the environment.
	Bind []string
	// Mount holds values of --mount, each one or more lines as ParseMounts
	// reads them, in the same order.
	Mount []string
	// Data holds "SRC:DEST" specs of data containers.
	Data []string
	// Scratch are absolute paths inside that get an empty directory.
	Scratch []string
	// WorkDir is a directory of the host for what Contain and Scratch give;
	// empty means in memory.
	WorkDir string
	// Home is "src[:dest]" from --home; empty means the home of the caller.
	Home string
	// NoHome leaves the home directory unmounted.
	NoHome bool
	// NoMount names mounts to leave out: proc, sys, dev, devpts, home, tmp,
	// hostfs, cwd, bind-paths or an absolute destination.
	NoMount []string
	// Contain gives a minimal /dev and empty home and temporary directories.
	Contain bool
	// ContainAll is Contain with PID and IPC namespaces and CleanEnv.
	ContainAll bool
	// Compat is ContainAll, NoInit, NoUmask, NoEval and WritableTmpfs.
	Compat bool
	// ContainLibs are files of the host for /.singularity.d/libs.
	ContainLibs []string
	// FuseMount holds "<kind>:<command> <mount point>" specs.
	FuseMount []string

	// The root file system.

	// Writable writes to the image itself.
	Writable bool
	// WritableTmpfs is empty for none, else a boolean word or a size.
	WritableTmpfs string
	// Overlay are layers, "path[:ro]", the top one first.
	Overlay []string
	// NoSharedMount mounts the image for this container alone.
	NoSharedMount bool
	// HotCache is empty for the default, else a boolean word, "trace" or a size.
	HotCache string
	// Integrity is how much of a signed image is checked: "off", "lazy" (the
	// default: each block when it is read) or "full" (all of it first).
	Integrity string
	// IntegrityPanic ends the container at the first block that is wrong.
	IntegrityPanic bool
	// ShareNS asks for what is the default.
	ShareNS bool
	// TmpSandbox unpacks the image first; NoTmpSandbox forbids it.
	TmpSandbox, NoTmpSandbox bool
	// SIFFuse and Proot have no effect: they are accepted for old scripts.
	SIFFuse bool
	Proot   string
	// Passphrase asks for the passphrase of an encrypted image; PEMPath is its
	// RSA key.
	Passphrase bool
	PEMPath    string

	// The environment.

	// CleanEnv keeps the environment of the host out.
	CleanEnv bool
	// Env holds "NAME=value" words from --env. A name occurs once; the last
	// value given for it wins.
	Env []string
	// EnvFile are files that set variables; a later one wins.
	EnvFile []string
	// FileEnv is what they set, "NAME=value"; a name occurs once.
	FileEnv []string
	// NoEval sets environment values as they stand, without one evaluation by
	// a shell.
	NoEval bool

	// Namespaces.

	PID, IPC, UTS, Net, Userns bool
	// NoPID undoes a PID namespace that something else implies.
	NoPID bool
	// NoInit starts the program itself as process 1 of a PID namespace.
	NoInit bool
	// Hostname implies UTS.
	Hostname string
	// DNS are addresses of name servers.
	DNS []string
	// NetnsPath is a network namespace to join.
	NetnsPath string
	// Network are names of network configurations, NetworkArgs arguments to
	// them.
	Network, NetworkArgs []string

	// Rights.

	// Fakeroot is uid 0 in a user namespace.
	Fakeroot bool
	// NoSetgroups keeps the supplementary groups with Fakeroot.
	NoSetgroups bool
	// NoPrivs drops all capabilities.
	NoPrivs bool
	// KeepPrivs keeps the capabilities of root.
	KeepPrivs bool
	// AddCaps and DropCaps are names of capabilities, in any case, with or
	// without CAP_, or "all".
	AddCaps, DropCaps []string
	// AllowSetuid lets setuid programs work.
	AllowSetuid bool
	// Security holds words of --security: uid:N, gid:N[:N...],
	// apparmor:PROFILE, selinux:LABEL, seccomp:FILE, landlock.
	Security []string

	// Devices and libraries of the host.

	NV, NoNV, NVCCLI, ROCm, NoROCm bool
	// Devices are CDI names, CDIDirs the directories with their files.
	Devices, CDIDirs []string

	// Limits of resources.

	Limits Limits
	// ApplyCgroups is a TOML file with limits.
	ApplyCgroups string

	// The program.

	// App is the SCIF app to act on.
	App string
	// Cwd is the working directory in the container; empty means the default.
	Cwd string
	// NoUmask uses 0022 in place of the umask of the caller.
	NoUmask bool
	// Shell is the program that the shell verb starts; empty means the default.
	Shell string

	// Instances.

	// Boot runs /sbin/init.
	Boot bool
	// Linger lets the instance outlive its batch job.
	Linger bool
	// PIDFile gets the process id of the instance.
	PIDFile string

	// Fetching and modes.

	// TmpDir is the directory for temporary files; empty means the default.
	TmpDir string
	// AuthFile, DockerHost, DockerLogin, DockerUsername, DockerPassword,
	// NoHTTPS and DisableCache are for images that must be fetched.
	AuthFile                                   string
	DockerHost, DockerUsername, DockerPassword string
	DockerLogin, NoHTTPS, DisableCache         bool
	// OCI and NoOCI choose the mode; NoCompat and KeepLayers belong to OCI
	// mode.
	OCI, NoOCI, NoCompat, KeepLayers bool
}

// Limits are limits of resources as typed; an empty one is not set.
type Limits struct {
	BlkioWeight                           string
	BlkioWeightDevice                     []string
	CPUShares, CPUs                       string
	CPUSetCPUs, CPUSetMems                string
	Memory, MemoryReservation, MemorySwap string
	OOMKillDisable                        bool
	PIDs                                  string
}

// Any tells whether a limit is set.
func (l *Limits) Any() bool {
	return l.BlkioWeight != "" || len(l.BlkioWeightDevice) > 0 || l.CPUShares != "" || l.CPUs != "" || l.CPUSetCPUs != "" || l.CPUSetMems != "" ||
		l.Memory != "" || l.MemoryReservation != "" || l.MemorySwap != "" || l.OOMKillDisable || l.PIDs != ""
}

// Imply sets what other options of o ask for without saying so.
func (o *Options) Imply() {
	if o.Compat {
		o.ContainAll, o.NoInit, o.NoUmask, o.NoEval = true, true, true, true
		if o.WritableTmpfs == "" {
			o.WritableTmpfs = "true"
		}
	}
	if o.ContainAll {
		o.Contain, o.PID, o.IPC, o.CleanEnv = true, true, true, true
	}
	if o.Boot {
		o.Contain, o.UTS, o.Net = true, true, true
	}
	if len(o.FuseMount) > 0 {
		o.PID = true
	}
	if o.Hostname != "" {
		o.UTS = true
	}
	if o.NoPID {
		o.PID = false
	}
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
