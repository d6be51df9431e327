package host

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/linux/secret"
)

// Status tells how good a fact is for containers.
type Status string

// The statuses of rows. What is Limited or Missing has a cure; with one that is
// Fatal no container can start.
const (
	OK      Status = "ok"
	Limited Status = "limited" // works in part
	Missing Status = "missing"
	Fatal   Status = "fatal"
)

// Row is one fact about this machine for people.
type Row struct {
	Name   string
	Status Status
	Found  string
	Cure   string // one line; empty if there is nothing to cure
}

// Report tells what this machine offers to containers of the calling user.
// What must be tried in a namespace is not in it.
func Report() []Row {
	k := running()
	rows := []Row{k.release(kernelRelease())}
	rows = append(rows, k.namespaceRows()...)
	rows = append(rows, k.securityRow())
	u, err := CurrentUser()
	rows = append(rows, userRow(u, err))
	rows = append(rows, system().subIDRows(u, k.uid)...)
	rows = append(rows, found("newuidmap", k.idMaps(), "works"), found("FUSE", k.fuse(), "/dev/fuse can be opened"))
	rows = append(rows, k.cgroupRows()...)
	rows = append(rows, k.keyRow(secret.Alloc(unix.Getpagesize())))
	return append(rows, storageRows(u.Home)...)
}

