// Package keeper keeps containers attached to networks of the administrator: as
// the program starter-network, which the setuid helper becomes for ordinary users,
// and as a process of root's own starts.
//
// In: the names of networks and what is asked of them; for users the helper has
// checked both against the administrator's lists. Out: lines "KEY "VALUE"" on a
// pipe or socket, the last of which is "ready". A keeper lives until that ends,
// however the start ended, and undoes the networks then.
//
// What is trusted are the administrator's files alone; see package cni. What a
// user makes of the connection only ends the keeper earlier.
package keeper

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/cni"
	"singularity/priv"
)

// connectionFD is where a user's start is connected.
const connectionFD = 3

// patience is how long somebody may let a keeper wait for what it says to be read.
const patience = 10 // seconds

// Site returns the places of the administrator's files.
func Site(c *conf.Config) *cni.Site {
	// Plug-ins that came with Singularity, with a distribution, or from upstream.
	s := &cni.Site{Lists: c.CNIConfigurationPath, Plugins: []string{conf.Prefix + "/libexec/singularity/cni", "/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"},
		State: priv.Networks, Open: conf.OpenOwned}
	if s.Lists == "" {
		s.Lists = conf.Dir() + "/network"
	}
	if c.CNIPluginPath != "" {
		s.Plugins = []string{c.CNIPluginPath}
	}
	return s
}

// Main is the life of starter-network, whose arguments are the user's number, and
// for each network its name and the words that are asked of it. It returns the
// exit status.
func Main(args []string) int {
	c := connection{}
	if err := settle(); err != nil {
		return Keep(c, c, nil, err)
	}
	undo, err := forUser(args, c)
	return Keep(c, c, undo, err)
}

// settle takes from the process all that it still has of the user: what could end
// it, or keep it waiting, before it has undone its work.
//
// Security: the kernel keeps signals, limits, timers and the session of a process
// across setuid and execve.
func settle() error {
	signal.Notify(make(chan os.Signal, 1)) // every signal: none ends it
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for fd := range connectionFD {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return err
		}
	}
	unix.CloseOnExec(connectionFD)
	const none = unix.RLIM_INFINITY
	for _, l := range []struct {
		which int
		limit uint64
	}{{unix.RLIMIT_CPU, none}, {unix.RLIMIT_FSIZE, none}, {unix.RLIMIT_DATA, none}, {unix.RLIMIT_AS, none}, {unix.RLIMIT_RSS, none}, {unix.RLIMIT_NPROC, none},
		{unix.RLIMIT_LOCKS, none}, {unix.RLIMIT_MEMLOCK, 8 << 20}, {unix.RLIMIT_STACK, 8 << 20}, {unix.RLIMIT_NOFILE, 1024}, {unix.RLIMIT_CORE, 0}} {
		err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: l.limit, Max: l.limit})
		if err == unix.EPERM { // root of this host has no CAP_SYS_RESOURCE
			var old unix.Rlimit
			err = errors.Join(unix.Getrlimit(l.which, &old), unix.Setrlimit(l.which, &unix.Rlimit{Cur: old.Max, Max: old.Max}))
		}
		if err != nil {
			return err
		}
	}
	for _, timer := range []unix.ItimerWhich{unix.ItimerReal, unix.ItimerVirtual, unix.ItimerProf} {
		if _, err := unix.Setitimer(timer, unix.Itimerval{}); err != nil {
			return err
		}
	}
	unix.Umask(0o022)
	unix.Setsid()
	return unix.SetsockoptTimeval(connectionFD, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: patience})
}

// connection is the socket, without the runtime's poller, which knows no time that
// is set for it.
type connection struct{}

func (connection) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(connectionFD, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (connection) Write(b []byte) (int, error) {
	for {
		err := unix.Sendto(connectionFD, b, unix.MSG_NOSIGNAL, nil)
		if err != unix.EINTR {
			return len(b), err
		}
	}
}

func forUser(args []string, replies io.Writer) (func() error, error) {
	if os.Getuid() != 0 || os.Geteuid() != 0 || len(args) < 3 || len(args)%2 != 1 {
		return nil, errors.New(priv.KeeperName + " is for the setuid helper to start")
	}
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	c, err := conf.LoadOwned(conf.Path())
	if err != nil {
		return nil, err
	}
	var names []string
	var asked []cni.Args
	for i := 1; i < len(args); i += 2 {
		var words []string
		if args[i+1] != "" {
			words = args[i+1 : i+2]
		}
		a, err := cni.ParseArgs(args[i:i+1], words, 0)
		if err != nil {
			return nil, err
		}
		names, asked = append(names, args[i]), append(asked, a...)
	}
	return Attach(Site(c), uid, names, asked, replies)
}

// Attach attaches networks for the user uid and says what they are like. It
// returns what undoes them.
func Attach(site *cni.Site, uid int, names []string, asked []cni.Args, replies io.Writer) (func() error, error) {
	n, err := site.Attach(uid, names, asked)
	if err != nil {
		return nil, err
	}
	for _, l := range []struct {
		key    string
		values []string
	}{{"ip", n.IPs}, {"server", n.Servers}, {"search", n.Search}, {"option", n.Options}, {"path", []string{n.Path()}}, {"id", []string{n.ID}}} {
		for _, v := range l.values {
			if err := say(replies, l.key, v); err != nil {
				return nil, errors.Join(err, n.Detach())
			}
		}
	}
	return n.Detach, nil
}

// Keep says that all is ready, or why it is not, waits until control ends, and
// undoes then. It returns the exit status.
func Keep(control io.Reader, replies io.Writer, undo func() error, err error) int {
	if err != nil {
		say(replies, "error", err.Error())
		return 255
	}
	// Who does not read it has ended.
	if say(replies, "ready", "") == nil {
		io.Copy(io.Discard, control)
	}
	if err := undo(); err != nil {
		say(replies, "warning", err.Error())
		return 255
	}
	return 0
}

func say(w io.Writer, key, value string) error {
	_, err := io.WriteString(w, strings.Join([]string{key, strconv.Quote(value)}, " ")+"\n")
	return err
}
