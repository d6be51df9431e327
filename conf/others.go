//go:build !starter

package conf

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Fixed at link time as well. PREFIX/var is meant where localstatedir is empty.
var (
	Version       = "0.0.0-dev"
	localstatedir string
)

// PackageName stands before the version in the output of --version, where
// scripts look for it.
const PackageName = "singularity-ce"

// Localstatedir returns the directory of files that programs keep.
func Localstatedir() string {
	if localstatedir != "" {
		return localstatedir
	}
	return Prefix + "/var"
}

// SessionDir returns the empty directory that an installation has as a mount
// point.
func SessionDir() string { return Localstatedir() + "/singularity/mnt/session" }

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

// Directives is the whole table.
func Directives() []Directive { return slices.Concat(boundary, rest) }

// The kinds that no directive of the setuid helper is of.
const (
	Text    Kind = "is no text"              // never said: any will do
	AbsPath Kind = "is not an absolute path" // or nothing
	Size    Kind = "is not a size such as 512M or 2G"
)

// allows tells whether a directive that holds a text may have that value.
func (d *Directive) allows(value string) bool {
	switch d.Kind {
	case Choice:
		return slices.Contains(d.Allowed, value)
	case AbsPath:
		return value == "" || value[0] == '/'
	case Size:
		_, ok := ParseSize(value)
		return ok || value == ""
	}
	return true
}

// Default returns the configuration that holds where there is no file.
func Default() *Config {
	c, err := Read(strings.NewReader(""))
	for _, d := range Directives() {
		if d.Kind == List {
			err = errors.Join(err, d.set(c, d.Default))
		}
	}
	if err != nil {
		panic("conf: " + err.Error())
	}
	return c
}

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
