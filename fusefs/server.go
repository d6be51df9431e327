package fusefs

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Config says what to serve.
type Config struct {
	FS     FS
	Extras []Extra
	// UID and GID, if not -1, own every file, extras included. That is for a
	// user namespace with a single id, where no other could be shown.
	UID, GID int
	// Workers decompress; 0 means one per processor, at least two.
	Workers int
	// OnError, if set, hears of each distinct fault in the image or in the
	// server once, up to a bound. It is called by several goroutines.
	OnError func(error)
}

// Server answers the requests of one mount.
type Server struct {
	tree     *overlay
	root     uint64
	stat     Stat
	uid, gid int
	onError  func(error)

	fd      int
	jobs    chan job
	workers int // how many may run
	running int // how many do; only the reader starts them
	lean    lean
	busy    int // reads that still go to the workers; the reader's own
	wait    sync.WaitGroup

	faultMu sync.Mutex
	faults  map[string]struct{}
}

// New makes a server and places the extras in the tree.
func New(c Config) (*Server, error) {
	tree, err := newOverlay(c.FS, c.Extras)
	if err != nil {
		return nil, err
	}
	return &Server{
		tree: tree, root: c.FS.Root(), stat: c.FS.Stat(), uid: c.UID, gid: c.GID, onError: c.OnError,
		workers: workerCount(c.Workers), jobs: make(chan job, queueSize), faults: map[string]struct{}{},
	}, nil
}

// Serve answers requests that come from the /dev/fuse descriptor devFD until
// the mount is gone, which is not an error. It does not close the descriptor,
// and may be called once. The mount must exist before the first request can be
// read: Serve gives EPERM otherwise.
func (s *Server) Serve(devFD int) error {
	s.fd = devFD
	defer s.wait.Wait()
	defer close(s.jobs)
	buf := make([]byte, requestSize)
	out := make([]byte, replySize)
	data := new(Data)
	for {
		n, err := unix.Read(devFD, buf)
		switch err {
		case nil:
		case unix.EINTR, unix.ENOENT: // ENOENT: the request was interrupted meanwhile
			continue
		case unix.EAGAIN:
			if err := waitReadable(devFD); err != nil {
				return err
			}
			continue
		case unix.ENODEV:
			return nil
		default:
			return fmt.Errorf("cannot read requests of the kernel: %w", err)
		}
		if n == 0 {
			return nil
		}
		r, ok := parse(buf[:n])
		if !ok {
			s.report(fmt.Errorf("request of %d bytes is not whole", n))
			continue
		}
		if !s.handle(&r, out, data) {
			return nil
		}
	}
}

func waitReadable(fd int) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
		return fmt.Errorf("cannot wait for requests of the kernel: %w", err)
	}
	return nil
}

// handle answers one request, or hands it to a worker. It reports whether the
// server is to go on.
func (s *Server) handle(r *request, out []byte, data *Data) (goOn bool) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(r.unique, p)
			goOn = true
		}
	}()
	switch r.op {
	case opForget, opBatchForget, opInterrupt:
		return true // there is nothing to forget, and no answer
	case opRead:
		s.read(r, data)
		return true
	}
	n, errno := s.answer(r, out[outHeaderSize:])
	if errno != 0 {
		n = 0
	}
	putHeader(out, r.unique, n, errno)
	s.send(out[:outHeaderSize+n])
	return r.op != opDestroy
}

// answer writes the body of the answer to out and returns its length.
func (s *Server) answer(r *request, out []byte) (int, syscall.Errno) {
	switch r.op {
	case opInit:
		return initialise(r.body, out)
	case opLookup:
		return s.lookup(r, out)
	case opGetattr:
		return s.getattr(r, out)
	case opReadlink:
		target, err := s.tree.readlink(s.id(r.node))
		return copy(out, target), s.errno(err)
	case opReaddir, opReaddirplus:
		return s.readdir(r, out)
	case opGetxattr, opListxattr:
		return s.xattr(r, out)
	case opStatfs:
		return s.statfs(out), 0
	case opDestroy, opRelease, opReleasedir:
		return 0, 0
	case opSetattr, opSymlink, opMknod, opMkdir, opUnlink, opRmdir, opRename, opRename2, opLink,
		opWrite, opSetxattr, opRemovexattr, opCreate, opFallocate, opTmpfile:
		return 0, syscall.EROFS
	}
	// OPEN and OPENDIR among them: the kernel takes ENOSYS for "never ask
	// again", and keeps pages and directories from then on.
	return 0, syscall.ENOSYS
}

