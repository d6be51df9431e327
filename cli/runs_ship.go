package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/api"
	"singularity/client/transfer"
	"singularity/client/watch"
	"singularity/conf"
	"singularity/runlog"
)

// shipOptions are the flags of runs ship.
type shipOptions struct {
	spool, server, tokenFile, digests string
	digestTime                        time.Duration
	noHTTPS, dryRun, json             bool
}

// What a round does no more than, or waits for.
const (
	maxBody   = api.MaxRunsBody - 64<<10
	giveUp    = 24 * time.Hour // without the digest of an image that takes too long to read
	sweepAge  = 24 * time.Hour
	maxToken  = 16 << 10
	shipsNote = "the records stay where they are: the next round sends them again"
)

func newRunsShipCommand(log *action.Log) *cobra.Command {
	var o shipOptions
	c := &cobra.Command{
		Use:   "ship [options]",
		Short: "Send the records in the spool to a server",
		Long: "Send the records of runs on this host to a server, which tells from them which running jobs an advisory touches. A timer runs this, see the administrator's page on watching." +
			"\n\nA record is removed when its run has ended and the server has said that it keeps it; records of containers that run are sent again in each round. " +
			"So a round may be broken off at any time, and repeated." +
			"\n\nThe token is that of a robot account of an administrator, whose name is the name of this host. Its file must be the caller's alone.",
		Example: "  $ sudo singularity runs ship --dry-run\n" +
			"  $ sudo singularity runs ship --server https://library.example.org",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interrupted(c.Context())
			defer stop()
			return o.ship(ctx, c.OutOrStdout(), log)
		},
	}
	f := c.Flags()
	f.StringVar(&o.spool, "spool", "", "`directory` of records (default: run records of singularity.conf)")
	f.StringVar(&o.server, "server", "", "`URL` of the server (default: that of the remote endpoint)")
	f.StringVar(&o.tokenFile, "token-file", filepath.Join(conf.Dir(), "runs.token"), "`file` with the token")
	f.StringVar(&o.digests, "digests", digestsPath(), "`file` that remembers the digests of images")
	f.DurationVar(&o.digestTime, "digest-time", 5*time.Minute, "read images for so long at most, for their digests")
	f.BoolVar(&o.noHTTPS, "no-https", false, "use http")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "show what would be sent, and send nothing")
	f.BoolVarP(&o.json, "json", "j", false, "print JSON")
	return c
}

// shipReport is the output of runs ship --json.
type shipReport struct {
	Server  string           `json:"server,omitempty"`
	Sent    int              `json:"sent"`    // records that the server has
	Running int              `json:"running"` // of these, runs that go on
	Removed int              `json:"removed"` // records taken out of the spool
	Waiting int              `json:"waiting"` // records for the next round
	Bad     int              `json:"bad"`     // files that are no records
	Swept   int              `json:"swept"`   // of these, old ones that were removed
	Refused []api.RunRefused `json:"refused"`
	Records []api.Run        `json:"records,omitempty"` // with --dry-run
}

// shipped is a record on its way.
type shipped struct {
	api.Run
	record runlog.Record
	later  bool // its image is still to be read
}

func (o *shipOptions) ship(ctx context.Context, out io.Writer, log *action.Log) error {
	spool, err := spoolDir(o.spool)
	if err != nil {
		return err
	}
	list, bad, err := runlog.Read(spool)
	if err != nil {
		return action.Fatal(err, "the records of all users are for root")
	}
	report := &shipReport{Bad: bad, Refused: []api.RunRefused{}}
	records, err := o.prepare(ctx, log, list)
	if err != nil {
		return err
	}
	if o.dryRun {
		for _, r := range records {
			report.Records = append(report.Records, r.Run)
		}
		report.Waiting = len(records)
		return o.write(out, report)
	}
	client, err := o.connect(ctx, report)
	if err != nil {
		return err
	}
	report.Waiting = len(records)
	err = o.sendAll(ctx, client, spool, records, report)
	if err == nil {
		report.Swept, err = runlog.Sweep(spool, time.Now().Add(-sweepAge))
	}
	for _, r := range report.Refused {
		log.Warning(oneLine("the server does not take the record " + r.ID + ": " + r.Message))
	}
	if wErr := o.write(out, report); err == nil {
		err = wErr
	}
	if err != nil && ctx.Err() == nil {
		hint := shipsNote
		if inner, ok := errors.AsType[*action.Failure](err); ok {
			hint = inner.Hint
		}
		return action.Fatal(fmt.Errorf("cannot ship all records of runs: %w", err), hint)
	}
	return err
}

// prepare makes of records what the server takes.
func (o *shipOptions) prepare(ctx context.Context, log *action.Log, list []runlog.Record) ([]shipped, error) {
	d := openDigests(o.digests, o.digestTime)
	out := make([]shipped, 0, len(list))
	for _, r := range list {
		digest, err := d.of(ctx, &r)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		out = append(out, shipped{api.Run{ID: r.ID, Start: r.Start, End: r.End, Host: r.Host, User: d.user(r.UID).name, UID: r.UID,
			Job: r.Job, Verb: r.Verb, Image: r.Image, Digest: digest}, r, errors.Is(err, errLater)})
	}
	if err := d.save(); err != nil && !o.dryRun {
		log.Verbose("The digests of images are not remembered: " + err.Error())
	}
	return out, nil
}

