package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/script"
	"singularity/priv"
)

// look says what nobody may have: an id, a capability or a file of root's, and
// descriptors that were not given.
func look([]string) {
	gained := ""
	if privileged(os.Getpid()) {
		gained += " a privilege"
	}
	if _, err := os.ReadFile("/etc/shadow"); err == nil {
		gained += " root's file"
	}
	for fd := range 4096 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // none, or opened since
		}
		if to, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); fd > 2 || strings.Contains(to, "socket:") || strings.HasPrefix(to, "/etc/") {
			gained += " descriptor " + to
		}
	}
	if gained != "" {
		fmt.Println("gained" + gained)
		os.Exit(1)
	}
}

// looking is a request whose program looks, with the image mounted by the kernel
// if it is a squashfs.
func looking(path string) *priv.Request {
	self, err := os.Executable()
	check(err)
	r, _ := image(path, func(s *script.Script) {
		s.Drop()
		s.Exec([]string{self}, []string{"suid", "look"}, nil, "")
	})
	if strings.HasSuffix(path, ".sqfs") {
		fi, err := os.Stat(path)
		check(err)
		r.Start.Images[0].Format = conf.FormatSquashfs
		r.Start.Kernel = &priv.Kernel{FS: priv.SquashfsFS, Size: uint64(fi.Size()), Mount: 900}
	}
	return r
}

// deliver sends a request over a socket, whose other end a helper has, and returns
// what came back.
func deliver(socket int, b []byte, fds []int) string {
	unix.Sendmsg(socket, fmt.Appendf(nil, "%016x", len(b)), unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
	for len(b) > 0 {
		n, err := unix.SendmsgN(socket, b, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil && err != unix.EINTR {
			break
		}
		b = b[max(n, 0):]
	}
	unix.Shutdown(socket, unix.SHUT_WR)
	f := os.NewFile(uintptr(socket), "socket")
	defer f.Close()
	text, _ := io.ReadAll(f)
	return string(text)
}

// reap waits for every child and returns how they ended.
func reap() (ends []string) {
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return ends
		case ws.Signaled():
			ends = append(ends, ws.Signal().String())
		default:
			ends = append(ends, "status "+strconv.Itoa(ws.ExitStatus()))
		}
	}
}

// with starts a helper with the given descriptors, the socket for a request being
// number 3, and returns its answer and how it and the container ended.
func with(path string, std []uintptr, more []uintptr, r *priv.Request) (string, []string) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	files := append(append(slices.Clone(std), uintptr(pair[1])), more...)
	_, err = syscall.ForkExec(path, []string{priv.Name}, &syscall.ProcAttr{Files: files, Env: hostile})
	check(err)
	unix.Close(pair[1])
	text := deliver(pair[0], r.Encode(), r.FDs)
	return text, reap()
}

var standard = []uintptr{0, 1, 2}

// clean prints what is one line: text without the numbers of an answer.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
}

// descriptors hands the helper descriptors of every kind, as its own and in requests.
func descriptors(args []string) {
	for closed := range 8 {
		std := slices.Clone(standard)
		for i := range std {
			if closed&(1<<i) != 0 {
				std[i] = ^uintptr(0)
			}
		}
		text, ends := with(priv.Path(), std, nil, looking(args[0]))
		fmt.Println("closed", closed, clean(text), ends)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	check(err)
	many := slices.Repeat([]uintptr{null.Fd()}, 3000)
	text, ends := with(priv.Path(), standard, many, looking(args[0]))
	fmt.Println("many", clean(text), ends)

	for name, fd := range kinds(args[0]) {
		// In place of the socket.
		_, err := syscall.ForkExec(priv.Path(), []string{priv.Name}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2, uintptr(fd)}, Env: hostile})
		check(err)
		fmt.Println("socket", name, reap())
		// As the image of a request, and as what failures go to.
		r := looking(args[0])
		r.FDs[0], r.Start.Images[0].FD = fd, fd
		if r.Start.Kernel != nil {
		}
		text, ends := with(priv.Path(), standard, nil, r)
		fmt.Println("image", name, clean(text), ends)
		r = looking(args[0])
		r.FDs[1], r.Start.Report = fd, fd
		_, ends = with(priv.Path(), standard, nil, r)
		fmt.Println("report", name, ends)
	}
	for name, fds := range map[string][]int{"low": {3, 9}, "twice": {9, 9}, "high": {1024, 9}, "few": {9}, "none": {}, "huge": {1 << 40, 9}} {
		r := looking(args[0])
		mine := r.FDs
		r.FDs = fds
		b := r.Encode()
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		check(err)
		_, err = syscall.ForkExec(priv.Path(), []string{priv.Name}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2, uintptr(pair[1])}, Env: hostile})
		check(err)
		unix.Close(pair[1])
		fmt.Println("numbers", name, clean(deliver(pair[0], b, mine)), reap())
	}
}

