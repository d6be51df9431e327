package priv

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/script"
)

// capBounding lets a process take capabilities out of its bounding set.
const capBounding = 1 << unix.CAP_SETPCAP

// start makes a container.
func (h *helper) start(r *Request) (*Answer, error) {
	s := &r.Start
	c, err := h.checker(&s.Steps, s.Caps, s.Report)
	if err != nil {
		return nil, err
	}
	if c.pid = s.PID; s.PID && !h.conf.AllowPIDNS {
		return nil, errors.New("singularity.conf says: allow pid ns = no")
	}
	image, err := h.images(s, c)
	if err == nil && s.Kernel != nil {
		err = h.mountKernel(s, image, c)
	}
	if refused, ok := err.(*Answer); ok && c.strict {
		err = errors.New(refused.Refusal + "; " + strictly)
	}
	if err != nil {
		return nil, err
	}
	drop, err := c.check()
	net, netErr := h.netns(s.Network)
	if err := cmp.Or(err, netErr); err != nil {
		return nil, err
	}
	return h.clone(s, drop, net)
}

// checker returns who looks at the steps of a request, whose capabilities must be
// granted, and whose descriptors must have come with it.
func (h *helper) checker(steps *script.Listing, caps uint64, fds ...int) (*checker, error) {
	if slices.ContainsFunc(fds, func(n int) bool { return h.fds[n] == 0 }) {
		return nil, errRequest
	}
	return &checker{helper: h, Listing: steps, kernel: -1}, h.granted(caps)
}

// granted tells whether the administrator granted these capabilities to the
// caller or to a group of the caller.
func (h *helper) granted(caps uint64) error {
	if caps == 0 {
		return nil
	}
	v, err := h.rights("capabilities")
	if err == nil && caps&^v.Caps != 0 {
		err = errors.New("not every capability that is asked for was granted: capability.json")
	}
	return err
}

// rights has starter-verify say what the administrator's files give to the caller:
// capabilities, or networks. It is an error that networks are not given.
func (h *helper) rights(what string, more ...string) (*Verdict, error) {
	null, err := os.Open("/dev/null")
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return h.verify(null, what, strings.Trim(fmt.Sprint(append(h.groups, h.gid)), "[]"), more...)
}

// images checks the images against the limits, each by its descriptor, which is
// what is used later (SC-011, SC-007). It returns the first.
func (h *helper) images(s *Start, c *checker) (first *os.File, err error) {
	if c.listed, err = listed(); err != nil && s.sif() {
		return nil, err
	}
	c.listed = c.listed && s.sif()
	c.strict = h.conf.Limited() || h.conf.RequireIntegrity || c.listed
	for i, im := range s.Images {
		fd, err := unix.FcntlInt(uintptr(h.fds[im.FD]), unix.F_DUPFD_CLOEXEC, h.fds[im.FD])
		if err != nil || h.fds[im.FD] == 0 {
			return nil, errRequest
		}
		f := os.NewFile(uintptr(fd), "image")
		st, err := stat(f)
		of, err2 := conf.FileOf(f)
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		if err := cmp.Or(sniff(f, st.Mode, im.Format), h.conf.CheckImage(im.Format, of, conf.Names{User: lookup(users), Group: lookup(groups)})); err != nil {
			return nil, err
		}
		if kernel := s.Kernel != nil && i == 0 && sif(im.Format); !kernel && (h.conf.RequireIntegrity || c.listed && sif(im.Format)) {
			return nil, errors.New(strictly)
		}
		if c.images = append(c.images, [2]uint64{st.Dev, st.Ino}); i == 0 {
			first = f
		}
	}
	if first == nil {
		err = errRequest
	}
	return first, err
}

// strictly is why an image is refused that our own server would show.
const strictly = "where the site limits images, or demands signatures, only one that the kernel mounts is started"

func sif(format string) bool { return format == conf.FormatSIF || format == conf.FormatEncrypted }

func (s *Start) sif() bool {
	return slices.ContainsFunc(s.Images, func(im Image) bool { return sif(im.Format) })
}

