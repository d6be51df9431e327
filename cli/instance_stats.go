package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/container/cgroup"
	"singularity/container/instance"
)

type statsOptions struct {
	user           string
	json, noStream bool
}

func newInstanceStatsCommand() *cobra.Command {
	var o statsOptions
	c := &cobra.Command{
		Use:   "stats [options] <name>",
		Short: "Show what an instance uses",
		Long:  "Show the use of processor, memory, input and output, and the number of processes of an instance, each second anew on a terminal.",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, []flagEnv{{flag: "user", key: "USER"}}); err != nil {
				return err
			}
			return instanceStats(c.OutOrStdout(), &o, args[0])
		},
		Example: "  $ singularity instance stats web\n  $ singularity instance stats --json web",
	}
	userFlag(c, &o.user)
	c.Flags().BoolVarP(&o.json, "json", "j", false, "print one sample as JSON")
	c.Flags().BoolVar(&o.noStream, "no-stream", false, "print one sample")
	return c
}

// samplePause is the time between two samples.
const samplePause = time.Second

func instanceStats(w io.Writer, o *statsOptions, name string) error {
	store, err := action.Store(o.user)
	if err != nil {
		return err
	}
	i, err := store.Get(name)
	if errors.Is(err, instance.ErrNone) {
		return action.Fatal(errors.New("no instance found with name "+name), "singularity instance list shows those that run")
	}
	if err != nil {
		return err
	}
	defer i.Close()
	if i.Cgroup == "" {
		return action.Fatal(errors.New("no statistics for instance "+name+": it has no control group"),
			"root gets one; a user needs cgroup v2 with a systemd user session or a delegated group")
	}
	before, err := cgroup.ReadStats(i.Cgroup)
	if err != nil {
		return err
	}
	if o.json {
		b, err := before.JSON()
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	stream := !o.noStream && action.IsTerminal(1)
	for at := time.Now(); ; {
		if i.Wait(int(samplePause.Milliseconds())) {
			return nil
		}
		now, err := cgroup.ReadStats(i.Cgroup)
		if err != nil {
			return err
		}
		passed := time.Since(at)
		at = at.Add(passed)
		if stream {
			io.WriteString(w, "\x1b[2J\x1b[H")
		}
		t := tabwriter.NewWriter(w, 0, 8, 4, ' ', 0)
		fmt.Fprintln(t, strings.Join(cgroup.Columns, "\t"))
		fmt.Fprintln(t, strings.Join(now.Row(name, before, passed), "\t"))
		if err := t.Flush(); err != nil || !stream {
			return err
		}
		before = now
	}
}
