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

// A Kind tells which values a directive takes.
type Kind int

// The kinds of directives.
const (
	YesNo   Kind = iota // yes or no
	Number              // a whole number, not negative
	Choice              // one word of a set
	Text                // any
	AbsPath             // an absolute path, or nothing
	List                // words separated by commas; repeated lines add
	Size                // bytes, with K, M or G behind the number, or nothing
)

// A Directive is one row of the table that the reader and the default file
// share. Rows stand in the order of the default file.
type Directive struct {
	Name    string
	Kind    Kind
	Default string
	Allowed []string // of a Choice
	Doc     string
	Inert   string            // why the directive has no effect; "" if it has
	Field   func(*Config) any // *bool, *int64, *string or *[]string
}

// searchPath is where programs of a host are.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Directives is complete. A row without a name is a heading.
var Directives = []Directive{
	{Doc: "The helper program and the mode"},
	{Name: "allow setuid", Kind: YesNo, Default: "yes",
		Doc:   "Let the setuid helper work, where one is installed.",
		Field: func(c *Config) any { return &c.AllowSetuid }},
	{Name: "oci mode", Kind: YesNo, Default: "no",
		Doc:   "Use OCI mode for all containers, as --oci does.",
		Field: func(c *Config) any { return &c.OCIMode }},
	{Doc: "Loop devices"},
	{Name: "max loop devices", Kind: Number, Default: "256",
		Doc:   "The highest number of loop devices that may be in use.",
		Field: func(c *Config) any { return &c.MaxLoopDevices }},
	{Name: "shared loop devices", Kind: YesNo, Default: "no",
		Doc:   "Let containers of one image share its loop device.",
		Field: func(c *Config) any { return &c.SharedLoopDevices }},
	{Doc: "Namespaces"},
	{Name: "allow ipc ns", Kind: YesNo, Default: "yes",
		Doc:   "Allow IPC namespaces.",
		Field: func(c *Config) any { return &c.AllowIPCNS }},
	{Name: "allow pid ns", Kind: YesNo, Default: "yes",
		Doc:   "Allow PID namespaces.",
		Field: func(c *Config) any { return &c.AllowPIDNS }},
	{Name: "allow user ns", Kind: YesNo, Default: "yes",
		Doc:   "Allow user namespaces.",
		Field: func(c *Config) any { return &c.AllowUserNS }},
	{Name: "allow uts ns", Kind: YesNo, Default: "yes",
		Doc:   "Allow UTS namespaces.",
		Field: func(c *Config) any { return &c.AllowUTSNS }},
	{Doc: "Files made for the container"},
	{Name: "config passwd", Kind: YesNo, Default: "yes",
		Doc:   "Give the container a passwd file with a line for the caller.",
		Field: func(c *Config) any { return &c.ConfigPasswd }},
	{Name: "config group", Kind: YesNo, Default: "yes",
		Doc:   "Give the container a group file with the groups of the caller.",
		Field: func(c *Config) any { return &c.ConfigGroup }},
	{Name: "config resolv_conf", Kind: YesNo, Default: "yes",
		Doc:   "Give the container the host's resolv.conf.",
		Field: func(c *Config) any { return &c.ConfigResolvConf }},
	{Doc: "Mounts"},
	{Name: "mount proc", Kind: YesNo, Default: "yes",
		Doc:   "Mount /proc.",
		Field: func(c *Config) any { return &c.MountProc }},
	{Name: "mount sys", Kind: YesNo, Default: "yes",
		Doc:   "Mount /sys.",
		Field: func(c *Config) any { return &c.MountSys }},
	{Name: "mount dev", Kind: Choice, Default: "yes", Allowed: []string{"yes", "no", "minimal"},
		Doc:   "Mount the host's /dev, a minimal one, or none.",
		Field: func(c *Config) any { return &c.MountDev }},
	{Name: "mount devpts", Kind: YesNo, Default: "yes",
		Doc:   "Mount a new devpts where /dev is minimal.",
		Field: func(c *Config) any { return &c.MountDevpts }},
	{Name: "mount home", Kind: YesNo, Default: "yes",
		Doc:   "Mount the caller's home directory.",
		Field: func(c *Config) any { return &c.MountHome }},
	{Name: "mount tmp", Kind: YesNo, Default: "yes",
		Doc:   "Mount the host's /tmp and /var/tmp.",
		Field: func(c *Config) any { return &c.MountTmp }},
	{Name: "mount hostfs", Kind: YesNo, Default: "no",
		Doc:   "Mount every file system that the host has directly below /.",
		Field: func(c *Config) any { return &c.MountHostFS }},
	{Name: "mount slave", Kind: YesNo, Default: "yes",
		Doc:   "Let mounts of the host made later appear in containers.",
		Field: func(c *Config) any { return &c.MountSlave }},
	{Name: "bind path", Kind: List, Default: "/etc/localtime, /etc/hosts",
		Doc:   "Paths to mount in every container: src[:dest], one line each. These defaults hold only where there is no file.",
		Field: func(c *Config) any { return &c.BindPaths }},
	{Name: "user bind control", Kind: YesNo, Default: "yes",
		Doc:   "Let people choose mounts (--bind, --home, --scratch, working directory).",
		Field: func(c *Config) any { return &c.UserBindControl }},
	{Name: "enable fusemount", Kind: YesNo, Default: "yes",
		Doc:   "Let people mount FUSE file systems.",
		Field: func(c *Config) any { return &c.EnableFusemount }},
	{Name: "enable overlay", Kind: Choice, Default: "try", Allowed: []string{"yes", "no", "try"},
		Doc:   "Use the kernel's overlay: always, never, or where it works. A directory has no mount points made without it.",
		Field: func(c *Config) any { return &c.EnableOverlay }},
	{Name: "enable underlay", Kind: Choice, Default: "yes", Allowed: []string{"yes", "no", "preferred"},
		Doc:   "Make missing mount points without an overlay: in the image that is served. Without this and without overlay, mounts need a directory in the image.",
		Field: func(c *Config) any { return &c.EnableUnderlay }},
	{Name: "require integrity", Kind: YesNo, Default: "no",
		Doc:   "Run, overlay and bind only images that are signed with a key known here and have a hash tree, by which all that is read of them is checked.",
		Field: func(c *Config) any { return &c.RequireIntegrity }},
	{Name: "tmp sandbox", Kind: YesNo, Default: "yes",
		Doc:   "Allow extraction of an image to a temporary directory.",
		Field: func(c *Config) any { return &c.TmpSandbox }},
	{Name: "sessiondir max size", Kind: Number, Default: "64",
		Doc:   "Size of the session directory in MiB.",
		Field: func(c *Config) any { return &c.SessiondirMaxSize }},
	{Name: "memory fs type", Kind: Choice, Default: "tmpfs", Allowed: []string{"tmpfs", "ramfs"},
		Doc:   "File system of what a container keeps in memory. A ramfs has no limit of size.",
		Field: func(c *Config) any { return &c.MemoryFSType }},
	{Doc: "Which images may be used"},
	{Name: "limit container owners", Kind: List, Default: "",
		Doc:   "Only images of these users.",
		Field: func(c *Config) any { return &c.LimitContainerOwners }},
	{Name: "limit container groups", Kind: List, Default: "",
		Doc:   "Only images of these groups.",
		Field: func(c *Config) any { return &c.LimitContainerGroups }},
	{Name: "limit container paths", Kind: List, Default: "",
		Doc:   "Only images below these directories.",
		Field: func(c *Config) any { return &c.LimitContainerPaths }},
	{Name: "allow container sif", Kind: YesNo, Default: "yes",
		Doc:   "Allow SIF images that are not encrypted.",
		Field: func(c *Config) any { return &c.AllowContainerSIF }},
	{Name: "allow container encrypted", Kind: YesNo, Default: "yes",
		Doc:   "Allow encrypted SIF images.",
		Field: func(c *Config) any { return &c.AllowContainerEncrypted }},
	{Name: "allow container squashfs", Kind: YesNo, Default: "yes",
		Doc:   "Allow bare squashfs images.",
		Field: func(c *Config) any { return &c.AllowContainerSquashfs }},
	{Name: "allow container extfs", Kind: YesNo, Default: "yes",
		Doc:   "Allow bare ext3 images.",
		Field: func(c *Config) any { return &c.AllowContainerExtfs }},
	{Name: "allow container dir", Kind: YesNo, Default: "yes",
		Doc:   "Allow sandbox directories.",
		Field: func(c *Config) any { return &c.AllowContainerDir }},
	{Name: "allow kernel squashfs", Kind: YesNo, Default: "yes",
		Doc:   "Let the helper mount squashfs by the kernel.",
		Field: func(c *Config) any { return &c.AllowKernelSquashfs }},
	{Name: "allow kernel extfs", Kind: YesNo, Default: "yes",
		Doc:   "Let the helper mount ext3 by the kernel.",
		Field: func(c *Config) any { return &c.AllowKernelExtfs }},
	{Doc: "Network"},
	{Name: "allow net users", Kind: List, Default: "",
		Doc:   "Users who may use the networks below.",
		Field: func(c *Config) any { return &c.AllowNetUsers }},
	{Name: "allow net groups", Kind: List, Default: "",
		Doc:   "Groups that may use the networks below.",
		Field: func(c *Config) any { return &c.AllowNetGroups }},
	{Name: "allow net networks", Kind: List, Default: "",
		Doc:   "Networks that these users and groups may join.",
		Field: func(c *Config) any { return &c.AllowNetNetworks }},
	{Name: "allow netns paths", Kind: List, Default: "",
		Doc:   "Network namespaces that these users and groups may join.",
		Field: func(c *Config) any { return &c.AllowNetnsPaths }},
	{Name: "cni configuration path", Kind: Text, Default: "",
		Doc:   "Directory of CNI configurations; empty means the built-in one.",
		Field: func(c *Config) any { return &c.CNIConfigurationPath }},
	{Name: "cni plugin path", Kind: Text, Default: "",
		Doc:   "Directory of CNI plugins; empty means the built-in one.",
		Field: func(c *Config) any { return &c.CNIPluginPath }},
	{Doc: "GPU"},
	{Name: "always use nv", Kind: YesNo, Default: "no",
		Doc:   "Act as if --nv were always given.",
		Field: func(c *Config) any { return &c.AlwaysUseNV }},
	{Name: "always use rocm", Kind: YesNo, Default: "no",
		Doc:   "Act as if --rocm were always given.",
		Field: func(c *Config) any { return &c.AlwaysUseROCm }},
	{Name: "use nvidia-container-cli", Kind: YesNo, Default: "no",
		Doc:   "Set up NVIDIA GPUs by nvidia-container-cli.",
		Field: func(c *Config) any { return &c.UseNvidiaContainerCLI }},
	{Doc: "Privilege"},
	{Name: "root default capabilities", Kind: Choice, Default: "full", Allowed: []string{"full", "file", "no"},
		Doc:   "Capabilities of root in a container: all, those of the capability file, or none.",
		Field: func(c *Config) any { return &c.RootDefaultCapabilities }},
	{Doc: "Programs of the host"},
	{Name: "root search path", Kind: Text, Default: searchPath,
		Doc:   "Where programs are looked for when root runs a container.",
		Field: func(c *Config) any { return &c.RootSearchPath }},
	{Name: "user search path", Kind: Text, Default: "$PATH:" + searchPath,
		Doc:   "Where programs are looked for otherwise; $PATH is that of the caller.",
		Field: func(c *Config) any { return &c.UserSearchPath }},
	{Name: "cryptsetup path", Kind: AbsPath, Default: "",
		Doc:   "Path of cryptsetup.",
		Inert: "encrypted images need no program of the host",
		Field: func(c *Config) any { return &c.CryptsetupPath }},
	{Name: "go path", Kind: AbsPath, Default: "",
		Doc:   "Path of the Go tool.",
		Inert: "plug-ins are not supported",
		Field: func(c *Config) any { return &c.GoPath }},
	{Name: "ldconfig path", Kind: AbsPath, Default: "",
		Doc:   "Path of ldconfig.",
		Field: func(c *Config) any { return &c.LdconfigPath }},
	{Name: "mksquashfs path", Kind: AbsPath, Default: "",
		Doc:   "Path of mksquashfs.",
		Inert: "images are written without a program of the host",
		Field: func(c *Config) any { return &c.MksquashfsPath }},
	{Name: "nvidia-container-cli path", Kind: AbsPath, Default: "",
		Doc:   "Path of nvidia-container-cli.",
		Field: func(c *Config) any { return &c.NvidiaContainerCLIPath }},
	{Name: "unsquashfs path", Kind: AbsPath, Default: "",
		Doc:   "Path of unsquashfs.",
		Inert: "images are read without a program of the host",
		Field: func(c *Config) any { return &c.UnsquashfsPath }},
	{Name: "mksquashfs procs", Kind: Number, Default: "0",
		Doc:   "Processors that making a squashfs image may use; 0 means all.",
		Field: func(c *Config) any { return &c.MksquashfsProcs }},
	{Name: "mksquashfs mem", Kind: Size, Default: "",
		Doc:   "Memory that making a squashfs image may use, as 1G; empty means no limit.",
		Field: func(c *Config) any { return &c.MksquashfsMem }},
	{Doc: "Downloads from a library"},
	{Name: "download concurrency", Kind: Number, Default: "3",
		Doc:   "Parts of a file that are fetched at one time.",
		Inert: "a file comes in one stream, which is resumed where it breaks off",
		Field: func(c *Config) any { return &c.DownloadConcurrency }},
	{Name: "download part size", Kind: Number, Default: "5242880",
		Doc:   "Size of a part in bytes.",
		Inert: "a file comes in one stream, which is resumed where it breaks off",
		Field: func(c *Config) any { return &c.DownloadPartSize }},
	{Name: "download buffer size", Kind: Number, Default: "32768",
		Doc:   "Size of the buffer of each part in bytes.",
		Inert: "a file comes in one stream, which is resumed where it breaks off",
		Field: func(c *Config) any { return &c.DownloadBufferSize }},
	{Doc: "Other"},
	{Name: "systemd cgroups", Kind: YesNo, Default: "yes",
		Doc:   "Manage cgroups through systemd.",
		Field: func(c *Config) any { return &c.SystemdCgroups }},
	{Name: "sif fuse", Kind: YesNo, Default: "no",
		Doc:   "Mount images by FUSE.",
		Inert: "what no kernel mount is allowed for is always mounted by FUSE",
		Field: func(c *Config) any { return &c.SIFFuse }},
}
