// Package directive says what each directive of singularity.conf is for: for the
// default file, for completion and for config global. The setuid helper reads the same
// table of directives (conf.Directives) and needs none of this.
package directive

// A Text says what a directive is for. One without a name is a heading of those
// that follow.
type Text struct {
	Name  string
	Doc   string
	Inert string // why the directive has no effect; "" if it has
}

// Texts has a row for each directive, in the order of the default file.
var Texts = []Text{
	{Doc: "The helper program and the mode"},
	{Name: "allow setuid", Doc: "Let the setuid helper work, where one is installed."},
	{Name: "oci mode", Doc: "Use OCI mode for all containers, as --oci does."},
	{Doc: "Loop devices"},
	{Name: "max loop devices", Doc: "The highest number of loop devices that may be in use."},
	{Name: "shared loop devices", Doc: "Let containers of one image share its loop device."},
	{Doc: "Namespaces"},
	{Name: "allow ipc ns", Doc: "Allow IPC namespaces."},
	{Name: "allow pid ns", Doc: "Allow PID namespaces."},
	{Name: "allow user ns", Doc: "Allow user namespaces."},
	{Name: "allow uts ns", Doc: "Allow UTS namespaces."},
	{Doc: "Files made for the container"},
	{Name: "config passwd", Doc: "Give the container a passwd file with a line for the caller."},
	{Name: "config group", Doc: "Give the container a group file with the groups of the caller."},
	{Name: "config resolv_conf", Doc: "Give the container the host's resolv.conf."},
	{Doc: "Mounts"},
	{Name: "mount proc", Doc: "Mount /proc."},
	{Name: "mount sys", Doc: "Mount /sys."},
	{Name: "mount dev", Doc: "Mount the host's /dev, a minimal one, or none."},
	{Name: "mount devpts", Doc: "Mount a new devpts where /dev is minimal."},
	{Name: "mount home", Doc: "Mount the caller's home directory."},
	{Name: "mount tmp", Doc: "Mount the host's /tmp and /var/tmp."},
	{Name: "mount hostfs", Doc: "Mount every file system that the host has directly below /."},
	{Name: "mount slave", Doc: "Let mounts of the host made later appear in containers."},
	{Name: "bind path", Doc: "Paths to mount in every container: src[:dest], one line each. These defaults hold only where there is no file."},
	{Name: "user bind control", Doc: "Let people choose mounts (--bind, --home, --scratch, working directory)."},
	{Name: "enable fusemount", Doc: "Let people mount FUSE file systems."},
	{Name: "enable overlay", Doc: "Use the kernel's overlay: always, never, or where it works. A directory has no mount points made without it."},
	{Name: "enable underlay", Doc: "Make missing mount points without an overlay: in the image that is served. Without this and without overlay, mounts need a directory in the image."},
	{Name: "require integrity", Doc: "Run, overlay and bind only images that are signed with a key known here and have a hash tree, by which all that is read of them is checked."},
	{Name: "run records", Doc: "A directory of root's with mode 1733, in which every start leaves a record of who runs which image; see singularity runs. Empty: no records."},
	{Name: "tmp sandbox", Doc: "Allow extraction of an image to a temporary directory."},
	{Name: "sessiondir max size", Doc: "Size of the session directory in MiB."},
	{Name: "memory fs type", Doc: "File system of what a container keeps in memory. A ramfs has no limit of size."},
	{Doc: "Which images may be used"},
	{Name: "limit container owners", Doc: "Only images of these users."},
	{Name: "limit container groups", Doc: "Only images of these groups."},
	{Name: "limit container paths", Doc: "Only images below these directories."},
	{Name: "blocked images", Doc: "A file of root's that lists images which are not run, for root neither; see singularity scan --block-list and singularity runs blocked. Empty: none."},
	{Name: "allow container sif", Doc: "Allow SIF images that are not encrypted."},
	{Name: "allow container encrypted", Doc: "Allow encrypted SIF images."},
	{Name: "allow container squashfs", Doc: "Allow bare squashfs images."},
	{Name: "allow container extfs", Doc: "Allow bare ext3 images."},
	{Name: "allow container dir", Doc: "Allow sandbox directories."},
	{Name: "allow kernel squashfs", Doc: "Let the helper mount squashfs by the kernel."},
	{Name: "allow kernel extfs", Doc: "Let the helper mount ext3 by the kernel."},
	{Doc: "Network"},
	{Name: "allow net users", Doc: "Users who may use the networks below."},
	{Name: "allow net groups", Doc: "Groups that may use the networks below."},
	{Name: "allow net networks", Doc: "Networks that these users and groups may join."},
	{Name: "allow netns paths", Doc: "Network namespaces that these users and groups may join."},
	{Name: "cni configuration path", Doc: "Directory of CNI configurations; empty means the built-in one."},
	{Name: "cni plugin path", Doc: "Directory of CNI plugins; empty means the built-in one."},
	{Doc: "GPU"},
	{Name: "always use nv", Doc: "Act as if --nv were always given."},
	{Name: "always use rocm", Doc: "Act as if --rocm were always given."},
	{Name: "use nvidia-container-cli", Doc: "Set up NVIDIA GPUs by nvidia-container-cli."},
	{Doc: "Privilege"},
	{Name: "root default capabilities", Doc: "Capabilities of root in a container: all, those of the capability file, or none."},
	{Doc: "Programs of the host"},
	{Name: "root search path", Doc: "Where programs are looked for when root runs a container."},
	{Name: "user search path", Doc: "Where programs are looked for otherwise; $PATH is that of the caller."},
	{Name: "cryptsetup path", Doc: "Path of cryptsetup.", Inert: "encrypted images need no program of the host"},
	{Name: "go path", Doc: "Path of the Go tool.", Inert: "plug-ins are not supported"},
	{Name: "ldconfig path", Doc: "Path of ldconfig."},
	{Name: "mksquashfs path", Doc: "Path of mksquashfs.", Inert: "images are written without a program of the host"},
	{Name: "nvidia-container-cli path", Doc: "Path of nvidia-container-cli."},
	{Name: "unsquashfs path", Doc: "Path of unsquashfs.", Inert: "images are read without a program of the host"},
	{Name: "mksquashfs procs", Doc: "Processors that making a squashfs image may use; 0 means all."},
	{Name: "mksquashfs mem", Doc: "Memory that making a squashfs image may use, as 1G; empty means no limit."},
	{Doc: "Downloads from a library"},
	{Name: "download concurrency", Doc: "Parts of a file that are fetched at one time.", Inert: "a file comes in one stream, which is resumed where it breaks off"},
	{Name: "download part size", Doc: "Size of a part in bytes.", Inert: "a file comes in one stream, which is resumed where it breaks off"},
	{Name: "download buffer size", Doc: "Size of the buffer of each part in bytes.", Inert: "a file comes in one stream, which is resumed where it breaks off"},
	{Doc: "Other"},
	{Name: "systemd cgroups", Doc: "Manage cgroups through systemd."},
	{Name: "sif fuse", Doc: "Mount images by FUSE.", Inert: "what no kernel mount is allowed for is always mounted by FUSE"},
}

// Of returns the text of the directive called name, or nil.
func Of(name string) *Text {
	for i := range Texts {
		if Texts[i].Name == name && name != "" {
			return &Texts[i]
		}
	}
	return nil
}
