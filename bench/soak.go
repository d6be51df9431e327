package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	soakWorkers = 3
	soakPercent = 70                     // of the starts during which something is killed
	soakSpan    = 120 * time.Millisecond // within which that happens
	soakTime    = 60 * time.Second       // for one start
	settleTime  = 40 * time.Second       // for what ends by itself: holders, programs that write
)

// soak: many starts of every kind, in which processes of ours get a kill -9 at
// random times; then what is left behind. Every number must be 0.
func (b *bench) soak(ctx context.Context) error {
	s := &soaker{b: b, mark: fmt.Sprintf("soak-%d", os.Getpid()), codes: map[string]int{}, kinds: soakKinds}
	if b.user.uid != 0 {
		s.kinds = slices.DeleteFunc(slices.Clone(s.kinds), func(k soakKind) bool { return k.root })
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	say("%d starts by %d workers, seed %d", b.soakN, soakWorkers, b.seed)
	s.sweep = s.look()
	var wg sync.WaitGroup
	for w := range soakWorkers {
		wg.Go(func() { s.work(ctx, w) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.tidy(ctx)
	s.report()
	return nil
}

// soaker is a run of soak.
type soaker struct {
	b      *bench
	mark   string // in the arguments of what belongs to this run
	kinds  []soakKind
	next   atomic.Int64
	killed atomic.Int64
	sweep  map[string]map[string]bool // what look found at the begin

	mu    sync.Mutex
	codes map[string]int // how starts ended, by kind and status
	words []string       // messages of starts that failed
}

// soakKind is a way to start a container. The words after the verb: IMAGE, TREE
// and OVERLAY stand for the files of the run.
type soakKind struct {
	name     string
	argv     string
	instance bool
	root     bool // for root alone
}

var soakKinds = []soakKind{
	{name: "shared mount", argv: "exec IMAGE"},
	{name: "own mount", argv: "exec --no-shared-mount IMAGE"},
	{name: "directory", argv: "exec TREE"},
	{name: "--pid", argv: "exec --pid IMAGE"},
	{name: "--pid, own mount", argv: "exec --pid --no-shared-mount IMAGE"},
	{name: "--containall", argv: "exec --containall TREE"},
	{name: "--fakeroot", argv: "exec --fakeroot IMAGE"},
	{name: "--fakeroot, directory", argv: "exec --fakeroot TREE"},
	{name: "--writable-tmpfs", argv: "exec --writable-tmpfs IMAGE"},
	{name: "--overlay", argv: "exec --overlay OVERLAY IMAGE"},
	{name: "--overlay, image", argv: "exec --overlay OVERLAY.img IMAGE"},
	{name: "--tmp-sandbox", argv: "exec --tmp-sandbox SMALL"},
	{name: "instance", instance: true},
	{name: "limits", argv: "exec --pids-limit 100 IMAGE", root: true},
}

func (s *soaker) path(name string) string { return s.b.path("tmp/soak/" + name) }

// prepare makes the directories, an overlay for each worker, and a small image.
func (s *soaker) prepare(ctx context.Context) error {
	b := s.b
	dirs := []string{"tmp/soak", "tmp/soak/tmp", "tmp/soak/conf", "tmp/soak/small", "tmp/soak/small/bin", "tmp/soak/small/tmp", "tmp/soak/small/proc"}
	for w := range soakWorkers {
		dirs = append(dirs, fmt.Sprintf("tmp/soak/overlay%d", w))
	}
	for _, d := range dirs {
		if err := b.makeDir(b.path(d)); err != nil {
			return err
		}
	}
	if err := copyProgram("/bin/busybox", s.path("small/bin/busybox")); err != nil {
		return fmt.Errorf("cannot make a small image: %w", err)
	}
	for _, name := range []string{"sh", "sleep", "true"} {
		if err := os.Symlink("busybox", s.path("small/bin/"+name)); err != nil {
			return err
		}
	}
	if _, err := b.output(ctx, b.program("packtree"), "-c", "gzip", s.path("small"), s.path("small.sqfs")); err != nil {
		return err
	}
	if _, err := exec.LookPath("fuse2fs"); err != nil {
		say("fuse2fs is not installed: no overlays in images")
		s.kinds = slices.DeleteFunc(slices.Clone(s.kinds), func(k soakKind) bool { return strings.Contains(k.argv, ".img") })
		return nil
	}
	for w := range soakWorkers {
		if _, err := b.output(ctx, b.program("singularity"), "overlay", "create", "--size", "64", s.path(fmt.Sprintf("overlay%d.img", w))); err != nil {
			return err
		}
	}
	return nil
}

// work starts containers until enough have been.
func (s *soaker) work(ctx context.Context, w int) {
	r := &dice{uint64(s.b.seed)<<8 + uint64(w)}
	for ctx.Err() == nil {
		n := s.next.Add(1)
		if n > int64(s.b.soakN) {
			return
		}
		if n%500 == 0 {
			say("%d starts, %d processes killed", n, s.killed.Load())
		}
		k := s.kinds[r.n(len(s.kinds))]
		if !k.instance {
			words := strings.Fields(k.argv)
			for i := range words {
				words[i] = s.word(words[i], w)
			}
			s.start(ctx, r, k.name, append(words, "sh", "-c", s.program(r), s.mark)...)
			continue
		}
		name := fmt.Sprintf("%s-%d", s.mark, w)
		s.start(ctx, r, "instance start", "instance", "start", s.word("IMAGE", w), name)
		s.start(ctx, r, "instance exec", "exec", "instance://"+name, "sh", "-c", s.program(r), s.mark)
		s.start(ctx, r, "instance stop", "instance", "stop", "-t", "1", name)
	}
}

func (s *soaker) word(word string, w int) string {
	switch word {
	case "IMAGE":
		return s.b.sif("gzip")
	case "TREE":
		return s.b.path("tree")
	case "SMALL":
		return s.path("small.sqfs")
	}
	if rest, ok := strings.CutPrefix(word, "OVERLAY"); ok {
		return s.path(fmt.Sprintf("overlay%d%s", w, rest))
	}
	return word
}

// program is what runs in a container: something short, or something that the
// kill finds alive.
func (s *soaker) program(r *dice) string {
	if r.n(3) == 0 {
		return "true"
	}
	return fmt.Sprintf("sleep 0.%02d; :", r.n(10))
}

// start runs our program, kills a process of ours meanwhile, and notes how it
// ended.
func (s *soaker) start(ctx context.Context, r *dice, kind string, args ...string) {
	ctx, cancel := context.WithTimeout(ctx, soakTime)
	defer cancel()
	c := s.command(ctx, args...)
	var said bytes.Buffer
	c.Stderr = &said
	kill, after, pick := r.n(100) < soakPercent, time.Duration(r.n(int(soakSpan))), r.n(1<<20)
	if err := c.Start(); err != nil {
		s.note(kind, "not started", err.Error())
		return
	}
	done := make(chan struct{})
	if kill {
		go func() {
			time.Sleep(after)
			s.kill(pick)
			close(done)
		}()
	} else {
		close(done)
	}
	err := c.Wait()
	<-done
	status := "exit " + strconv.Itoa(c.ProcessState.ExitCode())
	ws, _ := c.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ctx.Err() != nil:
		status = "hangs"
	case errors.Is(err, exec.ErrWaitDelay):
		status = "leaves its standard error open"
	case ws.Signaled():
		status = "signal " + strconv.Itoa(int(ws.Signal()))
	}
	s.note(kind, status, said.String())
}

func (s *soaker) command(ctx context.Context, args ...string) *exec.Cmd {
	c := s.b.command(ctx, append([]string{s.b.program("singularity")}, args...)...)
	c.Env = append(c.Env, "SINGULARITY_CONFIGDIR="+s.path("conf"), "SINGULARITY_TMPDIR="+s.path("tmp"), "TMPDIR="+s.path("tmp"))
	return c
}

func (s *soaker) note(kind, status, said string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[kind+": "+status]++
	for l := range strings.Lines(said) {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "INFO") && !strings.HasPrefix(l, "hint:") && len(s.words) < 1000 {
			s.words = append(s.words, kind+": "+status+": "+l)
		}
	}
}

// kill kills one of the processes of this run.
func (s *soaker) kill(pick int) {
	list := s.processes()
	if len(list) == 0 {
		return
	}
	// The number may belong to another process by now, as for any kill.
	if syscall.Kill(list[pick%len(list)].pid, syscall.SIGKILL) == nil {
		s.killed.Add(1)
	}
}

// tidy does what an ordinary day brings: a start of each kind that is not
// killed, and a look at the list of instances, which removes the records of
// those that were.
func (s *soaker) tidy(ctx context.Context) {
	time.Sleep(soakSpan)
	for _, args := range [][]string{
		{"exec", s.word("IMAGE", 0), "true"}, {"exec", "--tmp-sandbox", s.word("SMALL", 0), "true"},
		{"instance", "start", s.word("IMAGE", 0), s.mark + "-end"}, {"instance", "stop", "--all"}, {"instance", "list"},
	} {
		c := s.command(ctx, args...)
		c.Stderr = nil
		if out, err := c.CombinedOutput(); err != nil {
			s.note("the end", err.Error(), string(out))
		}
	}
}

// report waits for what ends by itself and adds the numbers of what does not.
func (s *soaker) report() {
	for _, k := range sortedKeys(s.codes) {
		say("%5d  %s", s.codes[k], k)
	}
	counts := map[string]int{}
	for _, w := range s.words {
		counts[numbers.ReplaceAllString(w, "N")]++
	}
	for _, w := range sortedKeys(counts) {
		say("%5d  %s", counts[w], w)
	}
	left := s.settle()
	for _, what := range soakLeft {
		names := sortedKeys(left[what])
		r := row{Name: "soak: " + what + " left behind", Result: float64(len(names)), Met: verdict(len(names) == 0)}
		if what == soakLeft[0] {
			r.Note = fmt.Sprintf("%d starts, %d processes killed, seed %d", s.b.soakN, s.killed.Load(), s.b.seed)
		}
		r.Ours = newSpread([]float64{float64(len(names))})
		s.b.add(r)
		for _, n := range names[:min(len(names), 20)] {
			say("  %s", n)
		}
	}
	var odd []string
	for _, k := range sortedKeys(s.codes) {
		if strings.HasSuffix(k, "hangs") || strings.HasSuffix(k, "open") || strings.HasSuffix(k, "not started") {
			odd = append(odd, k)
		}
	}
	s.b.add(row{Name: "soak: starts that hang", Result: float64(len(odd)), Ours: newSpread([]float64{float64(len(odd))}), Met: verdict(len(odd) == 0), Note: strings.Join(odd, ", ")})
}

// soakLeft are the kinds of what may be left behind.
var soakLeft = []string{"processes", "mounts", "files", "abstract sockets", "locks", "control groups"}

// settle returns what is there and does not go by itself.
func (s *soaker) settle() map[string]map[string]bool {
	left := s.look()
	for what, names := range left {
		for n := range s.sweep[what] {
			delete(names, n)
		}
	}
	for end := time.Now().Add(settleTime); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		now, any := s.look(), false
		for what, names := range left {
			for n := range names {
				if !now[what][n] {
					delete(names, n)
				}
			}
			any = any || len(names) > 0
		}
		if !any {
			break
		}
	}
	return left
}

// look finds what there is of each kind, by names that stay the same.
func (s *soaker) look() map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for _, what := range soakLeft {
		out[what] = map[string]bool{}
	}
	for _, p := range s.processes() {
		out["processes"][fmt.Sprintf("%d %q", p.pid, p.line)] = true
	}
	s.mounts(out["mounts"])
	s.files(out["files"])
	for l := range strings.Lines(readAll("/proc/net/unix")) {
		f := strings.Fields(l)
		if len(f) == 8 && strings.HasPrefix(f[7], fmt.Sprintf("@singularity/%d/", s.b.user.uid)) {
			out["abstract sockets"][f[6]+" "+f[7]] = true
		}
	}
	s.locks(out["locks"])
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		base, in := filepath.Base(path), filepath.Base(filepath.Dir(path))
		if d != nil && d.IsDir() && (strings.HasPrefix(base, "singularity-") || in == "singularity") {
			out["control groups"][path] = true
		}
		return nil
	})
	return out
}

