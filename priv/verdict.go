package priv

import (
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/script"
)

// Verdict is what starter-verify says of an image to the helper, in VerdictSize
// bytes: a process that reads hostile bytes, so every field is checked.
type Verdict struct {
	OK     bool   // the image may be used, as far as it was asked
	Listed bool   // an activated execution control list says so
	Text   string // why it may not, or who signed
	// Off and Size are where the squashfs of the root partition lies in the
	// image, in bytes; 0 if it has none.
	Off, Size uint64
	// Tree is the hash tree of that partition, if a key of the site's ring signed
	// both; else nil.
	Tree *Tree
}

// Tree is a hash tree as dm-verity takes it, with the sizes in bytes.
type Tree struct {
	Off, Size            uint64
	DataBlock, HashBlock uint64
	Salt, Root           []byte
}

// VerdictSize is the size of a verdict in bytes, zeros at its end included.
const VerdictSize = 1024

// MaxVerdictText bounds its text.
const MaxVerdictText = 320

const (
	blockSize  = 4096
	digestSize = 32
	maxSalt    = 256
	maxOff     = 1 << 56 // no image is as large; sums of two do not overflow
)

var errVerdict = errors.New("the check of the image's signature gave no answer")

func (c *codec) verdict(v *Verdict) {
	c.flag(&v.OK)
	c.flag(&v.Listed)
	c.text(&v.Text)
	num(c, &v.Off)
	num(c, &v.Size)
	optional(c, &v.Tree, func(t *Tree) {
		for _, n := range []*uint64{&t.Off, &t.Size, &t.DataBlock, &t.HashBlock} {
			num(c, n)
		}
		c.bytes(&t.Salt)
		c.bytes(&t.Root)
	})
}

// Encode returns v as the helper reads it. What it could not take is a refusal.
func (v *Verdict) Encode() []byte {
	text := []byte(v.Text[:min(len(v.Text), MaxVerdictText)])
	for i, b := range text {
		if b < ' ' || b > '~' {
			text[i] = '?'
		}
	}
	w := *v
	w.Text = string(text)
	c := &codec{}
	if c.verdict(&w); len(c.data) > VerdictSize {
		return make([]byte, VerdictSize)
	}
	return append(c.data, make([]byte, VerdictSize-len(c.data))...)
}

// decodeVerdict reads what Encode wrote, and nothing else.
func decodeVerdict(b []byte) (*Verdict, error) {
	c, v := &codec{data: b, reading: true}, new(Verdict)
	c.verdict(v)
	ok := len(b) == VerdictSize && !c.bad && len(v.Text) <= MaxVerdictText && (v.OK || v.Text != "") && extent(v.Off, v.Size)
	for _, b := range c.data {
		ok = ok && b == 0
	}
	for i := range len(v.Text) {
		ok = ok && v.Text[i] >= ' ' && v.Text[i] <= '~'
	}
	if t := v.Tree; t != nil {
		ok = ok && v.OK && v.Size > 0 && v.Size%blockSize == 0 && t.DataBlock == blockSize && t.HashBlock == blockSize &&
			extent(t.Off, t.Size) && t.Size >= blockSize && t.Size%blockSize == 0 && len(t.Salt) <= maxSalt && len(t.Root) == digestSize
	}
	if !ok {
		return nil, errVerdict
	}
	return v, nil
}

// extent tells whether a loop device can show that part of a file.
func extent(off, size uint64) bool { return off < maxOff && size < maxOff && off%512 == 0 }

// verifyUser is whom the site may make for starter-verify; else it is nobody.
const (
	verifyUser = "singularity-verify"
	nobody     = 65534
)

// The descriptors of starter-verify.
const (
	verdictFD = 1
	imageFD   = 3
	listFD    = 4 // the execution control list
	ringFD    = 5 // the site's keyring
	programFD = 6 // itself, until it runs
)

