// Command suid attacks the setuid helper as an ordinary user would, for the
// scripts of e2e/testdata. It prints what it found, and "gained" for what nobody
// may gain.
package main

import (
	"fmt"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"singularity/conf"
	images "singularity/image"
	"singularity/linux/script"
	"singularity/priv"
)

func main() {
	if os.Args[0] == "starter-verify" {
		os.Exit(fakeVerify())
	}
	attacks := map[string]func([]string){
		"argc": argc, "request": request, "steps": steps, "trace": trace, "signals": signals, "limits": limits, "kernel": kernel, "sniff": sniff, "verify": verify,
		"join": join, "net": net, "stopped": stopped,
		"descriptors": descriptors, "arm": arm, "timers": timers, "killed": killed, "corrupt": corrupt, "policy": policy, "granted": granted, "swap": swap, "plain": plain, "look": look, "waiting": waiting,
	}
	attack := attacks[os.Args[1]]
	if attack == nil {
		fail("no attack is called " + os.Args[1])
	}
	attack(os.Args[2:])
}

func fail(v ...any) {
	fmt.Fprintln(os.Stderr, v...)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

// argc starts the helper without any argument, and with one of a megabyte. Linux
// since 5.18 puts an empty one in place of none.
func argc([]string) {
	long := make([]string, 8)
	for i := range long {
		long[i] = strings.Repeat("x", 1<<17-1)
	}
	for _, argv := range [][]string{{}, {"", ""}, long, {priv.Name, "--version"}} {
		var list []*byte
		for _, a := range argv {
			p, _ := syscall.BytePtrFromString(a)
			list = append(list, p)
		}
		list = append(list, nil)
		path, _ := syscall.BytePtrFromString(priv.Path())
		var env []*byte
		for _, e := range hostile {
			p, _ := syscall.BytePtrFromString(e)
			env = append(env, p)
		}
		env = append(env, nil)
		pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 && e == 0 {
			syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&env[0])))
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 99, 0, 0)
		}
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(int(pid), &ws, 0, nil)
		check(err)
		fmt.Println("status", ws.ExitStatus())
	}
}

// hostile is an environment that the Go runtime and the C library obey.
var hostile = []string{"GODEBUG=inittrace=1,gctrace=1,schedtrace=1", "GOGC=1", "GOMEMLIMIT=1", "GOTRACEBACK=crash", "GOMAXPROCS=1000", "GOCOVERDIR=/tmp", "LD_PRELOAD=/nonexistent.so", "LD_DEBUG=all",
	"GLIBC_TUNABLES=glibc.malloc.check=3", "GCONV_PATH=/tmp", "MALLOC_CHECK_=3", "TMPDIR=/nonexistent", "PATH=.", "SINGULARITY_CONFIG_FILE=/nonexistent"}

// start is the helper with bytes as its request, which hold a length or not.
func start(head string, body []byte, fds ...int) (string, int) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	pid, err := syscall.ForkExec(priv.Path(), []string{priv.Name}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2, uintptr(pair[1])}, Env: hostile})
	check(err)
	unix.Close(pair[1])
	unix.Sendmsg(pair[0], []byte(head), unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
	unix.SendmsgN(pair[0], body, nil, nil, unix.MSG_NOSIGNAL)
	unix.Shutdown(pair[0], unix.SHUT_WR)
	b := make([]byte, 4096)
	n, _ := unix.Read(pair[0], b)
	var ws syscall.WaitStatus
	syscall.Wait4(pid, &ws, 0, nil)
	unix.Close(pair[0])
	return string(b[:max(n, 0)]), ws.ExitStatus()
}

// request sends what is no request.
func request([]string) {
	for _, r := range []struct {
		head string
		body []byte
	}{
		{"", nil}, {"x", nil}, {"ffffffffffffffff", nil}, {"00000000ffffffff", nil}, {"0000000000000010", []byte("short")},
		{"0000000000000004", []byte{200, 1, 2, 3}}, {"0000000000000003", []byte{1, 0xff, 0x7f}}, {"0000000000000002", []byte{1, 0}},
		{"0000000001000001", make([]byte, 16<<20+1)},
	} {
		text, status := start(r.head, r.body, 0)
		fmt.Println("status", status, strings.Contains(text, "not well formed"))
	}
}

// open are the files whose descriptors requests name.
var open []*os.File