// mounts finds the mounts of this run's files, and those of FUSE that the user
// has, in every mount namespace that can be seen.
func (s *soaker) mounts(out map[string]bool) {
	seen := map[string]bool{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		ns, err := os.Readlink(d + "/ns/mnt")
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		for l := range strings.Lines(readAll(d + "/mountinfo")) {
			if strings.Contains(l, s.b.dir) || strings.Contains(l, " - fuse") && strings.Contains(l, fmt.Sprintf("user_id=%d,", s.b.user.uid)) {
				out[ns+" "+strings.TrimSpace(l)] = true
			}
		}
	}
}

// files finds temporary sandboxes, records of instances and what else lies
// where only something passing should. The logs of instances are kept.
func (s *soaker) files(out map[string]bool) {
	for _, pattern := range []string{
		s.path("tmp/*"), s.path("conf/instances/sing/*/*/*"), s.path("conf/instances/sing/*/*/*/.*"), s.b.path("tmp/keys/*"),
		"/tmp/rootfs-*", "/var/tmp/rootfs-*", "/dev/shm/singularity*", fmt.Sprintf("/run/user/%d/singularity*", s.b.user.uid),
	} {
		found, _ := filepath.Glob(pattern)
		for _, f := range found {
			out[f] = true
		}
	}
}

