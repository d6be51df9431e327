package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/host"
)

func newConfigCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Change the configuration of this host",
		Long:  "Change what an administrator sets up for containers on this host.",
		Example: "  $ sudo singularity config fakeroot --add alice\n" +
			"  $ singularity config global --get \"bind path\"",
	}
	c.AddCommand(newConfigFakerootCommand(log), newConfigGlobalCommand(log))
	return c
}

func newConfigFakerootCommand(log *action.Log) *cobra.Command {
	var add, remove, enable, disable bool
	c := &cobra.Command{
		Use:   "fakeroot [options] <user>",
		Short: "Change the subordinate ids of a user",
		Long: "Give a user subordinate ids, which --fakeroot maps, or take them away: change /etc/subuid and /etc/subgid. Added is the highest block of 65536 ids " +
			"that is free in both files. A disabled entry stays in the files behind an exclamation mark. Only root may do this." +
			"\n\nIds that a directory service gives (see getsubids) are not changed here.",
		Example: "  $ sudo singularity config fakeroot --add alice\n" +
			"  $ sudo singularity config fakeroot --disable alice",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			change, n := host.AddSubIDs, 0
			for i, on := range []bool{add, remove, enable, disable} {
				if on {
					change, n = host.SubIDChange(i), n+1
				}
			}
			if n != 1 {
				return &action.UsageError{Command: commandName(c), Reason: "give one of --add, --remove, --enable and --disable", Use: useLine(c)}
			}
			return configFakeroot(log, change, args[0])
		},
	}
	f := c.Flags()
	f.BoolVarP(&add, "add", "a", false, "give the user a block of ids")
	f.BoolVarP(&disable, "disable", "d", false, "disable the entries of the user")
	f.BoolVarP(&enable, "enable", "e", false, "enable disabled entries of the user")
	f.BoolVarP(&remove, "remove", "r", false, "remove the entries of the user")
	return c
}

// configFakeroot makes one change for the user called name.
func configFakeroot(log *action.Log, change host.SubIDChange, name string) error {
	if os.Geteuid() != 0 {
		return action.Fatal(errors.New("\"singularity config fakeroot\" command requires root privileges"), "run it with sudo")
	}
	user, err := host.LookupName(name)
	if err != nil {
		return err
	}
	err = host.ChangeSubIDs(change, user)
	missing := new(host.NoRangeError)
	switch {
	case errors.Is(err, host.ErrUnchanged):
		log.Info("Nothing to change for " + name)
		return nil
	case errors.As(err, &missing) && missing.Disabled:
		return action.Fatal(err, "enable it: singularity config fakeroot --enable "+name)
	case errors.As(err, &missing):
		return action.Fatal(err, "give the user ids first: singularity config fakeroot --add "+name)
	case err != nil:
		return fmt.Errorf("cannot change the subordinate ids of %q: %w", name, err)
	}
	return nil
}
