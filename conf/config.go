package conf

// Config holds the directives of singularity.conf: those that the setuid helper
// enforces, and the others. A choice is the word of the file; a path is absolute or
// empty.
type Config struct {
	Others
	AllowSetuid, SharedLoopDevices, AllowIPCNS, AllowPIDNS, AllowUTSNS                                         bool
	UserBindControl, EnableFusemount, RequireIntegrity, AllowKernelSquashfs, AllowKernelExtfs                  bool
	AllowContainerSIF, AllowContainerEncrypted, AllowContainerSquashfs, AllowContainerExtfs, AllowContainerDir bool
	MaxLoopDevices                                                                                             int64
	EnableOverlay, MemoryFSType                                                                                string
	BindPaths, LimitContainerOwners, LimitContainerGroups, LimitContainerPaths, AllowNetnsPaths                []string
}

// A Kind tells which values a directive takes: what is wrong with any other.
type Kind string

// The kinds of directives; others.go has more.
const (
	YesNo  Kind = "is neither yes nor no"
	Number Kind = "is not a whole number from 0 to 9223372036854775807"
	Choice Kind = "is not one of"      // with the words of the set
	List   Kind = "has too many words" // separated by commas; repeated lines add
)

// A Directive is one row of the table that the reader and the default file
// share. What it is for says package conf/directive, which the helper does not link.
type Directive struct {
	Name, Default string
	Kind          Kind
	Allowed       []string          // of a Choice
	Field         func(*Config) any // *bool, *int64, *string or *[]string
}

// boundary are the directives that the setuid helper enforces; others.go has the
// rest, which it does not read.
var boundary = []Directive{
	{Name: "allow setuid", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowSetuid }},
	{Name: "max loop devices", Kind: Number, Default: "256", Field: func(c *Config) any { return &c.MaxLoopDevices }},
	{Name: "shared loop devices", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.SharedLoopDevices }},
	{Name: "allow ipc ns", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowIPCNS }},
	{Name: "allow pid ns", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowPIDNS }},
	{Name: "allow uts ns", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.AllowUTSNS }},
	{Name: "bind path", Kind: List, Default: "/etc/localtime, /etc/hosts", Field: func(c *Config) any { return &c.BindPaths }},
	{Name: "user bind control", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.UserBindControl }},
	{Name: "enable fusemount", Kind: YesNo, Default: "yes", Field: func(c *Config) any { return &c.EnableFusemount }},
	{Name: "enable overlay", Kind: Choice, Default: "try", Field: func(c *Config) any { return &c.EnableOverlay }, Allowed: []string{"yes", "no", "try"}},
	{Name: "require integrity", Kind: YesNo, Default: "no", Field: func(c *Config) any { return &c.RequireIntegrity }},
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
	{Name: "allow netns paths", Kind: List, Field: func(c *Config) any { return &c.AllowNetnsPaths }},
}