// locks finds overlays that a dead owner still keeps from others, and files
// that are locks.
func (s *soaker) locks(out map[string]bool) {
	found, _ := filepath.Glob(s.path("overlay*"))
	for _, p := range found {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		lock := syscall.Flock_t{Type: syscall.F_WRLCK}
		err = syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock)
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil || err == nil && lock.Type != syscall.F_UNLCK {
			out[p] = true
		}
		f.Close()
	}
	filepath.WalkDir(s.b.path("tmp"), func(path string, d os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".lock") || strings.HasSuffix(path, ".lease") {
			out[path] = true
		}
		return nil
	})
}

// numbers are what makes alike messages different.
var numbers = regexp.MustCompile(`[0-9]+`)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// dice makes the same numbers from the same seed (splitmix64); no secret hangs on
// them.
type dice struct{ state uint64 }

// n returns a number below limit.
func (d *dice) n(limit int) int {
	d.state += 0x9e3779b97f4a7c15
	z := d.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int((z ^ z>>31) % uint64(limit))
}

// soakProcess is a process of this run.
type soakProcess struct {
	pid  int
	line string
}

// processes finds the processes of this run: by the file that they execute, by
// an image of it among their arguments or their descriptors, or by the mark.
func (s *soaker) processes() []soakProcess {
	var out []soakProcess
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		at := "/proc/" + d.Name()
		exe, _ := os.Readlink(at + "/exe")
		line := readAll(at + "/cmdline")
		image := ""
		if strings.HasPrefix(line, "fuse") {
			image, _ = os.Readlink(at + "/fd/3")
		}
		if strings.HasPrefix(exe, s.b.path("bin/singularity")) || strings.Contains(line, s.mark) || strings.HasPrefix(image, s.b.dir) {
			out = append(out, soakProcess{pid, strings.ReplaceAll(line, "\x00", " ")})
		}
	}
	return out
}
