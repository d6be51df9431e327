package container

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/container/hot"
	"singularity/extfs"
	"singularity/fusefs"
	"singularity/linux/secret"
	"singularity/plan"
	"singularity/priv"
	"singularity/squashfs"
	"singularity/verity"
)

// ServerName is the first argument of a server process: a word that no verb is.
const ServerName = "@server"

// Opener opens the file system of a partition: *squashfs.Reader or *extfs.FS.
// secret is that of Served.
type Opener func(format int, r *io.SectionReader, secret []byte) (any, error)

// maxSecret bounds the secret of an image, in bytes.
const maxSecret = 4096

// Served is an image file that a FUSE server shows: the root, a layer over it,
// or where a mount comes from.
type Served struct {
	FS any // *squashfs.Reader or *extfs.FS
	// ReadFile reads a file of the image, for the generated ones.
	ReadFile func(path string, limit int64) ([]byte, error)
	// File, Format, Off and Size let a server process of its own open the
	// partition again, from a copy of the descriptor.
	File      *os.File
	Format    int
	Off, Size int64
	// Secret is what else opening an encrypted partition needs; that of LUKS2 ends
	// with the volume key, in priv.KeySize bytes. The processes
	// that have it are hidden from others of the same user.
	Secret []byte
	// Tree, if not nil, lets the server check what it reads of the partition.
	Tree *verity.Params
	// Panic ends the server, and so the container, at the first thing that is
	// wrong with the image.
	Panic bool
	// Hold, if not nil, is a connection to the holder of a shared mount. Run
	// takes it over.
	Hold *Hold
	// Hot is what a holder keeps of the blocks that it serves.
	Hot hot.Config
	// Layer has whiteouts shown as the kernel's overlay wants them.
	Layer bool
	// Kernel, if not 0, lets the setuid helper have the kernel mount the image as
	// that, which it may refuse. Policy is the format of the image's file, one of
	// conf.Format...
	Kernel priv.FS
	Policy string
	// Writable leaves the image to a program of the system, fuse2fs: File is
	// open for writing, and the locks on it last as long as the program.
	Writable bool
}

// header goes to a server process for each image, before the extras.
type header struct {
	Format, Off, Size, UID, GID, Layer, Panic, Tree, Extras, Secret int64 // Tree is the length of its text
}

// extraHeader goes before the two texts of an extra.
type extraHeader struct {
	Mode, Path, Content int64 // sizes in bytes; Content is -1 for nil
}

// serverProcess is a FUSE server in a process and session of its own.
type serverProcess struct {
	pid  int
	gone bool
}

// ended tells whether the server process is gone.
func (s *serverProcess) ended() bool {
	if !s.gone {
		pid, err := syscall.Wait4(s.pid, nil, syscall.WNOHANG, nil)
		s.gone = pid == s.pid || err == syscall.ECHILD
	}
	return s.gone
}

// serving is a device with what is served on it.
type serving struct {
	img      *Served
	fd       int
	extras   []fusefs.Extra
	uid, gid int
}

// serveAll starts to answer on the devices, which it takes over: in this
// process, or in one of its own if a terminal is attached. The first image gets
// the generated files if it is the root.
func (b *builder) serveAll(images []*Served, devs []*device, fds []int) (*serverProcess, error) {
	var list []serving
	for i, d := range devs {
		if d == nil {
			continue
		}
		if !b.helper {
			// The child has a table of its own now; its descriptors are also
			// here, and this copy would keep the connection alive.
			syscall.Close(b.s.Result(d.fsopen))
			syscall.Close(b.s.Result(d.mount))
		}
		for k := range fds {
			if fds[k] == d.fd {
				fds[k] = -1
			}
		}
		s := serving{img: images[i], fd: d.fd, uid: -1, gid: -1}
		if i == 0 && b.p.Root.Kind == plan.ServedRoot {
			s.extras = makeExtras(s.img, b.p, b.h)
		}
		if b.p.IDs.Mode == plan.SingleID || b.helper {
			s.uid, s.gid = b.p.IDs.InsideUID, b.p.IDs.InsideGID
		}
		list = append(list, s)
	}
	if err := hide(list); err != nil {
		closeAll(list)
		return nil, err
	}
	if IsTerminal() {
		defer closeAll(list)
		return respawn(list)
	}
	for i := range list {
		s := &list[i]
		srv, err := newServer(s, s.img.FS, b.damaged(s.img))
		if err != nil {
			closeAll(list[i:])
			return nil, err
		}
		go srv.Serve(s.fd)
	}
	debug.SetGCPercent(50)
	return nil, nil
}