// kinds are descriptors that are no image: of files that the caller may not read,
// or that are none.
func kinds(image string) map[string]int {
	get := func(fd int, err error) int {
		check(err)
		return fd
	}
	pipe := make([]int, 2)
	check(unix.Pipe2(pipe, unix.O_CLOEXEC))
	unix.Close(pipe[1])
	return map[string]int{
		"pipe":      pipe[0],
		"path":      get(unix.Open("/etc/shadow", unix.O_PATH|unix.O_CLOEXEC, 0)),
		"imagepath": get(unix.Open(image, unix.O_PATH|unix.O_CLOEXEC, 0)),
		"mem":       get(unix.Open("/proc/self/mem", unix.O_RDWR|unix.O_CLOEXEC, 0)),
		"ns":        get(unix.Open("/proc/self/ns/mnt", unix.O_CLOEXEC, 0)),
		"procroot":  get(unix.Open("/proc/1/status", unix.O_CLOEXEC, 0)),
		"tty":       get(unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)),
		"memfd":     get(unix.MemfdCreate("x", unix.MFD_CLOEXEC)),
		"epoll":     get(unix.EpollCreate1(unix.EPOLL_CLOEXEC)),
		"event":     get(unix.Eventfd(0, unix.EFD_CLOEXEC)),
		"process":   get(unix.PidfdOpen(os.Getpid(), 0)),
		"signals":   get(unix.Signalfd(-1, new(unix.Sigset_t), unix.SFD_CLOEXEC)),
		"inotify":   get(unix.InotifyInit1(unix.IN_CLOEXEC)),
	}
}

// waiting leaves a helper without a request: the caller can end it.
func waiting([]string) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	pid, err := syscall.ForkExec(priv.Path(), []string{priv.Name}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2, uintptr(pair[1])}, Env: hostile})
	check(err)
	for !privileged(pid) { // it is this program still
		time.Sleep(time.Millisecond)
	}
	fmt.Println("killed", syscall.Kill(pid, syscall.SIGKILL), reap())
}

// arm is what becomes the helper: with a timer that it cannot see, every signal
// ignored, or every one blocked.
func arm(args []string) {
	n, _ := strconv.Atoi(args[1])
	switch args[0] {
	case "ignored":
		for sig := 1; sig < 65; sig++ {
			handler := struct{ handler, flags, restorer, mask uintptr }{handler: 1}
			syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&handler)), 0, 8, 0, 0)
		}
	case "blocked":
		all := ^uint64(0)
		syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
	default:
		which := map[string]unix.ItimerWhich{"real": unix.ItimerReal, "virtual": unix.ItimerVirtual, "profile": unix.ItimerProf}[args[0]]
		micros := unix.NsecToTimeval(int64(n) * 1000)
		_, err := unix.Setitimer(which, unix.Itimerval{Interval: micros, Value: micros})
		check(err)
	}
	check(syscall.Exec(priv.Path(), []string{priv.Name}, hostile))
}

