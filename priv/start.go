package priv

import (
	"bufio"
	"errors"
	"io"
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
	s := r.Start
	c := &checker{Listing: s.Steps, conf: h.conf, uid: h.uid, gid: h.gid, pid: s.PID, kernel: -1, numbers: map[int]bool{}}
	for n := range h.fds {
		c.numbers[n] = true
	}
	if !c.numbers[s.Report] {
		return nil, errRequest
	}
	if s.PID && !h.conf.AllowPIDNS {
		return nil, errors.New("singularity.conf says: allow pid ns = no")
	}
	if err := h.granted(s.Caps); err != nil {
		return nil, err
	}
	if err := h.images(s, c); err != nil {
		return nil, err
	}
	if s.Kernel != nil {
		if err := h.mountKernel(s.Kernel, c); err != nil {
			return nil, err
		}
	}
	drop, err := c.check()
	if err != nil {
		return nil, err
	}
	return h.clone(s, drop)
}

// granted tells whether the administrator granted these capabilities to the
// caller or to a group of the caller.
func (h *helper) granted(caps uint64) error {
	if caps == 0 {
		return nil
	}
	list, err := conf.LoadCapabilities(conf.CapabilityPath(), conf.OpenOwned)
	if err != nil {
		return err
	}
	var of []string
	for _, g := range append(h.groups, h.gid) {
		if name := nameOf(groups, g); name != "" {
			of = append(of, name)
		}
	}
	name := nameOf(users, h.uid)
	if name == "" {
		return errors.New("the caller is no user of this host, so no capability was granted")
	}
	for _, word := range list.Granted(name, of...) {
		caps &^= capBits(word)
	}
	if caps != 0 {
		return errors.New("not every capability that is asked for was granted: capability.json")
	}
	return nil
}

// capBits is the set that a word of capability.json means.
func capBits(word string) uint64 {
	if strings.EqualFold(word, "ALL") || strings.EqualFold(word, "CAP_ALL") {
		return 1<<64 - 1
	}
	if n := conf.CapNumber(word); n >= 0 {
		return 1 << n
	}
	return 0
}

// images checks the images against the limits, each by its descriptor, which is
// what is used later (SC-011, SC-007).
func (h *helper) images(s *Start, c *checker) error {
	if len(s.Images) == 0 {
		return errRequest
	}
	c.strict = h.conf.Limited()
	if h.conf.RequireIntegrity {
		return errors.New("singularity.conf says: require integrity, which the setuid helper cannot check")
	}
	for _, im := range s.Images {
		f, err := h.file(im.FD)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := stat(f)
		if err != nil {
			return err
		}
		if err := sniff(f, st.Mode, im.Format); err != nil {
			return err
		}
		of, err := conf.FileOf(f)
		if err != nil {
			return err
		}
		if err := h.conf.CheckImage(im.Format, of, lookup); err != nil {
			return err
		}
		if im.Format == conf.FormatSIF || im.Format == conf.FormatEncrypted {
			if err := noList(); err != nil {
				return err
			}
		}
		c.images = append(c.images, [2]uint64{st.Dev, st.Ino})
	}
	return nil
}

// noList makes sure that the execution control list lets every image run. Without
// one nothing says so (SC-014), and an active one the helper cannot ask.
func noList() error {
	f, err := conf.OpenOwned(conf.Dir() + "/ecl.toml")
	if err != nil {
		return err
	}
	defer f.Close()
	text := make([]byte, 4096)
	n, _ := f.Read(text)
	active := n == len(text) // it is longer than one that says nothing
	for line := range strings.Lines(string(text[:n])) {
		line, _, _ = strings.Cut(line, "#")
		switch strings.Join(strings.Fields(line), "") {
		case "", "activated=false", "legacyinsecure=false", "legacyinsecure=true":
		default:
			active = true
		}
	}
	if active {
		return errors.New("the execution control list is active, which the setuid helper cannot ask")
	}
	return nil
}

// sniff compares the format that is claimed with the first bytes of the file. It
// tells the formats apart that the administrator may allow and forbid, and
// parses nothing.
func sniff(f *os.File, mode uint32, format string) error {
	b := make([]byte, 2048)
	n := 0
	if mode&unix.S_IFMT == unix.S_IFREG {
		n, _ = f.ReadAt(b, 0)
	}
	found := ""
	switch b = b[:n]; {
	case mode&unix.S_IFMT == unix.S_IFDIR:
		found = conf.FormatDir
	case n > 42 && string(b[32:41]) == "SIF_MAGIC":
		found = conf.FormatSIF
	case n > 1081 && b[1080] == 0x53 && b[1081] == 0xef:
		found = conf.FormatExtfs
	case n > 4 && (string(b[:4]) == "hsqs" || string(b[:2]) == "#!"):
		found = conf.FormatSquashfs
	}
	if found == format || found == conf.FormatSIF && format == conf.FormatEncrypted {
		return nil
	}
	return errors.New("the image is not of the format " + format)
}

