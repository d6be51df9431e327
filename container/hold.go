package container

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/fusefs"
	"singularity/linux/script"
	"singularity/plan"
	"singularity/verity"
)

// Hold is this process's hold on a mount that it shares with other containers
// of the same user and image. A holder process (holder.go) serves the image and
// keeps the user namespace and the mount namespace that its mount is in. Each
// start joins them, so that it finds the image mounted and its pages in memory.
// The hold lasts as long as the connection to the holder, and thus ends with
// the process, however that ends.
type Hold struct {
	fd   int // the connection
	user int // namespaces, after request
	mnt  int
	// layer tells that the mount lacks a mount point or a generated file of this
	// container, so that a layer of its own is needed above it.
	layer bool
}

// maxMessage bounds a message between a start and a holder, in bytes.
const maxMessage = 1 << 20

// Share connects to the holder of img, or, with begin, starts one. With a nil Hold the
// container must mount the image itself; the error says why, for those who
// debug.
//
// Nothing is left in a file system: the holder listens on an abstract address.
//
// Security (SC-050): such an address can be taken by anybody in the network
// namespace, a hostile program in a container of the same user among them, who
// would hand over namespaces of its own and so get what the next container may
// see. So each side asks the kernel who the other is, and takes only a process of
// the same user in the same user and mount namespace, which no program in a
// container is.
//
// If judge is not nil, what is read of the image is to be checked: the holder
// knows by which hash tree, and img.Tree is set to that; judge sets it before a
// holder is started.
func Share(img *Served, hostIDs, begin bool, judge func() error) (*Hold, error) {
	if !script.NewMounts() {
		return nil, errors.New("this kernel cannot hand a mount from one namespace to another (Linux 5.12)")
	}
	name, err := holdName(img, hostIDs, judge != nil)
	if err != nil {
		return nil, err
	}
	for range 3 {
		if fd, err := connect(name); err == nil {
			h := &Hold{fd: fd, user: -1, mnt: -1}
			if judge == nil {
				return h, nil
			}
			if img.Tree, err = h.askTree(); err == nil {
				return h, nil
			}
			h.Close()
			return nil, err
		} else if err != unix.ECONNREFUSED || !begin {
			return nil, err
		}
		if judge != nil && img.Tree == nil {
			if err := judge(); err != nil {
				return nil, err
			}
		}
		err := spawnHolder(name, img, hostIDs)
		if err != nil && err != unix.EADDRINUSE {
			return nil, err
		}
	}
	return nil, errors.New("the holder of the image's mount does not answer")
}

// Close ends the hold.
func (h *Hold) Close() {
	for _, fd := range []*int{&h.fd, &h.user, &h.mnt} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// holdName is the address of the holder: whatever makes two starts different
// enough that they must not share is in it. Besides the image as it is now these
// are the user namespace, since only in it can the holder's be joined, the mount
// namespace, and the control group: a holder ends with the batch job that it was started in, and
// must not take another job's containers along.
func holdName(img *Served, hostIDs, checked bool) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(img.File.Fd()), &st); err != nil {
		return "", err
	}
	ns, err := namespacesOf("self")
	if err != nil {
		return "", err
	}
	group, err := os.ReadFile("/proc/self/cgroup")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	h := fnv.New128a()
	for _, n := range []uint64{st.Dev, st.Ino, uint64(st.Size), uint64(st.Mtim.Nano()), uint64(st.Ctim.Nano()), uint64(img.Off), uint64(img.Size), ns[0], ns[1], uint64(os.Getuid()), uint64(os.Getgid()), btoi(hostIDs), btoi(checked)} {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		h.Write(b[:])
	}
	for line := range strings.Lines(string(group)) {
		h.Write([]byte(jobGroup(strings.TrimSpace(line))))
	}
	h.Write([]byte(conf.Version))
	return "\x00singularity/" + strconv.Itoa(os.Getuid()) + "/" + hex(h.Sum(nil)), nil
}

