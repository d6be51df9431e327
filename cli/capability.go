package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/conf"
	"singularity/host"
	"singularity/plan"
)

func newCapabilityCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use: "capability", Aliases: []string{"caps"},
		Short: "Grant capabilities to users and groups",
		Long: "Say which Linux capabilities users and groups may have in their containers where the setuid helper starts them (--add-caps), and, with " +
			"\"root default capabilities = file\", root. The grants are in capability.json beside singularity.conf." +
			"\n\nMost capabilities are a way to be root. In a container without the helper everybody may have all, of their own user namespace.",
		Example: "  $ sudo singularity capability add --user alice CAP_NET_RAW\n" +
			"  $ singularity capability list alice",
	}
	c.AddCommand(newCapabilityChangeCommand(log, "add"), newCapabilityAvailCommand(), newCapabilityChangeCommand(log, "drop"), newCapabilityListCommand())
	return c
}

// capabilityFile is the capability.json that this call is about.
func capabilityFile() string { return filepath.Join(filepath.Dir(siteConfigFile()), "capability.json") }

func newCapabilityChangeCommand(log *action.Log, verb string) *cobra.Command {
	var user, group string
	var desc bool
	what := map[string]string{"add": "Grant capabilities to a user or a group", "drop": "Take capabilities from a user or a group"}[verb]
	c := &cobra.Command{
		Use:   verb + " [options] <capability>[,capability...]",
		Short: what,
		Long:  what + ". Names are in any case, with or without CAP_; \"all\" means all. Only root may do this.",
		Example: "  $ sudo singularity capability " + verb + " --user alice CAP_NET_RAW,CAP_KILL\n" +
			"  $ sudo singularity capability " + verb + " --group staff all",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeCapability,
		RunE: func(c *cobra.Command, args []string) error {
			set, unknown := plan.ParseCaps(args)
			if len(unknown) > 0 {
				log.Warning("won't " + verb + " unknown capability: " + strings.Join(unknown, ","))
			}
			set &= namedCaps()
			switch {
			case desc:
				return describeCaps(c.OutOrStdout(), set)
			case (user == "") == (group == ""):
				return usageError(c, errors.New("give one of --user and --group"))
			case set == 0:
				return action.Fatal(fmt.Errorf("cannot %s %q: it names no capability", verb, args[0]), "singularity capability avail lists them")
			}
			return changeCaps(verb, user, group, set)
		},
	}
	f := c.Flags()
	f.BoolVarP(&desc, "desc", "d", false, "say what the capabilities permit, and change nothing")
	f.StringVarP(&group, "group", "g", "", "the `group`")
	f.StringVarP(&user, "user", "u", "", "the `user`")
	return c
}

// changeCaps adds set to what the file grants to a user or a group, or drops it
// from that.
func changeCaps(verb, user, group string, set plan.Caps) error {
	name, what := user+group, "user"
	if group != "" {
		what = "group"
	}
	if verb == "add" {
		var err error
		if name, err = knownName(user, group); err != nil {
			return err
		}
	}
	return changeSiteFile("capability "+verb, capabilityFile(), "{}", func(old string) (string, error) {
		c, err := conf.ReadCapabilities(strings.NewReader(old))
		if err != nil {
			return "", fmt.Errorf("cannot read %s: %w", capabilityFile(), err)
		}
		lists := &c.Users
		if what == "group" {
			lists = &c.Groups
		}
		have, odd := plan.ParseCaps((*lists)[name])
		if have &= namedCaps(); verb == "add" {
			have |= set
		} else if have&set == 0 {
			return "", fmt.Errorf("cannot drop %s: %s %q has none of them", strings.Join(set.Names(), ","), what, name)
		} else {
			have &^= set
		}
		if *lists == nil {
			*lists = map[string][]string{}
		}
		(*lists)[name] = append(have.Names(), odd...)
		if len((*lists)[name]) == 0 {
			delete(*lists, name)
		}
		return encodeCapabilities(c)
	})
}

// knownName returns the name of a user or a group that there is: a grant to a
// name that nobody has would be that of whoever gets it.
func knownName(user, group string) (string, error) {
	if group != "" {
		if _, ok := host.LookupGroup(group); !ok {
			return "", fmt.Errorf("cannot find group %q in /etc/group or the name service", group)
		}
		return group, nil
	}
	u, err := host.LookupName(user)
	return u.Name, err
}

// encodeCapabilities returns the text of capability.json, indented by tabs.
func encodeCapabilities(c *conf.Capabilities) (string, error) {
	text, err := json.MarshalIndent(c, "", "\t")
	return string(text) + "\n", err
}

