package action

// Kind tells how a flag takes values.
type Kind int

// The kinds of flags. A Bool or an OptString may stand alone; all others take a
// value.
const (
	Bool   Kind = iota
	String      // the last value given counts
	List        // values separated by commas; repeated flags add
	Append      // values taken whole; repeated flags add
	Map         // NAME=value words separated by commas; repeated flags add
	// OptString is a String that may stand alone, which means "true"; a value
	// must be joined to it by an equals sign.
	OptString
)

// Alone tells whether a flag of the kind may stand without a value.
func (k Kind) Alone() bool { return k == Bool || k == OptString }

// ValueName is what help calls the value: empty for a Bool, with an equals sign
// in brackets where the flag may stand alone.
func (f *Flag) ValueName() string {
	if f.Kind == OptString {
		return "[=" + f.Value + "]"
	}
	return f.Value
}

// Verbs is a set of action commands.
type Verbs uint

// The action commands, those that wait for the program, those that start an
// instance, and all of them.
const (
	Exec Verbs = 1 << iota
	Run
	Shell
	Test
	InstanceStart
	InstanceRun

	AnyVerb   = Exec | Run | Shell | Test
	Instances = InstanceStart | InstanceRun
	AnyStart  = AnyVerb | Instances
)

// Flag is one row of a flag table. Help, completion, manual pages and the
// parser all read it, so a new flag is one row here and one field in
// plan.Options.
type Flag struct {
	Name  string // long name, without dashes
	Short string // one letter, or empty
	Kind  Kind
	Verbs Verbs
	// Env are keys of environment variables without the SINGULARITY_ prefix, in
	// the order in which they count.
	Env []string
	// EnvAdds makes values of the environment add to those of the command
	// line, and all keys count. EnvWhole lets a variable hold one value a
	// line, commas and all; otherwise commas separate them.
	EnvAdds    bool
	EnvWhole   bool
	Bare       bool   // the variables count without the prefix too, after those with it
	Value      string // what help calls the value
	Help       string
	Hidden     bool   // works, but help does not list it
	Deprecated string // what to use instead; empty for a flag in good standing
	// Field returns a pointer to where the value goes: *bool for a Bool,
	// *string for a String or an OptString, else *[]string.
	Field func(*Invocation) any
}

