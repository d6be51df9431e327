package conf

// Config holds the directives of singularity.conf. A choice is the word of the
// file; a path is absolute or empty.
type Config struct {
	// The helper program and the mode.
	AllowSetuid, OCIMode bool

	// Loop devices.
	MaxLoopDevices    int64
	SharedLoopDevices bool

	// Namespaces.
	AllowIPCNS, AllowPIDNS, AllowUserNS, AllowUTSNS bool

	// Files made for the container.
	ConfigPasswd, ConfigGroup, ConfigResolvConf bool

	// Mounts.
	MountProc, MountSys, MountDevpts, MountHome, MountTmp, MountHostFS, MountSlave bool
	UserBindControl, EnableFusemount, TmpSandbox, RequireIntegrity                 bool
	RunRecords                                                                     string
	MountDev, EnableOverlay, EnableUnderlay, MemoryFSType                          string
	BindPaths                                                                      []string
	SessiondirMaxSize                                                              int64

	// Which images may be used.
	LimitContainerOwners, LimitContainerGroups, LimitContainerPaths                                            []string
	AllowContainerSIF, AllowContainerEncrypted, AllowContainerSquashfs, AllowContainerExtfs, AllowContainerDir bool
	AllowKernelSquashfs, AllowKernelExtfs                                                                      bool

	// Network.
	AllowNetUsers, AllowNetGroups, AllowNetNetworks, AllowNetnsPaths []string
	CNIConfigurationPath, CNIPluginPath                              string

	// GPU.
	AlwaysUseNV, AlwaysUseROCm, UseNvidiaContainerCLI bool

	// Privilege.
	RootDefaultCapabilities string

	// Programs of the host.
	RootSearchPath, UserSearchPath                                                               string
	CryptsetupPath, GoPath, LdconfigPath, MksquashfsPath, NvidiaContainerCLIPath, UnsquashfsPath string
	MksquashfsProcs                                                                              int64
	MksquashfsMem                                                                                string

	// Downloads from a library.
	DownloadConcurrency, DownloadPartSize, DownloadBufferSize int64

	// Other.
	SystemdCgroups, SIFFuse bool
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
// share. What it is for says package conf/directive, which the helper does not link.
type Directive struct {
	Name, Default string
	Kind          Kind
	Allowed       []string          // of a Choice
	Field         func(*Config) any // *bool, *int64, *string or *[]string
}

// searchPath is where programs of a host are.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Directives is complete.
var Directives = []Directive{
	{Name: "allow setuid", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowSetuid }},
	{Name: "oci mode", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.OCIMode }},
	{Name: "max loop devices", Kind: Number, Default: "256", Field: func(c *Config) any { return &c.MaxLoopDevices }},
	{Name: "shared loop devices", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.SharedLoopDevices }},
	{Name: "allow ipc ns", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowIPCNS }},
	{Name: "allow pid ns", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowPIDNS }},
	{Name: "allow user ns", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowUserNS }},
	{Name: "allow uts ns", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowUTSNS }},
	{Name: "config passwd", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.ConfigPasswd }},
	{Name: "config group", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.ConfigGroup }},
	{Name: "config resolv_conf", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.ConfigResolvConf }},
	{Name: "mount proc", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.MountProc }},
	{Name: "mount sys", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.MountSys }},
	{Name: "mount dev", Kind: Choice, Default: "yes", Field: func(c *Config) any { return &c.MountDev }, Allowed: []string{"yes", "no", "minimal"}},
	{Name: "mount devpts", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.MountDevpts }},
	{Name: "mount home", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.MountHome }},
	{Name: "mount tmp", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.MountTmp }},
	{Name: "mount hostfs", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.MountHostFS }},
	{Name: "mount slave", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.MountSlave }},
	{Name: "bind path", Kind: List, Default: "/etc/localtime, /etc/hosts", Field: func(c *Config) any { return &c.BindPaths }},
	{Name: "user bind control", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.UserBindControl }},
	{Name: "enable fusemount", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.EnableFusemount }},
	{Name: "enable overlay", Kind: Choice, Default: "try", Field: func(c *Config) any { return &c.EnableOverlay }, Allowed: []string{"yes", "no", "try"}},
	{Name: "enable underlay", Kind: Choice, Default: "yes", Field: func(c *Config) any { return &c.EnableUnderlay }, Allowed: []string{"yes", "no", "preferred"}},
	{Name: "require integrity", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.RequireIntegrity }},
	{Name: "run records", Kind: AbsPath, Field: func(c *Config) any { return &c.RunRecords }},
	{Name: "tmp sandbox", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.TmpSandbox }},
	{Name: "sessiondir max size", Kind: Number, Default: "64", Field: func(c *Config) any { return &c.SessiondirMaxSize }},
	{Name: "memory fs type", Kind: Choice, Default: "tmpfs", Field: func(c *Config) any { return &c.MemoryFSType }, Allowed: []string{"tmpfs", "ramfs"}},
	{Name: "limit container owners", Kind: List, Field: func(c *Config) any { return &c.LimitContainerOwners }},
	{Name: "limit container groups", Kind: List, Field: func(c *Config) any { return &c.LimitContainerGroups }},
	{Name: "limit container paths", Kind: List, Field: func(c *Config) any { return &c.LimitContainerPaths }},
	{Name: "allow container sif", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowContainerSIF }},
	{Name: "allow container encrypted", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowContainerEncrypted }},
	{Name: "allow container squashfs", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowContainerSquashfs }},
	{Name: "allow container extfs", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowContainerExtfs }},
	{Name: "allow container dir", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowContainerDir }},
	{Name: "allow kernel squashfs", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowKernelSquashfs }},
	{Name: "allow kernel extfs", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowKernelExtfs }},
	{Name: "allow net users", Kind: List, Field: func(c *Config) any { return &c.AllowNetUsers }},
	{Name: "allow net groups", Kind: List, Field: func(c *Config) any { return &c.AllowNetGroups }},
	{Name: "allow net networks", Kind: List, Field: func(c *Config) any { return &c.AllowNetNetworks }},
	{Name: "allow netns paths", Kind: List, Field: func(c *Config) any { return &c.AllowNetnsPaths }},
	{Name: "cni configuration path", Kind: Text, Field: func(c *Config) any { return &c.CNIConfigurationPath }},
	{Name: "cni plugin path", Kind: Text, Field: func(c *Config) any { return &c.CNIPluginPath }},
	{Name: "always use nv", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.AlwaysUseNV }},
	{Name: "always use rocm", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.AlwaysUseROCm }},
	{Name: "use nvidia-container-cli", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.UseNvidiaContainerCLI }},
	{Name: "root default capabilities", Kind: Choice, Default: "full", Field: func(c *Config) any { return &c.RootDefaultCapabilities }, Allowed: []string{"full", "file", "no"}},
	{Name: "root search path", Kind: Text, Default: searchPath, Field: func(c *Config) any { return &c.RootSearchPath }},
	{Name: "user search path", Kind: Text, Default: "$PATH:" + searchPath, Field: func(c *Config) any { return &c.UserSearchPath }},
	{Name: "cryptsetup path", Kind: AbsPath, Field: func(c *Config) any { return &c.CryptsetupPath }},
	{Name: "go path", Kind: AbsPath, Field: func(c *Config) any { return &c.GoPath }},
	{Name: "ldconfig path", Kind: AbsPath, Field: func(c *Config) any { return &c.LdconfigPath }},
	{Name: "mksquashfs path", Kind: AbsPath, Field: func(c *Config) any { return &c.MksquashfsPath }},
	{Name: "nvidia-container-cli path", Kind: AbsPath, Field: func(c *Config) any { return &c.NvidiaContainerCLIPath }},
	{Name: "unsquashfs path", Kind: AbsPath, Field: func(c *Config) any { return &c.UnsquashfsPath }},
	{Name: "mksquashfs procs", Kind: Number, Default: "0", Field: func(c *Config) any { return &c.MksquashfsProcs }},
	{Name: "mksquashfs mem", Kind: Size, Field: func(c *Config) any { return &c.MksquashfsMem }},
	{Name: "download concurrency", Kind: Number, Default: "3", Field: func(c *Config) any { return &c.DownloadConcurrency }},
	{Name: "download part size", Kind: Number, Default: "5242880", Field: func(c *Config) any { return &c.DownloadPartSize }},
	{Name: "download buffer size", Kind: Number, Default: "32768", Field: func(c *Config) any { return &c.DownloadBufferSize }},
	{Name: "systemd cgroups", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.SystemdCgroups }},
	{Name: "sif fuse", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.SIFFuse }},
}
