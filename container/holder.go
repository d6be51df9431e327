package container

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/container/hot"
	"singularity/linux/script"
	"singularity/linux/syslog"
	"singularity/plan"
	"singularity/squashfs"
	"singularity/verity"
)

// HolderName is the first argument of a holder process: a word that no verb is.
const HolderName = "@holder"

// idleTime is how long a holder stays without a user.
const idleTime = 5 * time.Second

// What a holder answers.
const (
	replyContent = 'c' // send the content of what you want first
	replyReady   = 'r' // here are the namespaces
	replyLayer   = 'l' // the same, but what you want is not all there
	replyFailed  = 'x'
)

// holder is the state of a holder process.
type holder struct {
	img     Served
	ids     plan.IDs
	clients []unix.PollFd // the listener first
	wants   map[string]string
	mnt     int // the namespaces, -1 before the mount
	user    int
	ended   chan error
	hot     *hot.Session // of the program that came first
	faults  faults
}

// maxFaults bounds how many faults of an image are kept.
const maxFaults = 16

// faults are what a server found wrong with an image.
type faults struct {
	mu   sync.Mutex
	list []string
}

// add keeps a fault, and tells the system's log of it: the holder of a mount has
// no terminal.
func (f *faults) add(err error) {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) < maxFaults {
		f.list = append(f.list, text[:min(len(text), 400)])
		syslog.Send("the image is damaged: " + text)
	}
}

func (f *faults) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := ""
	for _, t := range f.list {
		b += t + "\n"
	}
	return b
}

// HoldMain is the life of a holder process: descriptor 3 is its listening
// socket and 4 the image. It mounts the image in namespaces of its own when the
// first client says what the tree must have, hands these to every client, and
// leaves when nobody has used it for a while: then it lets go of the namespaces,
// and serves until the kernel has ended the last mount.
func HoldMain(args []string, open Opener) int {
	h, err := newHolder(args, open)
	if err != nil {
		return 255
	}
	if !h.serveClients() {
		return 255
	}
	h.hot.End()
	unix.Close(3)
	if h.mnt < 0 {
		return 0
	}
	unix.Close(h.mnt)
	if h.user >= 0 {
		unix.Close(h.user)
	}
	if <-h.ended != nil {
		return 255
	}
	return 0
}

func newHolder(args []string, open Opener) (*holder, error) {
	if len(args) != 5+hot.ConfigArgs {
		return nil, errMessage
	}
	config, err := hot.ParseConfig(args[5:])
	if err != nil {
		return nil, err
	}
	tree, err := verity.ParseParams(args[4])
	if err != nil {
		return nil, err
	}
	var n [4]int64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseInt(args[i], 10, 64); err != nil {
			return nil, err
		}
	}
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	CloseInherited(5)
	uid, gid := os.Getuid(), os.Getgid()
	h := &holder{mnt: -1, user: -1, ended: make(chan error, 1), ids: plan.IDs{Mode: plan.SingleID, UID: uid, GID: gid, InsideUID: uid, InsideGID: gid}}
	if n[3] == 1 {
		h.ids.Mode = plan.HostIDs
	}
	h.img = Served{File: os.NewFile(4, "image"), Format: int(n[0]), Off: n[1], Size: n[2], Tree: tree}
	h.img.FS, err = h.img.open(open)
	h.clients = []unix.PollFd{{Fd: 3, Events: unix.POLLIN}}
	if r, ok := h.img.FS.(*squashfs.Reader); ok {
		config.Blocks = config.Blocks && tree == nil
		h.hot = hot.Begin(config, hot.Image{File: h.img.File, Format: h.img.Format, Off: h.img.Off, Size: h.img.Size, Reader: r})
	}
	return h, err
}

// serveClients answers clients until there has been none for a while. It
// returns false if the mount failed.
func (h *holder) serveClients() bool {
	for {
		wait := -1
		if len(h.clients) == 1 {
			wait = int(idleTime.Milliseconds())
		}
		n, err := unix.Poll(h.clients, wait)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n == 0:
			return true
		}
		if h.clients[0].Revents != 0 {
			h.accept()
		}
		for i := 1; i < len(h.clients); i++ {
			if h.clients[i].Revents == 0 {
				continue
			}
			if !h.answer(int(h.clients[i].Fd)) {
				unix.Close(int(h.clients[i].Fd))
				h.clients = append(h.clients[:i], h.clients[i+1:]...)
				i--
			}
		}
		select {
		case <-h.ended:
			return false
		default:
		}
	}
}

