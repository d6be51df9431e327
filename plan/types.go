package plan

// Plan is everything a container will be. It is plain data: package container
// carries it out.
type Plan struct {
	IDs        IDs
	Namespaces Namespaces
	// Hostname is the name in a new UTS namespace, if not empty.
	Hostname string
	// NetnsPath is a network namespace to join, if not empty.
	NetnsPath string
	Network   Network
	Root      Root
	Layers    []Layer // over the root, the top one first
	Session   Session
	// HostDirs are directories of the host that must be made first.
	HostDirs []HostDir
	Files    []File  // generated files and empty mount points, in order
	Mounts   []Mount // in the order they are made
	Fuse     []FuseMount
	Process  Process
	Home     string // inside
	// PrivateMounts keeps what is mounted later on the host out of the binds.
	PrivateMounts bool
	// Ramfs puts a ramfs, which has no limits, in place of each tmpfs.
	Ramfs bool
	// Rights are the rights of the process; nil leaves it those that its user
	// namespace gives.
	Rights *Rights
}

// HostProc puts the host's procfs in place of one of the container's own, for
// hosts that let nobody mount one.
func (p *Plan) HostProc() {
	for i := range p.Mounts {
		if m := &p.Mounts[i]; m.Kind == Proc {
			m.Kind, m.Source = HostBind, "/proc"
		}
	}
}

// Namespaces are those that the container has for itself, besides the mount
// namespace that it always has and the user namespace that IDs tells of. A new
// network namespace has a loopback device that is up, and nothing else.
type Namespaces struct {
	PID, IPC, UTS, Net bool
}

// Session is a file system in memory that belongs to the container alone. Mounts
// of the kind SessionDir show parts of it.
type Session struct {
	Size    int64 // limit in bytes; 0 for that of the kernel
	Entries []Entry
}

// Entry is a directory, an empty file or a link of a session.
type Entry struct {
	Path string // relative; parents come first
	Perm uint32
	File bool   // an empty file, to mount on
	Link string // if not empty, a symbolic link to it
}

// HostDir is a directory of the host that the container's mounts need.
type HostDir struct {
	Path string
	Perm uint32
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
	// KeepGroups leaves the process in the caller's supplementary groups with
	// Ranges, which has them dropped otherwise. No such group has a number
	// inside. A SingleID map cannot drop any.
	KeepGroups bool
	// Helper tells that the setuid helper makes the container: with HostIDs, for
	// an ordinary user.
	Helper bool
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
	// ProgramRoot is an ext3 image that a program of the system serves, to be
	// written to; it is image 0.
	ProgramRoot
	// HostRoot is the host's own root: the mounts stay, nothing is pivoted.
	HostRoot
	// JoinedRoot is that of a running container, all of whose namespaces are
	// joined.
	JoinedRoot
)

// Root is the root file system.
type Root struct {
	Kind     RootKind
	Path     string // DirRoot: absolute
	Dev, Ino uint64 // DirRoot: what Path was when it was checked
	Writable bool   // the root itself is written to: DirRoot and ProgramRoot
	// NoPoints tells that no overlay makes mount points in a DirRoot.
	NoPoints bool
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
	// Key stands for what Load makes of one and the same image: two files with
	// equal keys are alike. Empty means that nothing is known.
	Key string
}

// MountKind says what is mounted.
type MountKind int

const (
	// HostBind is a directory or file of the host, with everything mounted below.
	HostBind MountKind = iota
	// Proc is the procfs of the container's PID namespace.
	Proc
	// SessionDir is a directory of the session; Source is its path there.
	SessionDir
	// Devpts is a new instance of the pseudo-terminals.
	Devpts
	// Tmpfs is a file system in memory, writable for all.
	Tmpfs
	// ImageBind is a directory or file in an image; Image is its number, and
	// Source the path in it.
	ImageBind
	// FuseFS is a file system that a program serves; Image is its number in
	// Plan.Fuse.
	FuseFS
	// Mqueue shows the message queues of the container's IPC namespace.
	Mqueue
)

// Mount is one mount.
type Mount struct {
	Kind        MountKind
	Source      string // HostBind: absolute, on the host; SessionDir: in the session
	Image       int    // ImageBind, FuseFS
	Destination string // absolute, inside
	Dir         bool   // the source is a directory that is still to be made
	ReadOnly    bool
	Devices     bool   // device nodes work: only /dev and what is in it
	Optional    bool   // a missing destination is skipped with a warning
	Tag         string // what kind of mount, for that warning: kernel, binds, cwd, files, tmp, home, dev, device, user, fusemount
}

// Process is the program and how it is started.
type Process struct {
	Paths []string // candidates for the program, in order
	Args  []string
	Env   []string
	// Shell runs a program that has no "#!" line; empty for none.
	Shell string
	// OwnShell are the arguments for a shell of ours, which is executed where
	// none of Paths can be for want of a file, or of the interpreter of a
	// script. It is nil if the image has a /bin/sh, or none is needed.
	OwnShell []string
	// Dirs are candidates for the working directory, in order.
	Dirs []string
	// Umask is set if it is not negative.
	Umask int
	// Init keeps a process 1 of ours in a new PID namespace, which reaps and
	// passes signals on; without it the program is process 1.
	Init bool
	// Stay keeps process 1 when the program ends: an instance. Idle starts no
	// program at all.
	Stay, Idle bool
	// GuardTerminal refuses the program to put keystrokes into a terminal, which
	// the caller's shell would read (SC-044).
	GuardTerminal bool
	// Console is a terminal to open again in place of the standard descriptors
	// that are terminals, since the container has its own /dev/pts.
	Console string
}
