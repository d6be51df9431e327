//go:build !starter

package conf

import (
	"strconv"
	"strings"
)

// searchPath is where programs of a host are.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Others are the directives that the setuid helper does not read.
type Others struct {
	// The mode.
	OCIMode, AllowUserNS bool

	// Files made for the container.
	ConfigPasswd, ConfigGroup, ConfigResolvConf bool

	// Mounts.
	MountProc, MountSys, MountDevpts, MountHome, MountTmp, MountHostFS, MountSlave, TmpSandbox bool
	BlockedImages, RunRecords, MountDev, EnableUnderlay                                        string
	SessiondirMaxSize                                                                          int64

	// Network.
	AllowNetUsers, AllowNetGroups, AllowNetNetworks []string
	CNIConfigurationPath, CNIPluginPath             string

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

func others() []Directive { return rest }

// Find returns the row of a directive, nil if there is none.
func Find(name string) *Directive {
	for _, d := range Directives() {
		if d.Name == name {
			return &d
		}
	}
	return nil
}

var rest = []Directive{
	{Name: "oci mode", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.OCIMode }},
	{Name: "allow user ns", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowUserNS }},
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
	{Name: "enable underlay", Kind: Choice, Default: "yes", Field: func(c *Config) any { return &c.EnableUnderlay }, Allowed: []string{"yes", "no", "preferred"}},
	{Name: "run records", Kind: AbsPath, Field: func(c *Config) any { return &c.RunRecords }},
	{Name: "blocked images", Kind: AbsPath, Field: func(c *Config) any { return &c.BlockedImages }},
	{Name: "tmp sandbox", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.TmpSandbox }},
	{Name: "sessiondir max size", Kind: Number, Default: "64", Field: func(c *Config) any { return &c.SessiondirMaxSize }},
	{Name: "allow net users", Kind: List, Field: func(c *Config) any { return &c.AllowNetUsers }},
	{Name: "allow net groups", Kind: List, Field: func(c *Config) any { return &c.AllowNetGroups }},
	{Name: "allow net networks", Kind: List, Field: func(c *Config) any { return &c.AllowNetNetworks }},
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

// ParseSize reads a size in bytes that may end in K, M or G.
func ParseSize(s string) (int64, bool) {
	shift := 0
	if s != "" {
		shift = (1 + strings.IndexByte("KMG", s[len(s)-1]&^0x20)) * 10
	}
	if shift > 0 {
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n << shift, err == nil && n > 0 && n <= (1<<62)>>shift
}
