package hot

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/squashfs"
)

func itoa(n int) string { return strconv.Itoa(n) }

const (
	// recordTime is how long a start is watched.
	recordTime = 10 * time.Second
	// windowSize is how far the blocks that are fetched may be ahead of the
	// program, in bytes: a part of the reader's cache.
	windowSize = 8 << 20
	// idleTime is how long a look at the load of the host counts.
	idleTime = 10 * time.Millisecond
	// fewBlocks is how many new blocks are not worth a new file.
	fewBlocks = 8
)

// Session watches one start. A nil Session does nothing.
type Session struct {
	config   Config
	image    Image
	identity []byte

	over    atomic.Bool // nothing more is recorded
	known   atomic.Pointer[known]
	damaged atomic.Bool
	wake    chan struct{}
	window  int         // rows
	idle    func() bool // whether a processor is free

	fetched, loaded, hits atomic.Int64

	mu    sync.Mutex
	dir   int // -1: not open
	seen  map[squashfs.BlockID]struct{}
	order []squashfs.BlockID
	at    int // row of the table that the program has reached
	far   int // row ahead of the window that was touched last
	next  int // row that is fetched next
	ended bool
	// hungry tells that fetch waits for the program to move.
	hungry bool
	why    error // why there is no file
}

var errNone = errors.New("no file")

// known is what an earlier start left.
type known struct {
	*table
	fd int
}

// Begin watches im and fetches what an earlier start of the same program touched.
// It returns at once.
func Begin(c Config, im Image) *Session {
	if c.Root == "" || im.Reader == nil {
		return nil
	}
	s := newSession(c, im)
	s.start()
	return s
}

func newSession(c Config, im Image) *Session {
	return &Session{
		config: c, image: im, idle: idle, dir: -1, at: -1, far: maxBlocks, seen: map[squashfs.BlockID]struct{}{},
		wake: make(chan struct{}, 1), window: max(8, windowSize/int(im.Reader.Superblock().BlockSize)),
	}
}

func (s *Session) start() {
	s.image.Reader.Observe(s)
	go s.run()
}

// run opens the file and fetches blocks until the session is over.
func (s *Session) run() {
	if err := s.open(); err != nil {
		s.mu.Lock()
		s.why = err
		s.mu.Unlock()
	}
	if s.dirFD() < 0 {
		s.image.Reader.Observe(nil) // nothing could be kept
		s.over.Store(true)
		return
	}
	time.AfterFunc(recordTime, s.End)
	if k := s.known.Load(); k != nil {
		s.fetch(k)
	}
}

func (s *Session) dirFD() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dir
}

func (s *Session) open() error {
	id, err := s.image.identity(s.config.Program)
	if err != nil {
		return err
	}
	dir, err := openDir(s.config.Root, false)
	if errors.Is(err, os.ErrNotExist) {
		dir, err = openDir(s.config.Root, true)
	}
	if err != nil {
		return err
	}
	fd, t, err := openFile(dir, id)
	s.mu.Lock()
	s.identity, s.dir = id, dir
	s.mu.Unlock()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errNone
	case err != nil:
		return err
	}
	if !s.config.Blocks {
		t.forget()
	}
	s.known.Store(&known{t, fd})
	return nil
}

// fetch brings what comes next in the table to the reader's cache, a bounded way
// ahead of the program, until all was.
func (s *Session) fetch(k *known) {
	var looked time.Time
	pause := idleTime
	var buf []byte
	if k.content > 0 {
		buf = make([]byte, s.image.Reader.Superblock().BlockSize)
	}
	for !s.over.Load() {
		i := s.pick(len(k.entries))
		if i == len(k.entries) {
			return
		}
		if i < 0 {
			<-s.wake
			continue
		}
		if time.Since(looked) > idleTime {
			if looked = time.Now(); !s.idle() {
				// It would only take the processor from the program. The
				// content can come to memory meanwhile.
				if k.content > 0 {
					unix.Fadvise(k.fd, k.entries[i].off, windowSize, unix.FADV_WILLNEED)
				}
				time.Sleep(pause)
				pause *= 2
				continue
			}
			pause = idleTime
		}
		e := &k.entries[i]
		if s.image.Reader.Cached(e.id) {
			continue
		}
		var data []byte
		if e.length > 0 && int(e.length) <= len(buf) {
			// A slow disk delays this goroutine alone: a reader that needs the
			// block meanwhile decompresses it.
			if n, err := unix.Pread(k.fd, buf[:e.length], e.off); err == nil && s.check(e, buf[:n]) {
				data = buf[:n]
			}
		}
		if s.image.Reader.Prefetch(e.id, data) == nil {
			s.fetched.Add(1)
			if data != nil {
				s.loaded.Add(1)
			}
		}
	}
}

// ownThreads may want to run at a time, and yet find a processor each: the program or
// the goroutine that answers it, and the one that fetches.
const ownThreads = 2

// idle tells whether a processor has nothing to do but for this process and its
// program: not where only one may be used, nor where more others want to run than
// there are processors less one.
func idle() bool {
	if runtime.GOMAXPROCS(0) == 1 {
		return false
	}
	n := running(readLine("/proc/loadavg")) - (ownThreads - 1)
	return n <= runtime.NumCPU() || n <= lastProcessor(readLine("/sys/devices/system/cpu/online"))+1
}

// readLine reads a short file of the kernel, past the poller of package os, which
// would cost more than the file.
func readLine(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var b [256]byte
	n, _ := unix.Read(fd, b[:])
	return string(b[:max(n, 0)])
}

