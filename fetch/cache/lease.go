package cache

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The times of a lease: how often its owner gives a sign of life, after which
// silence it counts as gone, and how often others look.
const (
	beat           = 5 * time.Second
	defaultSilence = 45 * time.Second
	firstPoll      = 20 * time.Millisecond
	lastPoll       = 500 * time.Millisecond
	maxLease       = 4096
)

// A lease is a small file that says who writes an entry. It appears by link,
// which is atomic on network file systems too, and its time of modification is
// the sign of life: others compare it with what they saw before, never with
// their own clock, which may be another.
//
// The locks of the kernel do not do: on many shared file systems they are local
// to a host, or an error.
type lease struct {
	path    string
	silence time.Duration
	poll    time.Duration
	nonce   string // ours
}

// newNonce names a writer: boot of the kernel, process and its start, and
// chance.
func newNonce() string {
	b := make([]byte, 4)
	rand.Read(b)
	return fmt.Sprintf("%s-%x-%x-%s", boot(), os.Getpid(), processStart(os.Getpid()), hex.EncodeToString(b))
}

// deadHere tells whether the writer called nonce ran on this host, since it was
// started, and runs no more.
func deadHere(nonce string) bool {
	w := strings.Split(nonce, "-")
	if len(w) != 4 || w[0] != boot() {
		return false
	}
	pid, err := strconv.ParseUint(w[1], 16, 31)
	start, err2 := strconv.ParseUint(w[2], 16, 64)
	if err != nil || err2 != nil || pid == 0 {
		return false
	}
	return processStart(int(pid)) != start
}

// boot names the run of the kernel and the PID namespace in it, in which the
// numbers of processes mean something.
func boot() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	id := strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")
	ns, _ := os.Readlink("/proc/self/ns/pid")
	return id + strings.Trim(ns, "pid:[]")
}

// processStart returns when process pid began, in ticks since boot; 0 if there
// is none.
func processStart(pid int) uint64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}

// take waits for the lease. It returns false when done says that there is no
// need for it any more.
func (l *lease) take(ctx context.Context, waiting func(string), done func() bool) (bool, error) {
	if l.nonce == "" {
		l.nonce = newNonce()
	}
	silence, wait := cmp.Or(l.silence, defaultSilence), cmp.Or(l.poll, firstPoll)
	var seen sight
	var since time.Time
	for {
		ok, err := l.create()
		if err != nil || ok {
			return ok, err
		}
		now, ok := l.look()
		switch {
		case !ok: // released meanwhile
			if done() {
				return false, nil
			}
			continue
		case now != seen:
			if seen.nonce == "" && waiting != nil {
				waiting(now.host)
			}
			seen, since = now, time.Now()
		}
		if deadHere(seen.nonce) || time.Since(since) > silence {
			l.breakUp(seen)
			seen = sight{nonce: "-"}
			continue
		}
		pause(ctx, wait)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if done() {
			return false, nil
		}
		if l.poll == 0 {
			wait = min(wait*3/2, lastPoll)
		}
	}
}

// Lead lets one of many callers that ask the same go ahead: the first returns at
// once, the others when done says that there is an answer, or when the first is
// through without one, or gone. All of them may go on then; the function that
// is returned ends the lead, of whoever has it. Nothing of this can fail: at
// worst, several ask.
func (c *Cache) Lead(ctx context.Context, name string, waiting func(host string), done func() bool) (release func()) {
	release = func() {}
	if !isName(name) || ownDir(filepath.Join(c.Root, "lease")) != nil {
		return release
	}
	l := &lease{path: filepath.Join(c.Root, "lease", "ref."+name), silence: c.Silence, nonce: newNonce()}
	if got, err := l.create(); err != nil {
		return release
	} else if got {
		stop := l.keep()
		return func() {
			stop()
			l.release()
		}
	}
	var seen sight
	since, wait := time.Now(), firstPoll
	for ctx.Err() == nil && !done() {
		now, there := l.look()
		switch {
		case !there:
			return release
		case seen.nonce != "" && now.nonce != seen.nonce:
			return release
		case now != seen:
			if seen.nonce == "" && waiting != nil {
				waiting(now.host)
			}
			seen, since = now, time.Now()
		}
		if deadHere(seen.nonce) || time.Since(since) > cmp.Or(c.Silence, defaultSilence) {
			l.breakUp(seen)
			return release
		}
		pause(ctx, wait)
		wait = min(wait*3/2, lastPoll)
	}
	return release
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// create makes the lease ours if nobody has it.
func (l *lease) create() (bool, error) {
	host, _ := os.Hostname()
	temp := l.path + ".tmp_" + l.nonce
	text := l.nonce + "\n" + host + "\n"
	defer os.Remove(temp) // a full disk leaves the beginning of it
	err := os.WriteFile(temp, []byte(text), 0o600)
	if err != nil {
		return false, fmt.Errorf("cannot write to the cache: %w", err)
	}
	err = os.Link(temp, l.path)
	if errors.Is(err, fs.ErrExist) {
		// The answer to a link may get lost on the way from a file server.
		now, ok := l.look()
		return ok && now.nonce == l.nonce, nil
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return l.createExclusive(text)
	}
	if err != nil {
		return false, fmt.Errorf("cannot write to the cache: %w", err)
	}
	return true, nil
}

// createExclusive is for file systems without hard links.
func (l *lease) createExclusive(text string) (bool, error) {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot write to the cache: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return false, errors.Join(fmt.Errorf("cannot write to the cache: %w", err), os.Remove(l.path))
	}
	return true, nil
}

// sight is what others see of a lease.
type sight struct {
	nonce, host string
	beat        int64
}

func (l *lease) look() (sight, bool) {
	f, err := os.OpenFile(l.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return sight{}, !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return sight{}, true
	}
	b := make([]byte, maxLease)
	n, _ := f.Read(b)
	nonce, host, _ := strings.Cut(string(b[:n]), "\n")
	return sight{nonce: nonce, host: strings.TrimSpace(host), beat: fi.ModTime().UnixNano()}, true
}

// breakUp takes the lease away from an owner that is gone. Two may come to that
// at once; whoever took away more than it saw puts it back.
func (l *lease) breakUp(seen sight) {
	aside := l.path + ".tmp_gone_" + l.nonce
	if os.Rename(l.path, aside) != nil {
		return
	}
	moved := &lease{path: aside}
	if now, ok := moved.look(); ok && now != seen {
		os.Link(aside, l.path)
	}
	os.Remove(aside)
}

// keep gives signs of life until the function that it returns is called.
func (l *lease) keep() (stop func()) {
	end := make(chan struct{})
	every := beat
	if l.silence > 0 {
		every = l.silence / 5
	}
	go func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-end:
				return
			case <-t.C:
				if now, ok := l.look(); ok && now.nonce == l.nonce {
					os.Chtimes(l.path, time.Time{}, time.Now())
				}
			}
		}
	}()
	return func() { close(end) }
}

func (l *lease) release() {
	if now, ok := l.look(); ok && now.nonce == l.nonce {
		os.Remove(l.path)
	}
}
