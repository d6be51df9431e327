// The runtime would keep files of the cgroup open, which would be seen too.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Probe prints what it can find out about its own process: ids, capabilities,
// confinement, namespaces, mounts, limits, descriptors. Tests start it inside
// and outside of a container and compare.
//
// Without arguments it prints all of it as JSON: one object whose members are
// strings, or arrays of strings. With arguments it prints the members of those
// names, one line for each string. A name that ends in a dot or a star stands
// for all that begin so. A line "try ..." answers whether something works:
//
//	probe uid caps.effective 'ns.*'
//	probe try write /etc/passwd
//
// "without mounts PROGRAM..." runs a program, given by its path, under a filter
// that answers ENOSYS to the mount calls of Linux 5.2 and 5.12; "without calls" to
// the other calls since Linux 5.3 as well; "without el8" to all that came after 4.18.
//
// "flip A B" exchanges two files without an end, for races. "reread" reads the
// files that its input names, one in a line, from the file system and not from
// the kernel's cache, and prints a checksum or the error. "cost PROGRAM ..." runs a
// program and prints what it took.
//
// It is static and uses neither os nor fmt, because package os raises the limit
// of open files and opens descriptors of its own, which would be seen here.
// What cannot be read, as /proc where it is not mounted, is an empty string.
package main

import (
	"sort"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// facts are the members in the order in which they are printed.
type facts struct {
	names  []string
	values map[string][]string
	lists  map[string]bool // printed as an array even with one element
}

func (f *facts) set(name, value string) {
	f.names = append(f.names, name)
	f.values[name] = []string{value}
}

func (f *facts) list(name string, values []string) {
	f.names = append(f.names, name)
	f.values[name] = values
	f.lists[name] = true
}

func main() {
	// The arguments without package os.
	args := strings.Split(strings.TrimSuffix(read("/proc/self/cmdline"), "\x00"), "\x00")[1:]
	if len(args) > 2 && args[0] == "flip" {
		for { // two names change places until somebody ends it
			unix.Renameat2(unix.AT_FDCWD, args[1], unix.AT_FDCWD, args[2], unix.RENAME_EXCHANGE)
		}
	}
	if len(args) == 1 && args[0] == "reread" {
		reread()
		return
	}
	if len(args) > 1 && args[0] == "cost" {
		syscall.Exit(cost(args[1:]))
	}
	if len(args) > 2 && args[0] == "without" {
		without(args[1], args[2:])
	}
	if len(args) > 2 && args[0] == "try" {
		syscall.Exit(try(args[1], args[2]))
	}
	f := &facts{values: map[string][]string{}, lists: map[string]bool{}}
	// The descriptors first, before anything else is opened.
	f.list("fds", descriptors())
	identity(f)
	rights(f)
	surroundings(f)
	limits(f)
	sort.Strings(f.names)
	if len(args) == 0 {
		write(f.json())
		return
	}
	for _, a := range args {
		if !f.print(a) {
			write("no such member: " + a + "\n")
			syscall.Exit(2)
		}
	}
}

func write(s string) {
	for b := []byte(s); len(b) > 0; {
		n, err := syscall.Write(1, b)
		if err != nil {
			syscall.Exit(1)
		}
		b = b[n:]
	}
}

// print prints the members that pattern names.
func (f *facts) print(pattern string) bool {
	prefix, many := strings.CutSuffix(pattern, "*")
	many = many || strings.HasSuffix(pattern, ".")
	found := false
	for _, n := range f.names {
		if n == pattern || many && strings.HasPrefix(n, prefix) {
			found = true
			for _, v := range f.values[n] {
				if many {
					v = n + "=" + v
				}
				write(v + "\n")
			}
		}
	}
	return found
}

func (f *facts) json() string {
	var b strings.Builder
	b.WriteString("{\n")
	for i, n := range f.names {
		b.WriteString("  " + quote(n) + ": ")
		if v := f.values[n]; f.lists[n] {
			b.WriteString("[")
			for k, s := range v {
				if k > 0 {
					b.WriteString(", ")
				}
				b.WriteString(quote(s))
			}
			b.WriteString("]")
		} else {
			b.WriteString(quote(v[0]))
		}
		if i < len(f.names)-1 {
			b.WriteString(",")
		}
		b.WriteString("\n")
	}
	return b.String() + "}\n"
}

// quote makes a JSON string; what is no UTF-8 becomes the replacement rune.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ':
			b.WriteString(`\u00` + strconv.FormatInt(int64(r)>>4, 16) + strconv.FormatInt(int64(r)&15, 16))
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}