// clone makes the process of the container, a child of the caller's process.
func (h *helper) clone(s *Start, drop int) (*Answer, error) {
	p := &script.Script{}
	h.descriptors(p)
	permitted := h.become(p, s.Caps)
	m := p.NewMaker(s.Steps)
	for i := range s.Steps.Steps {
		m.Add(permitted)
		if i == drop {
			finish(p, s.Caps, permitted, h.uid, h.gid)
		}
	}
	p.Number()
	if s.PID {
		if err := unix.Unshare(unix.CLONE_NEWPID); err != nil {
			return nil, err
		}
	}
	pid, err := p.Fork(unix.CLONE_PARENT, s.Report)
	if err != nil {
		return nil, err
	}
	return &Answer{PID: pid}, nil
}

// descriptors gives the descriptors of the request their numbers and closes all
// others.
func (h *helper) descriptors(p *script.Script) {
	var numbers []int
	for n := range h.fds {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		p.Call("number a descriptor", unix.SYS_DUP3, script.Int(h.fds[n]), script.Int(n), script.Int(unix.O_CLOEXEC))
	}
	from := 3
	for _, n := range numbers {
		if n > from {
			p.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(from), script.Int(n-1), script.Int(0))
		}
		from = n + 1
	}
	p.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(from), script.Uint(1<<32-1), script.Int(0))
}

// become makes the process the caller's, without an effective capability, in a
// mount namespace of its own, and returns the capabilities that it can raise.
//
// Security (SC-010): all of it is read back in the process itself.
func (h *helper) become(p *script.Script, caps uint64) uint64 {
	prctl(p, unix.PR_SET_KEEPCAPS, 1)
	uid := script.Int(h.uid)
	p.Call("become the caller", unix.SYS_SETRESUID, uid, uid, uid)
	permitted := capMounts | capChroot | capBounding | capNetwork | capOverlay | caps
	prctl(p, unix.PR_SET_KEEPCAPS, 0)
	prctl(p, unix.PR_SET_DUMPABLE, 0)
	p.Want(prctl(p, unix.PR_GET_DUMPABLE, 0), 0)
	sees(p, "user", unix.SYS_GETRESUID, h.uid)
	setCaps(p, capMounts, permitted, 0)
	p.Call("create a mount namespace", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWNS))
	p.Call("detach the mounts from the host's", unix.SYS_MOUNT, script.Int(0), p.Str("/"), script.Int(0), script.Int(unix.MS_REC|unix.MS_SLAVE), script.Int(0))
	setCaps(p, 0, permitted, 0)
	return permitted
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
	a := []script.Arg{script.Int(option)}
	for i := range 4 {
		v := 0
		if i < len(args) {
			v = args[i]
		}
		a = append(a, script.Int(v))
	}
	return p.Call("set an attribute of the process", unix.SYS_PRCTL, a...)
}

// sees adds a check that all three ids are id.
func sees(p *script.Script, what string, nr uintptr, id int) {
	w := make([]uint64, 4)
	p.Call("read back the "+what, nr, p.Words(w), p.Words(w[1:]), p.Words(w[2:]))
	p.Equal("see the "+what+" changed", w, 0, 1, uint64(id), uint64(id))
	p.Equal("see the "+what+" changed", w, 2, 2, uint64(id), uint64(id))
}

func setCaps(p *script.Script, effective, permitted, inheritable uint64) {
	head := []uint64{unix.LINUX_CAPABILITY_VERSION_3}
	data := script.CapData(effective, permitted, inheritable)
	p.Call("set the capabilities", unix.SYS_CAPSET, p.Words(head), p.Words(data[:]))
	found := make([]uint64, 3)
	p.Call("read back the capabilities", unix.SYS_CAPGET, p.Words(head), p.Words(found))
	p.Equal("see the capabilities set", found, 0, 1, data[0], data[1])
	p.Equal("see the capabilities set", found, 2, 2, data[2], data[2])
}

// maxUsers bounds /etc/passwd and /etc/group, in bytes.
const maxUsers = 16 << 20

// find looks for the first line of a file like /etc/passwd whose field k is value.
// A name service is not asked: who is not in the file is nobody here.
func find(file string, k int, value string) []string {
	f, err := conf.OpenOwned(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxUsers))
	for lines.Scan() {
		if fields := strings.Split(lines.Text(), ":"); len(fields) > 3 && fields[k] == value {
			return fields
		}
	}
	return nil
}

const (
	users  = "/etc/passwd"
	groups = "/etc/group"
)

// nameOf returns the name of a user or group, "" for nobody.
func nameOf(file string, id int) string {
	if f := find(file, 2, strconv.Itoa(id)); f != nil {
		return f[0]
	}
	return ""
}

// homeOf is the home directory of a user, "" if none is known.
func homeOf(uid int) string {
	if f := find(users, 2, strconv.Itoa(uid)); len(f) > 5 {
		return f[5]
	}
	return ""
}

// lookup finds the numbers of users and groups for the limits on images.
var lookup = conf.Names{
	User:  func(name string) (int, bool) { return idOf(users, name) },
	Group: func(name string) (int, bool) { return idOf(groups, name) },
}

func idOf(file, name string) (int, bool) {
	f := find(file, 0, name)
	if f == nil {
		return 0, false
	}
	id, err := strconv.ParseUint(f[2], 10, 32)
	return int(id), err == nil
}