// timers starts helpers whose process has a timer that goes off at every stage,
// which is how a caller stops one at any instruction without tracing it.
func timers(args []string) {
	self, err := os.Executable()
	check(err)
	count := map[string]int{}
	try := func(kind string, micros int) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		check(err)
		_, err = syscall.ForkExec(self, []string{"suid", "arm", kind, strconv.Itoa(micros)}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2, uintptr(pair[1])}})
		check(err)
		unix.Close(pair[1])
		r := looking(args[0])
		deliver(pair[0], r.Encode(), r.FDs)
		for _, end := range reap() {
			count[kind+" "+end]++
		}
	}
	for i := range 60 {
		try("real", 200+i*80)
		if i%4 == 0 {
			try("virtual", 100+i*40)
			try("profile", 100+i*40)
		}
	}
	try("ignored", 0)
	try("blocked", 0)
	for kind, n := range count {
		fmt.Println(n, kind)
	}
	residue(args[0])
}

// killed ends or stops the process that asked, and the helper, at every stage.
func killed(args []string) {
	check(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	self, err := os.Executable()
	check(err)
	for i := range 48 {
		cmd := exec.Command(self, "kernel", args[0])
		check(cmd.Start())
		time.Sleep(time.Duration(i) * 200 * time.Microsecond)
		helper := children(cmd.Process.Pid)
		switch i % 3 {
		case 0:
			cmd.Process.Kill()
		case 1: // the helper's answer finds nobody who reads
			cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(time.Millisecond)
			cmd.Process.Kill()
		case 2:
			for _, pid := range helper {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		reap()
	}
	residue(args[0])
}

// residue waits until nothing is left of helpers and of the kernel's mount of path.
func residue(path string) {
	base := filepath.Base(path)
	left := func() string {
		devices, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, d := range devices {
			if text, _ := os.ReadFile(d); strings.Contains(string(text), base) {
				return d
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		check(err)
		if strings.Contains(string(mounts), base) || strings.Contains(string(mounts), "/loop") {
			return "a mount"
		}
		for _, pid := range append(helpers(os.Getpid()), helpers(1)...) {
			var st unix.Stat_t
			if unix.Stat(fmt.Sprintf("/proc/%d", pid), &st) == nil {
				return fmt.Sprintf("process %d", pid)
			}
		}
		return ""
	}
	what := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if what = left(); what == "" {
			fmt.Println("nothing left")
			return
		}
	}
	fmt.Println("left:", what)
}

// corrupt sends requests that are almost good: each byte another one, a part left
// out, a part twice.
func corrupt(args []string) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	good := looking(args[0])
	b := good.Encode()
	answers, crashed := map[string]int{}, 0
	for i := range 400 {
		bad := slices.Clone(b)
		at := random.IntN(len(bad))
		switch i % 4 {
		case 0:
			bad[at] ^= 1 << random.IntN(8)
		case 1:
			bad[at] = byte(random.Uint32())
		case 2:
			bad = bad[:at]
		case 3:
			bad = slices.Insert(bad, at, bad[:at]...)
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		check(err)
		pid, err := syscall.ForkExec(priv.Path(), []string{priv.Name}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2, uintptr(pair[1])}})
		check(err)
		unix.Close(pair[1])
		text := deliver(pair[0], bad, good.FDs)
		var ws syscall.WaitStatus
		syscall.Wait4(pid, &ws, 0, nil)
		// What is behind the mark may be any call of the caller's own, and so wait for ever.
		for _, child := range children(os.Getpid()) {
			syscall.Kill(child, syscall.SIGKILL)
		}
		reap()
		if ws.Signaled() || ws.ExitStatus() != 0 && ws.ExitStatus() != 255 || strings.Contains(text, "goroutine") {
			crashed++
			fmt.Println("crash", ws, hex.EncodeToString(bad))
		}
		switch {
		case strings.Contains(text, "not well formed"):
			answers["not well formed"]++
		case ws.ExitStatus() == 0:
			answers["done"]++
		default:
			answers["refused"]++
		}
	}
	fmt.Println(crashed, "crashes; seed", seed)
	for a, n := range answers {
		fmt.Println(n, a)
	}
	residue(args[0])
}

// children are the processes whose parent is pid.
func children(pid int) (out []int) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range threads {
		text, _ := os.ReadFile(file)
		for _, f := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(f)
			check(err)
			out = append(out, child)
		}
	}
	return out
}