// Flags are the flags of the action commands, in the order of their names.
var Flags = []Flag{
	{Name: "add-caps", Kind: List, Verbs: AnyStart, Env: []string{"ADD_CAPS"}, Value: "list",
		Help:  "add capabilities, separated by commas; with or without CAP_, or all",
		Field: func(v *Invocation) any { return &v.Options.AddCaps }},
	{Name: "allow-setuid", Kind: Bool, Verbs: AnyStart, Env: []string{"ALLOW_SETUID"},
		Help:  "let setuid programs of the image work (only for root)",
		Field: func(v *Invocation) any { return &v.Options.AllowSetuid }},
	{Name: "app", Kind: String, Verbs: AnyStart, Env: []string{"APP", "APPNAME"}, Value: "name",
		Help:  "act on an app in the container (SCIF)",
		Field: func(v *Invocation) any { return &v.Options.App }},
	{Name: "apply-cgroups", Kind: String, Verbs: AnyStart, Env: []string{"APPLY_CGROUPS"}, Value: "file",
		Help:  "apply the resource limits of a TOML file",
		Field: func(v *Invocation) any { return &v.Options.ApplyCgroups }},
	{Name: "authfile", Kind: String, Verbs: AnyStart, Env: []string{"AUTHFILE"}, Value: "file",
		Help:  "file with the credentials for registries",
		Field: func(v *Invocation) any { return &v.Options.AuthFile }},
	{Name: "bind", Short: "B", Kind: Append, Verbs: AnyStart, Env: []string{"BIND", "BINDPATH"}, EnvAdds: true, Value: "spec",
		Help:  "mount a path of the host: src[:dest[:opts]], several separated by commas; opts are ro, rw, image-src=PATH and id=N",
		Field: func(v *Invocation) any { return &v.Options.Bind }},
	{Name: "blkio-weight", Kind: String, Verbs: AnyStart, Env: []string{"BLKIO_WEIGHT"}, Value: "N",
		Help:  "relative weight of block input and output, 10 to 1000",
		Field: func(v *Invocation) any { return &v.Options.Limits.BlkioWeight }},
	{Name: "blkio-weight-device", Kind: List, Verbs: AnyStart, Env: []string{"BLKIO_WEIGHT_DEVICE"}, Value: "dev:N",
		Help:  "relative weight of input and output of a device",
		Field: func(v *Invocation) any { return &v.Options.Limits.BlkioWeightDevice }},
	{Name: "boot", Kind: Bool, Verbs: Instances, Env: []string{"BOOT"},
		Help:  "run /sbin/init as process 1 (only for root)",
		Field: func(v *Invocation) any { return &v.Options.Boot }},
	{Name: "cdi-dirs", Kind: List, Verbs: AnyVerb, Value: "list",
		Help:  "directories with CDI device files",
		Field: func(v *Invocation) any { return &v.Options.CDIDirs }},
	{Name: "cleanenv", Short: "e", Kind: Bool, Verbs: AnyStart, Env: []string{"CLEANENV"},
		Help:  "start with a clean environment instead of that of the host",
		Field: func(v *Invocation) any { return &v.Options.CleanEnv }},
	{Name: "compat", Kind: Bool, Verbs: AnyStart, Env: []string{"COMPAT"},
		Help:  "behave as other container programs do: --containall --no-init --no-umask --no-eval --writable-tmpfs",
		Field: func(v *Invocation) any { return &v.Options.Compat }},
	{Name: "contain", Short: "c", Kind: Bool, Verbs: AnyStart, Env: []string{"CONTAIN"},
		Help:  "use a minimal /dev and empty directories in place of $HOME, /tmp and /var/tmp",
		Field: func(v *Invocation) any { return &v.Options.Contain }},
	{Name: "containall", Short: "C", Kind: Bool, Verbs: AnyStart, Env: []string{"CONTAINALL"},
		Help:  "contain not only files but also processes, inter-process communication and environment",
		Field: func(v *Invocation) any { return &v.Options.ContainAll }},
	{Name: "containlibs", Kind: List, Verbs: AnyStart, Env: []string{"CONTAINLIBS"}, Value: "list", Hidden: true,
		Help:  "files to bind into /.singularity.d/libs",
		Field: func(v *Invocation) any { return &v.Options.ContainLibs }},
	{Name: "cpu-shares", Kind: String, Verbs: AnyStart, Env: []string{"CPU_SHARES"}, Value: "N",
		Help:  "relative share of processor time",
		Field: func(v *Invocation) any { return &v.Options.Limits.CPUShares }},
	{Name: "cpus", Kind: String, Verbs: AnyStart, Env: []string{"CPUS"}, Value: "N",
		Help:  "number of processors that may be used, e.g. 1.5",
		Field: func(v *Invocation) any { return &v.Options.Limits.CPUs }},
	{Name: "cpuset-cpus", Kind: String, Verbs: AnyStart, Env: []string{"CPUSET_CPUS"}, Value: "list",
		Help:  "processors to run on",
		Field: func(v *Invocation) any { return &v.Options.Limits.CPUSetCPUs }},
	{Name: "cpuset-mems", Kind: String, Verbs: AnyStart, Env: []string{"CPUSET_MEMS"}, Value: "list",
		Help:  "memory nodes to use",
		Field: func(v *Invocation) any { return &v.Options.Limits.CPUSetMems }},
	{Name: "cwd", Kind: String, Verbs: AnyVerb, Env: []string{"CWD", "TARGET_CWD"}, Value: "path",
		Help:  "working directory in the container",
		Field: func(v *Invocation) any { return &v.Options.Cwd }},
	{Name: "data", Kind: Append, Verbs: AnyStart, Value: "spec",
		Help:  "mount a data container: SRC:DEST",
		Field: func(v *Invocation) any { return &v.Options.Data }},
	{Name: "device", Kind: List, Verbs: AnyVerb, Value: "list",
		Help:  "devices by their CDI names",
		Field: func(v *Invocation) any { return &v.Options.Devices }},
	{Name: "disable-cache", Kind: Bool, Verbs: AnyStart, Env: []string{"DISABLE_CACHE"},
		Help:  "neither use nor make a cache",
		Field: func(v *Invocation) any { return &v.Options.DisableCache }},
	{Name: "dns", Kind: List, Verbs: AnyStart, Env: []string{"DNS"}, Value: "list",
		Help:  "name servers for /etc/resolv.conf",
		Field: func(v *Invocation) any { return &v.Options.DNS }},
	{Name: "docker-host", Kind: String, Verbs: AnyStart, Env: []string{"DOCKER_HOST"}, Bare: true, Value: "URI",
		Help:  "address of a Docker daemon",
		Field: func(v *Invocation) any { return &v.Options.DockerHost }},
	{Name: "docker-login", Kind: Bool, Verbs: AnyStart, Env: []string{"DOCKER_LOGIN"},
		Help:  "ask for the credentials of a registry",
		Field: func(v *Invocation) any { return &v.Options.DockerLogin }},
	{Name: "docker-password", Kind: String, Verbs: AnyStart, Env: []string{"DOCKER_PASSWORD"}, Bare: true, Value: "word", Hidden: true,
		Help:  "password for a registry",
		Field: func(v *Invocation) any { return &v.Options.DockerPassword }},
	{Name: "docker-username", Kind: String, Verbs: AnyStart, Env: []string{"DOCKER_USERNAME"}, Bare: true, Value: "name", Hidden: true,
		Help:  "user name for a registry",
		Field: func(v *Invocation) any { return &v.Options.DockerUsername }},
	{Name: "drop-caps", Kind: List, Verbs: AnyStart, Env: []string{"DROP_CAPS"}, Value: "list",
		Help:  "drop capabilities, separated by commas; or all",
		Field: func(v *Invocation) any { return &v.Options.DropCaps }},
	{Name: "env", Kind: Map, Verbs: AnyStart, Value: "NAME=value",
		Help:  "set environment variables in the container; may be repeated, and a value with commas be quoted",
		Field: func(v *Invocation) any { return &v.Options.Env }},
	{Name: "env-file", Kind: List, Verbs: AnyStart, Env: []string{"ENV_FILE"}, Value: "file",
		Help:  "set environment variables from files, which a shell reads",
		Field: func(v *Invocation) any { return &v.Options.EnvFile }},
	{Name: "fakeroot", Short: "f", Kind: Bool, Verbs: AnyStart, Env: []string{"FAKEROOT"},
		Help:  "be uid 0 in the container, in a user namespace",
		Field: func(v *Invocation) any { return &v.Options.Fakeroot }},
	{Name: "fusemount", Kind: Append, Verbs: AnyStart, Env: []string{"FUSESPEC"}, EnvWhole: true, Value: "spec",
		Help:  "mount a FUSE file system: <kind>:<command> <mount point>, where kind is container, host, container-daemon or host-daemon",
		Field: func(v *Invocation) any { return &v.Options.FuseMount }},
	{Name: "home", Short: "H", Kind: String, Verbs: AnyStart, Env: []string{"HOME"}, Value: "spec",
		Help:  "home directory: src, or src:dest",
		Field: func(v *Invocation) any { return &v.Options.Home }},
	{Name: "hostname", Kind: String, Verbs: AnyStart, Env: []string{"HOSTNAME"}, Value: "name",
		Help:  "host name in the container; implies --uts",
		Field: func(v *Invocation) any { return &v.Options.Hostname }},
	{Name: "hot-cache", Kind: OptString, Verbs: AnyStart, Env: []string{"HOT_CACHE"}, Value: "size",
		Help:  "keep what a start reads of the image, decompressed, for the next one: at most 512m unless a size is given; trace keeps only the order",
		Field: func(v *Invocation) any { return &v.Options.HotCache }},
	{Name: "integrity", Kind: String, Verbs: AnyStart, Env: []string{"INTEGRITY"}, Value: "mode",
		Help:  "check a signed image: lazy (each block when it is read), full (all of it first) or off; lazy unless given",
		Field: func(v *Invocation) any { return &v.Options.Integrity }},
	{Name: "integrity-panic", Kind: Bool, Verbs: AnyStart, Env: []string{"INTEGRITY_PANIC"},
		Help:  "end the container as soon as something read of the image is not as it was signed",
		Field: func(v *Invocation) any { return &v.Options.IntegrityPanic }},
	{Name: "ipc", Short: "i", Kind: Bool, Verbs: AnyStart, Env: []string{"IPC", "UNSHARE_IPC"},
		Help:  "run in a new IPC namespace",
		Field: func(v *Invocation) any { return &v.Options.IPC }},
	{Name: "keep-layers", Kind: Bool, Verbs: AnyStart, Env: []string{"KEEP_LAYERS"},
		Help:  "keep the layers of an OCI image (OCI mode)",
		Field: func(v *Invocation) any { return &v.Options.KeepLayers }},
	{Name: "keep-privs", Kind: Bool, Verbs: AnyStart, Env: []string{"KEEP_PRIVS"},
		Help:  "let root keep its capabilities in the container",
		Field: func(v *Invocation) any { return &v.Options.KeepPrivs }},
	{Name: "linger", Kind: Bool, Verbs: Instances, Env: []string{"LINGER"},
		Help:  "let the instance outlive the batch job that it is started in",
		Field: func(v *Invocation) any { return &v.Options.Linger }},
	{Name: "memory", Kind: String, Verbs: AnyStart, Env: []string{"MEMORY"}, Value: "size",
		Help:  "limit of memory, in bytes or with a suffix k, m or g",
		Field: func(v *Invocation) any { return &v.Options.Limits.Memory }},
	{Name: "memory-reservation", Kind: String, Verbs: AnyStart, Env: []string{"MEMORY_RESERVATION"}, Value: "size",
		Help:  "memory below which nothing is reclaimed",
		Field: func(v *Invocation) any { return &v.Options.Limits.MemoryReservation }},
	{Name: "memory-swap", Kind: String, Verbs: AnyStart, Env: []string{"MEMORY_SWAP"}, Value: "size",
		Help:  "limit of memory and swap together; -1 for unlimited swap",
		Field: func(v *Invocation) any { return &v.Options.Limits.MemorySwap }},
	{Name: "mount", Kind: Append, Verbs: AnyStart, Env: []string{"MOUNT"}, EnvAdds: true, EnvWhole: true, Value: "spec",
		Help:  "mount a path of the host; fields are type=bind, source=SRC, destination=DEST, ro, image-src=PATH and id=N, separated by commas",
		Field: func(v *Invocation) any { return &v.Options.Mount }},
	{Name: "net", Short: "n", Kind: Bool, Verbs: AnyStart, Env: []string{"NET", "UNSHARE_NET"},
		Help:  "run in a new network namespace",
		Field: func(v *Invocation) any { return &v.Options.Net }},
	{Name: "netns-path", Kind: String, Verbs: AnyStart, Env: []string{"NETNS_PATH"}, Value: "path",
		Help:  "join a network namespace",
		Field: func(v *Invocation) any { return &v.Options.NetnsPath }},
	{Name: "network", Kind: List, Verbs: AnyStart, Env: []string{"NETWORK"}, Value: "list",
		Help:  "networks for --net: names of configurations, or none",
		Field: func(v *Invocation) any { return &v.Options.Network }},
	{Name: "network-args", Kind: List, Verbs: AnyStart, Env: []string{"NETWORK_ARGS"}, Value: "list",
		Help:  "arguments for the networks, e.g. portmap=8080:80/tcp",
		Field: func(v *Invocation) any { return &v.Options.NetworkArgs }},
	{Name: "no-compat", Kind: Bool, Verbs: AnyStart, Env: []string{"NO_COMPAT"},
		Help:  "do not behave as other container programs do (OCI mode)",
		Field: func(v *Invocation) any { return &v.Options.NoCompat }},
	{Name: "no-eval", Kind: Bool, Verbs: AnyStart, Env: []string{"NO_EVAL"},
		Help:  "set environment values as they are, without evaluating them by a shell",
		Field: func(v *Invocation) any { return &v.Options.NoEval }},
	{Name: "no-home", Kind: Bool, Verbs: AnyStart, Env: []string{"NO_HOME"},
		Help:  "do not mount the home directory (the working directory may still be)",
		Field: func(v *Invocation) any { return &v.Options.NoHome }},
	{Name: "no-https", Kind: Bool, Verbs: AnyStart, Env: []string{"NOHTTPS", "NO_HTTPS"},
		Help:  "use http in place of https for registries and libraries",
		Field: func(v *Invocation) any { return &v.Options.NoHTTPS }},
	{Name: "no-init", Kind: Bool, Verbs: AnyStart, Env: []string{"NOSHIMINIT"},
		Help:  "start the command itself as process 1 of a PID namespace",
		Field: func(v *Invocation) any { return &v.Options.NoInit }},
	{Name: "no-mount", Kind: List, Verbs: AnyStart, Env: []string{"NO_MOUNT"}, Value: "list",
		Help:  "leave out mounts: proc, sys, dev, devpts, home, tmp, hostfs, cwd, bind-paths or an absolute destination",
		Field: func(v *Invocation) any { return &v.Options.NoMount }},
	{Name: "no-nv", Kind: Bool, Verbs: AnyStart, Env: []string{"NV_OFF", "NO_NV"}, Hidden: true,
		Help:  "undo 'always use nv' of the configuration",
		Field: func(v *Invocation) any { return &v.Options.NoNV }},
	{Name: "no-oci", Kind: Bool, Verbs: AnyStart, Env: []string{"NO_OCI"},
		Help:  "start the container in native mode",
		Field: func(v *Invocation) any { return &v.Options.NoOCI }},
	{Name: "no-pid", Kind: Bool, Verbs: AnyVerb, Env: []string{"NO_PID"},
		Help:  "undo a PID namespace that another option implies",
		Field: func(v *Invocation) any { return &v.Options.NoPID }},
	{Name: "no-privs", Kind: Bool, Verbs: AnyStart, Env: []string{"NO_PRIVS"},
		Help:  "drop all capabilities in the container",
		Field: func(v *Invocation) any { return &v.Options.NoPrivs }},
	{Name: "no-rocm", Kind: Bool, Verbs: AnyStart, Env: []string{"ROCM_OFF", "NO_ROCM"}, Hidden: true,
		Help:  "undo 'always use rocm' of the configuration",
		Field: func(v *Invocation) any { return &v.Options.NoROCm }},
	{Name: "no-setgroups", Kind: Bool, Verbs: AnyStart, Env: []string{"NO_SETGROUPS"},
		Help:  "keep the supplementary groups with --fakeroot",
		Field: func(v *Invocation) any { return &v.Options.NoSetgroups }},
	{Name: "no-shared-mount", Kind: Bool, Verbs: AnyStart, Env: []string{"NO_SHARED_MOUNT"},
		Help:  "mount the image for this container alone",
		Field: func(v *Invocation) any { return &v.Options.NoSharedMount }},
	{Name: "no-tmp-sandbox", Kind: Bool, Verbs: AnyStart, Env: []string{"NO_TMP_SANDBOX"},
		Help:  "never unpack the image to a temporary directory",
		Field: func(v *Invocation) any { return &v.Options.NoTmpSandbox }},
	{Name: "no-umask", Kind: Bool, Verbs: AnyStart, Env: []string{"NO_UMASK"},
		Help:  "use umask 0022 in the container instead of that of the caller",
		Field: func(v *Invocation) any { return &v.Options.NoUmask }},
	{Name: "nohttps", Kind: Bool, Verbs: AnyStart, Hidden: true, Deprecated: "use --no-https instead",
		Help:  "synonym of --no-https",
		Field: func(v *Invocation) any { return &v.Options.NoHTTPS }},
	{Name: "nv", Kind: Bool, Verbs: AnyStart, Env: []string{"NV"},
		Help:  "use the NVIDIA devices and libraries of the host",
		Field: func(v *Invocation) any { return &v.Options.NV }},
	{Name: "nvccli", Kind: Bool, Verbs: AnyStart, Env: []string{"NVCCLI"},
		Help:  "let nvidia-container-cli set up the NVIDIA devices",
		Field: func(v *Invocation) any { return &v.Options.NVCCLI }},
	{Name: "oci", Kind: Bool, Verbs: AnyStart, Env: []string{"OCI"},
		Help:  "start the container in OCI mode",
		Field: func(v *Invocation) any { return &v.Options.OCI }},
	{Name: "oom-kill-disable", Kind: Bool, Verbs: AnyStart, Env: []string{"OOM_KILL_DISABLE"},
		Help:  "do not kill processes when memory runs out",
		Field: func(v *Invocation) any { return &v.Options.Limits.OOMKillDisable }},
	{Name: "overlay", Short: "o", Kind: List, Verbs: AnyStart, Env: []string{"OVERLAY", "OVERLAYIMAGE"}, Value: "list",
		Help:  "layers above the image: directories or image files, path[:ro]; the first is the top",
		Field: func(v *Invocation) any { return &v.Options.Overlay }},
	{Name: "passphrase", Kind: Bool, Verbs: AnyStart,
		Help:  "ask for the passphrase of an encrypted image",
		Field: func(v *Invocation) any { return &v.Options.Passphrase }},
	{Name: "pem-path", Kind: String, Verbs: AnyStart, Value: "file",
		Help:  "RSA key of an encrypted image",
		Field: func(v *Invocation) any { return &v.Options.PEMPath }},
	{Name: "pid", Short: "p", Kind: Bool, Verbs: AnyVerb, Env: []string{"PID", "UNSHARE_PID"},
		Help:  "run in a new PID namespace",
		Field: func(v *Invocation) any { return &v.Options.PID }},
	{Name: "pid-file", Kind: String, Verbs: Instances, Env: []string{"PID_FILE"}, Value: "file",
		Help:  "write the process id of the instance to a file",
		Field: func(v *Invocation) any { return &v.Options.PIDFile }},
	{Name: "pids-limit", Kind: String, Verbs: AnyStart, Env: []string{"PIDS_LIMIT"}, Value: "N",
		Help:  "limit of the number of processes; -1 for none",
		Field: func(v *Invocation) any { return &v.Options.Limits.PIDs }},
	{Name: "proot", Kind: String, Verbs: AnyVerb, Env: []string{"PROOT"}, Value: "path", Hidden: true,
		Help:  "no longer used",
		Field: func(v *Invocation) any { return &v.Options.Proot }},
	{Name: "pwd", Kind: String, Verbs: AnyVerb, Env: []string{"PWD", "TARGET_PWD"}, Value: "path", Hidden: true,
		Help:  "synonym of --cwd",
		Field: func(v *Invocation) any { return &v.Options.Cwd }},
	{Name: "rocm", Kind: Bool, Verbs: AnyStart, Env: []string{"ROCM"},
		Help:  "use the AMD devices and libraries of the host",
		Field: func(v *Invocation) any { return &v.Options.ROCm }},
	{Name: "scratch", Short: "S", Kind: List, Verbs: AnyStart, Env: []string{"SCRATCH", "SCRATCHDIR"}, Value: "list",
		Help:  "empty directories to make in the container",
		Field: func(v *Invocation) any { return &v.Options.Scratch }},
	{Name: "security", Kind: List, Verbs: AnyStart, Env: []string{"SECURITY"}, Value: "list",
		Help:  "confinement: uid:N, gid:N[:N...], apparmor:PROFILE, selinux:LABEL, seccomp:FILE, landlock",
		Field: func(v *Invocation) any { return &v.Options.Security }},
	{Name: "sharens", Kind: Bool, Verbs: AnyVerb, Env: []string{"SHARENS"}, Hidden: true,
		Help:  "share one mount of the image with the other containers of this user (the default)",
		Field: func(v *Invocation) any { return &v.Options.ShareNS }},
	{Name: "shell", Short: "s", Kind: String, Verbs: Shell, Env: []string{"SHELL"}, Value: "path",
		Help:  "program to use as the shell",
		Field: func(v *Invocation) any { return &v.Options.Shell }},
	{Name: "sif-fuse", Kind: Bool, Verbs: AnyVerb, Env: []string{"SIF_FUSE"}, Hidden: true, Deprecated: "images are always mounted by FUSE",
		Help:  "images are always mounted by FUSE",
		Field: func(v *Invocation) any { return &v.Options.SIFFuse }},
	{Name: "tmp-sandbox", Kind: Bool, Verbs: AnyStart, Env: []string{"TMP_SANDBOX"},
		Help:  "unpack the image to a temporary directory first",
		Field: func(v *Invocation) any { return &v.Options.TmpSandbox }},
	{Name: "tmpdir", Kind: String, Verbs: AnyStart, Env: []string{"TMPDIR"}, Value: "dir", Hidden: true,
		Help:  "directory for temporary files",
		Field: func(v *Invocation) any { return &v.Options.TmpDir }},
	{Name: "userns", Short: "u", Kind: Bool, Verbs: AnyStart, Env: []string{"USERNS", "UNSHARE_USERNS"},
		Help:  "run in a new user namespace",
		Field: func(v *Invocation) any { return &v.Options.Userns }},
	{Name: "uts", Kind: Bool, Verbs: AnyStart, Env: []string{"UTS", "UNSHARE_UTS"},
		Help:  "run in a new UTS namespace",
		Field: func(v *Invocation) any { return &v.Options.UTS }},
	{Name: "workdir", Short: "W", Kind: String, Verbs: AnyStart, Env: []string{"WORKDIR"}, Value: "dir",
		Help:  "directory of the host for /tmp, /var/tmp, $HOME and scratch directories where these are contained",
		Field: func(v *Invocation) any { return &v.Options.WorkDir }},
	{Name: "writable", Short: "w", Kind: Bool, Verbs: AnyStart, Env: []string{"WRITABLE"},
		Help:  "write to the image itself",
		Field: func(v *Invocation) any { return &v.Options.Writable }},
	{Name: "writable-tmpfs", Kind: OptString, Verbs: AnyStart, Env: []string{"WRITABLE_TMPFS"}, Value: "size",
		Help:  "make the container writable with changes in memory, which are lost at its end; 64m unless a size is given",
		Field: func(v *Invocation) any { return &v.Options.WritableTmpfs }},
}