// read returns a file of /proc, "" if it cannot be read.
func read(path string) string {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	var out []byte
	buf := make([]byte, 1<<16)
	for {
		n, err := syscall.Read(fd, buf)
		if err != nil || n <= 0 {
			return string(out)
		}
		out = append(out, buf[:n]...)
	}
}

func link(path string) string {
	buf := make([]byte, 4096)
	n, err := syscall.Readlink(path, buf)
	if err != nil || n < 0 {
		return ""
	}
	return string(buf[:n])
}

// descriptors lists the open ones: "0 /dev/null".
func descriptors() []string {
	var out []string
	for fd := range 1024 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			out = append(out, strconv.Itoa(fd)+" "+link("/proc/self/fd/"+strconv.Itoa(fd)))
		}
	}
	return out
}

func identity(f *facts) {
	r, e, s := unix.Getresuid()
	f.set("uid", strconv.Itoa(r))
	f.set("uids", strconv.Itoa(r)+" "+strconv.Itoa(e)+" "+strconv.Itoa(s))
	r, e, s = unix.Getresgid()
	f.set("gid", strconv.Itoa(r))
	f.set("gids", strconv.Itoa(r)+" "+strconv.Itoa(e)+" "+strconv.Itoa(s))
	groups, _ := syscall.Getgroups()
	var list []string
	for _, g := range groups {
		list = append(list, strconv.Itoa(g))
	}
	f.list("groups", list)
	for _, n := range []string{"uid_map", "gid_map", "setgroups"} {
		f.set(n, strings.Join(strings.Fields(read("/proc/self/"+n)), " "))
	}
	f.set("pid", strconv.Itoa(syscall.Getpid()))
	f.set("ppid", strconv.Itoa(syscall.Getppid()))
	sid, _ := unix.Getsid(0)
	f.set("sid", strconv.Itoa(sid))
	f.set("pgid", strconv.Itoa(syscall.Getpgrp()))
}

// rights reads what the process may do. Capabilities come from the calls, so
// that they are known without /proc.
func rights(f *facts) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	unix.Capget(&header, &d[0])
	f.set("caps.effective", hex(uint64(d[1].Effective)<<32|uint64(d[0].Effective)))
	f.set("caps.permitted", hex(uint64(d[1].Permitted)<<32|uint64(d[0].Permitted)))
	f.set("caps.inheritable", hex(uint64(d[1].Inheritable)<<32|uint64(d[0].Inheritable)))
	var bounding, ambient uint64
	for c := range 64 {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && v == 1 {
			bounding |= 1 << c
		}
		if v, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(c), 0, 0); err == nil && v == 1 {
			ambient |= 1 << c
		}
	}
	f.set("caps.bounding", hex(bounding))
	f.set("caps.ambient", hex(ambient))
	for name, option := range map[string]int{"securebits": unix.PR_GET_SECUREBITS, "no_new_privs": unix.PR_GET_NO_NEW_PRIVS, "dumpable": unix.PR_GET_DUMPABLE} {
		v, err := unix.PrctlRetInt(option, 0, 0, 0, 0)
		if err != nil {
			f.set(name, "")
			continue
		}
		f.set(name, strconv.Itoa(v))
	}
	for _, n := range []string{"Seccomp", "Seccomp_filters", "SigBlk", "SigIgn"} {
		f.set(strings.ToLower(n), status(n))
	}
	f.set("label", strings.TrimRight(read("/proc/self/attr/current"), "\n\x00"))
	f.set("label.apparmor", strings.TrimRight(read("/proc/self/attr/apparmor/current"), "\n\x00"))
}

