package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/linux/script"
	"singularity/priv"
)

// joinRequest asks for a process in the container of a process that fd means.
func joinRequest(fd int, build func(*script.Script)) *priv.Request {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	check(err)
	open = append(open, null)
	s := new(script.Script)
	build(s)
	l, err := s.List()
	check(err)
	n := int(null.Fd())
	return &priv.Request{Verb: priv.JoinVerb, FDs: []int{fd, n}, Join: priv.Join{Process: fd, Report: n, Left: n, Steps: *l}}
}

// joinLook is a program that tells what it is, and where.
func joinLook(s *script.Script) {
	s.Drop()
	s.Exec([]string{"/bin/sh"}, []string{"sh", "-c", `grep -E '^(Uid|Gid|Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status; readlink /proc/self/ns/mnt; ls /proc/self/fd | wc -l`},
		[]string{"PATH=/usr/bin:/bin"}, "")
}

// join asks for processes in the containers of processes, the numbers of which
// are its arguments: none of them is one that the caller may join, unless the
// first argument is "mine".
func join(args []string) {
	mine := args[0] == "mine"
	if mine {
		args = args[1:]
	}
	// Who joins is a grandchild: it ends up here.
	check(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		check(err)
		fd, err := unix.PidfdOpen(pid, 0)
		check(err)
		joinBy(a, fd)
		if !mine {
			if fd, err = unix.Open("/proc/"+a, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
				joinBy(a+" by directory", fd)
			}
			continue
		}
		for _, call := range []struct {
			name  string
			build func(s *script.Script)
		}{
			{"unshare", func(s *script.Script) { s.Call("x", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWUTS)) }},
			{"setns", func(s *script.Script) { s.Call("x", unix.SYS_SETNS, script.Int(fd), script.Int(unix.CLONE_NEWNS)) }},
			{"fsopen", func(s *script.Script) { s.Call("x", unix.SYS_FSOPEN, s.Str("tmpfs"), script.Int(1)) }},
			{"dup3", func(s *script.Script) {
				s.Call("x", unix.SYS_DUP3, script.Int(fd), script.Int(1023), script.Int(0))
			}},
			{"close_range", func(s *script.Script) {
				s.Call("x", unix.SYS_CLOSE_RANGE, script.Int(3), script.Int(1023), script.Int(0))
			}},
		} {
			fmt.Println(call.name, ask(joinRequest(fd, func(s *script.Script) { call.build(s); joinLook(s) })))
		}
		for _, caps := range []uint64{1 << unix.CAP_SYS_ADMIN, 1<<64 - 1} {
			r := joinRequest(fd, joinLook)
			r.Join.Caps = caps
			fmt.Println("caps", ask(r))
		}
		// With descriptors of the caller's own at every number that the helper may use.
		crowded := joinRequest(fd, joinLook)
		null := crowded.Join.Report
		for n := 4; n < 60; n++ {
			if n == fd || n == null {
				continue
			}
			if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil {
				check(unix.Dup3(null, n, unix.O_CLOEXEC))
			}
			crowded.FDs = append(crowded.FDs, n)
		}
		fmt.Println("joined", ask(crowded))
		for {
			if _, err := syscall.Wait4(-1, nil, 0, nil); err == syscall.ECHILD {
				break
			}
		}
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	check(err)
	joinBy("no process", null)
	gone, err := syscall.ForkExec("/bin/true", []string{"true"}, nil)
	check(err)
	fd, err := unix.PidfdOpen(gone, 0)
	check(err)
	syscall.Wait4(gone, nil, 0, nil)
	joinBy("ended", fd)
}

// joinBy asks for the root directory of a process and for a process beside it.
func joinBy(name string, fd int) {
	a, err := priv.Ask(&priv.Request{Verb: priv.RootVerb, FDs: []int{fd}, Join: priv.Join{Process: fd}})
	check(err)
	if a.FD != 0 {
		fmt.Println(name, "root directory")
	} else {
		fmt.Println(name, "no directory:", a.Refusal)
		fmt.Println(name, ask(joinRequest(fd, joinLook)))
	}
}

// stopped asks for a container of a process that runs the helper's program, without
// its rights, since it was traced from the start.
func stopped([]string) {
	runtime.LockOSThread()
	pid, err := syscall.ForkExec(priv.Path(), []string{priv.Name}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
	check(err)
	var ws syscall.WaitStatus
	_, err = syscall.Wait4(pid, &ws, 0, nil)
	check(err)
	fd, err := unix.PidfdOpen(pid, 0)
	check(err)
	joinBy("stopped", fd)
	syscall.Kill(pid, syscall.SIGKILL)
}
