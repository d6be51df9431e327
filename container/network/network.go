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
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"singularity/conf"
	"singularity/linux/cni"
	"singularity/linux/entry"
	"singularity/linux/signals"
)

// stateDir has the records of networks. What is below /run ends with the machine's
// run, as networks do.
const stateDir = "/run/singularity/network"

// path is that of every program started here.
const path = "/usr/sbin:/usr/bin:/sbin:/bin"

// pluginDirs are where the plug-ins are that came with Singularity, with a
// distribution or from upstream.
func pluginDirs() []string {
	return []string{conf.Prefix + "/libexec/singularity/cni", "/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"}
}

// Site returns the places of the administrator's files.
func Site(c *conf.Config) *cni.Site {
	s := &cni.Site{Lists: c.CNIConfigurationPath, Plugins: pluginDirs(), State: stateDir, Open: conf.OpenOwned}
	if s.Lists == "" {
		s.Lists = conf.Dir() + "/network"
	}
	if c.CNIPluginPath != "" {
		s.Plugins = []string{c.CNIPluginPath}
	}
	return s
}

// Network is the network of one container.
type Network struct {
	IPs, Servers, Search, Options []string
	// Netns is the network namespace that the container must begin in; nil if it
	// makes its own, for which Attach must be called then.
	Netns *os.File

	program string // a user's way out
	args    []string
	keeper  *keeper
}

// Attach makes a network namespace for root and attaches it to networks called
// names, with the words of --network-args.
func Attach(c *conf.Config, names, words []string) (*Network, error) {
	site := Site(c)
	if _, err := cni.ParseArgs(names, words, 0); err != nil {
		return nil, err
	}
	k, lines, err := startKeeper(append([]string{siteMode, site.Lists, strings.Join(site.Plugins, ":"), strings.Join(names, ",")}, words...))
	if err != nil {
		return nil, err
	}
	n := &Network{keeper: k}
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
		case "path":
			n.Netns, err = os.Open(l.value)
		}
	}
	if len(n.Servers) == 0 {
		n.Servers = upstream("/etc/resolv.conf", upstreamFile)
	}
	if err == nil && n.Netns == nil {
		err = errors.New("the keeper of the network made none")
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
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

// keeper is the process of a keeper, seen by the start.
type keeper struct {
	process *os.Process
	control *os.File // closed: the network is no longer wanted
	replies *bufio.Reader
	pipe    *os.File // of replies
}

// line is what a keeper says.
type line struct{ key, value string }

// startKeeper starts a keeper and returns what it says until it is ready.
func startKeeper(args []string) (*keeper, []line, error) {
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
	k := &keeper{control: control, pipe: pipe, replies: bufio.NewReader(io.LimitReader(pipe, maxReplies))}
	if k.process, err = spawn(append([]string{"singularity-cli", KeeperName}, args...), []*os.File{in, out}); err != nil {
		control.Close()
		pipe.Close()
		return nil, nil, err
	}
	out.Close()
	var lines []line
	for {
		l, err := k.read()
		switch {
		case err != nil:
			k.end()
			return nil, nil, errors.New("the keeper of the network ended at its start")
		case l.key == "error":
			k.end()
			return nil, nil, errors.New(l.value)
		case l.key == "ready":
			return k, lines, nil
		}
		lines = append(lines, l)
	}
}

// maxReplies bounds what a keeper may say, in bytes.
const maxReplies = 1 << 20

func (k *keeper) read() (line, error) {
	text, err := k.replies.ReadString('\n')
	if err != nil {
		return line{}, err
	}
	key, value, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	value, err = strconv.Unquote(value)
	return line{key, value}, err
}

// end lets the keeper undo the network and waits for it.
func (k *keeper) end() error {
	k.control.Close()
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