func hex(v uint64) string {
	s := strconv.FormatUint(v, 16)
	return strings.Repeat("0", 16-len(s)) + s
}

// status returns a field of /proc/self/status.
func status(field string) string {
	for line := range strings.Lines(read("/proc/self/status")) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func surroundings(f *facts) {
	for _, n := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		f.set("ns."+n, link("/proc/self/ns/"+n))
	}
	var mounts []string
	for line := range strings.Lines(read("/proc/self/mountinfo")) {
		mounts = append(mounts, mount(line))
	}
	f.list("mounts", mounts)
	f.set("cgroup", strings.TrimSpace(read("/proc/self/cgroup")))
	buf := make([]byte, 4096)
	cwd := ""
	if n, err := syscall.Getcwd(buf); err == nil && n > 0 {
		cwd = string(buf[:n-1])
	}
	f.set("cwd", cwd)
	var names []string
	for _, e := range syscall.Environ() {
		name, _, _ := strings.Cut(e, "=")
		names = append(names, name)
	}
	sort.Strings(names)
	f.list("env", names)
	var uts unix.Utsname
	unix.Uname(&uts)
	f.set("hostname", unix.ByteSliceToString(uts.Nodename[:]))
}

// mount makes "POINT TYPE OPTIONS SOURCE ROOT PROPAGATION" of a line of
// mountinfo.
func mount(line string) string {
	left, right, _ := strings.Cut(strings.TrimSpace(line), " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if len(l) < 6 || len(r) < 3 {
		return line
	}
	return strings.Join([]string{l[4], r[0], l[5], r[1], l[3], strings.Join(l[6:], ",")}, " ")
}

func limits(f *facts) {
	for i, name := range []string{"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"} {
		var r unix.Rlimit
		if unix.Prlimit(0, i, nil, &r) == nil {
			f.set("rlimit."+name, strconv.FormatUint(r.Cur, 10)+" "+strconv.FormatUint(r.Max, 10))
		}
	}
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	f.set("umask", "0"+strconv.FormatInt(int64(mask), 8))
}

// try does one thing and returns the exit status: 0 if it works, 1 with the
// error on a line of its own if not.
func try(what, path string) int {
	var err error
	fd := -1
	switch what {
	case "read":
		fd, err = syscall.Open(path, syscall.O_RDONLY, 0)
	case "write":
		fd, err = syscall.Open(path, syscall.O_WRONLY, 0)
	case "create":
		if fd, err = syscall.Open(path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o600); err == nil {
			err = syscall.Unlink(path)
		}
	case "truncate":
		err = syscall.Truncate(path, 0)
	case "mkdir":
		if err = syscall.Mkdir(path, 0o700); err == nil {
			err = syscall.Rmdir(path)
		}
	case "chown":
		err = syscall.Chown(path, 1, 1)
	case "chroot":
		err = syscall.Chroot(path)
	case "mount":
		err = syscall.Mount("none", path, "tmpfs", 0, "")
	case "sethostname":
		err = syscall.Sethostname([]byte(path))
	case "unshare":
		err = syscall.Unshare(map[string]int{"user": syscall.CLONE_NEWUSER, "net": syscall.CLONE_NEWNET, "mnt": syscall.CLONE_NEWNS}[path])
	case "keys": // put one into the terminal on a descriptor: by TIOCSTI or TIOCLINUX
		request := map[string]uint{"sti": unix.TIOCSTI, "linux": 0x541c}[path]
		key := byte(' ')
		if _, _, e := syscall.RawSyscall(syscall.SYS_IOCTL, 0, uintptr(request), uintptr(unsafe.Pointer(&key))); e != 0 {
			err = e
		}
	case "syscall":
		n, _ := strconv.Atoi(path)
		if _, _, e := syscall.RawSyscall6(uintptr(n), ^uintptr(0), 0, 0, 0, 0, 0); e != 0 {
			err = e
		}
	default:
		write("no such test: " + what + "\n")
		return 2
	}
	if fd >= 0 {
		syscall.Close(fd)
	}
	if err != nil {
		write(err.Error() + "\n")
		return 1
	}
	return 0
}