// policy asks for one thing after another that a directive may forbid.
func policy(args []string) {
	bare := func(s *script.Script) {
		s.Drop()
		s.Exec([]string{"/bin/true"}, []string{"true"}, nil, "")
	}
	for _, row := range []struct {
		name  string
		build func(s *script.Script)
	}{
		{"ipc", func(s *script.Script) { s.Call("x", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWIPC)) }},
		{"uts", func(s *script.Script) { s.Call("x", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWUTS)) }},
		{"user", func(s *script.Script) { s.Call("x", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWUSER)) }},
		{"overlay", func(s *script.Script) { s.Call("x", unix.SYS_FSOPEN, s.Str("overlay"), script.Int(1)) }},
		{"proc", func(s *script.Script) { s.Call("x", unix.SYS_FSOPEN, s.Str("proc"), script.Int(1)) }},
		{"cgroup", func(s *script.Script) { s.Call("x", unix.SYS_FSOPEN, s.Str("cgroup"), script.Int(1)) }},
		{"fuse", func(s *script.Script) { s.Call("x", unix.SYS_FSOPEN, s.Str("fuse"), script.Int(1)) }},
		{"bind", func(s *script.Script) {
			s.Call("x", unix.SYS_OPEN_TREE, script.Int(unix.AT_FDCWD), s.Str("/usr"), script.Int(unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE))
		}},
		{"site", func(s *script.Script) {
			s.Call("x", unix.SYS_OPEN_TREE, script.Int(unix.AT_FDCWD), s.Str("/tmp"), script.Int(unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE))
		}},
	} {
		r, _ := image(args[0], func(s *script.Script) { row.build(s); bare(s) })
		fmt.Println(row.name, ask(r))
	}
	r, _ := image(args[0], bare)
	r.Start.PID = true
	fmt.Println("pid", ask(r))
	for i, format := range []string{conf.FormatSquashfs, conf.FormatExtfs, conf.FormatDir} {
		r, _ := image(args[1+i], bare)
		r.Start.Images[0].Format = format
		fmt.Println(format, ask(r))
	}
}

// granted asks for sets of capabilities, by their numbers.
func granted(args []string) {
	for _, set := range args[1:] {
		r, _ := image(args[0], func(s *script.Script) {
			s.Drop()
			s.Exec([]string{"/bin/grep"}, []string{"grep", "CapEff", "/proc/self/status"}, nil, "")
		})
		for word := range strings.SplitSeq(set, ",") {
			if n := conf.CapNumber(word); n >= 0 {
				r.Start.Caps |= 1 << n
			}
		}
		if set == "all" {
			r.Start.Caps = 1<<64 - 1
		}
		fmt.Println(set, ask(r))
	}
}

// swap exchanges an image and a directory as fast as the kernel does while
// containers of that name are started: swap FILE DIRECTORY RUNS.
func swap(args []string) {
	runs, err := strconv.Atoi(args[2])
	check(err)
	stop, swaps := make(chan bool), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				swaps <- n
				return
			default:
				check(unix.Renameat2(unix.AT_FDCWD, args[0], unix.AT_FDCWD, args[1], unix.RENAME_EXCHANGE))
				n++
			}
		}
	}()
	count := map[string]int{}
	for range runs {
		out, err := exec.Command("singularity", "-q", "exec", args[0], "cat", "/which").CombinedOutput()
		switch text := string(out); {
		case err == nil && text == "file\n":
			count["file"]++
		case err != nil && strings.Contains(text, "disallows users from running sandbox containers"):
			count["refused"]++
		default:
			fmt.Printf("gained: %v %q\n", err, text)
		}
	}
	stop <- true
	n := <-swaps
	fmt.Println("file", count["file"] > 0, "refused", count["refused"] > 0, "ten thousand", n >= 10000)
	fmt.Fprintln(os.Stderr, count, n)
}

// plain starts another build of the helper.
func plain(args []string) {
	text, ends := with(args[0], standard, nil, looking(args[1]))
	fmt.Println(clean(text), ends)
}
