package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/script"
	"singularity/priv"
)

// keep asks for networks and returns the keeper, if there is one.
func keep(name string, nets ...priv.Net) (*os.File, int) {
	f, pid, err := priv.Keep(&priv.Request{Verb: priv.NetVerb, Nets: nets})
	if err != nil {
		fmt.Println(name, "refused:", err)
	}
	return f, pid
}

// net asks for networks as nobody should, of which args[0] may be one that the
// caller may have.
func net(args []string) {
	name := args[0]
	if f, pid := keep("name", priv.Net{Name: name}); f != nil {
		lines := bufio.NewScanner(f)
		for lines.Scan() && !strings.HasPrefix(lines.Text(), "ready") && !strings.HasPrefix(lines.Text(), "error") {
			if id, ok := strings.CutPrefix(lines.Text(), "id "); ok {
				fmt.Println("name kept id", strings.Trim(id, `"`))
			}
		}
		fmt.Println("signal:", unix.Kill(pid, unix.SIGKILL))
		unix.Shutdown(int(f.Fd()), unix.SHUT_WR)
		for lines.Scan() {
			fmt.Println(lines.Text())
		}
		syscall.Wait4(pid, nil, 0, nil)
	}
	keep("port 80", priv.Net{Name: name, Words: "portmap=80:80/tcp"})
	keep("words", priv.Net{Name: name, Words: "IP=10.197.0.9;K=V"})
	keep("prefix", priv.Net{Name: name[:len(name)-1]})
	keep("longer", priv.Net{Name: name}, priv.Net{Name: name + "x"})
	keep("path", priv.Net{Name: "../" + name})
	keep("none")
	for _, id := range []string{"u0-0123456789abcdef", "u1-00", "../../../proc/1/ns", fmt.Sprintf("u%d-../x", os.Getuid())} {
		fmt.Println("start in", id, startIn(id))
	}
	fmt.Println("path", startIn("/proc/1/ns/net"))
	_, err := syscall.ForkExec(conf.Prefix+"/libexec/singularity/bin/"+priv.KeeperName, []string{priv.KeeperName, "0", name, ""}, nil)
	fmt.Println("execute:", errors.Unwrap(&os.SyscallError{Err: err}))
}

// startIn asks for a container in a network namespace.
func startIn(id string) string {
	r, _ := image(conf.Prefix+"/rootsown/image.sif", func(s *script.Script) {
		s.Drop()
		s.Exec([]string{"/bin/true"}, []string{"true"}, nil, "")
	})
	r.Start.Network = id
	return ask(r)
}
