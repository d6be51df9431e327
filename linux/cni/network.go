package cni

import (
	"encoding/hex"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Files of a record, in a directory of its own.
const (
	recordName = "record"
	mountName  = "net" // where the namespace is mounted, so that it outlives every process
)

// maxNetworks bounds the networks of one container.
const maxNetworks = 16

// Network is a network namespace that is attached to networks.
type Network struct {
	Result // of all of them
	ID     string

	site *Site
	dir  string
	lock *os.File // held as long as the record is in use
	list []*attachment
}

// attachment is one network.
type attachment struct {
	list   *list
	args   Args
	device string // the interface in the namespace
	result string // what the last program said
}

// Attach makes a network namespace for the user uid and attaches it to the
// networks called names, in order.
func (s *Site) Attach(uid int, names []string, args []Args) (_ *Network, err error) {
	if len(names) > maxNetworks || len(args) != len(names) {
		return nil, errors.New("more than " + strconv.Itoa(maxNetworks) + " networks")
	}
	lists, err := s.find(names)
	if err != nil {
		return nil, err
	}
	n := &Network{site: s}
	for i, l := range lists {
		if err := s.check(l); err != nil {
			return nil, errors.New("cannot attach the network " + strconv.Quote(l.name) + ": " + err.Error())
		}
		if len(args[i].Ports) > 0 && !l.mapsPorts() {
			return nil, errors.New("the network " + strconv.Quote(l.name) + " publishes no ports: its configuration has no plug-in with the capability portMappings")
		}
		n.list = append(n.list, &attachment{list: l, args: args[i], device: "eth" + strconv.Itoa(i)})
	}
	if err := n.begin(uid); err != nil {
		return nil, errors.New("cannot keep a record of the network in " + s.State + ": " + err.Error())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Detach())
		}
	}()
	if err := n.makeNamespace(); err != nil {
		return nil, errors.New("cannot make a network namespace: " + err.Error())
	}
	for _, a := range n.list {
		if err := n.add(a); err != nil {
			return nil, errors.New("cannot attach the network " + strconv.Quote(a.list.name) + ": " + err.Error())
		}
	}
	return n, n.write()
}

// Path returns the path of the namespace.
func (n *Network) Path() string { return n.dir + "/" + mountName }

// Owned returns the path of the namespace of the network id if it was made for
// the user uid.
func (s *Site) Owned(uid int, id string) (string, error) {
	if !validName(id) || !strings.HasPrefix(id, prefix(uid)) {
		return "", errors.New("no network " + strconv.Quote(id) + " is this user's")
	}
	return s.State + "/" + id + "/" + mountName, nil
}

func prefix(uid int) string { return "u" + strconv.Itoa(uid) + "-" }

// add runs the programs of a.
func (n *Network) add(a *attachment) error {
	for i := range a.list.plugins {
		out, err := n.call(a, i, "ADD")
		if err != nil {
			return err
		}
		a.result = out
	}
	res, err := parseResult(a.result)
	if err != nil {
		return errors.New("its result is wrong: " + err.Error())
	}
	n.IPs = append(n.IPs, res.IPs...)
	n.Servers, n.Search, n.Options = append(n.Servers, res.Servers...), append(n.Search, res.Search...), append(n.Options, res.Options...)
	for _, device := range res.outside {
		if err := ignoreRouters(device); err != nil {
			return err
		}
	}
	return nil
}

// ignoreRouters keeps the host from believing a container that says to be a
// router (SC-049).
func ignoreRouters(device string) error {
	if !validName(device) {
		return errors.New("the interface " + strconv.Quote(device) + " has no valid name")
	}
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/accept_ra", []byte("0"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // no IPv6
	}
	return err
}

// call runs the program number i of a.
func (n *Network) call(a *attachment, i int, command string) (string, error) {
	netns, args := n.Path(), "IgnoreUnknown=1"
	if a.args.IP != "" {
		args += ";IP=" + a.args.IP
	}
	if command == "DEL" && !mounted(netns) {
		netns = ""
	}
	prev := a.result
	if command == "DEL" && strings.HasPrefix(a.list.version, "0.3.") {
		prev = "" // version 0.4.0 has it
	}
	p := &a.list.plugins[i]
	return n.site.call(p, command, n.ID, netns, a.device, args, a.list.config(p, &a.args, prev))
}