// verify has starter-verify judge an image: how is lazy or full, which list or no
// (see there).
//
// Security (SC-168): the process parses hostile bytes, and its word decides what
// the kernel mounts. So it has a uid that is not the caller's, in a PID namespace of
// its own, and from the fork on nobody can trace it; it has no right, the
// descriptors above, limits and an environment that are a fixed list. Whatever
// goes wrong, a signal from whomever included, leaves less than one whole
// verdict, or a status that is not 0: a refusal.
func (h *helper) verify(image *os.File, how, which string) (*Verdict, error) {
	flags, err := unix.FcntlInt(image.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
		return nil, errors.New("the image is not open for reading alone")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	p := &script.Script{}
	fds := map[int]*os.File{verdictFD: w, imageFD: image}
	for fd, path := range map[int]string{0: "", 2: "", listFD: conf.Dir() + "/ecl.toml", ringFD: conf.Dir() + "/global-pgp-public",
		programFD: conf.Prefix + "/libexec/singularity/bin/starter-verify"} {
		f, err := conf.OpenOwned(path)
		if path == "" || fd == ringFD && errors.Is(err, os.ErrNotExist) {
			f, err = os.Open("/dev/null") // a ring without keys, too
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		fds[fd] = f
	}
	if st, err := stat(fds[programFD]); err != nil || st.Mode&0o7777 != 0o711 {
		return nil, errors.New(fds[programFD].Name() + " must have mode 0711, so that nobody can trace it")
	}
	// Above all numbers that they get.
	for n, f := range fds {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, programFD+1)
		if err != nil {
			return nil, err
		}
		fds[n] = os.NewFile(uintptr(fd), f.Name())
		defer fds[n].Close()
	}
	if err := h.verifier(p, fds, []string{"starter-verify", "site", how, which, strconv.Itoa(h.uid)}); err != nil {
		return nil, err
	}
	pid, err := p.Fork(unix.CLONE_NEWPID, verdictFD)
	if err != nil {
		return nil, err
	}
	w.Close()
	fds[verdictFD].Close()
	answer, err := io.ReadAll(io.LimitReader(r, VerdictSize+1))
	r.Close()
	if wait(pid) != nil || err != nil {
		return nil, errVerdict
	}
	v, err := decodeVerdict(answer)
	if err == nil && !v.OK {
		err = errors.New(v.Text)
	}
	return v, err
}

// wait waits until a child has ended with status 0.
func wait(pid int) error {
	var ws unix.WaitStatus
	_, err := unix.Wait4(pid, &ws, 0, nil)
	for err == unix.EINTR {
		_, err = unix.Wait4(pid, &ws, 0, nil)
	}
	if err == nil && ws != 0 {
		err = errors.New("a process of the helper did not end well")
	}
	return err
}

// verifyLimits are the limits of resources of starter-verify: no files are
// written, no memory is locked or dumped, and a check ends some time.
var verifyLimits = [...][2]uint64{
	{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_FSIZE, 0}, {unix.RLIMIT_MEMLOCK, 0}, {unix.RLIMIT_MSGQUEUE, 0},
	{unix.RLIMIT_NOFILE, 32}, {unix.RLIMIT_NPROC, 4096}, {unix.RLIMIT_STACK, 8 << 20}, {unix.RLIMIT_DATA, 1 << 30}, {unix.RLIMIT_CPU, 1800},
}

// verifier makes the steps by which a process becomes starter-verify with those
// descriptors.
func (h *helper) verifier(p *script.Script, fds map[int]*os.File, args []string) error {
	uid, gid := nobody, nobody
	if f := find(users, 0, verifyUser); f != nil {
		uid, _ = strconv.Atoi(f[2])
		gid, _ = strconv.Atoi(f[3])
	}
	if uid <= 0 || gid <= 0 || uid == h.uid {
		return errors.New("a check of signatures needs a user id that nobody else has: make the system user " + verifyUser)
	}
	// The answer's descriptor first: a failure is told there.
	for _, n := range []int{verdictFD, 0, 2, imageFD, listFD, ringFD, programFD} {
		p.Call("number a descriptor", unix.SYS_DUP3, script.Int(int(fds[n].Fd())), script.Int(n), script.Int(n/programFD*unix.O_CLOEXEC))
	}
	p.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(programFD+1), script.Uint(1<<32-1), script.Int(0))
	for _, l := range verifyLimits {
		limit(p, l[0], l[1])
	}
	id := script.Int(gid)
	p.Call("leave all groups", unix.SYS_SETGROUPS, script.Int(0), script.Int(0))
	p.Want(p.Call("read back the groups", unix.SYS_GETGROUPS, script.Int(0), script.Int(0)), 0)
	p.Call("change the group", unix.SYS_SETRESGID, id, id, id)
	h.take(p, uid)
	prctl(p, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
	finish(p, 0, capBounding, uid, gid)
	p.Call("begin a session", unix.SYS_SETSID)
	var argv []script.Arg
	for _, s := range args {
		argv = append(argv, p.Str(s))
	}
	p.Call("execute the check", unix.SYS_EXECVEAT, script.Int(programFD), p.Str(""), p.Pointers(append(argv, script.Int(0))...),
		p.Pointers(p.Str("GOTRACEBACK=none"), script.Int(0)), script.Int(unix.AT_EMPTY_PATH))
	return nil
}

func limit(p *script.Script, resource, n uint64) {
	p.Call("limit resources", unix.SYS_PRLIMIT64, script.Int(0), script.Uint(resource), p.Words([]uint64{n, n}), script.Int(0))
}
