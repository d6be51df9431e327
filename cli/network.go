package cli

import (
	"errors"
	"os"

	"singularity/action"
	"singularity/conf"
	containernet "singularity/container/network"
	"singularity/plan"
)

// network makes the network of a container.
func network(n plan.Network, words []string, c *conf.Config, log *action.Log) (*action.Network, error) {
	made, err := makeNetwork(n, words, c)
	if err != nil {
		return nil, action.Fatal(err, networkHint(err))
	}
	log.Debug("network " + n.Names[0])
	out := &action.Network{Facts: plan.NetFacts{IPs: made.IPs, Servers: made.Servers, Search: made.Search, Options: made.Options}, Netns: made.Netns, ID: made.ID, End: made.Close}
	if n.Kind == plan.UserNet {
		out.Attach = made.Join
	}
	return out, nil
}

func makeNetwork(n plan.Network, words []string, c *conf.Config) (*containernet.Network, error) {
	if n.Kind == plan.UserNet {
		return containernet.Own(n.Names[0], words)
	}
	if os.Getuid() != 0 {
		return containernet.AttachHelped(n.Names, words)
	}
	return containernet.Attach(c, n.Names, words)
}

func networkHint(err error) string {
	if lack, ok := errors.AsType[*containernet.MissingError](err); ok {
		name := lack.Program
		if name == "pasta" {
			name = "passt"
		}
		return "install the package " + name
	}
	if errors.Is(err, containernet.ErrNoTun) {
		return "an administrator can let users have network devices in their own namespaces: chmod 666 /dev/net/tun"
	}
	return ""
}

// userNet returns the program that can be a user's way out of a network namespace.
func userNet() string { return containernet.Find(plan.UserNets[:]) }