// jobGroup cuts off the part of a control group's path that belongs to one task
// of a job step, so that the tasks share.
func jobGroup(line string) string {
	if i := strings.LastIndex(line, "/task_"); i >= 0 && !strings.Contains(line[i+1:], "/") {
		line = line[:i]
	}
	return line
}

func btoi(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func hex(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}

func socket() (int, error) {
	return unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
}

func connect(name string) (int, error) {
	fd, err := socket()
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	// Each message from the holder tells who sent it. The credentials of the
	// connection would be those of whoever began to listen.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		unix.Close(fd)
		return -1, err
	}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	return fd, nil
}

// namespacesOf returns the numbers of the user and the mount namespace of a
// process.
func namespacesOf(pid string) (ns [2]uint64, err error) {
	for i, name := range []string{"user", "mnt"} {
		var st unix.Stat_t
		if err := unix.Stat("/proc/"+pid+"/ns/"+name, &st); err != nil {
			return ns, err
		}
		ns[i] = st.Ino
	}
	return ns, nil
}

// errStranger says that the other end of a connection is not one of ours.
var errStranger = errors.New("somebody else has the address of the image's mount")

// trusted checks that a process, as the kernel names it, belongs to this user
// and is outside of any container.
func trusted(cred *unix.Ucred) error {
	if int(cred.Uid) != os.Getuid() || cred.Pid <= 0 {
		return errStranger
	}
	own, err := namespacesOf("self")
	if err != nil {
		return err
	}
	other, err := namespacesOf(strconv.Itoa(int(cred.Pid)))
	if err != nil || other != own {
		return errStranger
	}
	return nil
}

