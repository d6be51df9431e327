package conf

// Config holds the directives of singularity.conf. A choice is the word of the
// file; a path is absolute or empty.
type Config struct {

	// The helper program and the mode.
	AllowSetuid bool
	OCIMode     bool

	// Loop devices.
	MaxLoopDevices    int64
	SharedLoopDevices bool

	// Namespaces.
	AllowIPCNS  bool
	AllowPIDNS  bool
	AllowUserNS bool
	AllowUTSNS  bool

	// Files made for the container.
	ConfigPasswd     bool
	ConfigGroup      bool
	ConfigResolvConf bool

	// Mounts.
	MountProc         bool
	MountSys          bool
	MountDev          string
	MountDevpts       bool
	MountHome         bool
	MountTmp          bool
	MountHostFS       bool
	MountSlave        bool
	BindPaths         []string
	UserBindControl   bool
	EnableFusemount   bool
	EnableOverlay     string
	EnableUnderlay    string
	TmpSandbox        bool
	RequireIntegrity  bool
	SessiondirMaxSize int64
	MemoryFSType      string

	// Which images may be used.
	LimitContainerOwners    []string
	LimitContainerGroups    []string
	LimitContainerPaths     []string
	AllowContainerSIF       bool
	AllowContainerEncrypted bool
	AllowContainerSquashfs  bool
	AllowContainerExtfs     bool
	AllowContainerDir       bool
	AllowKernelSquashfs     bool
	AllowKernelExtfs        bool

	// Network.
	AllowNetUsers        []string
	AllowNetGroups       []string
	AllowNetNetworks     []string
	AllowNetnsPaths      []string
	CNIConfigurationPath string
	CNIPluginPath        string

	// GPU.
	AlwaysUseNV           bool
	AlwaysUseROCm         bool
	UseNvidiaContainerCLI bool

	// Privilege.
	RootDefaultCapabilities string

	// Programs of the host.
	RootSearchPath         string
	UserSearchPath         string
	CryptsetupPath         string
	GoPath                 string
	LdconfigPath           string
	MksquashfsPath         string
	NvidiaContainerCLIPath string
	UnsquashfsPath         string
	MksquashfsProcs        int64
	MksquashfsMem          string

	// Downloads from a library.
	DownloadConcurrency int64
	DownloadPartSize    int64
	DownloadBufferSize  int64

	// Other.
	SystemdCgroups bool
	SIFFuse        bool
}

// A kind tells which values a directive takes.
type kind int

const (
	yesNo   kind = iota // yes or no
	number              // a whole number, not negative
	choice              // one word of a set
	text                // any
	absPath             // an absolute path, or nothing
	list                // words separated by commas; repeated lines add
)

// A directive is one row of the table that the reader and the default file
// share. Rows stand in the order of the default file.
type directive struct {
	name    string
	kind    kind
	value   string   // the default
	allowed []string // of a choice
	doc     string
	field   func(*Config) any // *bool, *int64, *string or *[]string
}

