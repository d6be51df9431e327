package priv

import (
	"errors"
	"os"
	"strconv"
	"strings"

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
	// FS, Off and Size are what the root partition of the image is, and where it
	// lies, in bytes; 0 if the kernel could not mount it.
	FS        FS
	Off, Size uint64
	// Tree is the hash tree of that partition, if a key of the site's ring signed
	// both; else nil.
	Tree *Tree
	// Crypt is the cipher text in that partition, if the key that came with the
	// request is the one that the partition's header proves; else nil.
	Crypt *Crypt
	// Caps are the capabilities that were granted to the caller, if that was asked.
	Caps uint64
}

// Tree is a hash tree as dm-verity takes it, of blocks of 4096 bytes.
type Tree struct {
	Off, Size  uint64
	Salt, Root []byte
}

// Crypt is cipher text as dm-crypt takes it, with the sizes in bytes.
type Crypt struct{ Off, Size, Sector, Key uint64 }

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
	if c.values(&w); len(c.data) > VerdictSize {
		return make([]byte, VerdictSize)
	}
	return append(c.data, make([]byte, VerdictSize-len(c.data))...)
}

// decodeVerdict reads what Encode wrote, and nothing else.
func decodeVerdict(b []byte) (*Verdict, error) {
	c, v := &codec{data: b, reading: true}, new(Verdict)
	c.values(v)
	ok := len(b) == VerdictSize && !c.bad && len(v.Text) <= MaxVerdictText && (v.OK || v.Text != "") && v.FS <= CryptFS && extent(v.Off, v.Size)
	ok = ok && strings.Trim(string(c.data), "\x00") == "" && !strings.ContainsFunc(v.Text, func(r rune) bool { return r < ' ' || r > '~' })
	if t := v.Tree; t != nil {
		ok = ok && v.OK && v.Size > 0 && v.Size%blockSize == 0 &&
			extent(t.Off, t.Size) && t.Size >= blockSize && t.Size%blockSize == 0 && len(t.Salt) <= maxSalt && len(t.Root) == digestSize
	}
	if k := v.Crypt; k != nil {
		ok = ok && v.OK && v.FS == CryptFS && extent(k.Off, k.Size) && k.Size > 0 && k.Off+k.Size <= v.Size &&
			k.Sector >= sectorSize && k.Sector <= blockSize && k.Sector&(k.Sector-1) == 0 && k.Size%k.Sector == 0 && (k.Key == KeySize/2 || k.Key == KeySize)
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

// The descriptors of starter-verify. Its runtime opens /dev/null for standard error.
const (
	keyFD     = 0 // the same socket as that of the verdict
	verdictFD = 1
	imageFD   = 3
	programFD = 4 // itself, until it runs
)

// verify has starter-verify judge an image: how is full or empty, which list or empty
// (see there). Or it looks at no image, and
// says what the caller may have: see Rights.
//
// Security (SC-168): the process parses hostile bytes, and its word decides what
// the kernel mounts. So it has a uid that is not the caller's, in a PID namespace of
// its own, and from the fork on nobody can trace it; it has no right, the
// descriptors above, and an environment that is a fixed list; what it reads of the
// administrator's, and its limits, are for itself to see to before it looks at the
// image. Whatever goes wrong, a signal from whomever included, leaves less than one whole
// verdict, or a status that is not 0: a refusal.
func (h *helper) verify(image *os.File, how, which string, more ...string) (*Verdict, error) {
	flags, err := unix.FcntlInt(image.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
		return nil, errors.New("the image is not open for reading alone")
	}
	program, err := conf.OpenOwned(conf.Prefix + "/libexec/singularity/bin/starter-verify")
	if err != nil {
		return nil, err
	}
	defer program.Close()
	if st, err := stat(program); err != nil || st.Mode&0o7777 != 0o711 {
		return nil, errors.New(program.Name() + " must have mode 0711, so that nobody can trace it")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	socket, theirs := os.NewFile(uintptr(pair[0]), "verdict"), pair[1]
	if h.key != nil {
		socket.Write(h.key) // what does not arrive is no key
		more = append(more, "key")
	}
	fds := map[int]int{keyFD: theirs, verdictFD: theirs, imageFD: int(image.Fd()), programFD: int(program.Fd())}
	pid, err := h.startVerify(fds, append([]string{"starter-verify", "site", how, which, strconv.Itoa(h.uid)}, more...))
	unix.Close(theirs)
	if err != nil {
		return nil, err
	}
	answer, err := conf.ReadAll(socket, VerdictSize)
	socket.Close()
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
func wait(pid int) (err error) {
	var ws unix.WaitStatus
	for err = unix.EINTR; err == unix.EINTR; {
		_, err = unix.Wait4(pid, &ws, 0, nil)
	}
	if err == nil && ws != 0 {
		err = errors.New("a process of the helper did not end well")
	}
	return err
}

// startVerify makes a process that becomes starter-verify with those descriptors.
func (h *helper) startVerify(fds map[int]int, args []string) (pid int, err error) {
	uid, gid := nobody, nobody
	if f := find(users, 0, verifyUser); f[0] != "" {
		uid, _ = strconv.Atoi(f[2])
		gid, _ = strconv.Atoi(f[3])
	}
	if uid <= 0 || gid <= 0 || uid == h.uid {
		return 0, errors.New("a check of signatures needs a user id that nobody else has: make the system user " + verifyUser)
	}
	p := &script.Script{}
	number(p, 0, fds)
	for _, fd := range []int{keyFD, verdictFD, imageFD} {
		p.Call("hand over a descriptor", unix.SYS_FCNTL, script.Int(fd), script.Int(unix.F_SETFD), script.Int(0))
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
	return script.Fork(unix.CLONE_NEWPID, fds[verdictFD], p.All())
}
