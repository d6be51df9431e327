package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/api"
	"singularity/client/transfer"
	"singularity/client/watch"
)

// affectedOptions are the flags of runs affected.
type affectedOptions struct {
	server, tokenFile, job string
	noHTTPS, ended, json   bool
}

func newRunsAffectedCommand() *cobra.Command {
	var o affectedOptions
	c := &cobra.Command{
		Use:   "affected [options] [advisory]",
		Short: "Ask the server which running jobs a fault touches",
		Long: "Ask the server to which hosts ship their records of runs (runs ship) which running containers have an image with a known fault, by any name of the fault; " +
			"or with --job, how many faults the images of a job have. Everybody sees their own runs, administrators all." +
			"\n\nAn image counts if the server stores it, or stored it when it was compared. On one host, without a server, see scan --running.",
		Example: "  $ singularity runs affected CVE-2026-1234\n" +
			"  $ singularity runs affected --ended --json CVE-2026-1234\n" +
			"  $ singularity runs affected --job SLURM:4711",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == (o.job != "") {
				return usageError(c, errors.New("an advisory or --job is needed"))
			}
			ctx, stop := interrupted(c.Context())
			defer stop()
			client, err := o.connect(ctx)
			if err != nil {
				return err
			}
			if o.job != "" {
				return explainAffected(o.ofJob(ctx, c.OutOrStdout(), client))
			}
			return explainAffected(o.ofFault(ctx, c.OutOrStdout(), client, args[0]))
		},
	}
	f := c.Flags()
	f.StringVar(&o.server, "server", "", "`URL` of the server (default: that of the remote endpoint)")
	f.StringVar(&o.tokenFile, "token-file", "", "`file` with a token for --server")
	f.StringVar(&o.job, "job", "", "count the faults of the images that this `job` runs (SLURM:4711)")
	f.BoolVar(&o.ended, "ended", false, "runs that have ended, too")
	f.BoolVar(&o.noHTTPS, "no-https", false, "use http")
	f.BoolVarP(&o.json, "json", "j", false, "print JSON")
	return c
}

func (o *affectedOptions) connect(ctx context.Context) (*watch.Client, error) {
	base, web, token, err := watchServer(ctx, o.server, o.noHTTPS)
	if err != nil {
		return nil, err
	}
	if o.tokenFile != "" {
		if token, err = ownToken(o.tokenFile); err != nil {
			return nil, err
		}
	}
	client, err := watch.New(base, token, web)
	if err == nil && o.tokenFile != "" {
		client.TokenSource = o.tokenFile
	}
	return client, err
}

// ofFault lists runs with a fault.
func (o *affectedOptions) ofFault(ctx context.Context, out io.Writer, client *watch.Client, id string) error {
	list, err := client.Affected(ctx, id, o.ended)
	if err != nil {
		return fmt.Errorf("cannot ask which runs %q touches: %w", id, err)
	}
	if o.json {
		return writeTwoSpaces(out, append([]api.TouchedRun{}, list...))
	}
	rows := [][]string{{"SEVERITY", "HOST", "USER", "JOB", "START", "END", "PACKAGE", "IMAGE"}}
	for _, t := range list {
		for _, f := range t.Findings {
			rows = append(rows, []string{f.Severity, t.Run.Host, t.Run.User, orDash(t.Run.Job), t.Run.Start.Local().Format(time.DateTime), endWord(t.Run.End), f.Package.Name + " " + f.Package.Version, t.Run.Image})
		}
	}
	return writeTableAnd(out, rows, fmt.Sprintf("%s touches %s", id, countRuns(len(list), o.ended)))
}

func countRuns(n int, ended bool) string {
	s := "runs"
	if n == 1 {
		s = "run"
	}
	if !ended {
		s = "running container" + s[3:]
	}
	return fmt.Sprintf("%d %s", n, s)
}

// ofJob tells how many faults the images of a job have.
func (o *affectedOptions) ofJob(ctx context.Context, out io.Writer, client *watch.Client) error {
	q := url.Values{"limit": {"1000"}}
	if !o.ended {
		q.Set("running", "true")
	}
	list, err := client.Runs(ctx, q)
	if err != nil {
		return fmt.Errorf("cannot ask for the runs of %q: %w", o.job, err)
	}
	list = slices.DeleteFunc(list, func(r api.StoredRun) bool { return r.Job != o.job })
	if o.json {
		return writeTwoSpaces(out, append([]api.StoredRun{}, list...))
	}
	rows := [][]string{{"HOST", "USER", "START", "END", "IMAGE", "FAULTS"}}
	for _, r := range list {
		faults := "its packages are not known to the server"
		if r.Counts != nil {
			faults = countWords(r.Counts)
		}
		rows = append(rows, []string{r.Host, r.User, r.Start.Local().Format(time.DateTime), endWord(r.End), r.Image, faults})
	}
	return writeTableAnd(out, rows, fmt.Sprintf("%s: %s", o.job, countRuns(len(list), o.ended)))
}

// writeTableAnd writes a table, unless it has only a head, and a line below.
func writeTableAnd(out io.Writer, rows [][]string, end string) error {
	var b strings.Builder
	if len(rows) > 1 {
		writeTable(&b, rows)
	}
	b.WriteString(oneLine(end) + "\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func explainAffected(err error) error {
	e, ok := errors.AsType[*transfer.StatusError](err)
	if ok && (e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden) {
		return action.Fatal(err, "log in with singularity remote login; the token needs the scope account:read")
	}
	return err
}