// image is a request for a container of an image that may be used.
func image(path string, build func(s *script.Script)) (*priv.Request, *script.Script) {
	f, err := os.Open(path)
	check(err)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	check(err)
	open = append(open, f, null) // the collector would close them
	s := new(script.Script)
	build(s)
	l, err := s.List()
	check(err)
	return &priv.Request{Verb: priv.StartVerb, FDs: []int{int(f.Fd()), int(null.Fd())}, Start: priv.Start{
		Report: int(null.Fd()), Images: []priv.Image{{FD: int(f.Fd()), Format: conf.FormatSIF}}, Steps: *l}}, s
}

// ask makes the request and returns what the program printed, or the refusal.
func ask(r *priv.Request) string {
	a, err := priv.Ask(r)
	if err != nil {
		return "error: " + err.Error()
	}
	if a.Refusal != "" {
		return "refused: " + a.Refusal
	}
	var ws syscall.WaitStatus
	syscall.Wait4(a.PID, &ws, 0, nil)
	return "status " + strconv.Itoa(ws.ExitStatus())
}

// steps sends lists of steps that package container would never make: they do
// nothing but give the rights up, and then look for some.
func steps(args []string) {
	look := []string{"-c", `grep -E '^(Uid|Gid|Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status; su -c id 2>/dev/null; ls /proc/self/fd | wc -l`}
	bare := func(s *script.Script) {
		s.Drop()
		s.Exec([]string{"/bin/sh"}, append([]string{"sh"}, look...), []string{"PATH=/usr/bin:/bin"}, "")
	}
	r, _ := image(args[0], bare)
	fmt.Println(ask(r))
	// The program's own calls cannot bring anything back.
	r, _ = image(args[0], func(s *script.Script) {
		s.Drop()
		zero := script.Int(0)
		s.Optional(s.Call("root", unix.SYS_SETRESUID, zero, zero, zero))
		s.Optional(s.Call("caps", unix.SYS_CAPSET, s.Words([]uint64{unix.LINUX_CAPABILITY_VERSION_3}), s.Words([]uint64{1<<64 - 1, 1<<32 - 1, 1<<64 - 1})))
		s.Call("mount", unix.SYS_MOUNT, s.Str("none"), s.Str("/tmp"), s.Str("tmpfs"), zero, zero)
		s.Exec([]string{"/bin/echo"}, []string{"echo", "gained a mount"}, nil, "")
	})
	fmt.Println("mount", ask(r))
	for _, caps := range []uint64{1 << unix.CAP_SYS_ADMIN, 1 << unix.CAP_NET_RAW, 1<<64 - 1} {
		r, _ = image(args[0], bare)
		r.Start.Caps = caps
		fmt.Println("caps", bits.OnesCount64(caps), ask(r))
	}
	for _, call := range []struct {
		name  string
		build func(s *script.Script)
	}{
		{"setuid", func(s *script.Script) { z := script.Int(0); s.Call("x", unix.SYS_SETRESUID, z, z, z) }},
		{"ptrace", func(s *script.Script) { s.Call("x", unix.SYS_PTRACE, script.Int(0)) }},
		{"execve", func(s *script.Script) { s.Call("x", unix.SYS_EXECVE, s.Str("/bin/sh"), script.Int(0), script.Int(0)) }},
		{"ext4", func(s *script.Script) { s.Call("x", unix.SYS_FSOPEN, s.Str("ext4"), script.Int(1)) }},
		{"umount", func(s *script.Script) { s.Call("x", unix.SYS_UMOUNT2, s.Str("/tmp"), script.Int(2)) }},
		{"setns", func(s *script.Script) { s.Call("x", unix.SYS_SETNS, script.Int(0), script.Int(0)) }},
		{"read", func(s *script.Script) {
			s.Call("x", unix.SYS_READ, script.Int(0), s.Bytes(make([]byte, 8)), script.Int(8))
		}},
	} {
		r, _ = image(args[0], func(s *script.Script) { call.build(s); bare(s) })
		fmt.Println(call.name, ask(r))
	}
	// What root alone may read is not opened, before or behind the mark.
	for _, mark := range []bool{false, true} {
		r, _ = image(args[0], func(s *script.Script) {
			if mark {
				s.Drop()
			}
			fd := s.Call("open", unix.SYS_OPENAT, script.Int(unix.AT_FDCWD), s.Str("/etc/shadow"), script.Int(0))
			if !mark {
				s.Drop()
			}
			s.Call("keep", unix.SYS_DUP3, fd.Arg(), script.Int(0), script.Int(0))
			s.Exec([]string{"/bin/cat"}, []string{"cat"}, nil, "")
		})
		fmt.Println("shadow", ask(r))
	}
}

