package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/container/instance"
)

func newInstanceCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "instance",
		Short: "Manage containers that run in the background",
		Long: "Start, list, watch and stop instances: containers that go on in the background under a name. exec, run and shell join one as instance://NAME.\n\n" +
			"What an instance prints goes to log files, whose paths \"instance list --logs\" shows.",
		Example: "  $ singularity instance start nginx.sif web\n  $ singularity instance list\n  $ singularity instance stop web",
	}
	c.AddCommand(actionCommands(log, action.Instances)...)
	c.AddCommand(newInstanceListCommand(), newInstanceStatsCommand(), newInstanceStopCommand(log))
	return c
}

// userFlag adds --user.
func userFlag(c *cobra.Command, user *string) {
	c.Flags().StringVarP(user, "user", "u", "", "look at the instances of this user (only for root)")
}

type listOptions struct {
	user       string
	json, logs bool
}

func newInstanceListCommand() *cobra.Command {
	var o listOptions
	c := &cobra.Command{
		Use:   "list [options] [glob]",
		Short: "List running instances",
		Long:  "List the running instances of this user on this host, or those whose names match a pattern.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, []flagEnv{{flag: "user", key: "USER"}}); err != nil {
				return err
			}
			return listInstances(c.OutOrStdout(), &o, pattern(args))
		},
		Example: "  $ singularity instance list\n  $ singularity instance list --json 'web*'",
	}
	userFlag(c, &o.user)
	c.Flags().BoolVarP(&o.json, "json", "j", false, "print JSON")
	c.Flags().BoolVarP(&o.logs, "logs", "l", false, "show the paths of the log files")
	return c
}

func pattern(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// listed is an instance as JSON shows it.
type listed struct {
	Instance   string `json:"instance"`
	PID        int    `json:"pid"`
	Image      string `json:"img"`
	IP         string `json:"ip"`
	LogErrPath string `json:"logErrPath"`
	LogOutPath string `json:"logOutPath"`
}

func listInstances(w io.Writer, o *listOptions, pattern string) error {
	if o.json && o.logs {
		return action.Fatal(errors.New("cannot use --json together with --logs: the JSON has the log files anyway"), "")
	}
	list, err := instances(o.user, pattern)
	if err != nil {
		return err
	}
	defer closeInstances(list)
	if o.json {
		out := struct {
			Instances []listed `json:"instances"`
		}{Instances: []listed{}}
		for _, i := range list {
			out.Instances = append(out.Instances, listed{i.Name, i.PID, i.Image, i.IP, i.LogErrPath, i.LogOutPath})
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "\t")
		return e.Encode(out)
	}
	t := tabwriter.NewWriter(w, 0, 8, 4, ' ', 0)
	if o.logs {
		fmt.Fprintln(t, "INSTANCE NAME\tPID\tLOGS")
	} else {
		fmt.Fprintln(t, "INSTANCE NAME\tPID\tIP\tIMAGE")
	}
	for _, i := range list {
		if o.logs {
			fmt.Fprintf(t, "%s\t%d\t%s\n\t\t%s\n", i.Name, i.PID, action.Printable(i.LogErrPath), action.Printable(i.LogOutPath))
		} else {
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", i.Name, i.PID, action.Printable(i.IP), action.Printable(i.Image))
		}
	}
	return t.Flush()
}

func instances(user, pattern string) ([]*instance.Instance, error) {
	store, err := action.Store(user)
	if err != nil {
		return nil, err
	}
	return store.List(pattern)
}

func closeInstances(list []*instance.Instance) {
	for _, i := range list {
		i.Close()
	}
}

type stopOptions struct {
	user, signal string
	all, force   bool
	timeout      int // seconds
}

func newInstanceStopCommand(log *action.Log) *cobra.Command {
	var o stopOptions
	c := &cobra.Command{
		Use:   "stop [options] [glob]",
		Short: "Stop running instances",
		Long:  "Stop the running instances whose names match. They get a signal, SIGINT unless another one is named, and are killed if they go on for too long after that.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			table := []flagEnv{{flag: "user", key: "USER"}, {flag: "all", key: "ALL"}, {flag: "force", key: "FORCE"}, {flag: "signal", key: "SIGNAL"}}
			if err := setFromEnv(c, table); err != nil {
				return err
			}
			if len(args) == 0 && !o.all {
				return usageError(c, errors.New("the name of an instance or --all is needed"))
			}
			return stopInstances(log, &o, pattern(args))
		},
		Example: "  $ singularity instance stop web\n  $ singularity instance stop --all\n  $ singularity instance stop --signal TERM --timeout 60 web",
	}
	userFlag(c, &o.user)
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "stop all instances")
	f.BoolVarP(&o.force, "force", "F", false, "kill at once")
	f.StringVarP(&o.signal, "signal", "s", "INT", "signal to send, by name or number")
	f.IntVarP(&o.timeout, "timeout", "t", 10, "seconds after which an instance is killed")
	return c
}

func stopInstances(log *action.Log, o *stopOptions, pattern string) error {
	sig, err := parseSignal(o.signal)
	if err != nil {
		return err
	}
	if o.force {
		sig = syscall.SIGKILL
	}
	list, err := instances(o.user, pattern)
	if err != nil {
		return err
	}
	defer closeInstances(list)
	if len(list) == 0 {
		return exitOne(errors.New("no instance found"))
	}
	for _, i := range list {
		log.Info(fmt.Sprintf("Stopping %s instance of %s (PID=%d)", i.Name, i.Image, i.PID))
		if err := i.Signal(sig); err != nil && err != unix.ESRCH {
			return fmt.Errorf("cannot stop the instance %s: %w", i.Name, err)
		}
	}
	for _, i := range list {
		if i.Wait(o.timeout * 1000) {
			continue
		}
		log.Info(fmt.Sprintf("Killing %s instance of %s (PID=%d) (Timeout)", i.Name, i.Image, i.PID))
		if err := i.Signal(syscall.SIGKILL); err != nil && err != unix.ESRCH {
			return fmt.Errorf("cannot kill the instance %s: %w", i.Name, err)
		}
		i.Wait(o.timeout * 1000)
	}
	// The records go with the processes that watch; what one of them left
	// because it was killed goes now.
	left, err := instances(o.user, pattern)
	closeInstances(left)
	return err
}

// parseSignal reads a signal's name, with or without SIG, or its number.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(name, "SIG"), "RTMIN"); ok {
		// The C library keeps the first two for itself.
		const first = 34
		if rest == "" {
			return first, nil
		}
		if n, err := strconv.ParseUint(strings.TrimPrefix(rest, "+"), 10, 5); err == nil && rest[0] == '+' && first+n < 65 {
			return syscall.Signal(first + n), nil
		}
	}
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, action.Fatal(errors.New("cannot use "+strconv.Quote(s)+" as a signal"), "name one as INT, SIGTERM, RTMIN+3 or 15")
}
