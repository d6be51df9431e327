package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/priv"
	"singularity/sif"
)

// verify attacks the process that judges an image for the helper, as often as a
// start lets it: it traces, signals, and opens what it has open.
func verify(args []string) {
	runtime.LockOSThread()
	seen, attached, signalled, opened, failed := 0, 0, 0, 0, 0
	for range 10 {
		cmd := exec.Command(args[0], args[1:]...)
		check(cmd.Start())
		done := make(chan error)
		go func() { done <- cmd.Wait() }()
		for on := true; on; {
			select {
			case err := <-done:
				if on = false; err != nil {
					failed++
				}
			default:
			}
			for _, pid := range verifiers() {
				seen++
				if _, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); e == 0 {
					attached++
				}
				for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM, 0} {
					if syscall.Kill(pid, sig) == nil {
						signalled++
					}
				}
				for _, name := range []string{"fd/1", "fd/3", "mem", "environ", "maps", "root/etc/passwd"} {
					for _, flag := range []int{os.O_RDONLY, os.O_WRONLY} {
						f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, name), flag, 0)
						if err == nil {
							_, err = f.Read(make([]byte, 1))
							f.Close()
						}
						if err == nil {
							opened++
						}
					}
				}
			}
		}
	}
	if seen == 0 {
		fail("no check was seen")
	}
	fmt.Println("attached", attached, "signalled", signalled, "opened", opened, "failed", failed)
}

// verifiers are the processes that judge for the helper.
func verifiers() (out []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		line, _ := os.ReadFile(d + "/cmdline")
		if strings.HasPrefix(string(line), "starter-verify\x00site\x00") {
			pid := 0
			fmt.Sscanf(filepath.Base(d), "%d", &pid)
			out = append(out, pid)
		}
	}
	return out
}

// fakeVerify is this program in the place of starter-verify: it answers as the file
// "fake" beside the configuration says, with a verdict that would be accepted but
// for that.
func fakeVerify() int {
	mode, err := os.ReadFile(conf.Dir() + "/fake")
	image := os.NewFile(3, "image")
	fi, err2 := image.Stat()
	if err != nil || err2 != nil {
		return 2
	}
	f, err := sif.Open(image, fi.Size())
	if err != nil {
		return 2
	}
	root, err := f.Primary()
	if err != nil {
		return 2
	}
	v := &priv.Verdict{OK: true, Listed: true, FS: priv.SquashfsFS, Off: uint64(root.Off), Size: uint64(root.Size)}
	b, status := v.Encode(), 0
	switch strings.TrimSpace(string(mode)) {
	case "good":
	case "none":
		b = nil
	case "status":
		status = 1
	case "twice":
		b = append(b, b...)
	case "short":
		b = b[:len(b)-1]
	case "long":
		b = append(b, 0)
	case "tail":
		b[len(b)-1] = 1
	case "zeros":
		b = make([]byte, len(b))
	case "killed":
		os.Stdout.Write(b)
		raise()
	case "elsewhere":
		v.Off += 4096
		b = v.Encode()
	case "self":
		b = (&priv.Verdict{Text: self()}).Encode()
	}
	os.Stdout.Write(b)
	return status
}

// raise ends this process by a fault: as process 1 of its PID namespace it cannot
// kill itself.
func raise() {
	var limit unix.Rlimit
	unix.Setrlimit(unix.RLIMIT_CPU, &limit)
	for {
	}
}

// self is what this process may do, in a few words.
func self() string {
	text, _ := os.ReadFile("/proc/self/status")
	var out []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch f[0] {
		case "Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "NSpid:":
			out = append(out, f[0]+strings.Join(f[1:], ","))
		}
	}
	dump, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var files []string
	for fd := range 6 { // above are those of the Go runtime
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if name := filepath.Base(link); err == nil && !strings.HasPrefix(link, "anon_inode:") {
			name, _, _ = strings.Cut(name, ":")
			files = append(files, name)
		}
	}
	return strings.NewReplacer("0000000000000000", "0", "65534,65534,65534,65534", "nobody").Replace(strings.Join(out, " ")) +
		fmt.Sprintf(" dumpable:%d env:%q args:%d files:%s", dump, os.Environ(), len(os.Args), strings.Join(files, ","))
}