// running reads from a line like "0.20 0.18 0.12 1/80 11206" how many want to run.
func running(load string) int {
	f := strings.Fields(load)
	if len(f) < 4 {
		return 0
	}
	text, _, _ := strings.Cut(f[3], "/")
	n, _ := strconv.Atoi(text)
	return n
}

// lastProcessor reads a list like "0-3,5". The host may have more processors than
// this process is allowed.
func lastProcessor(list string) int {
	list = strings.TrimSpace(list)
	n, _ := strconv.Atoi(list[strings.LastIndexAny(list, "-,")+1:])
	return n
}

// pick returns the next row to fetch: -1 if the program must come closer first,
// which wakes then, and rows if none is left.
func (s *Session) pick(rows int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = max(s.next, s.at+1) // what lies behind was read already
	if s.next >= rows {
		return rows
	}
	if s.hungry = s.next >= s.at+1+s.window; s.hungry {
		return -1
	}
	s.next++
	return s.next - 1
}

func (s *Session) check(e *entry, data []byte) bool {
	if len(data) == int(e.length) && checksum(data) == e.crc {
		return true
	}
	s.damaged.Store(true)
	return false
}

// Touched implements squashfs.Observer.
func (s *Session) Touched(id squashfs.BlockID) {
	if s.over.Load() {
		return
	}
	k := s.known.Load()
	moved := false
	s.mu.Lock()
	if _, ok := s.seen[id]; !ok && len(s.order) < maxBlocks {
		s.seen[id] = struct{}{}
		s.order = append(s.order, id)
	}
	if k != nil {
		if i, ok := k.byID[id]; ok {
			moved = s.advance(i) && s.hungry
		}
	}
	s.mu.Unlock()
	if moved {
		s.nudge()
	}
}

// advance moves to row i, if it is ahead. A single touch far ahead is no sign of
// where the program goes: it may be a block that several files share. Two are.
func (s *Session) advance(i int) bool {
	near := i <= s.at+s.window || i > s.far && i <= s.far+s.window
	switch {
	case i <= s.at:
		return false
	case !near:
		s.far = i
		return false
	}
	s.at = i
	return true
}

func (s *Session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Load implements squashfs.Observer. It takes from the file what is in memory.
func (s *Session) Load(id squashfs.BlockID, p []byte) (int, bool) {
	k := s.known.Load()
	if k == nil {
		return 0, false
	}
	i, ok := k.byID[id]
	if !ok {
		return 0, false
	}
	e := &k.entries[i]
	if e.length == 0 || int(e.length) > len(p) {
		return 0, false
	}
	p = p[:e.length]
	n, err := unix.Preadv2(k.fd, [][]byte{p}, e.off, unix.RWF_NOWAIT)
	if err != nil || n != len(p) || !s.check(e, p) {
		return 0, false
	}
	s.loaded.Add(1)
	s.hits.Add(1)
	return n, true
}

// End stops the record and has what is new written by a process of its own. It
// may be called at any time, more than once.
func (s *Session) End() {
	if s == nil {
		return
	}
	s.over.Store(true)
	s.nudge()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	if s.known.Load() == nil || !s.config.Blocks {
		s.image.Reader.Observe(nil)
	}
	if s.dir < 0 {
		return
	}
	if ids := s.wanted(); len(ids) > 0 {
		if err := s.spawn(ids); err != nil {
			s.why = err
		}
	}
}

// wanted returns the blocks of a new file, none if the old one will do.
func (s *Session) wanted() []squashfs.BlockID {
	k := s.known.Load()
	if k == nil {
		return s.order
	}
	var fresh []squashfs.BlockID
	for _, id := range s.order {
		if _, ok := k.byID[id]; !ok {
			fresh = append(fresh, id)
		}
	}
	lacks := s.config.Blocks && k.lacks()
	if !s.damaged.Load() && !lacks && (len(fresh) <= fewBlocks || len(fresh)*10 <= len(k.entries)) {
		return nil
	}
	if len(k.entries)+len(fresh) > maxBlocks {
		return s.order // the old ones are of other times
	}
	var all []squashfs.BlockID
	for i := range k.entries {
		all = append(all, k.entries[i].id)
	}
	return append(all, fresh...)
}

// spawn starts a writer.
func (s *Session) spawn(ids []squashfs.BlockID) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	// A pipe holds all of it, so that this does not wait for the writer.
	if _, err := w.Write(encodeMessage(s.identity, ids)); err != nil {
		return err
	}
	limit := s.config.Limit
	if !s.config.Blocks {
		limit = -limit
	}
	args := []string{"singularity", WriterName, itoa(s.image.Format), strconv.FormatInt(s.image.Off, 10), strconv.FormatInt(s.image.Size, 10), strconv.FormatInt(limit, 10), "0"}
	if s.damaged.Load() {
		args[len(args)-1] = "1"
	}
	n := null.Fd()
	pid, err := syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{
		Dir: "/", Env: []string{"SINGULARITY_WRITER=1"},
		Files: []uintptr{n, n, n, r.Fd(), s.image.File.Fd(), uintptr(s.dir)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err == nil {
		go syscall.Wait4(pid, nil, 0, nil) // this process may live on for long
	}
	return err
}

// String tells what the session did, for those who debug.
func (s *Session) String() string {
	if s == nil {
		return "off"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known.Load(); k != nil {
		return itoa(len(k.entries)) + " blocks known, " + itoa(int(s.fetched.Load())) + " fetched before they were asked for, " +
			itoa(int(s.loaded.Load())) + " taken from the cache, " + itoa(len(s.order)) + " touched"
	}
	why := errNone
	if s.why != nil {
		why = s.why
	}
	return why.Error() + ", " + itoa(len(s.order)) + " blocks touched"
}