// initialise answers INIT: versions, flags and limits.
func initialise(body, out []byte) (int, syscall.Errno) {
	if len(body) < 16 {
		return 0, syscall.EPROTO
	}
	major, minor, readahead, flags := le.Uint32(body), le.Uint32(body[4:]), le.Uint32(body[8:]), le.Uint32(body[12:])
	if major < protoMajor || major == protoMajor && minor < protoMinorMin {
		return 0, syscall.EPROTO
	}
	clear(out[:initOutSize])
	le.PutUint32(out, protoMajor)
	le.PutUint32(out[4:], min(minor, protoMinor))
	if major > protoMajor {
		return initOutSize, 0 // the kernel asks again with our version
	}
	const want = initAsyncRead | initReaddirplus | initReaddirplusAuto | initNoOpen | initParallelDirops |
		initMaxPages | initCacheSymlinks | initNoOpendir
	le.PutUint32(out[8:], readahead)
	le.PutUint32(out[12:], flags&want)
	le.PutUint16(out[16:], 64) // background requests at once
	le.PutUint16(out[18:], 48) // and where it counts as congested
	le.PutUint32(out[20:], maxWrite)
	le.PutUint32(out[24:], 1) // time granularity in ns
	le.PutUint16(out[28:], maxReadSize/4096)
	return initOutSize, 0
}

// id and number translate between the kernel's node ids, where the root is 1
// and 0 is nothing, and ours.
func (s *Server) id(node uint64) uint64 {
	if node == 1 {
		return s.root
	}
	return node - 2
}

func (s *Server) number(id uint64) uint64 {
	if id == s.root {
		return 1
	}
	return id + 2
}

// dirBlockSize is what a process should read of a directory at a time. The C
// library sizes the buffer of each opendir(3) by it, and the kernel its own for
// each READDIR by that.
const dirBlockSize = 4096

// putAttr writes the attributes of a file to b.
func (s *Server) putAttr(b []byte, id uint64) error {
	var a Attr
	if err := s.tree.attr(id, &a); err != nil {
		return err
	}
	if s.uid >= 0 {
		a.UID = uint32(s.uid)
	}
	if s.gid >= 0 {
		a.GID = uint32(s.gid)
	}
	block := s.stat.BlockSize
	if a.Mode&modeType == modeDir {
		block = dirBlockSize
	}
	putAttr(b, &a, block)
	return nil
}

func (s *Server) lookup(r *request, out []byte) (int, syscall.Errno) {
	name, ok := r.name()
	if !ok {
		return 0, syscall.EINVAL
	}
	id, ok, err := s.tree.lookup(s.id(r.node), name)
	if err != nil {
		return 0, s.errno(err)
	}
	if !ok {
		putEntry(out, 0)
		return entrySize, 0
	}
	putEntry(out, s.number(id))
	attr := out[entrySize-attrSize:]
	if err := s.putAttr(attr, id); err != nil {
		return 0, s.errno(err)
	}
	if le.Uint32(attr[attrMode:])&modeType != modeDir {
		s.lean.lookup(r.node)
	}
	return entrySize, 0
}

func (s *Server) getattr(r *request, out []byte) (int, syscall.Errno) {
	le.PutUint64(out, forever)
	le.PutUint64(out[8:], 0)
	return 16 + attrSize, s.errno(s.putAttr(out[16:], s.id(r.node)))
}

