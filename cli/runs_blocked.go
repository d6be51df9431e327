package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/api"
	"singularity/conf"
	"singularity/conf/blocked"
)

func newRunsBlockedCommand(log *action.Log) *cobra.Command {
	var o shipOptions
	var file string
	var asJSON bool
	c := &cobra.Command{
		Use:   "blocked [options]",
		Short: "Fetch the list of images that this host does not run",
		Long: "Ask the server to which this host ships its records of runs (runs ship) which images the rule of the site blocks, and write them to the file that 'blocked images' of singularity.conf names. " +
			"The file is replaced as a whole; if the server cannot be asked, or has not compared its images yet, the file stays as it is." +
			"\n\nThe token is that of runs ship. An image is known by the id in its header; without a server, see scan --block-list.",
		Example: "  $ sudo singularity runs blocked --out /etc/singularity/blocked \\\n" +
			"      --server https://library.example.org",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if file == "" {
				return usageError(c, errors.New("--out is needed"))
			}
			ctx, stop := interrupted(c.Context())
			defer stop()
			r, err := o.fetchBlocked(ctx, log, file)
			if err != nil {
				return err
			}
			if asJSON {
				return writeTwoSpaces(c.OutOrStdout(), r)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%d images are blocked, %d more will be; %s\n", r.Blocked, r.Later, oneLine(r.Made))
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&file, "out", "", "`file` with the list, of 'blocked images' in singularity.conf")
	f.StringVar(&o.server, "server", "", "`URL` of the server (default: that of the remote endpoint)")
	f.StringVar(&o.tokenFile, "token-file", filepath.Join(conf.Dir(), "runs.token"), "`file` with the token")
	f.BoolVarP(&asJSON, "json", "j", false, "print JSON: the list as it was written")
	f.BoolVar(&o.noHTTPS, "no-https", false, "use http")
	return c
}

// fetchBlocked writes what the server says to a file, and tells of it.
func (o *shipOptions) fetchBlocked(ctx context.Context, log *action.Log, file string) (*blockReport, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	report := &shipReport{}
	client, err := o.connect(ctx, report)
	if err != nil {
		return nil, err
	}
	got, err := client.Blocked(ctx)
	if err != nil {
		return nil, explainHost(fmt.Errorf("cannot fetch the list of blocked images: %w", err), map[int]string{
			http.StatusNotFound:           "the server has no list of blocked images",
			http.StatusServiceUnavailable: "the list of this host stays as it is: try again later",
		})
	}
	l, err := blockedList(got, report.Server)
	if err != nil {
		return nil, fmt.Errorf("cannot use the list of %s: %w", report.Server, err)
	}
	if got.More > 0 {
		log.Warning(fmt.Sprintf("the server blocks %d images more than the list has room for", got.More))
	}
	if err := replaceBlockList("runs blocked", file, l); err != nil {
		return nil, err
	}
	r := &blockReport{List: file, Made: l.Made, More: got.More, Images: []blockedImage{}}
	for _, i := range got.Images {
		r.Images = append(r.Images, blockedImage{ID: i.ID, Digest: "sha256:" + i.Hash, From: i.From.UTC(), Severity: i.Severity, Advisory: i.Advisory, Text: i.Text})
	}
	r.count(l, time.Now())
	return r, nil
}

// blockedList makes a list of what the server says.
func blockedList(got *api.BlockedImages, server string) (*blocked.List, error) {
	if got.Made.IsZero() || got.Images == nil {
		return nil, errors.New("it does not say when it was made, and of what")
	}
	rule := "that has no rule"
	if got.Block != "" {
		rule = "that blocks from " + got.Block + " on"
	}
	l := &blocked.List{Made: fmt.Sprintf("made %s by %s %s, from %d advisories, newest of %s", got.Made.UTC().Format(time.RFC3339), server, rule, got.Records, got.Newest.UTC().Format(time.DateOnly))}
	for _, i := range got.Images {
		l.Entries = append(l.Entries, blocked.Entry{ID: i.ID, From: i.From, Severity: i.Severity, Advisory: i.Advisory, Text: i.Text + "; image sha256:" + i.Hash[:min(len(i.Hash), 12)]})
	}
	return l, nil
}
