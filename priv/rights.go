//go:build !starter

package priv

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"singularity/conf"
)

// What is asked of Rights.
const (
	Capabilities = "capabilities"
	NetworksOf   = "networks"
)

// Bounds of what is asked of a network; the keeper has its own.
const (
	maxPorts   = 256
	maxNetName = 64
)

// person is a user and its groups, by the names that files of the host have for them.
type person struct {
	user   string
	groups []string
}

// Rights says what the administrator's files give to a user with those groups: which
// capabilities, or whether networks may be used, and those of words (each a name,
// then what is asked of it). It runs in the process that judges for the helper.
func Rights(what string, uid int, gids []int, words []string) *Verdict {
	p := person{user: nameOf(users, uid)}
	for _, g := range gids {
		if name := nameOf(groups, g); name != "" {
			p.groups = append(p.groups, name)
		}
	}
	v := &Verdict{OK: true}
	err := errors.New("the caller is no user of this host, so nothing was granted")
	if p.user != "" {
		switch what {
		case Capabilities:
			v.Caps, err = p.capabilities()
		case NetworksOf:
			err = p.networks(words)
		default:
			err = errRequest
		}
	}
	if err != nil {
		return &Verdict{Text: err.Error()}
	}
	return v
}

func (p person) capabilities() (caps uint64, err error) {
	list, err := conf.LoadCapabilities(conf.CapabilityPath(), conf.OpenOwned)
	if err != nil {
		return 0, err
	}
	for _, word := range list.Granted(p.user, p.groups...) {
		caps |= capBits(word)
	}
	return caps, nil
}

func (p person) networks(words []string) error {
	c, err := conf.LoadOwned(conf.Path())
	if err != nil {
		return err
	}
	if !p.mayNetwork(c) {
		return errors.New("singularity.conf names neither the caller nor a group of the caller's: allow net users, allow net groups")
	}
	text := strings.Join(field("/proc/sys/net/ipv4/ip_unprivileged_port_start", ""), "")
	lowest, err := strconv.Atoi(text)
	if err != nil || len(words)%2 != 0 {
		return errRequest
	}
	for pair := range slices.Chunk(words, 2) {
		if err := checkNet(c, Net{pair[0], pair[1]}, lowest); err != nil {
			return err
		}
	}
	return nil
}

// mayNetwork tells whether the caller is one of those that may use networks of the
// administrator.
func (p person) mayNetwork(c *conf.Config) bool {
	return slices.Contains(c.AllowNetUsers, p.user) || slices.ContainsFunc(p.groups, func(g string) bool { return slices.Contains(c.AllowNetGroups, g) })
}

// checkNet holds a network against the administrator's list, and what is asked of it
// against its form.
func checkNet(c *conf.Config, n Net, lowest int) error {
	if !slices.Contains(c.AllowNetNetworks, n.Name) || strings.Trim(n.Name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-") != "" || len(n.Name) > maxNetName {
		return errors.New("singularity.conf does not name the network " + strconv.Quote(n.Name) + ": allow net networks")
	}
	words := strings.Split(n.Words, ";")
	if len(words) > maxPorts+1 {
		return errRequest
	}
	for _, word := range words {
		if ip, ok := strings.CutPrefix(word, "IP="); word == "" && len(words) == 1 || ok && ip != "" && len(ip) <= 45 && strings.Trim(ip, "0123456789abcdefABCDEF.:") == "" {
			continue
		}
		var host, port uint16
		var protocol string
		// What is read must be what it would be written as, and nothing else.
		if n, _ := fmt.Sscanf(word, "portmap=%d:%d/%s", &host, &port, &protocol); n != 3 || fmt.Sprintf("portmap=%d:%d/%s", host, port, protocol) != word ||
			!slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
			return errRequest
		}
		if int(host) < lowest || host == 0 || port == 0 {
			return errors.New("ports of the host below " + strconv.Itoa(lowest) + " are for root (net.ipv4.ip_unprivileged_port_start)")
		}
	}
	return nil
}

// capBits is the set that a word of capability.json means.
func capBits(word string) uint64 {
	if strings.EqualFold(word, "ALL") || strings.EqualFold(word, "CAP_ALL") {
		return 1<<64 - 1
	}
	if n := conf.CapNumber(word); n >= 0 {
		return 1 << n
	}
	return 0
}

// nameOf returns the name of a user or group, "" for nobody.
func nameOf(file string, id int) string {
	return find(file, 2, strconv.Itoa(id))[0]
}