// hide hides this process if it serves something secret.
//
// Security (SC-125): the program of the container is of the same user, and would
// find keys and passphrases in this process's memory and environment. It has not
// started yet; the id maps, which a hidden process cannot write, are written.
func hide(list []serving) error {
	for i := range list {
		if len(list[i].img.Secret) > 0 {
			return secret.Hide()
		}
	}
	return nil
}

// damaged returns what is done about faults of img.
func (b *builder) damaged(img *Served) func(error) {
	return func(err error) {
		warn(b.h, "The image is damaged: "+err.Error())
		if img.Panic && b.h.Panic != nil {
			b.h.Panic()
		}
	}
}

func closeAll(list []serving) {
	for i := range list {
		syscall.Close(list[i].fd)
	}
}

// makeExtras makes the generated files and mount points.
func makeExtras(img *Served, p *plan.Plan, h Hooks) []fusefs.Extra {
	var out []fusefs.Extra
	for i := range p.Files {
		f := &p.Files[i]
		e := fusefs.Extra{Path: f.Path, Mode: unix.S_IFREG | f.Perm}
		if f.Dir {
			e.Mode = unix.S_IFDIR | f.Perm
		}
		if f.Load != nil {
			e.Load = func() []byte { return loadFile(img, f, h) }
		}
		out = append(out, e)
	}
	return out
}

// loadAll loads the contents of extras, for a process that cannot.
func loadAll(extras []fusefs.Extra) []fusefs.Extra {
	var out []fusefs.Extra
	for _, e := range extras {
		if e.Load != nil {
			e.Content = e.Load()
			if e.Content == nil {
				continue
			}
		}
		out = append(out, e)
	}
	return out
}

// loadFile makes a generated file from the image's own; nil leaves that.
func loadFile(img *Served, f *plan.File, h Hooks) []byte {
	content, err := img.ReadFile(f.Path, plan.MaxUserFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		content, err = f.Load(content)
	}
	if err != nil {
		warn(h, "Cannot make "+f.Path+" for the container: "+err.Error())
		return nil
	}
	return content
}

var errDamaged = errors.New("the image is damaged")

// open opens the file system that img names, whose parts are checked as they are
// read if it has a hash tree.
func (img *Served) open(open Opener) (any, error) {
	r, err := img.Tree.Section(img.File, img.Off, img.Size)
	if err != nil {
		return nil, err
	}
	return open(img.Format, r, img.Secret)
}

// newServer returns a server of s, which calls damaged, from any goroutine, for
// each thing that it finds wrong with the image.
func newServer(s *serving, fsys any, damaged func(error)) (*fusefs.Server, error) {
	c := fusefs.Config{Extras: s.extras, UID: s.uid, GID: s.gid, OnError: damaged}
	switch f := fsys.(type) {
	case *squashfs.Reader:
		c.FS = fusefs.Squashfs(f)
	case *extfs.FS:
		c.FS = fusefs.Ext(f)
	default:
		return nil, errors.New("no file system to serve")
	}
	if s.img.Layer {
		c.FS = fusefs.Layer(c.FS)
	}
	return fusefs.New(c)
}

// descriptionFD is where a server process reads what it serves; after it come,
// for each image, its device and its file.
const descriptionFD = 3

// respawn starts a server process.
func respawn(list []serving) (*serverProcess, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	files := []uintptr{uintptr(syscall.Stdin), uintptr(syscall.Stdout), uintptr(syscall.Stderr), r.Fd()}
	for i := range list {
		files = append(files, uintptr(list[i].fd), list[i].img.File.Fd())
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"singularity", ServerName}, &syscall.ProcAttr{
		Env:   []string{"SINGULARITY_SERVER=1"},
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		w.Close()
		return nil, err
	}
	b := bufio.NewWriter(w)
	binary.Write(b, binary.LittleEndian, int64(len(list)))
	for i := range list {
		list[i].write(b)
	}
	err = b.Flush()
	for i := range list {
		if err == nil && len(list[i].img.Secret) > 0 {
			_, err = w.Write(list[i].img.Secret) // not by way of a buffer
		}
	}
	err = errors.Join(err, w.Close())
	if err != nil {
		syscall.Kill(pid, syscall.SIGKILL)
		reap(pid)
		return nil, err
	}
	return &serverProcess{pid: pid}, nil
}

// write describes s to a server process.
func (s *serving) write(b *bufio.Writer) {
	extras := loadAll(s.extras)
	tree := s.img.Tree.String()
	binary.Write(b, binary.LittleEndian, header{Format: int64(s.img.Format), Off: s.img.Off, Size: s.img.Size, UID: int64(s.uid), GID: int64(s.gid),
		Layer: int64(btoi(s.img.Layer)), Panic: int64(btoi(s.img.Panic)), Tree: int64(len(tree)), Extras: int64(len(extras)), Secret: int64(len(s.img.Secret))})
	b.WriteString(tree)
	for i := range extras {
		e := &extras[i]
		n := int64(len(e.Content))
		if e.Content == nil {
			n = -1
		}
		binary.Write(b, binary.LittleEndian, extraHeader{int64(e.Mode), int64(len(e.Path)), n})
		b.WriteString(e.Path)
		b.Write(e.Content)
	}
}