// GlobalFlags stand before the command, in the order of their names.
var GlobalFlags = []Flag{
	{Name: "config", Short: "c", Kind: String, Env: []string{"CONFIG_FILE"}, Value: "file",
		Help:  "use another singularity.conf",
		Field: func(v *Invocation) any { return &v.Options.ConfigFile }},
	{Name: "debug", Short: "d", Kind: Bool, Env: []string{"DEBUG"},
		Help:  "print debugging messages (highest verbosity)",
		Field: func(v *Invocation) any { return &v.Debug }},
	{Name: "help", Short: "h", Kind: Bool,
		Help:  "print help and exit",
		Field: func(v *Invocation) any { return &v.Help }},
	{Name: "nocolor", Kind: Bool,
		Help:  "print without colour",
		Field: func(v *Invocation) any { return &v.NoColor }},
	{Name: "quiet", Short: "q", Kind: Bool,
		Help:  "print warnings and errors only",
		Field: func(v *Invocation) any { return &v.Quiet }},
	{Name: "silent", Short: "s", Kind: Bool,
		Help:  "print errors only",
		Field: func(v *Invocation) any { return &v.Silent }},
	{Name: "verbose", Short: "v", Kind: Bool,
		Help:  "print more messages",
		Field: func(v *Invocation) any { return &v.Verbose }},
	{Name: "version", Kind: Bool,
		Help:  "print the version and exit",
		Field: func(v *Invocation) any { return &v.Version }},
}