// readdir answers READDIR and READDIRPLUS. Positions 0 and 1 are "." and "..",
// what follows are those of the tree plus 2.
func (s *Server) readdir(r *request, out []byte) (int, syscall.Errno) {
	if len(r.body) < 20 {
		return 0, syscall.EINVAL
	}
	from, size := le.Uint64(r.body[8:]), int(min(le.Uint32(r.body[16:]), uint32(len(out))))
	dir, plus := s.id(r.node), r.op == opReaddirplus
	out = out[:size]
	n, names, omitted := 0, 0, 0
	omit := plus && s.lean.omit(r.node)
	var failed error
	put := func(e Dirent, next uint64) bool {
		head := 0
		if plus {
			head = entrySize
		}
		if n+head+(direntSize+len(e.Name)+7)&^7 > size {
			return false
		}
		if plus {
			b := out[n:]
			// Node 0 in a list means: no attributes, ask if you need them.
			putEntry(b, 0)
			if omit && e.Mode&modeType != modeDir && e.Mode != 0 {
				omitted++
			} else if e.ID != noID {
				putEntry(b, s.number(e.ID))
				if failed = s.putAttr(b[entrySize-attrSize:], e.ID); failed != nil {
					return false
				}
			}
		}
		names++
		n += head
		n += putDirent(out[n:], e.Ino, next+2, e.Name, e.Mode)
		return true
	}
	for ; from < 2; from++ {
		e := Dirent{Name: ".."[:from+1], ID: noID, Ino: 1, Mode: modeDir}
		if !put(e, from-1) { // wraps for ".": the position behind it is 1
			return n, 0
		}
	}
	err := s.tree.readDir(dir, from-2, put)
	s.lean.listed(names, omitted)
	if failed != nil && n == 0 {
		err = failed // later ones get a list of their own, and the error then
	}
	return n, s.errno(err)
}

// noID is the ID of an entry without attributes.
const noID = ^uint64(0)

func (s *Server) statfs(out []byte) int {
	clear(out[:statfsSize])
	const unit = 4096
	le.PutUint64(out, uint64(s.stat.Size+unit-1)/unit)
	le.PutUint64(out[24:], s.stat.Files)
	le.PutUint32(out[40:], unit)
	le.PutUint32(out[44:], maxName)
	le.PutUint32(out[48:], unit)
	return statfsSize
}

// xattr answers GETXATTR and LISTXATTR. A size of 0 asks for the size.
func (s *Server) xattr(r *request, out []byte) (int, syscall.Errno) {
	if !s.stat.HasXattrs {
		return 0, syscall.ENOSYS
	}
	if len(r.body) < 8 {
		return 0, syscall.EINVAL
	}
	size := int(min(le.Uint32(r.body), uint32(len(out))))
	var list []Xattr
	if id := s.id(r.node); s.tree.node(id) == nil {
		var err error
		if list, err = s.tree.fs.Xattrs(id); err != nil {
			return 0, s.errno(err)
		}
	}
	var value []byte
	if r.op == opListxattr {
		for _, x := range list {
			if x.Hidden {
				continue
			}
			value = append(append(value, x.Name...), 0)
		}
	} else {
		r.body = r.body[8:]
		name, _ := r.name()
		found := false
		for _, x := range list {
			if x.Name == name {
				value, found = x.Value, true
			}
		}
		if !found {
			return 0, syscall.ENODATA
		}
	}
	if size == 0 {
		le.PutUint64(out, uint64(len(value)))
		return 8, 0
	}
	if len(value) > size {
		return 0, syscall.ERANGE
	}
	return copy(out, value), 0
}

// send writes an answer. A failure means that the asker is gone.
func (s *Server) send(b []byte) {
	for {
		if _, err := unix.Write(s.fd, b); err != unix.EINTR {
			return
		}
	}
}

// errno turns an error of the tree into what the asker sees.
func (s *Server) errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var e syscall.Errno
	if errors.As(err, &e) && e != 0 && e < 4096 {
		if e == syscall.EIO {
			s.report(err)
		}
		return e
	}
	s.report(err)
	return syscall.EIO
}

// maxFaults bounds how many distinct faults are told.
const maxFaults = 64

// report tells OnError of a fault, once.
func (s *Server) report(err error) {
	if s.onError == nil || err == nil {
		return
	}
	text := err.Error()
	s.faultMu.Lock()
	_, known := s.faults[text]
	full := len(s.faults) >= maxFaults
	if !known && !full {
		s.faults[strings.Clone(text)] = struct{}{}
	}
	s.faultMu.Unlock()
	if !known && !full {
		s.onError(err)
	}
}

// panicked answers EIO in place of code that panicked.
func (s *Server) panicked(unique uint64, cause any) {
	s.onPanic(cause)
	var b [outHeaderSize]byte
	putHeader(b[:], unique, 0, syscall.EIO)
	s.send(b[:])
}

func (s *Server) onPanic(cause any) { s.report(fmt.Errorf("panic in the file server: %v", cause)) }