func newCapabilityListCommand() *cobra.Command {
	var desc bool
	c := &cobra.Command{
		Use:     "list [options] [user or group]",
		Short:   "List what is granted",
		Long:    "List the capabilities that users and groups are granted, or those of one name.",
		Example: "  $ singularity capability list\n  $ singularity capability list alice",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			granted, err := conf.LoadCapabilities(capabilityFile(), conf.OpenSite)
			if err != nil {
				return action.OwnerHint(err)
			}
			only := strings.Join(args, "")
			n := 0
			for _, l := range []struct {
				what  string
				lists map[string][]string
			}{{"user", granted.Users}, {"group", granted.Groups}} {
				for _, name := range slices.Sorted(maps.Keys(l.lists)) {
					if len(l.lists[name]) == 0 || len(args) > 0 && name != only {
						continue
					}
					n++
					fmt.Fprintf(c.OutOrStdout(), "%s [%s]: %s\n", oneLine(name), l.what, oneLine(strings.Join(l.lists[name], ",")))
					if set, _ := plan.ParseCaps(l.lists[name]); desc {
						describeCaps(c.OutOrStdout(), set&namedCaps())
					}
				}
			}
			switch {
			case n == 0 && len(args) > 0:
				return fmt.Errorf("no capability is granted to a user or group %q", only)
			case n == 0:
				return errors.New("no capability is granted to any user or group")
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&desc, "desc", "d", false, "say what the capabilities permit")
	return c
}

func newCapabilityAvailCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "avail [capability[,capability...]]",
		Short:             "Say what capabilities permit",
		Long:              "List the capabilities that there are, or some of them, and what each permits.",
		Example:           "  $ singularity capability avail CAP_NET_RAW",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeCapability,
		RunE: func(c *cobra.Command, args []string) error {
			set, unknown := plan.ParseCaps(args)
			if len(unknown) > 0 {
				return fmt.Errorf("unknown capability: %s", strings.Join(unknown, ","))
			}
			if len(args) == 0 {
				set = namedCaps()
			}
			return describeCaps(c.OutOrStdout(), set&namedCaps())
		},
	}
}

func completeCapability(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return namedCaps().Names(), cobra.ShellCompDirectiveNoFileComp
}

// namedCaps are the capabilities that have a name.
func namedCaps() plan.Caps { return 1<<len(capabilityText) - 1 }

func describeCaps(w io.Writer, set plan.Caps) error {
	for _, name := range set.Names() {
		if _, err := io.WriteString(w, name+":\n    "+strings.Join(action.WrapWords(capabilityText[conf.CapNumber(name)], 76), "\n    ")+"\n\n"); err != nil {
			return err
		}
	}
	return nil
}

// capabilityText says what each capability permits, by its number, after
// capabilities(7).
var capabilityText = [...]string{
	"Change the owner and the group of any file.",
	"Read, write and execute files whatever their permissions.",
	"Read files and search directories whatever their permissions; open files by handle.",
	"Act as the owner of any file where the owner is asked for: permissions, times, attributes, the sticky bit.",
	"Keep the setuid and setgid bits of a file that is written to; set the setgid bit for a group of others.",
	"Send signals to any process.",
	"Take any group id and any supplementary groups, for itself and in credentials that are sent.",
	"Take any user id, for itself and in credentials that are sent.",
	"Drop capabilities from the bounding set, change the securebits, add to the inheritable set.",
	"Set and clear the attributes immutable and append-only.",
	"Bind sockets to ports below 1024.",
	"Send to broadcast addresses and listen to multicast (not used by the kernel).",
	"Configure networks: interfaces, addresses, routes, firewalls, promiscuous mode, any type of service.",
	"Use raw and packet sockets; bind to any address for transparent proxies.",
	"Lock memory and use large pages without a limit.",
	"Pass over the permissions of System V IPC objects.",
	"Load and unload modules of the kernel.",
	"Access ports, memory and devices of the machine directly.",
	"Use chroot, and enter mount namespaces.",
	"Trace any process, read and write its memory, compare what processes share.",
	"Switch the accounting of processes on and off.",
	"Administer the system: mounts, namespaces, quotas, swap, host name, device control, and much else. In effect root.",
	"Restart the machine, and load a kernel to restart with.",
	"Raise the priority of processes, choose their scheduling, processors and memory nodes.",
	"Pass over limits of resources, quotas and reserved space.",
	"Set the clocks.",
	"Hang up and configure terminals.",
	"Make device files.",
	"Hold leases on any file.",
	"Write to the audit log of the kernel.",
	"Configure the audit system: switch it on and off, change its rules.",
	"Set capabilities on files, and map root's id in a user namespace.",
	"Pass over mandatory access control (Smack).",
	"Configure mandatory access control (Smack, AppArmor).",
	"Read and clear the kernel's log, see kernel addresses.",
	"Set timers that wake the system.",
	"Keep the system from going to sleep.",
	"Read the audit log by a multicast socket.",
	"Use performance counters and other means of observation.",
	"Use BPF programs and maps beyond what is free to all.",
	"Checkpoint and restore processes: choose process ids, read their mapped files.",
}