// searchPath is where programs of a host are.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// directives is complete. A row without a name is a heading.
var directives = []directive{
	{doc: "The helper program and the mode"},
	{name: "allow setuid", kind: yesNo, value: "yes",
		doc:   "Let the setuid helper work, where one is installed.",
		field: func(c *Config) any { return &c.AllowSetuid }},
	{name: "oci mode", kind: yesNo, value: "no",
		doc:   "Use OCI mode for all containers, as --oci does.",
		field: func(c *Config) any { return &c.OCIMode }},
	{doc: "Loop devices"},
	{name: "max loop devices", kind: number, value: "256",
		doc:   "The highest number of loop devices that may be in use.",
		field: func(c *Config) any { return &c.MaxLoopDevices }},
	{name: "shared loop devices", kind: yesNo, value: "no",
		doc:   "Let containers of one image share its loop device.",
		field: func(c *Config) any { return &c.SharedLoopDevices }},
	{doc: "Namespaces"},
	{name: "allow ipc ns", kind: yesNo, value: "yes",
		doc:   "Allow IPC namespaces.",
		field: func(c *Config) any { return &c.AllowIPCNS }},
	{name: "allow pid ns", kind: yesNo, value: "yes",
		doc:   "Allow PID namespaces.",
		field: func(c *Config) any { return &c.AllowPIDNS }},
	{name: "allow user ns", kind: yesNo, value: "yes",
		doc:   "Allow user namespaces.",
		field: func(c *Config) any { return &c.AllowUserNS }},
	{name: "allow uts ns", kind: yesNo, value: "yes",
		doc:   "Allow UTS namespaces.",
		field: func(c *Config) any { return &c.AllowUTSNS }},
	{doc: "Files made for the container"},
	{name: "config passwd", kind: yesNo, value: "yes",
		doc:   "Give the container a passwd file with a line for the caller.",
		field: func(c *Config) any { return &c.ConfigPasswd }},
	{name: "config group", kind: yesNo, value: "yes",
		doc:   "Give the container a group file with the groups of the caller.",
		field: func(c *Config) any { return &c.ConfigGroup }},
	{name: "config resolv_conf", kind: yesNo, value: "yes",
		doc:   "Give the container the host's resolv.conf.",
		field: func(c *Config) any { return &c.ConfigResolvConf }},
	{doc: "Mounts"},
	{name: "mount proc", kind: yesNo, value: "yes",
		doc:   "Mount /proc.",
		field: func(c *Config) any { return &c.MountProc }},
	{name: "mount sys", kind: yesNo, value: "yes",
		doc:   "Mount /sys.",
		field: func(c *Config) any { return &c.MountSys }},
	{name: "mount dev", kind: choice, value: "yes", allowed: []string{"yes", "no", "minimal"},
		doc:   "Mount the host's /dev, a minimal one, or none.",
		field: func(c *Config) any { return &c.MountDev }},
	{name: "mount devpts", kind: yesNo, value: "yes",
		doc:   "Mount a new devpts where /dev is minimal.",
		field: func(c *Config) any { return &c.MountDevpts }},
	{name: "mount home", kind: yesNo, value: "yes",
		doc:   "Mount the caller's home directory.",
		field: func(c *Config) any { return &c.MountHome }},
	{name: "mount tmp", kind: yesNo, value: "yes",
		doc:   "Mount the host's /tmp and /var/tmp.",
		field: func(c *Config) any { return &c.MountTmp }},
	{name: "mount hostfs", kind: yesNo, value: "no",
		doc:   "Mount every file system that the host has directly below /.",
		field: func(c *Config) any { return &c.MountHostFS }},
	{name: "mount slave", kind: yesNo, value: "yes",
		doc:   "Let mounts of the host made later appear in containers.",
		field: func(c *Config) any { return &c.MountSlave }},
	{name: "bind path", kind: list, value: "/etc/localtime, /etc/hosts",
		doc:   "Paths to mount in every container: src[:dest], one line each. These defaults hold only where there is no file.",
		field: func(c *Config) any { return &c.BindPaths }},
	{name: "user bind control", kind: yesNo, value: "yes",
		doc:   "Let people choose mounts (--bind, --home, --scratch, working directory).",
		field: func(c *Config) any { return &c.UserBindControl }},
	{name: "enable fusemount", kind: yesNo, value: "yes",
		doc:   "Let people mount FUSE file systems.",
		field: func(c *Config) any { return &c.EnableFusemount }},
	{name: "enable overlay", kind: choice, value: "try", allowed: []string{"yes", "no", "try"},
		doc:   "Use the kernel's overlay: always, never, or where it works.",
		field: func(c *Config) any { return &c.EnableOverlay }},
	{name: "enable underlay", kind: choice, value: "yes", allowed: []string{"yes", "no", "preferred"},
		doc:   "Make missing mount points without an overlay.",
		field: func(c *Config) any { return &c.EnableUnderlay }},
	{name: "require integrity", kind: yesNo, value: "no",
		doc:   "Run only images that are signed with a key known here and have a hash tree, by which all that is read of them is checked.",
		field: func(c *Config) any { return &c.RequireIntegrity }},
	{name: "tmp sandbox", kind: yesNo, value: "yes",
		doc:   "Allow extraction of an image to a temporary directory.",
		field: func(c *Config) any { return &c.TmpSandbox }},
	{name: "sessiondir max size", kind: number, value: "64",
		doc:   "Size of the session directory in MiB.",
		field: func(c *Config) any { return &c.SessiondirMaxSize }},
	{name: "memory fs type", kind: choice, value: "tmpfs", allowed: []string{"tmpfs", "ramfs"},
		doc:   "File system of the session directory.",
		field: func(c *Config) any { return &c.MemoryFSType }},
	{doc: "Which images may be used"},
	{name: "limit container owners", kind: list, value: "",
		doc:   "Only images of these users.",
		field: func(c *Config) any { return &c.LimitContainerOwners }},
	{name: "limit container groups", kind: list, value: "",
		doc:   "Only images of these groups.",
		field: func(c *Config) any { return &c.LimitContainerGroups }},
	{name: "limit container paths", kind: list, value: "",
		doc:   "Only images below these directories.",
		field: func(c *Config) any { return &c.LimitContainerPaths }},
	{name: "allow container sif", kind: yesNo, value: "yes",
		doc:   "Allow SIF images that are not encrypted.",
		field: func(c *Config) any { return &c.AllowContainerSIF }},
	{name: "allow container encrypted", kind: yesNo, value: "yes",
		doc:   "Allow encrypted SIF images.",
		field: func(c *Config) any { return &c.AllowContainerEncrypted }},
	{name: "allow container squashfs", kind: yesNo, value: "yes",
		doc:   "Allow bare squashfs images.",
		field: func(c *Config) any { return &c.AllowContainerSquashfs }},
	{name: "allow container extfs", kind: yesNo, value: "yes",
		doc:   "Allow bare ext3 images.",
		field: func(c *Config) any { return &c.AllowContainerExtfs }},
	{name: "allow container dir", kind: yesNo, value: "yes",
		doc:   "Allow sandbox directories.",
		field: func(c *Config) any { return &c.AllowContainerDir }},
	{name: "allow kernel squashfs", kind: yesNo, value: "yes",
		doc:   "Let the helper mount squashfs by the kernel.",
		field: func(c *Config) any { return &c.AllowKernelSquashfs }},
	{name: "allow kernel extfs", kind: yesNo, value: "yes",
		doc:   "Let the helper mount ext3 by the kernel.",
		field: func(c *Config) any { return &c.AllowKernelExtfs }},
	{doc: "Network"},
	{name: "allow net users", kind: list, value: "",
		doc:   "Users who may use the networks below.",
		field: func(c *Config) any { return &c.AllowNetUsers }},
	{name: "allow net groups", kind: list, value: "",
		doc:   "Groups that may use the networks below.",
		field: func(c *Config) any { return &c.AllowNetGroups }},
	{name: "allow net networks", kind: list, value: "",
		doc:   "Networks that these users and groups may join.",
		field: func(c *Config) any { return &c.AllowNetNetworks }},
	{name: "allow netns paths", kind: list, value: "",
		doc:   "Network namespaces that these users and groups may join.",
		field: func(c *Config) any { return &c.AllowNetnsPaths }},
	{name: "cni configuration path", kind: text, value: "",
		doc:   "Directory of CNI configurations; empty means the built-in one.",
		field: func(c *Config) any { return &c.CNIConfigurationPath }},
	{name: "cni plugin path", kind: text, value: "",
		doc:   "Directory of CNI plugins; empty means the built-in one.",
		field: func(c *Config) any { return &c.CNIPluginPath }},
	{doc: "GPU"},
	{name: "always use nv", kind: yesNo, value: "no",
		doc:   "Act as if --nv were always given.",
		field: func(c *Config) any { return &c.AlwaysUseNV }},
	{name: "always use rocm", kind: yesNo, value: "no",
		doc:   "Act as if --rocm were always given.",
		field: func(c *Config) any { return &c.AlwaysUseROCm }},
	{name: "use nvidia-container-cli", kind: yesNo, value: "no",
		doc:   "Set up NVIDIA GPUs by nvidia-container-cli.",
		field: func(c *Config) any { return &c.UseNvidiaContainerCLI }},
	{doc: "Privilege"},
	{name: "root default capabilities", kind: choice, value: "full", allowed: []string{"full", "file", "no"},
		doc:   "Capabilities of root in a container: all, those of the capability file, or none.",
		field: func(c *Config) any { return &c.RootDefaultCapabilities }},
	{doc: "Programs of the host"},
	{name: "root search path", kind: text, value: searchPath,
		doc:   "Where programs are looked for when root runs a container.",
		field: func(c *Config) any { return &c.RootSearchPath }},
	{name: "user search path", kind: text, value: "$PATH:" + searchPath,
		doc:   "Where programs are looked for otherwise; $PATH is that of the caller.",
		field: func(c *Config) any { return &c.UserSearchPath }},
	{name: "cryptsetup path", kind: absPath, value: "",
		doc:   "Path of cryptsetup.",
		field: func(c *Config) any { return &c.CryptsetupPath }},
	{name: "go path", kind: absPath, value: "",
		doc:   "Path of the Go tool.",
		field: func(c *Config) any { return &c.GoPath }},
	{name: "ldconfig path", kind: absPath, value: "",
		doc:   "Path of ldconfig.",
		field: func(c *Config) any { return &c.LdconfigPath }},
	{name: "mksquashfs path", kind: absPath, value: "",
		doc:   "Path of mksquashfs.",
		field: func(c *Config) any { return &c.MksquashfsPath }},
	{name: "nvidia-container-cli path", kind: absPath, value: "",
		doc:   "Path of nvidia-container-cli.",
		field: func(c *Config) any { return &c.NvidiaContainerCLIPath }},
	{name: "unsquashfs path", kind: absPath, value: "",
		doc:   "Path of unsquashfs.",
		field: func(c *Config) any { return &c.UnsquashfsPath }},
	{name: "mksquashfs procs", kind: number, value: "0",
		doc:   "Processors that making a squashfs image may use; 0 means all.",
		field: func(c *Config) any { return &c.MksquashfsProcs }},
	{name: "mksquashfs mem", kind: text, value: "",
		doc:   "Memory that making a squashfs image may use, as 1G; empty means the default.",
		field: func(c *Config) any { return &c.MksquashfsMem }},
	{doc: "Downloads from a library"},
	{name: "download concurrency", kind: number, value: "3",
		doc:   "Parts of a file that are fetched at one time.",
		field: func(c *Config) any { return &c.DownloadConcurrency }},
	{name: "download part size", kind: number, value: "5242880",
		doc:   "Size of a part in bytes.",
		field: func(c *Config) any { return &c.DownloadPartSize }},
	{name: "download buffer size", kind: number, value: "32768",
		doc:   "Size of the buffer of each part in bytes.",
		field: func(c *Config) any { return &c.DownloadBufferSize }},
	{doc: "Other"},
	{name: "systemd cgroups", kind: yesNo, value: "yes",
		doc:   "Manage cgroups through systemd.",
		field: func(c *Config) any { return &c.SystemdCgroups }},
	{name: "sif fuse", kind: yesNo, value: "no",
		doc:   "Deprecated: has no effect.",
		field: func(c *Config) any { return &c.SIFFuse }},
}
