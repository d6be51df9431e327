package priv

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/conf"
)

// KeeperName is the name of the program that keeps networks, beside the helper.
// It is for root alone.
const KeeperName = "starter-network"

// maxNets bounds a request for networks.
const maxNets = 16

// Networks is where the keeper has its records, a directory for each network.
const Networks = "/run/singularity/network"

// Net is a network of the administrator, as a container shall have it. Words are
// what the keeper is asked for: IP=ADDRESS, portmap=HOST:CONTAINER/PROTOCOL, with
// semicolons between them.
type Net struct{ Name, Words string }

// network becomes the keeper of networks: a process of root's that attaches a
// network namespace, says so over the socket, and undoes all when that ends.
//
// Security (SC-010, SC-094, SC-096): what reaches it of the caller are names that
// the administrator allowed, numbers, and the letters of an address: starter-verify
// said so. It is the installed program, executed by descriptor, and has none of the
// caller's limits, groups, signals and files, so that nothing keeps it from undoing
// what it does.
func (h *helper) network(r *Request) (*Answer, error) {
	if len(r.FDs) > 0 || len(r.Nets) == 0 || len(r.Nets) > maxNets {
		return nil, errRequest
	}
	var words []string
	for _, n := range r.Nets {
		words = append(words, n.Name, n.Words)
	}
	if _, err := h.rights("networks", words...); err != nil {
		return nil, err
	}
	f, err := conf.OpenOwned(conf.Prefix + "/libexec/singularity/bin/" + KeeperName)
	if err != nil {
		return nil, err
	}
	if err := becomeRoot(); err != nil {
		return nil, errors.New("cannot become root: " + err.Error())
	}
	return nil, unix.Exec("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), append([]string{KeeperName, strconv.Itoa(h.uid)}, words...), []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// becomeRoot leaves nothing of the caller's ids. What else could end the keeper
// before it has undone its work, that takes away by itself.
func becomeRoot() error {
	if err := errors.Join(unix.Setgroups(nil), unix.Setresgid(0, 0, 0), unix.Setresuid(0, 0, 0)); err != nil {
		return err
	}
	if r, e, s := unix.Getresuid(); r != 0 || e != 0 || s != 0 {
		return errors.New("the ids are others")
	}
	_, err := unix.FcntlInt(socketFD, unix.F_SETFD, 0)
	return errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, new(unix.Sigset_t), nil))
}

// netns opens the network namespace that a container shall begin in, nil for none:
// one that the keeper made for the caller, or one whose path the administrator
// names.
func (h *helper) netns(name string) (*os.File, error) {
	path := name
	switch {
	case name == "":
		return nil, nil
	case !strings.HasPrefix(name, "/"):
		id, mine := strings.CutPrefix(name, "u"+strconv.Itoa(h.uid)+"-")
		if !mine || id == "" || strings.Trim(id, "0123456789abcdef") != "" {
			return nil, errors.New("no network " + strconv.Quote(name) + " is the caller's")
		}
		path = Networks + "/" + name + "/net"
	case !slices.Contains(h.conf.AllowNetnsPaths, name):
		return nil, errors.New("singularity.conf does not name the network namespace " + strconv.Quote(name) + ": allow netns paths")
	}
	f, err := conf.OpenOwned(path)
	if err != nil {
		return nil, err
	}
	if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return nil, errors.New(path + " is no network namespace")
	}
	if path == name {
		_, err = h.rights("networks")
	}
	return f, err
}
