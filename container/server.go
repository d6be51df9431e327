package container

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/extfs"
	"singularity/fusefs"
	"singularity/plan"
	"singularity/squashfs"
)

// ServerName is the first argument of a server process: a word that no verb is.
const ServerName = "@server"

// Opener opens the file system of a partition: *squashfs.Reader or *extfs.FS.
type Opener func(format int, r *io.SectionReader) (any, error)

// Served is an image file that a FUSE server shows as the root.
type Served struct {
	FS any // *squashfs.Reader or *extfs.FS
	// ReadFile reads a file of the image, for the generated ones.
	ReadFile func(path string, limit int64) ([]byte, error)
	// File, Format, Off and Size let a server process of its own open the
	// partition again, from a copy of the descriptor.
	File      *os.File
	Format    int
	Off, Size int64
	// Hold, if not nil, is a connection to the holder of a shared mount. Run
	// takes it over.
	Hold *Hold
}

// header goes to a server process before the extras.
type header struct {
	Format, Off, Size, UID, GID, Extras int64
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

// serve starts to answer on the FUSE device fd, which it takes over: in this
// process, or in one of its own if a terminal is attached.
func serve(img *Served, fd int, p *plan.Plan, h Hooks) (*serverProcess, error) {
	extras := makeExtras(img, p, h)
	uid, gid := -1, -1
	if p.IDs.Mode == plan.SingleID {
		uid, gid = p.IDs.InsideUID, p.IDs.InsideGID
	}
	if IsTerminal() {
		defer syscall.Close(fd)
		return respawn(img, fd, loadAll(extras), uid, gid)
	}
	srv, err := newServer(img.FS, extras, uid, gid, h.Warning)
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	debug.SetGCPercent(50)
	go srv.Serve(fd)
	return nil, nil
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
	if err == nil {
		content, err = f.Load(content)
	}
	if err != nil {
		warn(h, "Cannot make "+f.Path+" for the container: "+err.Error())
		return nil
	}
	return content
}

func newServer(fsys any, extras []fusefs.Extra, uid, gid int, warning func(string)) (*fusefs.Server, error) {
	c := fusefs.Config{Extras: extras, UID: uid, GID: gid}
	switch f := fsys.(type) {
	case *squashfs.Reader:
		c.FS = fusefs.Squashfs(f)
	case *extfs.FS:
		c.FS = fusefs.Ext(f)
	default:
		return nil, errors.New("no file system to serve")
	}
	if warning != nil {
		c.OnError = func(err error) { warning("The image is damaged: " + err.Error()) }
	}
	return fusefs.New(c)
}

// respawn starts a server process with the device as descriptor 3, the image
// as 4 and the description as 5.
func respawn(img *Served, fd int, extras []fusefs.Extra, uid, gid int) (*serverProcess, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"singularity", ServerName}, &syscall.ProcAttr{
		Env:   []string{"SINGULARITY_SERVER=1"},
		Files: []uintptr{uintptr(syscall.Stdin), uintptr(syscall.Stdout), uintptr(syscall.Stderr), uintptr(fd), img.File.Fd(), r.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		w.Close()
		return nil, err
	}
	b := bufio.NewWriter(w)
	binary.Write(b, binary.LittleEndian, header{int64(img.Format), img.Off, img.Size, int64(uid), int64(gid), int64(len(extras))})
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
	err = errors.Join(b.Flush(), w.Close())
	s := &serverProcess{pid: pid}
	if err != nil {
		syscall.Kill(pid, syscall.SIGKILL)
		reap(pid)
		return nil, err
	}
	return s, nil
}

// ServeMain is the life of a server process: it serves until the mount is gone
// and returns the exit status.
func ServeMain(open Opener) int {
	in := bufio.NewReader(os.NewFile(5, "description"))
	var h header
	if err := binary.Read(in, binary.LittleEndian, &h); err != nil {
		return 255
	}
	extras := make([]fusefs.Extra, 0, 64)
	for range h.Extras {
		var eh extraHeader
		if err := binary.Read(in, binary.LittleEndian, &eh); err != nil {
			return 255
		}
		text := make([]byte, eh.Path+max(eh.Content, 0))
		if _, err := io.ReadFull(in, text); err != nil {
			return 255
		}
		e := fusefs.Extra{Path: string(text[:eh.Path]), Mode: uint32(eh.Mode)}
		if eh.Content >= 0 {
			e.Content = text[eh.Path:]
		}
		extras = append(extras, e)
	}
	syscall.Close(5)
	// The terminal is not the server's: a write to it could stop or end it.
	detach()
	fsys, err := open(int(h.Format), io.NewSectionReader(os.NewFile(4, "image"), h.Off, h.Size))
	if err != nil {
		return 255
	}
	srv, err := newServer(fsys, extras, int(h.UID), int(h.GID), nil)
	if err != nil {
		return 255
	}
	debug.SetGCPercent(50)
	if srv.Serve(3) != nil {
		return 255
	}
	return 0
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
	return p.Root.Kind == plan.DirRoot && p.IDs.Mode == plan.SingleID && p.Namespaces == plan.Namespaces{} &&
		len(p.Session.Entries) == 0
}
