// Package network gives containers their networks: those of the administrator,
// by CNI plug-ins (package linux/cni), or a way out through a program of the
// user's own, pasta or slirp4netns.
//
// Either is kept by a process of its own, the keeper, in a session of its own: a
// start connects to it by a pipe, and when that ends, however the start ended, the
// keeper undoes what it did. Site networks are attached before the container is
// planned, since their name servers belong into its files; the programs are
// started once the container's process has its namespace.
//
// What the user says is checked before a keeper starts, by package linux/cni.
// Programs are the system's, never those of the caller's PATH, and get a fixed
// environment. Root's keeper is as trusted as the administrator's files.
//
// Files: network.go (the side of the start), keeper.go (the keeper), user.go
// (pasta and slirp4netns), resolver.go (name servers).
package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/cni"
	"singularity/linux/entry"
	"singularity/linux/signals"
	"singularity/priv"
	"singularity/priv/keeper"
)

// path is that of every program started here.
const path = "/usr/sbin:/usr/bin:/sbin:/bin"

// Network is the network of one container.
type Network struct {
	IPs, Servers, Search, Options []string
	// Netns is the network namespace that the container must begin in; nil if it
	// makes its own, for which Attach must be called then, or if only the setuid
	// helper may enter it, which knows it as ID.
	Netns *os.File
	ID    string

	program string // a user's way out
	args    []string
	keeper  *keeping
}

// Attach makes a network namespace for root and attaches it to networks called
// names, with the words of --network-args.
func Attach(c *conf.Config, names, words []string) (*Network, error) {
	site := keeper.Site(c)
	if _, err := cni.ParseArgs(names, words, 0); err != nil {
		return nil, err
	}
	k, lines, err := startKeeper(append([]string{siteMode, site.Lists, strings.Join(site.Plugins, ":"), strings.Join(names, ",")}, words...))
	if err != nil {
		return nil, err
	}
	n, path := k.network(lines)
	if n.Netns, err = os.Open(path); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// AttachHelped is Attach for an ordinary user, by the setuid helper.
func AttachHelped(names, words []string) (*Network, error) {
	asked, err := cni.ParseArgs(names, words, lowestPort())
	if err != nil {
		return nil, err
	}
	r := &priv.Request{Verb: priv.NetVerb}
	for i, a := range asked {
		var words []string
		if a.IP != "" {
			words = append(words, "IP="+a.IP)
		}
		for _, p := range a.Ports {
			words = append(words, fmt.Sprintf("portmap=%d:%d/%s", p.Host, p.Container, p.Protocol))
		}
		r.Nets = append(r.Nets, priv.Net{Name: names[i], Words: strings.Join(words, ";")})
	}
	f, pid, err := priv.Keep(r)
	if err != nil {
		return nil, err
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		f.Close()
		return nil, err
	}
	k := &keeping{process: process, control: f, pipe: f}
	lines, err := k.begin()
	if err != nil {
		return nil, err
	}
	n, _ := k.network(lines)
	return n, nil
}

// network is what the keeper says of its networks, and the path of the namespace.
func (k *keeping) network(lines []line) (n *Network, path string) {
	n = &Network{keeper: k}
	for _, l := range lines {
		switch l.key {
		case "ip":
			n.IPs = append(n.IPs, l.value)
		case "server":
			n.Servers = append(n.Servers, l.value)
		case "search":
			n.Search = append(n.Search, l.value)
		case "option":
			n.Options = append(n.Options, l.value)
		case "id":
			n.ID = l.value
		case "path":
			path = l.value
		}
	}
	if len(n.Servers) == 0 {
		n.Servers = upstream("/etc/resolv.conf", upstreamFile)
	}
	return n, path
}

// Close ends the network and returns what could not be undone.
func (n *Network) Close() error {
	if n.Netns != nil {
		n.Netns.Close()
	}
	if n.keeper == nil {
		return nil
	}
	return n.keeper.end()
}

// keeping is the process of a keeper, seen by the start.
type keeping struct {
	process *os.Process
	control *os.File // ended: the network is no longer wanted
	replies *bufio.Reader
	pipe    *os.File // of replies; control itself if that is a socket
}

// line is what a keeper says.
type line struct{ key, value string }

// startKeeper starts a keeper and returns what it says until it is ready.
func startKeeper(args []string) (*keeping, []line, error) {
	in, control, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	pipe, out, err := os.Pipe()
	if err != nil {
		control.Close()
		return nil, nil, err
	}
	defer out.Close()
	k := &keeping{control: control, pipe: pipe}
	if k.process, err = spawn(append([]string{"singularity-cli", KeeperName}, args...), []*os.File{in, out}); err != nil {
		control.Close()
		pipe.Close()
		return nil, nil, err
	}
	out.Close()
	lines, err := k.begin()
	return k, lines, err
}

// begin reads what the keeper says until it is ready.
func (k *keeping) begin() (lines []line, err error) {
	k.replies = bufio.NewReader(io.LimitReader(k.pipe, maxReplies))
	for {
		l, err := k.read()
		switch {
		case err != nil:
			k.end()
			return nil, errors.New("the keeper of the network ended at its start")
		case l.key == "error":
			k.end()
			return nil, errors.New(l.value)
		case l.key == "ready":
			return lines, nil
		}
		lines = append(lines, l)
	}
}

// maxReplies bounds what a keeper may say, in bytes.
const maxReplies = 1 << 20

func (k *keeping) read() (line, error) {
	text, err := k.replies.ReadString('\n')
	if err != nil {
		return line{}, err
	}
	key, value, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	value, err = strconv.Unquote(value)
	return line{key, value}, err
}

// end lets the keeper undo the network and waits for it.
func (k *keeping) end() error {
	if k.control == k.pipe {
		unix.Shutdown(int(k.pipe.Fd()), unix.SHUT_WR)
	} else {
		k.control.Close()
	}
	defer k.pipe.Close()
	var errs error
	for {
		l, err := k.read()
		if err != nil {
			break
		}
		errs = errors.Join(errs, errors.New(l.value))
	}
	_, err := k.process.Wait()
	return errors.Join(errs, err)
}

// spawn starts this program in a session of its own, with files from descriptor 3
// up. It has nothing of the caller's terminal, and of the environment, for a user,
// the place of temporary files.
func spawn(argv []string, files []*os.File) (*os.Process, error) {
	env := []string{"PATH=" + path}
	if dir := os.Getenv("TMPDIR"); dir != "" && os.Getuid() != 0 {
		env = append(env, "TMPDIR="+dir)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	if st := entry.Read(); st.Masked {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		signals.SetMask(st.Mask)
		defer signals.SetMask(st.Mask | entry.Blocked)
	}
	return os.StartProcess("/proc/self/exe", argv, &os.ProcAttr{Dir: "/", Env: env,
		Files: append([]*os.File{null, null, null}, files...), Sys: session})
}
