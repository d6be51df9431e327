package action

import (
	"errors"
	"os"
	"slices"

	"singularity/container"
	"singularity/host"
	"singularity/plan"
)

// connect makes the network that the options ask for. It comes before the plan,
// since the files of the container tell of it.
func (s *starter) connect() error {
	h := &s.facts.Host
	if s.ext.UserNet != nil {
		h.UserNet = s.ext.UserNet()
	}
	if s.helper {
		h.NetRights = s.netRights()
	}
	n, _, err := plan.ChooseNetwork(s.o, h.UID, h.UserNet, h.NetRights) // the plan has the notes
	switch {
	case errors.Is(err, plan.ErrNetworkRights):
		return Fatal(err, "--network none is a loopback device alone; with pasta (package passt) or slirp4netns installed --net leads out")
	case err != nil:
		return err
	case n.Kind != plan.SiteNet && n.Kind != plan.UserNet:
		return nil
	case s.ext.Network == nil:
		return handOver(s.argv)
	}
	if s.net, err = s.ext.Network(n, s.o.NetworkArgs, s.conf, s.log); err != nil {
		return err
	}
	h.Net = s.net.Facts
	return nil
}

// netRights are what the administrator lets the caller have of networks, if the
// setuid helper makes the container.
func (s *starter) netRights() plan.NetRights {
	c := s.conf
	if len(c.AllowNetUsers)+len(c.AllowNetGroups) == 0 {
		return plan.NetRights{}
	}
	user, err := host.LookupUser(os.Getuid(), os.Getgid())
	may := err == nil && slices.Contains(c.AllowNetUsers, user.Name)
	if list, err := os.Getgroups(); err == nil && !may {
		for _, g := range host.Groups(append(list, os.Getgid())) {
			may = may || slices.Contains(c.AllowNetGroups, g.Name)
		}
	}
	if !may {
		return plan.NetRights{}
	}
	return plan.NetRights{Networks: c.AllowNetNetworks, Paths: c.AllowNetnsPaths}
}

// helpedNetwork tells whether the setuid helper can give the container the network
// that is asked for: none, or one of the administrator's.
func (s *starter) helpedNetwork() bool {
	o := s.o
	if !networked(o) && o.NetnsPath == "" {
		return true
	}
	way := ""
	if s.ext.UserNet != nil {
		way = s.ext.UserNet()
	}
	n, _, err := plan.ChooseNetwork(o, os.Getuid(), way, s.netRights())
	return err == nil && (n.Kind == plan.SiteNet || o.NetnsPath != "")
}

// disconnect ends the network.
func (s *starter) disconnect() {
	if s.net == nil {
		return
	}
	if err := s.net.End(); err != nil {
		s.log.Warning("Cannot undo the network of the container: " + err.Error())
	}
	s.net = nil
}

// networkHooks adds the network to the hooks of the container.
func (s *starter) networkHooks(h *container.Hooks) {
	if s.net != nil {
		h.Netns, h.NetID, h.Attach = s.net.Netns, s.net.ID, s.net.Attach
	}
}

// address returns the first address of the container, "" if it has none of its
// own.
func (s *starter) address() string {
	if len(s.facts.Host.Net.IPs) == 0 {
		return ""
	}
	return s.facts.Host.Net.IPs[0]
}
