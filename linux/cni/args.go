package cni

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Args are what a user asks of a network.
type Args struct {
	Ports []Port
	IP    string // the address that the container shall have, if not empty
}

// Port is a port of the host that leads to one of the container.
type Port struct {
	Host, Container int
	Protocol        string // tcp, udp or sctp
}

// maxPorts bounds the ports that one container publishes.
const maxPorts = 256

// ParseArgs reads the words of --network-args for the networks called names:
// "portmap=HOST:CONTAINER/PROTOCOL" and "IP=ADDRESS", with "NETWORK:" before them
// unless the first network is meant. Ports of the host below lowest are refused.
func ParseArgs(names, words []string, lowest int) ([]Args, error) {
	args := make([]Args, len(names))
	for _, list := range words {
		for word := range strings.SplitSeq(list, ";") {
			at, rest := 0, strings.TrimSpace(word)
			for i, name := range names {
				if r, ok := strings.CutPrefix(rest, name+":"); ok {
					at, rest = i, r
					break
				}
			}
			if err := args[at].add(rest, lowest); err != nil {
				return nil, errors.New("cannot use " + strconv.Quote(word) + " of --network-args: " + err.Error())
			}
		}
	}
	return args, nil
}

func (a *Args) add(word string, lowest int) error {
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "portmap":
		p, err := parsePort(value)
		if err != nil {
			return err
		}
		if p.Host < lowest {
			return errors.New("ports below " + strconv.Itoa(lowest) + " are for root (net.ipv4.ip_unprivileged_port_start)")
		}
		if len(a.Ports) == maxPorts {
			return errors.New("more than " + strconv.Itoa(maxPorts) + " ports")
		}
		a.Ports = append(a.Ports, p)
	case "IP":
		ip, err := netip.ParseAddr(value)
		if err != nil || ip.Zone() != "" {
			return errors.New(strconv.Quote(value) + " is not an address")
		}
		a.IP = ip.String()
	default:
		return errors.New(`"portmap=HOST:CONTAINER/PROTOCOL" or "IP=ADDRESS" is wanted, after the name of a network and a colon if it is not for the first`)
	}
	return nil
}

// parsePort reads HOST:CONTAINER/PROTOCOL; without a host's port it is the
// container's, without a protocol it is tcp.
func parsePort(s string) (Port, error) {
	ports, protocol, ok := strings.Cut(s, "/")
	if !ok {
		protocol = "tcp"
	}
	outside, inside, ok := strings.Cut(ports, ":")
	if !ok {
		inside = outside
	}
	h, err1 := strconv.ParseUint(outside, 10, 16)
	c, err2 := strconv.ParseUint(inside, 10, 16)
	if err1 != nil || err2 != nil || h == 0 || c == 0 {
		return Port{}, errors.New(strconv.Quote(ports) + " is not two ports from 1 to 65535 with a colon between them")
	}
	if protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return Port{}, errors.New(strconv.Quote(protocol) + " is none of tcp, udp and sctp")
	}
	return Port{int(h), int(c), protocol}, nil
}

// String returns a as ParseArgs reads it.
func (a *Args) String() string {
	var words []string
	for _, p := range a.Ports {
		words = append(words, "portmap="+strconv.Itoa(p.Host)+":"+strconv.Itoa(p.Container)+"/"+p.Protocol)
	}
	if a.IP != "" {
		words = append(words, "IP="+a.IP)
	}
	return strings.Join(words, ";")
}

func (a *Args) portMappings() string {
	var list []string
	for _, p := range a.Ports {
		list = append(list, `{"hostPort":`+strconv.Itoa(p.Host)+`,"containerPort":`+strconv.Itoa(p.Container)+`,"protocol":"`+p.Protocol+`"}`)
	}
	return "[" + strings.Join(list, ",") + "]"
}