// spawnHolder takes the address and starts a holder that listens on it.
func spawnHolder(name string, img *Served, hostIDs bool) error {
	fd, err := socket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	n := uintptr(null)
	args := []string{"singularity", HolderName, strconv.Itoa(img.Format), strconv.FormatInt(img.Off, 10), strconv.FormatInt(img.Size, 10), strconv.FormatUint(btoi(hostIDs), 10), img.Tree.String()}
	args = append(args, img.Hot.Args()...)
	_, err = syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{
		Dir: "/", Env: []string{"SINGULARITY_HOLDER=1"},
		Files: []uintptr{n, n, n, uintptr(fd), img.File.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	return err
}

// queryTree is the message that asks a holder for the hash tree by which it
// checks the image. No list of wants is that short.
const queryTree = "t"

// queryFaults asks for what is wrong with the image, as far as it was seen.
const queryFaults = "f"

// askTree asks for the hash tree.
func (h *Hold) askTree() (*verity.Params, error) {
	text, err := h.ask(queryTree)
	if err != nil {
		return nil, err
	}
	p, err := verity.ParseParams(text)
	if err == nil && p == nil {
		err = errMessage
	}
	return p, err
}

// faults returns what the holder found wrong with the image.
func (h *Hold) faults() []string {
	text, err := h.ask(queryFaults)
	if err != nil || text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// ask sends a query and returns the answer.
//
// Security: an answer from a stranger is refused, as it could name a tree of the
// stranger's.
func (h *Hold) ask(query string) (string, error) {
	if err := send(h.fd, []byte(query)); err != nil {
		return "", err
	}
	b := make([]byte, 8<<10)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, oobn, _, _, err := unix.Recvmsg(h.fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err == nil {
			_, err = received(oob[:oobn])
		}
		if err == nil && n == 0 {
			err = errMessage
		}
		if err != nil {
			return "", err
		}
		return string(b[1:n]), nil
	}
}

// request asks the holder for its namespaces. What the container wants besides
// the image's own files is sent along, since the first to ask decides what the
// mount has.
func (h *Hold) request(img *Served, p *plan.Plan, hooks Hooks) error {
	if err := send(h.fd, encodeWants(p.Files)); err != nil {
		return err
	}
	for {
		b := make([]byte, 16)
		oob := make([]byte, unix.CmsgSpace(2*4)+unix.CmsgSpace(unix.SizeofUcred))
		n, oobn, _, _, err := unix.Recvmsg(h.fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return errors.New("the holder of the image's mount is gone")
		}
		fds, err := received(oob[:oobn])
		switch {
		case err != nil:
			return err
		case b[0] == replyContent:
			if err := send(h.fd, encodeExtras(loadAll(makeExtras(img, p, hooks)))); err != nil {
				return err
			}
			continue
		case b[0] != replyReady && b[0] != replyLayer:
			return errors.New("the holder of the image's mount cannot serve it")
		case len(fds) == 0:
			return errors.New("the holder of the image's mount handed nothing over")
		}
		h.layer = b[0] == replyLayer
		h.mnt = fds[0]
		if len(fds) > 1 {
			h.user = fds[1]
		}
		return nil
	}
}

// received returns the descriptors of a control message, whose sender it checks.
func received(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	err = errStranger
	for i := range msgs {
		switch msgs[i].Header.Type {
		case unix.SCM_CREDENTIALS:
			var cred *unix.Ucred
			if cred, err = unix.ParseUnixCredentials(&msgs[i]); err == nil {
				err = trusted(cred)
			}
		case unix.SCM_RIGHTS:
			fds, _ = unix.ParseUnixRights(&msgs[i])
		}
	}
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, err
	}
	return fds, nil
}

func send(fd int, b []byte) error {
	if len(b) > maxMessage {
		return unix.EMSGSIZE
	}
	for {
		if err := unix.Sendto(fd, b, unix.MSG_NOSIGNAL, nil); err != unix.EINTR {
			return err
		}
	}
}

// A message is a list of texts, each with its length before it.
func appendText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

// cutText takes the first text of b. It returns false if b is too short.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	if len(b) < 4 {
		return "", nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if n > uint64(len(b)-4) {
		return "", nil, false
	}
	return string(b[4 : 4+n]), b[4+n:], true
}

// wants are what a container needs in the tree: path, and whether it is a
// directory, a file or generated content, by its key.
func encodeWants(files []plan.File) []byte {
	var b []byte
	for i := range files {
		f := &files[i]
		b = appendText(appendText(b, f.Path), wantKind(f))
	}
	return b
}

func wantKind(f *plan.File) string {
	switch {
	case f.Load != nil && f.Key == "":
		return "?" // never alike
	case f.Load != nil:
		return "=" + f.Key
	case f.Dir:
		return "dir"
	}
	return "file"
}

func decodeWants(b []byte) (map[string]string, error) {
	out := map[string]string{}
	for len(b) > 0 {
		path, rest, ok := cutText(b)
		if !ok {
			return nil, errMessage
		}
		kind, rest, ok := cutText(rest)
		if !ok {
			return nil, errMessage
		}
		out[path], b = kind, rest
	}
	return out, nil
}

var errMessage = errors.New("a message of another version")

func encodeExtras(list []fusefs.Extra) []byte {
	var b []byte
	for i := range list {
		e := &list[i]
		b = binary.LittleEndian.AppendUint32(b, e.Mode)
		content := "-"
		if e.Content != nil {
			content = "+" + string(e.Content)
		}
		b = appendText(appendText(b, e.Path), content)
	}
	return b
}

func decodeExtras(b []byte) ([]fusefs.Extra, error) {
	var out []fusefs.Extra
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, errMessage
		}
		e := fusefs.Extra{Mode: binary.LittleEndian.Uint32(b)}
		path, rest, ok := cutText(b[4:])
		if !ok {
			return nil, errMessage
		}
		content, rest, ok := cutText(rest)
		if !ok || content == "" {
			return nil, errMessage
		}
		if content[0] == '+' {
			e.Content = []byte(content[1:])
		}
		e.Path, b = path, rest
		out = append(out, e)
	}
	return out, nil
}