// Verb is an action command as help describes it.
type Verb struct {
	Name    string
	Set     Verbs // its own member of Verbs
	MinArgs int   // positional arguments that it needs
	Use     string
	Short   string
	Long    string
	Example string
}

// VerbTable lists the action commands.
var VerbTable = []Verb{
	{Name: "exec", Set: Exec, MinArgs: 2,
		Use:   "exec [options] <container> <command> [args...]",
		Short: "Run a command within a container",
		Long: "Start a container from an image and run a command of your choice in it. " + imageHelp +
			"\n\nOptions end at the image: what follows it belongs to the command. The exit status is that of the command.",
		Example: "  $ singularity exec debian.sif cat /etc/debian_version\n" +
			"  $ singularity exec --bind /data:/mnt debian.sif ls /mnt\n" +
			"  $ singularity exec --cleanenv --env LANG=C debian.sif env"},
	{Name: "run", Set: Run, MinArgs: 1,
		Use:   "run [options] <container> [args...]",
		Short: "Run the default command of a container",
		Long: "Start a container from an image and run its runscript. " + imageHelp +
			"\n\nArguments after the image are passed to the runscript. The exit status is that of the runscript.",
		Example: "  $ singularity run debian.sif\n  $ singularity run debian.sif --verbose input.txt\n  $ ./debian.sif input.txt"},
	{Name: "shell", Set: Shell, MinArgs: 1,
		Use:     "shell [options] <container> [args...]",
		Short:   "Run a shell within a container",
		Long:    "Start a container from an image and open an interactive shell in it. " + imageHelp,
		Example: "  $ singularity shell debian.sif\n  $ singularity shell --shell /bin/zsh debian.sif"},
	{Name: "test", Set: Test, MinArgs: 1,
		Use:     "test [options] <container> [args...]",
		Short:   "Run the tests of a container",
		Long:    "Start a container from an image and run the test script that its definition file set. " + imageHelp,
		Example: "  $ singularity test debian.sif"},
	{Name: "instance start", Set: InstanceStart, MinArgs: 2,
		Use:   "instance start [options] <container> <name> [args...]",
		Short: "Start an instance in the background",
		Long: "Start a container that goes on in the background under a name, and run its startscript. " + imageHelp +
			"\n\nOther commands join it as instance://NAME. In a batch job it ends with the job, unless --linger is given.",
		Example: "  $ singularity instance start nginx.sif web\n  $ singularity exec instance://web ps\n  $ singularity instance stop web"},
	{Name: "instance run", Set: InstanceRun, MinArgs: 2,
		Use:     "instance run [options] <container> <name> [args...]",
		Short:   "Start an instance that runs the runscript",
		Long:    "Start a container that goes on in the background under a name, and run its runscript. " + imageHelp,
		Example: "  $ singularity instance run nginx.sif web"},
}

const imageHelp = "The image is a SIF file, a squashfs or ext3 file, or a directory (a sandbox)."
