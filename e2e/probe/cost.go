package main

import (
	"strconv"
	"syscall"
)

// cost runs a program, then prints "cost: MICROSECONDS KIB", its time on the
// processor and the most memory that it or one of its children had, and returns
// its exit status. A program begins with the peak of the process that started it,
// so that it must be one as small as this.
func cost(argv []string) int {
	pid, err := syscall.ForkExec("/usr/bin/env", append([]string{"env"}, argv...), &syscall.ProcAttr{Env: syscall.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		write(err.Error() + "\n")
		return 127
	}
	var status syscall.WaitStatus
	var ru syscall.Rusage
	for {
		if _, err = syscall.Wait4(pid, &status, 0, &ru); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		write(err.Error() + "\n")
		return 127
	}
	write("cost: " + strconv.FormatInt((ru.Utime.Nano()+ru.Stime.Nano())/1000, 10) + " " + strconv.FormatInt(ru.Maxrss, 10) + "\n")
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