// trace attaches to every process of a start as often as it can, and tells if one
// that has a privilege lets it.
func trace(args []string) {
	runtime.LockOSThread() // the kernel knows a tracer by its thread
	tries, attached, readable := 0, 0, 0
	for range 20 {
		cmd := exec.Command(args[0], args[1:]...)
		check(cmd.Start())
		done := make(chan bool)
		go func() { cmd.Wait(); close(done) }()
		for on := true; on; {
			select {
			case <-done:
				on = false
			default:
			}
			for _, pid := range helpers(cmd.Process.Pid) {
				before := privileged(pid)
				if !before {
					continue
				}
				tries++
				if seize(pid) {
					attached++
				}
				for _, f := range []string{"mem", "environ", "fd", "maps", "root"} {
					path := fmt.Sprintf("/proc/%d/%s", pid, f)
					fd, err := os.Open(path)
					if err == nil {
						if _, err = fd.Readdirnames(1); err != nil {
							_, err = fd.Read(make([]byte, 1))
						}
						fd.Close()
					}
					if err == nil && privileged(pid) {
						readable++
					}
				}
			}
		}
	}
	if tries == 0 {
		fail("no helper was seen")
	}
	fmt.Println("attached", attached, "readable", readable)
}

// seize tells whether a process lets itself be traced while it has a privilege.
func seize(pid int) (privilegedThen bool) {
	request := func(n uintptr) syscall.Errno {
		_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, n, uintptr(pid), 0, 0, 0, 0)
		return e
	}
	if request(unix.PTRACE_SEIZE) != 0 {
		return false
	}
	request(unix.PTRACE_INTERRUPT)
	var ws syscall.WaitStatus
	syscall.Wait4(pid, &ws, unix.WALL, nil)
	privilegedThen = ws.Stopped() && privileged(pid)
	request(unix.PTRACE_DETACH)
	return privilegedThen
}

// helpers are the processes of the helper whose parent is that process: others
// are of scripts that run at the same time.
func helpers(parent int) (out []int) {
	for _, pid := range children(parent) {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if strings.TrimSpace(string(comm)) == priv.Name {
			out = append(out, pid)
		}
	}
	return out
}

// privileged tells whether a process has root's user id or a capability.
func privileged(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "Uid:" && (f[2] == "0" || f[3] == "0" || f[4] == "0"), f[0] == "CapPrm:" && f[1] != "0000000000000000":
			return true
		}
	}
	return false
}

// signals stops, continues and kills the processes of many starts at every stage.
func signals(args []string) {
	list := []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGHUP, syscall.SIGSEGV, syscall.SIGQUIT}
	for i := range 200 {
		cmd := exec.Command(args[0], args[1:]...)
		check(cmd.Start())
		time.Sleep(time.Duration(i*97%200) * 100 * time.Microsecond)
		sent := append(helpers(cmd.Process.Pid), cmd.Process.Pid)
		for _, pid := range sent {
			syscall.Kill(pid, list[i%len(list)])
		}
		time.Sleep(time.Duration(i%3) * time.Millisecond)
		for _, pid := range append(sent, helpers(cmd.Process.Pid)...) {
			syscall.Kill(pid, syscall.SIGCONT) // also what has executed the program meanwhile
		}
		cmd.Wait()
	}
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		left := 0
		for _, pid := range helpers(1) {
			var st unix.Stat_t
			if unix.Stat(fmt.Sprintf("/proc/%d", pid), &st) == nil {
				left++
			}
		}
		if left == 0 {
			fmt.Println("nothing left")
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Println("helpers are left")
}

