package plan

// Plan is everything a container will be. It is plain data: package container
// carries it out.
type Plan struct {
	IDs     IDs
	Root    Root
	Files   []File  // generated files and empty mount points, in order
	Mounts  []Mount // in the order they are made
	Process Process
}

// IDMode says where the user and group ids inside come from.
type IDMode int

const (
	// HostIDs: no user namespace; only for root.
	HostIDs IDMode = iota
	// SingleID: a user namespace that maps the caller's two ids, to
	// themselves or, for fakeroot, to 0.
	SingleID
	// Ranges: a user namespace with subordinate ids, written by newuidmap and
	// newgidmap: 0 is the caller, 1 and up come from the ranges.
	Ranges
)

// Map is one line of an id map.
type Map struct {
	Inside, Outside, Count uint32
}

// IDs are the ids of the container.
type IDs struct {
	Mode     IDMode
	UID, GID int // of the caller, outside
	// InsideUID and InsideGID are what the caller is inside.
	InsideUID, InsideGID int
	UIDMap, GIDMap       []Map // for Ranges, without the line of the caller
	// FakeOwners asks for the seccomp filter that lets changes of ownership
	// succeed quietly: fakeroot without ranges.
	FakeOwners bool
	// FakeDevices asks for the filter that lets only the making of device
	// nodes succeed quietly: fakeroot with ranges, where owners are real.
	FakeDevices bool
}

// RootKind says how the root file system is made.
type RootKind int

const (
	// ServedRoot is an image file served by our FUSE server.
	ServedRoot RootKind = iota
	// DirRoot is a directory of the host.
	DirRoot
	// HostRoot is the host's own root: the mounts stay, nothing is pivoted.
	HostRoot
)

// Root is the root file system.
type Root struct {
	Kind     RootKind
	Path     string // DirRoot: absolute
	Dev, Ino uint64 // DirRoot: what Path was when it was checked
	Writable bool   // DirRoot only
}

// File is a path that the container shall have though the image may not: a
// mount point or a generated file.
type File struct {
	Path string // absolute, inside
	Dir  bool
	Perm uint32
	// Load makes the content from what the image holds at Path (nil if it
	// holds nothing). A nil Load is a mount point: nothing is changed where
	// the image has the path. A nil result with a nil error leaves the image's
	// file as it is.
	Load func(image []byte) ([]byte, error)
}

// Mount is one bind mount.
type Mount struct {
	Source      string // absolute, on the host; empty for a new procfs
	Destination string // absolute, inside
	ReadOnly    bool
	Devices     bool   // device nodes work: only /dev
	Optional    bool   // a missing destination is skipped with a warning
	Tag         string // what kind of mount, for that warning: kernel, binds, cwd, files, tmp, home, dev, device, user
}

// Process is the program and how it is started.
type Process struct {
	Paths []string // candidates for the program, in order
	Args  []string
	Env   []string
	// Shell runs a program that has no "#!" line; empty for none.
	Shell string
	// Dirs are candidates for the working directory, in order.
	Dirs []string
	// Umask is set if it is not negative.
	Umask int
	// NoPrivileges drops every capability, for root too.
	NoPrivileges bool
	// NewPID starts the program as process 1 of a PID namespace of its own. A
	// mount with an empty source, or with HostRoot /proc itself, is its procfs.
	NewPID bool
}
