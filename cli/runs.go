package cli

import (
	"errors"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/runlog"
)

func newRunsCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "runs",
		Short: "Look at the records of containers that ran, and ship them",
		Long: "Where singularity.conf says so (run records), every start leaves a record of the image, the job, the user, the start and the end in a spool directory. " +
			"Only root can read all of them; what a command did or was called with is not recorded.",
		Example: "  $ sudo singularity runs list",
	}
	c.AddCommand(newRunsListCommand(log), newRunsShipCommand(log), newRunsAffectedCommand(), newRunsBlockedCommand(log))
	return c
}

func newRunsListCommand(log *action.Log) *cobra.Command {
	var spool string
	var asJSON, running bool
	c := &cobra.Command{
		Use:     "list [options]",
		Short:   "List the records in the spool",
		Example: "  $ sudo singularity runs list --running",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := spoolDir(spool)
			if err != nil {
				return err
			}
			list, bad, err := runlog.Read(dir)
			if err != nil {
				return action.Fatal(err, "the records of all users are for root")
			}
			if bad > 0 {
				log.Warning(strconv.Itoa(bad) + " files in " + dir + " are no records")
			}
			kept := []runlog.Record{}
			for _, r := range list {
				if !running || r.End.IsZero() {
					kept = append(kept, r)
				}
			}
			if asJSON {
				return writeTwoSpaces(c.OutOrStdout(), kept)
			}
			return writeRuns(c.OutOrStdout(), kept)
		},
	}
	c.Flags().StringVar(&spool, "spool", "", "`directory` of records (default: run records of singularity.conf)")
	c.Flags().BoolVar(&running, "running", false, "only those that still run")
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

// spoolDir is given, or what singularity.conf says.
func spoolDir(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	c, err := action.LoadConfig(os.Getenv("SINGULARITY_CONFIG_FILE"))
	if err != nil {
		return "", err
	}
	if c.RunRecords == "" {
		return "", action.Fatal(errors.New("no records of runs are kept here"), "set 'run records' in singularity.conf to a directory of root's with mode 1733, or name one with --spool")
	}
	return c.RunRecords, nil
}

func writeRuns(w io.Writer, list []runlog.Record) error {
	rows := [][]string{{"START", "END", "USER", "JOB", "VERB", "IMAGE"}}
	for _, r := range list {
		name := strconv.FormatUint(uint64(r.UID), 10)
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
		rows = append(rows, []string{r.Start.Local().Format(time.DateTime), endWord(r.End), name, orDash(r.Job), r.Verb, r.Image})
	}
	var b strings.Builder
	writeTable(&b, rows)
	_, err := io.WriteString(w, b.String())
	return err
}