// limits starts a container under limits of resources, very low: those that let
// this program go on.
func limits(args []string) {
	for _, l := range []struct {
		name string
		n    int
		max  uint64
	}{{"files", unix.RLIMIT_NOFILE, 5}, {"size", unix.RLIMIT_FSIZE, 0}, {"stack", unix.RLIMIT_STACK, 64 << 10},
		{"core", unix.RLIMIT_CORE, 1 << 62}, {"locked", unix.RLIMIT_MEMLOCK, 0}, {"pending", unix.RLIMIT_SIGPENDING, 0}, {"cpu", unix.RLIMIT_CPU, 1},
		{"queues", unix.RLIMIT_MSGQUEUE, 0}, {"locks", unix.RLIMIT_LOCKS, 0}, {"priority", unix.RLIMIT_RTPRIO, 0},
		{"process", unix.RLIMIT_NPROC, 1}} {
		r := shell(args[0])
		var old unix.Rlimit
		check(unix.Getrlimit(l.n, &old))
		max := min(l.max, old.Max)
		check(unix.Setrlimit(l.n, &unix.Rlimit{Cur: max, Max: old.Max}))
		end := ask(r)
		check(unix.Setrlimit(l.n, &old))
		if strings.Contains(end, "goroutine") {
			fmt.Println("a crash")
		}
		fmt.Println(l.name, "done:", end)
	}
	// With each number of processes about where the helper starts, and its child does not: the
	// change to the caller's id must not fail in silence.
	var old unix.Rlimit
	check(unix.Getrlimit(unix.RLIMIT_NPROC, &old))
	for n := processes(); ; n++ {
		r := shell(args[0])
		check(unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: n, Max: old.Max}))
		end := ask(r)
		check(unix.Setrlimit(unix.RLIMIT_NPROC, &old))
		if !strings.Contains(end, "temporarily unavailable") {
			fmt.Println("processes done:", end)
			return
		}
	}
}

// shell is a request for a program of one thread.
func shell(path string) *priv.Request {
	r, _ := image(path, func(s *script.Script) {
		s.Drop()
		s.Exec([]string{"/bin/sh"}, []string{"sh", "-c", "! test -r /etc/shadow || echo gained"}, nil, "")
	})
	return r
}

// processes counts the threads of the caller, which the kernel holds against a limit.
func processes() (n uint64) {
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/*")
	for _, t := range tasks {
		var st unix.Stat_t
		if unix.Stat(t, &st) == nil && int(st.Uid) == os.Getuid() {
			n++
		}
	}
	return n
}

// kernel asks for a mount by the kernel of each file. With -tree before them it wants
// a hash tree to be used; how the key of an encrypted one is wrong, see keyOf; with -shift another part of the file, with -as-ext3 and
// -as-squashfs another file system, and with -other it says that the container is
// made of /etc.
func kernel(args []string) {
	how := ""
	if strings.HasPrefix(args[0], "-") {
		how, args = args[0], args[1:]
	}
	other := args[0]
	if how == "-of" {
		args = args[1:]
	}
	for _, path := range args {
		r, _ := image(path, func(s *script.Script) {
			s.Drop()
			s.Exec([]string{"/bin/true"}, []string{"true"}, nil, "")
		})
		im, err := images.Open(path)
		check(err)
		kind := priv.SquashfsFS
		if im.Format == images.FormatExt {
			kind = priv.Ext3FS
		}
		switch im.Kind {
		case images.Squashfs:
			r.Start.Images[0].Format = conf.FormatSquashfs
		case images.Ext3:
			r.Start.Images[0].Format = conf.FormatExtfs
		}
		key := 0
		if im.Format == images.FormatEncrypted {
			kind, key = priv.CryptFS, keyOf(r, im, how, other)
			r.Start.Images[0].Format = conf.FormatEncrypted
		}
		r.Start.Kernel = &priv.Kernel{FS: kind, Off: uint64(im.Off), Size: uint64(im.Size), Mount: 900, Tree: how == "-tree", Key: key}
		switch how {
		case "-as-ext3":
			r.Start.Kernel.FS = priv.Ext3FS
		case "-as-squashfs":
			r.Start.Kernel.FS = priv.SquashfsFS
		case "-shift":
			r.Start.Kernel.Off += 4096
			r.Start.Kernel.Size -= 4096
		case "-other":
			dir, err := os.Open("/etc")
			check(err)
			open = append(open, dir)
			r.FDs = append(r.FDs, int(dir.Fd()))
			r.Start.Images = []priv.Image{{FD: int(dir.Fd()), Format: conf.FormatDir}}
		}
		fmt.Println(filepath.Base(path), ask(r))
	}
}

// sniff claims the wrong format.
func sniff(args []string) {
	for _, format := range []string{"extfs", "squashfs", "dir", "", "x"} {
		r, _ := image(args[0], func(s *script.Script) {
			s.Drop()
			s.Exec([]string{"/bin/true"}, []string{"true"}, nil, "")
		})
		r.Start.Images[0].Format = format
		fmt.Println(format, ask(r))
	}
}