// readServing reads what write wrote.
func readServing(in io.Reader) (*serving, error) {
	var h header
	if err := binary.Read(in, binary.LittleEndian, &h); err != nil {
		return nil, err
	}
	s := &serving{uid: int(h.UID), gid: int(h.GID), img: &Served{Format: int(h.Format), Off: h.Off, Size: h.Size, Layer: h.Layer != 0, Panic: h.Panic != 0}}
	if h.Secret < 0 || h.Secret > maxSecret {
		return nil, errMessage
	}
	s.img.Secret = make([]byte, h.Secret)
	tree := make([]byte, h.Tree)
	if _, err := io.ReadFull(in, tree); err != nil {
		return nil, err
	}
	var err error
	if s.img.Tree, err = verity.ParseParams(string(tree)); err != nil {
		return nil, err
	}
	for range h.Extras {
		var eh extraHeader
		if err := binary.Read(in, binary.LittleEndian, &eh); err != nil {
			return nil, err
		}
		text := make([]byte, eh.Path+max(eh.Content, 0))
		if _, err := io.ReadFull(in, text); err != nil {
			return nil, err
		}
		e := fusefs.Extra{Path: string(text[:eh.Path]), Mode: uint32(eh.Mode)}
		if eh.Content >= 0 {
			e.Content = text[eh.Path:]
		}
		s.extras = append(s.extras, e)
	}
	return s, nil
}

// ServeMain is the life of a server process: it serves until the mounts are
// gone and returns the exit status.
func ServeMain(open Opener) int {
	in := bufio.NewReader(os.NewFile(descriptionFD, "description"))
	var n int64
	if err := binary.Read(in, binary.LittleEndian, &n); err != nil {
		return 255
	}
	var list []*serving
	for i := range int(n) {
		s, err := readServing(in)
		if err != nil {
			return 255
		}
		s.fd = descriptionFD + 1 + 2*i
		s.img.File = os.NewFile(uintptr(s.fd+1), "image")
		list = append(list, s)
	}
	if err := receiveSecrets(in, list); err != nil {
		return 255
	}
	syscall.Close(descriptionFD)
	CloseInherited(descriptionFD + 1 + 2*len(list))
	// The terminal is not the server's: a write to it could stop or end it.
	detach()
	debug.SetGCPercent(50)
	ended := make(chan error, 2*len(list))
	for _, s := range list {
		fsys, err := s.img.open(open)
		clear(s.img.Secret)
		if err != nil {
			return 255
		}
		srv, err := newServer(s, fsys, func(error) {
			if s.img.Panic {
				ended <- errDamaged
			}
		})
		if err != nil {
			return 255
		}
		go func() { ended <- srv.Serve(s.fd) }()
	}
	for range list {
		if <-ended != nil {
			return 255
		}
	}
	return 0
}

// receiveSecrets reads the secrets, which follow the descriptions.
func receiveSecrets(in io.Reader, list []*serving) error {
	for _, s := range list {
		if len(s.img.Secret) == 0 {
			continue
		}
		if err := secret.Hide(); err != nil {
			return err
		}
		if _, err := io.ReadFull(in, s.img.Secret); err != nil {
			return err
		}
	}
	return nil
}

// CloseInherited closes the descriptors from number first up that this process got
// from whoever started it: those that are not closed on execve, as all that the
// runtime and this program open are. A process of ours that goes on in the
// background must not keep a pipe from its end, or a lock held, that a user's
// shell handed down.
func CloseInherited(first int) {
	names, _ := os.ReadDir("/proc/self/fd")
	for _, n := range names {
		fd, err := strconv.Atoi(n.Name())
		if err != nil || fd < first {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

// detach puts /dev/null in place of the standard descriptors.
func detach() {
	null, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	for fd := range 3 {
		syscall.Dup3(null, fd, 0)
	}
	syscall.Close(null)
}

// CanExec tells whether Exec can carry p out.
func CanExec(p *plan.Plan) bool {
	return p.Root.Kind == plan.DirRoot && p.IDs.Mode == plan.SingleID && p.Namespaces == plan.Namespaces{} && p.Network.Kind != plan.SiteNet &&
		len(p.Session.Entries) == 0 && len(p.Fuse) == 0 && !needsStage(p)
}
