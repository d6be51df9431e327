package fusefs

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// queueSize is how many reads may wait for a worker. The kernel keeps at most
// 64 background requests in flight, plus one for each waiting thread; when the
// queue is full the reader decompresses itself, and so slows down the askers.
const queueSize = 128

// job is a read for a worker.
type job struct {
	unique uint64
	id     uint64
	off    int64
	size   int
}

func workerCount(n int) int {
	if n <= 0 {
		n = max(2, min(runtime.GOMAXPROCS(0), 16))
	}
	return n
}

// read answers READ at once if no block must be decompressed for it, and hands
// it to a worker otherwise.
func (s *Server) read(r *request, d *Data) {
	if len(r.body) < 24 {
		s.finish(r.unique, d, syscall.EINVAL)
		return
	}
	off, size := le.Uint64(r.body[8:]), int(min(le.Uint32(r.body[16:]), maxReadSize))
	if off > 1<<62 {
		s.finish(r.unique, d, syscall.EINVAL)
		return
	}
	j := job{r.unique, s.id(r.node), int64(off), size}
	d.reset()
	if n := s.tree.node(j.id); n != nil {
		if off < uint64(len(n.content)) {
			d.Append(n.content[off:min(uint64(len(n.content)), off+uint64(size))])
		}
		s.finish(j.unique, d, 0)
		return
	}
	done, err := s.tree.fs.Read(j.id, j.off, j.size, d, false)
	if done || err != nil {
		s.finish(j.unique, d, s.errno(err))
		return
	}
	if s.busy > 0 && s.enqueue(j) {
		s.busy--
		return
	}
	s.work(j, d)
	if s.pending() {
		s.busy = busyReads
	}
}

// busyReads is how many reads go to the workers once requests were seen to
// wait. A process that reads alone is served without waking another thread,
// which would cost it more than the wait of a rare second one; as soon as
// requests overlap, all processors decompress.
const busyReads = 16

// pending reports whether a request waits to be read.
func (s *Server) pending() bool {
	p := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p[:], 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0
}

// enqueue hands a read to the workers and reports whether there was room.
func (s *Server) enqueue(j job) bool {
	select {
	case s.jobs <- j:
	default:
		return false
	}
	if s.running < s.workers && (s.running == 0 || len(s.jobs) > 0) {
		s.running++
		s.wait.Add(1)
		go s.worker()
	}
	// Without this the worker that was just woken waits on our own run queue
	// while we block in read(2), until the runtime's monitor finds it: some 40
	// us as a rule and milliseconds at times, against 10.
	runtime.Gosched()
	return true
}

func (s *Server) worker() {
	defer s.wait.Done()
	d := new(Data)
	for j := range s.jobs {
		s.work(j, d)
	}
}

// work answers a read that needs decompression.
func (s *Server) work(j job, d *Data) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(j.unique, p)
		}
	}()
	d.reset()
	_, err := s.tree.fs.Read(j.id, j.off, j.size, d, true)
	s.finish(j.unique, d, s.errno(err))
}

// finish sends what d holds, or an error, and releases d.
func (s *Server) finish(unique uint64, d *Data, errno syscall.Errno) {
	if errno != 0 {
		d.reset()
	}
	var head [outHeaderSize]byte
	if len(d.parts) == 0 {
		d.parts = append(d.parts, nil)
	}
	d.parts[0] = head[:]
	// More parts than one call takes are copied: reads of many small blocks.
	if len(d.parts) > maxParts {
		d.join()
	}
	putHeader(head[:], unique, d.size(), errno)
	for {
		_, err := unix.Writev(s.fd, d.parts)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EINVAL && errno == 0 {
			// The kernel did not take the answer and still waits for one.
			putHeader(head[:], unique, 0, syscall.EIO)
			s.send(head[:])
		}
		break
	}
	d.reset()
}

// maxParts is the most parts of one writev (UIO_MAXIOV).
const maxParts = 1024

// join copies all parts behind the header to one.
func (d *Data) join() {
	all := make([]byte, 0, d.size())
	for _, p := range d.parts[1:] {
		all = append(all, p...)
	}
	d.parts = append(d.parts[:1], all)
}
