package container

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/container/seccomp"
	"singularity/host"
	"singularity/linux/script"
	"singularity/plan"
)

const procRootIno = 1

// label gives the program its AppArmor profile or SELinux label: the kernel
// changes to it when the process executes the program, or refuses to execute.
//
// Security: the host's /proc is used, before the image is in sight, and what is
// opened there must be the file of a real procfs: an image or a mount of a file
// elsewhere would take the label and do nothing (SC-025, SC-030). The label is
// read back, through the same descriptor.
func (b *builder) label() {
	r := b.p.Rights
	if r == nil || r.LSM == "" {
		return
	}
	s := b.s
	what := "the " + r.LSM + " label " + strconv.Quote(r.Label)
	proc := s.Call("open /proc", unix.SYS_OPENAT, atCwd, s.Str("/proc"), script.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
	fs := make([]uint64, 32) // struct statfs: type, ...
	s.Call("look at /proc", unix.SYS_FSTATFS, proc.Arg(), s.Words(fs))
	s.Equal("find a procfs on /proc", fs, 0, 0, unix.PROC_SUPER_MAGIC, unix.PROC_SUPER_MAGIC)
	st := make([]uint64, 32) // struct stat: device, inode, ...
	s.Call("look at /proc", unix.SYS_FSTAT, proc.Arg(), s.Words(st))
	s.Equal("find the root of a procfs on /proc", st, 1, 1, procRootIno, procRootIno)
	how := []uint64{unix.O_RDWR | unix.O_CLOEXEC, 0, unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS}
	fd := s.Call("open the file for "+what, unix.SYS_OPENAT2, proc.Arg(), s.Str("thread-self/"+attributeFile(r.LSM)), s.Words(how), script.Int(openHowSize))
	text, back := labelText(r)
	w := s.Call("apply "+what, unix.SYS_WRITE, fd.Arg(), s.Bytes([]byte(text)), script.Int(len(text)))
	s.Text(w, r.LSM+" profile "+strconv.Quote(r.Label)+" is not loaded on this system")
	s.Want(w, len(text))
	want := words([]byte(back))
	found := make([]uint64, len(want))
	s.Call("read back "+what, unix.SYS_PREAD64, fd.Arg(), s.Words(found), script.Int(len(back)), script.Int(0))
	b.same("see "+what+" applied", found, want)
	s.Call("close the file for "+what, unix.SYS_CLOSE, fd.Arg())
	s.Call("close /proc", unix.SYS_CLOSE, proc.Arg())
}

// attributeFile is where a module takes the label of the next program, below
// the directory of a process. AppArmor has a directory of its own since Linux
// 5.8, so that it can work beside another module.
func attributeFile(lsm string) string {
	const own = "attr/apparmor/exec"
	if lsm == plan.AppArmor && unix.Access("/proc/thread-self/"+own, unix.F_OK) == nil {
		return own
	}
	return "attr/exec"
}

// labelText is what is written, and how that which is read back begins.
func labelText(r *plan.Rights) (write, back string) {
	switch {
	case r.LSM == plan.SELinux:
		return r.Label, r.Label + "\x00"
	case r.Label == "unconfined":
		return "exec " + r.Label, r.Label + "\n"
	}
	// A mode follows in brackets.
	return "exec " + r.Label, r.Label + " ("
}

// Rights of Landlock, which every version has.
const (
	landlockRead   = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landlockDevice = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	landlockFile   = landlockDevice | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
)

// landlockAll are the rights that version abi of Landlock handles.
func landlockAll(abi int) uint64 {
	all := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_SYM)<<1 - 1
	if abi >= 2 {
		all |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		all |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		all |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return all
}

// landlock confines writing to the places of the plan. The root has been
// entered, so every path is the container's own.
func (b *builder) landlock() {
	if b.p.Rights == nil || b.p.Rights.Landlock == nil {
		return
	}
	s, l := b.s, b.p.Rights.Landlock
	all := landlockAll(host.Landlock())
	set := s.Call("make a Landlock ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, s.Words([]uint64{all}), script.Int(8), script.Int(0))
	b.landlockRule(set, "/", all&landlockRead, all, false)
	for _, d := range l.Devices {
		b.landlockRule(set, d, all&(landlockDevice|landlockRead), all, true)
	}
	for _, w := range l.Write {
		b.landlockRule(set, w, all, all, true)
	}
	s.Call("confine the process by Landlock", unix.SYS_LANDLOCK_RESTRICT_SELF, set.Arg(), script.Int(0))
	s.Call("close the Landlock ruleset", unix.SYS_CLOSE, set.Arg())
}

// landlockRule allows access below path. A file takes only the rights that
// files have.
func (b *builder) landlockRule(set script.Slot, path string, access, all uint64, optional bool) {
	s := b.s
	how := []uint64{unix.O_PATH | unix.O_CLOEXEC, 0, unix.RESOLVE_NO_SYMLINKS}
	fd := s.Call("open "+strconv.Quote(path)+" for a Landlock rule", unix.SYS_OPENAT2, atCwd, s.Str(path), s.Words(how), script.Int(openHowSize))
	first := s.Len()
	rule := func(access uint64) script.Slot {
		attr := []uint64{access, 0} // struct landlock_path_beneath_attr: rights, descriptor
		s.Store(fd, attr, 1)
		return s.Call("allow "+strconv.Quote(path)+" by Landlock", unix.SYS_LANDLOCK_ADD_RULE, set.Arg(), script.Int(unix.LANDLOCK_RULE_PATH_BENEATH), s.Words(attr), script.Int(0))
	}
	s.SkipOK(rule(access), 2)
	rule(access & landlockFile)
	s.Call("close "+strconv.Quote(path), unix.SYS_CLOSE, fd.Arg())
	if optional {
		s.SkipFail(fd, s.Len()-first)
	}
}

// profile installs the system call filter that a person asked for.
func (b *builder) profile() error {
	r := b.p.Rights
	if r == nil || r.Seccomp == "" {
		return nil
	}
	code, err := b.loadProfile(r)
	if err != nil {
		return errors.New("cannot use the seccomp profile " + strconv.Quote(r.Seccomp) + ": " + err.Error())
	}
	passes := func(number uint32, args ...uint64) bool {
		a := seccomp.Answer(code, runtime.GOARCH, number, args...)
		return a == unix.SECCOMP_RET_ALLOW || a == unix.SECCOMP_RET_LOG
	}
	if !passes(unix.SYS_EXECVE) {
		return errors.New("cannot use the seccomp profile " + strconv.Quote(r.Seccomp) + ": it does not allow execve, so no program could start")
	}
	program := b.s.Pointers(script.Int(len(code)), b.s.Bytes(seccomp.Bytes(code))) // struct sock_fprog
	b.s.Call("install the seccomp profile", unix.SYS_SECCOMP, script.Int(unix.SECCOMP_SET_MODE_FILTER), script.Int(0), program)
	if passes(unix.SYS_PRCTL, unix.PR_GET_SECCOMP) {
		b.s.Want(b.prctl("read back the seccomp mode", unix.PR_GET_SECCOMP), unix.SECCOMP_MODE_FILTER)
	}
	return nil
}

func (b *builder) loadProfile(r *plan.Rights) ([]unix.SockFilter, error) {
	f, err := os.Open(r.Seccomp)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, seccomp.MaxProfile+1))
	if err != nil {
		return nil, err
	}
	p, err := seccomp.Parse(string(text))
	if err != nil {
		return nil, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, err
	}
	code, unknown, err := p.Compile(&seccomp.Target{Arch: runtime.GOARCH, Kernel: unix.ByteSliceToString(uts.Release[:]), HasCap: r.Caps.Has})
	if len(unknown) > 0 {
		warn(b.h, "The seccomp profile "+r.Seccomp+" restricts system calls that are not known: "+strings.Join(unknown, ", "))
	}
	return code, err
}
