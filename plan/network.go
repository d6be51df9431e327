package plan

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// NetKind says what network a container has.
type NetKind int

const (
	// HostNet is the host's, or that of Plan.NetnsPath.
	HostNet NetKind = iota
	// NoNet is a loopback device and nothing else.
	NoNet
	// SiteNet is a namespace that root attaches to networks of the administrator.
	SiteNet
	// UserNet is a namespace of the user's, with a program of the user's as its
	// way out.
	UserNet
)

// Network is the network of a container.
type Network struct {
	Kind  NetKind
	Names []string // SiteNet: the networks, in order; UserNet: the program
}

// NetFacts are what is known of a network before the container starts.
type NetFacts struct {
	IPs                      []string // addresses of the container
	Servers, Search, Options []string // for its resolv.conf
}

// UserNets are the programs that can be a user's way out, the best first.
var UserNets = [...]string{"pasta", "slirp4netns"}

// ErrNetworkRights says that the caller may not have the network that was asked
// for.
var ErrNetworkRights = errors.New("network requires root or --fakeroot, non-root users can only use --network=none unless permitted by the administrator")

// NetRights are what the administrator lets the caller have by the setuid helper.
type NetRights struct {
	Networks []string // names
	Paths    []string // of network namespaces
}

// all tells whether the caller may have each of the networks.
func (r *NetRights) all(names []string) bool {
	for _, n := range names {
		if !slices.Contains(r.Networks, n) {
			return false
		}
	}
	return true
}

// defaultNetwork is that of --net alone.
const defaultNetwork = "bridge"

// ChooseNetwork returns the network that o asks for, and notes for the user. way
// is the program of UserNets that this host has, "" for none.
func ChooseNetwork(o *Options, uid int, way string, may NetRights) (n Network, notes []string, err error) {
	root := uid == 0 && !o.Userns
	site := root
	if uid != 0 && !o.Userns && !o.Fakeroot {
		site = len(o.Network) > 0 && may.all(o.Network) || len(o.Network) == 0 && may.all([]string{defaultNetwork})
	}
	none := len(o.Network) == 1 && o.Network[0] == "none"
	asked := len(o.Network) == 1 && (o.Network[0] == UserNets[0] || o.Network[0] == UserNets[1])
	// Fakeroot asks for a network that it has not, and gets none.
	fake := o.Fakeroot && !root && !asked && (way == "" || len(o.NetworkArgs) == 0)
	switch {
	case len(o.NetworkArgs) > 0 && (none || !o.Net || fake):
		return n, nil, errors.New("--network-args has arguments for networks: it needs --net and another --network than none, which --fakeroot has not")
	case o.NetnsPath != "" && (o.Net || len(o.Network) > 0):
		return n, nil, errors.New("cannot join existing --netns-path and create a new network namespace with --net/-n")
	case o.NetnsPath != "" && !root && (o.Userns || o.Fakeroot || !slices.Contains(may.Paths, o.NetnsPath)):
		return n, nil, errors.New("you are not permitted to join network namespaces in singularity.conf")
	case none:
		n.Kind = NoNet
	case !o.Net:
		if len(o.Network) > 0 {
			notes = append(notes, "Ignoring --network: it needs --net")
		}
	case fake, o.Boot && len(o.Network) == 0:
		notes = append(notes, "Only --network=none is there: the container gets a loopback device and nothing else")
		n.Kind = NoNet
	case site && !asked:
		n = Network{SiteNet, o.Network}
		if len(o.Network) == 0 && o.Fakeroot {
			n.Names = []string{"fakeroot"}
		} else if len(o.Network) == 0 {
			n.Names = []string{defaultNetwork}
		}
	case uid == 0 && asked:
		return n, nil, errors.New("cannot set up the network " + strconv.Quote(o.Network[0]) + ": it is for ordinary users, root has the networks of the administrator")
	case asked:
		n = Network{UserNet, o.Network}
	case way != "" && uid != 0 && (len(o.Network) == 0 || o.Fakeroot):
		n = Network{UserNet, []string{way}}
	default:
		return n, nil, ErrNetworkRights
	}
	for i, name := range n.Names {
		if n.Kind == SiteNet && name == "none" {
			return n, nil, errors.New("cannot use --network none together with other networks")
		}
		for _, other := range n.Names[:i] {
			if name == other {
				return n, nil, errors.New("cannot attach the network " + strconv.Quote(name) + " twice")
			}
		}
	}
	return n, notes, nil
}

// network plans the network namespace.
func (m *maker) network() error {
	h := &m.f.Host
	n, notes, err := ChooseNetwork(m.o, h.UID, h.UserNet, h.NetRights)
	for _, text := range notes {
		m.note(text)
	}
	if err != nil {
		return err
	}
	m.p.Network, m.p.Namespaces.Net = n, n.Kind == NoNet || n.Kind == UserNet
	if m.o.NetnsPath != "" {
		m.p.NetnsPath = m.absolute(m.o.NetnsPath)
	}
	return nil
}

// ownHosts tells whether the container gets a hosts file of its own.
func (m *maker) ownHosts() bool { return m.o.Contain && m.p.Network.Kind != HostNet }

// hostFiles plans hostname and hosts where the host's do not hold.
func (m *maker) hostFiles() {
	name := m.p.Hostname
	if name != "" {
		m.generate("/etc/hostname", name+"\n")
	}
	if m.ownHosts() {
		text := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
		at := "127.0.1.1"
		if ips := m.f.Host.Net.IPs; len(ips) > 0 {
			at = ips[0]
		}
		if name != "" && validAddress(at) {
			text += at + " " + name + "\n"
		}
		m.generate("/etc/hosts", text)
	}
}

// resolver is the resolv.conf that --dns asks for, or else the networks. Without
// either it is not the container's own, but the host's.
func (m *maker) resolver() (text string, own bool) {
	f := &m.f.Host.Net
	if len(m.o.DNS) == 0 && (len(f.Servers) == 0 || !m.f.Conf.ConfigResolv) {
		return "", false
	}
	var b strings.Builder
	servers := m.o.DNS
	if len(servers) == 0 {
		servers = f.Servers
		for _, l := range []struct {
			key   string
			words []string
		}{{"search", f.Search}, {"options", f.Options}} {
			words := ""
			for _, w := range l.words {
				if validWord(w, ".-_:") {
					words += " " + w
				}
			}
			if words != "" {
				b.WriteString(l.key + words + "\n")
			}
		}
	}
	for _, s := range servers {
		if !validAddress(strings.TrimSpace(s)) {
			m.note("Ignoring name server " + strconv.Quote(s) + ": it is not an address")
			continue
		}
		b.WriteString("nameserver " + strings.TrimSpace(s) + "\n")
	}
	return b.String(), true
}

// validAddress tells whether s can be the address of a name server: it keeps
// whatever else a file of name servers could mean out of that file.
func validAddress(s string) bool { return validWord(s, ".:%") && strings.ContainsAny(s, ".:") }

// validWord tells whether s is of letters, digits and the characters of others.
func validWord(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return s != ""
}