// listed tells whether the execution control list must be asked: unless it says no
// more than that it is not activated. Without a list nothing says so (SC-014).
func listed() (bool, error) {
	f, err := conf.OpenOwned(conf.Dir() + "/ecl.toml")
	if err != nil {
		return false, err
	}
	defer f.Close()
	text, err := conf.ReadAll(f, 4096)
	active := err != nil // it is longer than one that says nothing
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		active = active || !slices.Contains([]string{"", "activated=false", "legacyinsecure=false", "legacyinsecure=true"}, strings.Join(strings.Fields(line), ""))
	}
	return active, nil
}

// sniff compares the format that is claimed with the first bytes of the file. It
// tells the formats apart that the administrator may allow and forbid, and
// parses nothing.
func sniff(f *os.File, mode uint32, format string) error {
	b := make([]byte, 2048) // what cannot be read is zero
	if mode&unix.S_IFMT == unix.S_IFREG {
		f.ReadAt(b, 0)
	}
	found := ""
	switch {
	case mode&unix.S_IFMT == unix.S_IFDIR:
		found = conf.FormatDir
	case string(b[32:41]) == "SIF_MAGIC":
		found = conf.FormatSIF
	case b[1080] == 0x53 && b[1081] == 0xef:
		found = conf.FormatExtfs
	case string(b[:4]) == "hsqs", string(b[:2]) == "#!":
		found = conf.FormatSquashfs
	}
	if found == format || found == conf.FormatSIF && format == conf.FormatEncrypted {
		return nil
	}
	return errors.New("the image is not of the format " + format)
}

// clone makes the process of the container, a child of the caller's process.
func (h *helper) clone(s *Start, drop int, net *os.File) (*Answer, error) {
	before, after := &script.Script{}, &script.Script{}
	permitted := h.become(before, s.Caps)
	if net != nil {
		defer net.Close()
		with(before, capMounts, permitted, "join the network namespace", unix.SYS_SETNS, script.Int(int(net.Fd())), script.Int(unix.CLONE_NEWNET))
	}
	number(before, 3, h.fds)
	with(before, capMounts, permitted, "create a mount namespace", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWNS))
	with(before, capMounts, permitted, "detach the mounts from the host's", unix.SYS_MOUNT, script.Int(0), before.Str("/"), script.Int(0), script.Int(unix.MS_REC|unix.MS_SLAVE), script.Int(0))
	if s.PID {
		if err := unix.Unshare(unix.CLONE_NEWPID); err != nil {
			return nil, err
		}
	}
	finish(after, s.Caps, permitted, h.uid, h.gid)
	return carryOut(&s.Steps, permitted, drop, s.Report, before, after)
}

// carryOut makes a child of the caller's process that goes through the steps: behind
// others, and at the mark through those that give everything up.
func carryOut(steps *script.Listing, permitted uint64, drop, report int, before, giveUp *script.Script) (*Answer, error) {
	s := script.Of(steps)
	s.Permitted = permitted
	pid, err := script.Fork(unix.CLONE_PARENT, report, before.All(), s.Part(0, drop), giveUp.All(), s.Part(drop, len(s.Steps)))
	if err != nil {
		return nil, errors.New("cannot create the container's process: " + err.Error())
	}
	return &Answer{PID: pid}, nil
}

// number gives descriptors their numbers and closes all others from the first on. None
// of them has a number yet that another gets before.
func number(p *script.Script, from int, fds map[int]int) {
	numbers := slices.Sorted(maps.Keys(fds))
	for _, n := range numbers {
		if fds[n] != n { // else it was kept
			p.Call("number a descriptor", unix.SYS_DUP3, script.Int(fds[n]), script.Int(n), script.Int(unix.O_CLOEXEC))
		}
	}
	for _, n := range append(numbers, 1<<31) {
		if n > from {
			p.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(from), script.Int(n-1), script.Int(0))
		}
		from = n + 1
	}
}

// become makes the process the caller's, without an effective capability, and
// returns the capabilities that it can raise.
//
// Security (SC-010): all of it is read back in the process itself.
func (h *helper) become(p *script.Script, caps uint64) uint64 {
	permitted := capMounts | capChroot | capBounding | capNetwork | capOverlay | caps
	h.take(p, h.uid)
	setCaps(p, 0, permitted, 0)
	return permitted
}

// with adds a call that is made with capabilities.
func with(p *script.Script, caps, permitted uint64, label string, nr uintptr, args ...script.Arg) {
	p.Permitted = permitted
	p.Steps[p.Call(label, nr, args...)].Raise(caps)
}