// connect makes the client of the server.
func (o *shipOptions) connect(ctx context.Context, report *shipReport) (*watch.Client, error) {
	token, err := ownToken(o.tokenFile)
	if err != nil {
		return nil, err
	}
	base, web, _, err := watchServer(ctx, o.server, o.noHTTPS)
	if err != nil {
		return nil, err
	}
	report.Server = base
	client, err := watch.New(base, token, web)
	if err == nil {
		client.TokenSource = o.tokenFile
	}
	return client, err
}

// watchServer is the server at an address, or that of the remote endpoint with its
// token.
func watchServer(ctx context.Context, address string, plain bool) (base string, web *http.Client, token string, err error) {
	if address != "" {
		config, _, err := registriesConf()
		if err != nil {
			return "", nil, "", err
		}
		if !strings.Contains(address, "://") {
			address = map[bool]string{false: "https://", true: "http://"}[plain] + address
		}
		web, err = httpClient(config, plain)
		return strings.TrimRight(address, "/"), web, "", err
	}
	dir, err := action.ConfigDir(os.Getenv)
	if err != nil {
		return "", nil, "", err
	}
	name, e, err := activeRemote(filepath.Join(dir, "remote.yaml"))
	if err != nil {
		return "", nil, "", err
	}
	if e == nil {
		return "", nil, "", action.Fatal(errors.New("no server is configured"), "name one by --server URL, or a remote endpoint in remote.yaml")
	}
	web, list, err := services(ctx, e)
	if err == nil && list["library"] == "" {
		err = fmt.Errorf("the remote endpoint %q has no library", name)
	}
	return list["library"], web, e.Token, err
}

// ownToken reads a file with a token.
//
// Security: whoever reads it tells what they like about the runs of this host, and
// whoever writes it has the records sent in the name of another account.
func ownToken(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	open := os.Open
	if os.Geteuid() == 0 {
		open = conf.OpenOwned
	}
	f, err := open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", action.Fatal(fmt.Errorf("there is no token for the records of runs in %q", path), "make a robot account with the name of this host and the scope runs:write, and put its token there, with mode 600")
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", action.Fatal(fmt.Errorf("cannot use the token in %q: others can read or change it", path), "chmod 600 it, as a file of your own")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	token := strings.TrimSpace(string(b))
	if err == nil && (token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f })) {
		err = fmt.Errorf("%q holds no token", path)
	}
	return token, err
}

// sendAll sends records in batches, and removes those that are over when the server
// has them.
func (o *shipOptions) sendAll(ctx context.Context, client *watch.Client, spool string, records []shipped, report *shipReport) error {
	for len(records) > 0 {
		n := batch(records)
		list := make([]api.Run, n)
		for i := range list {
			list[i] = records[i].Run
		}
		taken, err := client.Ship(ctx, list)
		if err != nil {
			return explainHost(err, map[int]string{http.StatusNotFound: "the server keeps no records of runs"})
		}
		refused := map[string]bool{}
		for _, r := range taken.Refused {
			refused[r.ID] = true
		}
		report.Refused = append(report.Refused, taken.Refused...)
		for i := range records[:taken.Done] {
			r := &records[i]
			report.Waiting--
			if !refused[r.ID] {
				report.Sent++
			}
			if r.End.IsZero() {
				report.Running++
				continue
			}
			if r.later && time.Since(r.End) < giveUp && !refused[r.ID] {
				continue
			}
			if err := runlog.Remove(spool, r.record); err == nil {
				report.Removed++
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		records = records[taken.Done:]
	}
	return nil
}

// batch is how many of records one call takes.
func batch(records []shipped) int {
	size := 0
	for i := range records {
		b, err := json.Marshal(&records[i].Run)
		if size += len(b) + 1; i == api.MaxRuns || err == nil && size > maxBody && i > 0 {
			return i
		}
	}
	return len(records)
}

// explainHost tells what helps when the server refuses a host; hints are for what
// is not about its token.
func explainHost(err error, hints map[int]string) error {
	e, ok := errors.AsType[*transfer.StatusError](err)
	if !ok {
		return err
	}
	hint := hints[e.Code]
	if e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden {
		hint = "the token must be of a robot of an administrator that has the name of this host, with the scope runs:write"
	}
	if hint == "" {
		return err
	}
	return action.Fatal(err, hint)
}

func (o *shipOptions) write(out io.Writer, r *shipReport) error {
	if o.json {
		return writeTwoSpaces(out, r)
	}
	var b strings.Builder
	if o.dryRun {
		rows := [][]string{{"START", "END", "HOST", "USER", "JOB", "IMAGE", "DIGEST"}}
		for _, x := range r.Records {
			rows = append(rows, []string{x.Start.Local().Format(time.DateTime), endWord(x.End), x.Host, x.User, orDash(x.Job), x.Image, orDash(x.Digest)})
		}
		writeTable(&b, rows)
	} else {
		fmt.Fprintf(&b, "%d records sent, of which %d go on; %d removed, %d refused, %d left for later\n", r.Sent, r.Running, r.Removed, len(r.Refused), r.Waiting)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func endWord(t time.Time) string {
	if t.IsZero() {
		return "runs"
	}
	return t.Local().Format(time.DateTime)
}