// found is the row of something that a probe looks for.
func found(name string, f *Finding, good string) Row {
	if f != nil {
		return Row{name, Missing, f.Cause, f.Cure}
	}
	return Row{Name: name, Status: OK, Found: good}
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// release compares the version of the kernel with the oldest that has the
// mount calls.
func (k *kernel) release(s string) Row {
	major, rest, _ := strings.Cut(s, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, _ := strconv.Atoi(major)
	b, _ := strconv.Atoi(strings.TrimRight(minor, "+-abcdefghijklmnopqrstuvwxyz"))
	if a < 5 || a == 5 && b < 12 {
		return Row{"kernel", Fatal, s, "use Linux 5.12 or newer: older ones lack mount calls that every start needs"}
	}
	return Row{Name: "kernel", Status: OK, Found: s}
}

// namespaceRows are about user namespaces: what speaks against them, and each
// switch that is there.
func (k *kernel) namespaceRows() []Row {
	row := found("user namespaces", k.userNamespaces(), "nothing speaks against them")
	if row.Status == Missing && k.uid != 0 {
		row.Status = Fatal
	}
	rows := []Row{row}
	for _, s := range []struct{ name, path string }{
		{"user.max_user_namespaces", "/proc/sys/user/max_user_namespaces"},
		{"kernel.unprivileged_userns_clone", "/proc/sys/kernel/unprivileged_userns_clone"},
		{"kernel.apparmor_restrict_unprivileged_userns", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"},
	} {
		v := k.line(s.path)
		if v == "" {
			v = "no such switch in this kernel"
		}
		rows = append(rows, Row{Name: s.name, Status: OK, Found: v})
	}
	return rows
}

// securityRow names the security modules and what is in force here.
func (k *kernel) securityRow() Row {
	list := k.line("/sys/kernel/security/lsm")
	if list == "" {
		list = "not shown here"
		for _, m := range []struct{ name, path, on string }{{"apparmor", "/sys/module/apparmor/parameters/enabled", "Y"}, {"selinux", "/sys/fs/selinux/enforce", ""}} {
			if v := k.line(m.path); v != "" && strings.HasPrefix(v, m.on) {
				list = m.name
			}
		}
	}
	if !k.unconfined() {
		list += "; this process has the label " + k.line("/proc/self/attr/current")
	}
	if k.status("Seccomp") == "2" {
		list += "; a seccomp filter is in force"
	}
	if k.status("NoNewPrivs") == "1" {
		list += "; no_new_privs is set"
	}
	return Row{Name: "security modules", Status: OK, Found: list}
}

func userRow(u User, err error) Row {
	if err != nil {
		return Row{"user", Limited, err.Error(), "ask an administrator to list the user in /etc/passwd or the name service"}
	}
	return Row{Name: "user", Status: OK, Found: u.Name + ", uid " + strconv.Itoa(u.UID) + ", home " + u.Home}
}

// subIDRows tell which subordinate ids there are and who says so.
func (d *database) subIDRows(u User, uid int) []Row {
	var rows []Row
	for _, s := range []struct {
		name, file string
		own        int
		flags      []string
	}{{"subordinate uids", d.subuid, u.UID, nil}, {"subordinate gids", d.subgid, u.GID, []string{"-g"}}} {
		list, err := d.ranges(s.file, u, s.own, s.flags...)
		if err != nil {
			status := Missing
			if uid == 0 {
				status = OK // root maps what it likes
			}
			rows = append(rows, Row{s.name, status, err.Error(), subIDCure(err, u.Name)})
			continue
		}
		source := "name service"
		if b, err := readFile(s.file); err == nil {
			if l, _ := parseSubIDs(b, u.Name, strconv.Itoa(u.UID)); len(l) > 0 {
				source = s.file
			}
		}
		text, total := "", int64(0)
		for _, r := range list {
			text += strconv.FormatUint(uint64(r.Start), 10) + "+" + strconv.FormatUint(uint64(r.Count), 10) + " "
			total += int64(r.Count)
		}
		row := Row{Name: s.name, Status: OK, Found: text + "from " + source}
		if total < usualCount {
			row.Status, row.Cure = Limited, "most images need 65536: sudo singularity config fakeroot --remove "+u.Name+" && sudo singularity config fakeroot --add "+u.Name
		}
		rows = append(rows, row)
	}
	return rows
}

func subIDCure(err error, name string) string {
	if e, ok := errors.AsType[*NoRangeError](err); ok && e.Disabled {
		return "ask an administrator to run: sudo singularity config fakeroot --enable " + name
	}
	return "ask an administrator to run: sudo singularity config fakeroot --add " + name
}

// cgroupRows tell which cgroups there are and whether limits can be set.
func (k *kernel) cgroupRows() []Row {
	own := k.line("/proc/self/cgroup")
	unified, mixed := "", false
	for line := range strings.Lines(own) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			unified = p
		} else if strings.TrimSpace(line) != "" {
			mixed = true
		}
	}
	const mount = "/sys/fs/cgroup"
	v2 := k.line(mount+"/cgroup.controllers") != ""
	if !v2 {
		return []Row{{"cgroups", Limited, map[bool]string{true: "version 1", false: "none"}[mixed],
			"limits for ordinary users need version 2 alone: boot with systemd.unified_cgroup_hierarchy=1"}}
	}
	dir := filepath.Join(mount, unified)
	row := Row{Name: "cgroups", Status: OK, Found: "version 2, in " + unified}
	has := k.line(dir + "/cgroup.controllers")
	switch {
	case unix.Access(dir+"/cgroup.procs", unix.W_OK) == nil:
		row.Found += ", delegated: " + has
	case k.userBus() != "":
		row.Found += ", by the user manager of systemd"
	default:
		row.Status = Limited
		row.Found += ", not delegated and no user bus"
		row.Cure = "log in with a session of systemd (loginctl enable-linger), or have the batch system delegate the job's cgroup"
	}
	return []Row{row}
}

// userBus returns the socket of the user manager's bus, if there is one.
func (k *kernel) userBus() string {
	path := os.Getenv("XDG_RUNTIME_DIR") + "/bus"
	if a, ok := strings.CutPrefix(os.Getenv("DBUS_SESSION_BUS_ADDRESS"), "unix:path="); ok {
		path, _, _ = strings.Cut(a, ",")
	}
	var st syscall.Stat_t
	if path == "/bus" || syscall.Stat(path, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFSOCK {
		return ""
	}
	return path
}

// storageRows are about the places where files go.
func storageRows(home string) []Row {
	rows := []Row{storageRow("temporary files", TempDir(os.Getenv("SINGULARITY_TMPDIR"), os.Getenv("TMPDIR")))}
	if home != "" {
		rows = append(rows, storageRow("home", home))
	}
	return rows
}

// smallSpace is what a build of a middling image needs, in bytes.
const smallSpace = 4 << 30

func storageRow(name, path string) Row {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Row{name, Limited, path + ": " + err.Error(), "choose another directory: export SINGULARITY_TMPDIR=..."}
	}
	free := int64(fs.Bavail) * fs.Bsize
	kind := fileSystemName(int64(fs.Type))
	row := Row{Name: name, Status: OK, Found: path + ": " + kind + ", " + strconv.FormatInt(free>>20, 10) + " MiB free"}
	var more []string
	limit := func(what, cure string) {
		more, row.Status = append(more, what), Limited
		if row.Cure == "" {
			row.Cure = cure
		}
	}
	if unix.Access(path, unix.W_OK) != nil {
		limit("not writable", "choose another directory: export SINGULARITY_TMPDIR=...")
	}
	if name == "home" {
		row.Found = strings.Join(append([]string{row.Found}, more...), ", ")
		return row
	}
	if fs.Flags&unix.ST_NOEXEC != 0 {
		limit("noexec", "builds run programs there: export SINGULARITY_TMPDIR=/var/tmp")
	}
	if kind == "tmpfs" || kind == "ramfs" {
		limit("in memory", "large builds fill it: export SINGULARITY_TMPDIR=/var/tmp")
	}
	if onNetwork(kind) {
		limit("on the network", "slow, and no place for sandboxes: export SINGULARITY_TMPDIR to a local disk")
	}
	if free < smallSpace {
		limit("little space", "free some space, or export SINGULARITY_TMPDIR to a larger file system")
	}
	row.Found = strings.Join(append([]string{row.Found}, more...), ", ")
	return row
}

// onNetwork tells whether other machines share file systems of a kind.
func onNetwork(kind string) bool {
	switch kind {
	case "nfs", "smb", "lustre", "gpfs", "ceph", "beegfs", "afs":
		return true
	}
	return false
}

// fileSystemName names a file system by the number that statfs gives.
func fileSystemName(magic int64) string {
	switch uint32(magic) {
	case 0x01021994:
		return "tmpfs"
	case 0x858458f6:
		return "ramfs"
	case 0xef53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x9123683e:
		return "btrfs"
	case 0x2fc12fc1:
		return "zfs"
	case 0xf2f52010:
		return "f2fs"
	case 0x794c7630:
		return "overlay"
	case 0x65735546:
		return "fuse"
	case 0x6969:
		return "nfs"
	case 0xff534d42, 0xfe534d42, 0x517b:
		return "smb"
	case 0x0bd00bd0:
		return "lustre"
	case 0x47504653:
		return "gpfs"
	case 0x00c36400:
		return "ceph"
	case 0x19830326:
		return "beegfs"
	case 0x5346414f:
		return "afs"
	case 0x73717368:
		return "squashfs"
	case 0x01021997:
		return "9p"
	}
	return "file system 0x" + strconv.FormatUint(uint64(uint32(magic)), 16)
}