// take makes the process that of a user, without an effective capability.
func (h *helper) take(p *script.Script, uid int) {
	prctl(p, unix.PR_SET_KEEPCAPS, 1)
	p.Call("change the user", unix.SYS_SETRESUID, script.Int(uid), script.Int(uid), script.Int(uid))
	prctl(p, unix.PR_SET_KEEPCAPS, 0)
	prctl(p, unix.PR_SET_DUMPABLE, 0)
	p.Want(prctl(p, unix.PR_GET_DUMPABLE, 0), 0)
	sees(p, "user", unix.SYS_GETRESUID, uid)
}

// finish gives up everything but caps, which were granted.
//
// Security: from here on the process is the caller's. No program that it executes
// gets any privilege (no_new_privs), and what was granted is all that it has.
func finish(p *script.Script, caps, permitted uint64, uid, gid int) {
	setCaps(p, capBounding, permitted, 0)
	for n := 0; ; n++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err != nil {
			break
		}
		if caps&(1<<n) == 0 {
			prctl(p, unix.PR_CAPBSET_DROP, n)
			p.Want(prctl(p, unix.PR_CAPBSET_READ, n), 0)
		}
	}
	setCaps(p, caps, caps, caps)
	for n := range 64 {
		if caps&(1<<n) != 0 {
			prctl(p, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n)
			p.Want(prctl(p, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, n), 1)
		}
	}
	prctl(p, unix.PR_SET_NO_NEW_PRIVS, 1)
	p.Want(prctl(p, unix.PR_GET_NO_NEW_PRIVS), 1)
	sees(p, "user", unix.SYS_GETRESUID, uid)
	sees(p, "group", unix.SYS_GETRESGID, gid)
}

func prctl(p *script.Script, option int, args ...int) script.Slot {
	a := [5]script.Arg{script.Int(option)}
	for i, v := range args {
		a[1+i] = script.Int(v)
	}
	return p.Call("set an attribute of the process", unix.SYS_PRCTL, a[:]...)
}

// sees adds a check that all three ids are id.
func sees(p *script.Script, what string, nr uintptr, id int) {
	w := make([]uint64, 4)
	p.Call("read back the "+what, nr, p.Words(w), p.Words(w[1:]), p.Words(w[2:]))
	p.Equal("see the "+what+" changed", w, 0, 1, uint64(id), uint64(id))
	p.Equal("see the "+what+" changed", w, 2, 2, uint64(id), uint64(id))
}

func setCaps(p *script.Script, effective, permitted, inheritable uint64) {
	head, data, found := []uint64{unix.LINUX_CAPABILITY_VERSION_3}, script.CapData(effective, permitted, inheritable), make([]uint64, 3)
	p.Call("set the capabilities", unix.SYS_CAPSET, p.Words(head), p.Words(data[:]))
	p.Call("read back the capabilities", unix.SYS_CAPGET, p.Words(head), p.Words(found))
	p.Equal("see the capabilities set", found, 0, 1, data[0], data[1])
	p.Equal("see the capabilities set", found, 2, 2, data[2], data[2])
}

// maxUsers bounds /etc/passwd and /etc/group, in bytes.
const maxUsers = 16 << 20

// find looks for the first line of a file like /etc/passwd whose field k is value,
// and returns its fields, which are empty if there is none. A name service is not
// asked: who is not in the file is nobody here.
func find(file string, k int, value string) []string {
	var text []byte
	if f, err := conf.OpenOwned(file); err == nil {
		text, _ = conf.ReadAll(f, maxUsers)
		f.Close()
	}
	empty := make([]string, 7) // as many as a line of /etc/passwd has
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(strings.TrimSuffix(line, "\n"), ":"); len(fields) > 3 && fields[k] == value {
			return append(fields, empty...)
		}
	}
	return empty
}

const (
	users  = "/etc/passwd"
	groups = "/etc/group"
)

// lookup finds the numbers of users and groups for the limits on images.
func lookup(file string) func(string) (int, bool) {
	return func(name string) (int, bool) {
		id, err := strconv.ParseUint(find(file, 0, name)[2], 10, 32)
		return int(id), err == nil
	}
}
