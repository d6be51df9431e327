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

// Bounds of a request for networks; the keeper has its own.
const (
	maxNets    = 16
	maxPorts   = 256
	maxNetName = 64
)

// Networks is where the keeper has its records, a directory for each network.
const Networks = "/run/singularity/network"

// Net is a network of the administrator, as a container shall have it.
type Net struct {
	Name  string
	IP    string // the address that is asked for, if not empty
	Ports []Port
}

// Port is a port of the host that leads to one of the container.
type Port struct {
	Host, Container uint16
	Protocol        string
}

func (c *codec) nets(r *Request) {
	list(c, &r.Nets, func(n *Net) {
		c.text(&n.Name)
		c.text(&n.IP)
		list(c, &n.Ports, func(p *Port) {
			num(c, &p.Host)
			num(c, &p.Container)
			c.text(&p.Protocol)
		})
	})
}

// network becomes the keeper of networks: a process of root's that attaches a
// network namespace, says so over the socket, and undoes all when that ends.
//
// Security (SC-010, SC-094, SC-096): what reaches it of the caller are names that
// the administrator allowed, numbers, and the letters of an address. It is the
// installed program, executed by descriptor, and has none of the caller's limits,
// groups, signals and files, so that nothing keeps it from undoing what it does.
func (h *helper) network(r *Request) (*Answer, error) {
	if len(r.FDs) > 0 || len(r.Nets) == 0 || len(r.Nets) > maxNets {
		return nil, errRequest
	}
	if err := h.mayNetwork(); err != nil {
		return nil, err
	}
	argv := []string{KeeperName, strconv.Itoa(h.uid)}
	for i := range r.Nets {
		words, err := h.netWords(&r.Nets[i])
		if err != nil {
			return nil, err
		}
		argv = append(argv, r.Nets[i].Name, words)
	}
	f, err := conf.OpenOwned(conf.Prefix + "/libexec/singularity/bin/" + KeeperName)
	if err != nil {
		return nil, err
	}
	if err := becomeRoot(); err != nil {
		return nil, errors.New("cannot become root: " + err.Error())
	}
	return nil, unix.Exec("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), argv, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// mayNetwork tells whether the caller is one of those that may use networks of the
// administrator.
func (h *helper) mayNetwork() error {
	v, err := h.rights()
	if err == nil && !v.Nets {
		err = errors.New("singularity.conf names neither the caller nor a group of the caller's: allow net users, allow net groups")
	}
	return err
}

// netWords returns what the keeper is told of a network behind its name.
func (h *helper) netWords(n *Net) (string, error) {
	if !slices.Contains(h.conf.AllowNetNetworks, n.Name) || strings.Trim(n.Name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-") != "" || len(n.Name) > maxNetName {
		return "", errors.New("singularity.conf does not name the network " + strconv.Quote(n.Name) + ": allow net networks")
	}
	if len(n.Ports) > maxPorts || len(n.IP) > 45 || strings.Trim(n.IP, "0123456789abcdefABCDEF.:") != "" {
		return "", errRequest
	}
	var words []string
	if n.IP != "" {
		words = append(words, "IP="+n.IP)
	}
	lowest, err := strconv.Atoi(strings.Join(field("/proc/sys/net/ipv4/ip_unprivileged_port_start", ""), ""))
	if err != nil {
		return "", err
	}
	for _, p := range n.Ports {
		if int(p.Host) < lowest || p.Host == 0 || p.Container == 0 {
			return "", errors.New("ports of the host below " + strconv.Itoa(lowest) + " are for root (net.ipv4.ip_unprivileged_port_start)")
		}
		if !slices.Contains([]string{"tcp", "udp", "sctp"}, p.Protocol) {
			return "", errRequest
		}
		words = append(words, "portmap="+strconv.Itoa(int(p.Host))+":"+strconv.Itoa(int(p.Container))+"/"+p.Protocol)
	}
	return strings.Join(words, ";"), nil
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
	if kind, e := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); e != nil || kind != unix.CLONE_NEWNET {
		err = errors.New(path + " is no network namespace")
	} else if path == name {
		err = h.mayNetwork()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