func (h *holder) accept() {
	fd, _, err := unix.Accept4(3, unix.SOCK_CLOEXEC)
	if err != nil {
		return
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || trusted(cred) != nil {
		unix.Close(fd)
		return
	}
	h.clients = append(h.clients, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
}

// answer reads a message of a client and answers it. It returns false if the
// client is done with.
func (h *holder) answer(fd int) bool {
	b, ok := readMessage(fd)
	if !ok {
		return false
	}
	switch string(b) {
	case queryTree:
		return send(fd, []byte(string(replyReady)+h.img.Tree.String())) == nil
	case queryFaults:
		return send(fd, []byte(string(replyReady)+h.faults.text())) == nil
	}
	wants, err := decodeWants(b)
	if err != nil {
		return false
	}
	if h.mnt < 0 {
		return h.first(fd, wants)
	}
	for path, kind := range wants {
		if kind == "?" || h.wants[path] != kind {
			return h.hand(fd, replyLayer)
		}
	}
	return h.hand(fd, replyReady)
}

// first makes the mount with what the first client wants. The content comes in
// its next message; nobody else is served before.
func (h *holder) first(fd int, wants map[string]string) bool {
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	if send(fd, []byte{replyContent}) != nil {
		return false
	}
	content, ok := readMessage(fd)
	if !ok {
		return false
	}
	if err := h.mount(content); err != nil {
		send(fd, []byte{replyFailed})
		return false
	}
	h.wants = wants
	return h.hand(fd, replyReady)
}

// readMessage reads a message; it returns false if there is none to come.
func readMessage(fd int) ([]byte, bool) {
	b := make([]byte, 64<<10)
	n, err := peekRead(fd, &b)
	if err != nil || n < 0 {
		return nil, false
	}
	return b[:n], true
}

// peekRead reads a whole message, and returns -1 at the end of the connection.
func peekRead(fd int, b *[]byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, *b, unix.MSG_PEEK|unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n > maxMessage:
			return 0, unix.EMSGSIZE
		case n > len(*b):
			*b = make([]byte, n)
		}
		n, err = unix.Read(fd, *b)
		if n == 0 && err == nil && ended(fd) {
			n = -1
		}
		return n, err
	}
}

// ended tells an end of the connection from an empty message.
func ended(fd int) bool {
	list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(list, 0)
	return err != nil || n > 0 && list[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

// hand gives the namespaces to a client.
func (h *holder) hand(fd int, reply byte) bool {
	fds := []int{h.mnt}
	if h.user >= 0 {
		fds = append(fds, h.user)
	}
	for {
		err := unix.Sendmsg(fd, []byte{reply}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err == nil
		}
	}
}

// mount mounts the image, with the extras that are encoded in b, and starts to
// serve it.
func (h *holder) mount(b []byte) error {
	extras, err := decodeExtras(b)
	if err != nil {
		return err
	}
	uid, gid := -1, -1
	if h.ids.Mode == plan.SingleID {
		uid, gid = h.ids.InsideUID, h.ids.InsideGID
	}
	srv, err := newServer(&serving{img: &h.img, extras: extras, uid: uid, gid: gid}, h.img.FS, h.faults.add)
	if err != nil {
		return err
	}
	dev, err := h.namespaces()
	if err != nil {
		return err
	}
	debug.SetGCPercent(50)
	go func() { h.ended <- srv.Serve(dev) }()
	return nil
}

// namespaces makes the namespaces and the mount in a child that ends at once.
// Descriptors of the namespaces, which the child opened in the table that both
// share, keep them alive.
func (h *holder) namespaces() (dev int, err error) {
	var errs, ready [2]int
	for _, q := range []*[2]int{&errs, &ready} {
		if err := syscall.Pipe2(q[:], syscall.O_CLOEXEC); err != nil {
			return -1, err
		}
	}
	p := &plan.Plan{IDs: h.ids}
	b := newBuilder(p, Hooks{}, errs[1])
	b.holds = true
	devs, err := b.openDevices([]*Served{&h.img}, ready[1])
	if err != nil {
		return -1, err
	}
	d := devs[0]
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_FILES)
	if h.ids.Mode == plan.SingleID {
		flags |= unix.CLONE_NEWUSER
	}
	b.maps()
	b.detachMounts()
	b.mountDevices(devs, ready[1])
	b.attachMount(d.mount, "attach the image")
	b.s.Call("end", unix.SYS_EXIT_GROUP, script.Int(0))
	pid, err := b.s.Start(flags, errs[1])
	if err != nil {
		return -1, err
	}
	err = b.ready(pid, ready[0], errs[0], func() bool { return b.s.Receive(ready[0], b.sent) })
	reap(pid)
	for _, fd := range []int{errs[0], errs[1], ready[0], ready[1]} {
		unix.Close(fd)
	}
	if err != nil {
		return -1, err
	}
	unix.Close(b.s.Result(d.fsopen))
	unix.Close(b.s.Result(d.mount))
	h.mnt = b.s.Result(b.mntNS)
	if h.ids.Mode == plan.SingleID {
		h.user = b.s.Result(b.userNS)
	}
	return d.fd, nil
}