// Detach detaches the namespace from its networks and forgets it. What cannot be
// undone is left for the next Attach.
func (n *Network) Detach() error {
	defer n.lock.Close()
	if err := n.undo(); err != nil {
		return err
	}
	return n.forget()
}

func (n *Network) undo() error {
	var errs error
	for i := len(n.list) - 1; i >= 0; i-- {
		a := n.list[i]
		for k := len(a.list.plugins) - 1; k >= 0; k-- {
			if _, err := n.call(a, k, "DEL"); err != nil {
				errs = errors.Join(errs, errors.New("cannot detach the network "+strconv.Quote(a.list.name)+": "+err.Error()))
			}
		}
	}
	return errs
}

// forget removes the record.
func (n *Network) forget() error {
	if mounted(n.Path()) {
		if err := unix.Unmount(n.Path(), unix.MNT_DETACH); err != nil {
			return &os.PathError{Op: "unmount", Path: n.Path(), Err: err}
		}
	}
	return os.RemoveAll(n.dir)
}

// mounted tells whether path is a namespace.
func mounted(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// begin makes the directory of the record, after it has undone what others left.
func (n *Network) begin(uid int) error {
	if err := os.MkdirAll(n.site.State, 0o700); err != nil {
		return err
	}
	all, err := os.Open(n.site.State)
	if err != nil {
		return err
	}
	defer all.Close()
	// Security: nobody else may have made it.
	var st unix.Stat_t
	if err := unix.Fstat(int(all.Fd()), &st); err != nil || st.Uid != 0 || st.Mode&0o077 != 0 {
		return errors.New("it is not root's alone")
	}
	// Who makes or removes a record has this lock.
	if err := unix.Flock(int(all.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	n.site.recover(all)
	random := make([]byte, 8)
	if _, err := unix.Getrandom(random, 0); err != nil {
		return err
	}
	n.ID = prefix(uid) + hex.EncodeToString(random)
	n.dir = n.site.State + "/" + n.ID
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return err
	}
	if n.lock, err = os.Open(n.dir); err != nil {
		return err
	}
	return errors.Join(unix.Flock(int(n.lock.Fd()), unix.LOCK_EX), n.write())
}

// recover undoes what processes left that were killed. What cannot be undone is
// forgotten: it would stand in the way of every start.
func (s *Site) recover(all *os.File) {
	names, _ := all.Readdirnames(-1)
	for _, id := range names {
		n := &Network{site: s, ID: id, dir: s.State + "/" + id}
		var err error
		if n.lock, err = os.Open(n.dir); err != nil {
			continue
		}
		if unix.Flock(int(n.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			if n.load() == nil {
				n.undo()
			}
			n.forget()
		}
		n.lock.Close()
	}
}

// A record is a list of texts with a zero byte behind each, four for a network.
func (n *Network) write() error {
	var b strings.Builder
	for _, a := range n.list {
		for _, text := range []string{a.list.text, a.args.String(), a.device, a.result} {
			b.WriteString(text + "\x00")
		}
	}
	name := n.dir + "/" + recordName
	if err := os.WriteFile(name+".new", []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func (n *Network) load() error {
	text, err := os.ReadFile(n.dir + "/" + recordName)
	if err != nil {
		return err
	}
	n.list, err = parseRecord(string(text))
	return err
}

func parseRecord(text string) ([]*attachment, error) {
	var out []*attachment
	words := strings.Split(text, "\x00")
	for ; len(words) > 4 && len(out) < maxNetworks; words = words[4:] {
		l, err := parse(words[0])
		if err != nil {
			return nil, err
		}
		a := &attachment{list: l, device: words[2], result: words[3]}
		if words[1] != "" {
			args, err := ParseArgs([]string{l.name}, words[1:2], 0)
			if err != nil {
				return nil, err
			}
			a.args = args[0]
		}
		out = append(out, a)
	}
	if len(words) != 1 || words[0] != "" {
		return nil, errors.New("the record is cut off")
	}
	return out, nil
}

// makeNamespace makes the namespace, with a loopback device that is up, and
// mounts it.
func (n *Network) makeNamespace() error {
	f, err := os.OpenFile(n.Path(), os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends in the namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopback()
		}
		if err == nil {
			// The ports in here are nobody else's.
			err = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
		}
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", n.Path(), "", unix.MS_BIND, "")
		}
		done <- err
	}()
	return <-done
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
