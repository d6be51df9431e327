package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"singularity/action"
	"singularity/advisory"
	"singularity/linux/fsuser"
	"singularity/runlog"
)

// runningImage is an image that runs on this host.
type runningImage struct {
	Image    string             `json:"image"`
	Runs     []runlog.Record    `json:"runs"`
	Packages int                `json:"packages"`
	Gaps     []string           `json:"gaps,omitempty"`
	Problem  string             `json:"problem,omitempty"` // why its packages are not known
	Counts   map[string]int     `json:"counts"`
	Findings []advisory.Finding `json:"findings"`

	worst advisory.Level
	any   bool
}

// runningReport is the output of scan --running --json.
type runningReport struct {
	Advisories advisory.Info   `json:"advisories"`
	Images     []*runningImage `json:"images"`
}

// scanRunning compares the images of the containers that run here, by the records
// of runs, with advisories. Each image is looked at once.
func (o *scanOptions) scanRunning(ctx context.Context, out io.Writer, log *action.Log, db *advisory.DB) error {
	spool, err := spoolDir(o.spool)
	if err != nil {
		return err
	}
	list, _, err := runlog.Read(spool)
	if err != nil {
		return action.Fatal(err, "the records of all users are for root")
	}
	list = slices.DeleteFunc(list, func(r runlog.Record) bool { return !r.End.IsZero() })
	report := &runningReport{Advisories: db.Info(), Images: []*runningImage{}}
	matcher, users := advisory.NewMatcher(db), openDigests("", 0)
	for len(list) > 0 {
		first := list[0]
		same := func(r runlog.Record) bool {
			return r.UID == first.UID && r.Image == first.Image && r.Dev == first.Dev && r.Ino == first.Ino && r.Size == first.Size && r.MTime == first.MTime
		}
		im := &runningImage{Image: first.Image, Counts: map[string]int{}, Findings: []advisory.Finding{}}
		for _, r := range list {
			if same(r) {
				im.Runs = append(im.Runs, r)
			}
		}
		list = slices.DeleteFunc(list, same)
		err := o.lookAt(ctx, im, matcher, users)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			im.Problem = err.Error()
			log.Warning(oneLine(fmt.Sprintf("cannot look at %q: %v", im.Image, err)))
		}
		report.Images = append(report.Images, im)
	}
	slices.SortStableFunc(report.Images, func(a, b *runningImage) int { return cmp.Compare(b.worst, a.worst) })
	if err := o.writeRunning(out, report, users); err != nil {
		return err
	}
	total := &scanReport{}
	for _, im := range report.Images {
		total.worst, total.any = max(total.worst, im.worst), total.any || im.any
	}
	return o.status(total)
}

// lookAt finds the faults of the image of a run.
//
// Security: the path is the word of a user, so it is opened with the rights of that
// user, and must be what was started.
func (o *scanOptions) lookAt(ctx context.Context, im *runningImage, m *advisory.Matcher, users *digests) error {
	r := &im.Runs[0]
	f, err := fsuser.Open(r.Image, int(r.UID), users.user(r.UID).groups)
	if err != nil {
		return err
	}
	defer f.Close()
	if !r.Same(f) {
		return fmt.Errorf("it is no longer the file that was started")
	}
	inv, err := catalogSelf(ctx, f)
	if err != nil {
		return err
	}
	im.Packages, im.Gaps = len(inv.Packages), inv.Gaps
	list, err := m.Match(ctx, inv)
	if err == nil {
		err = o.applyVEX(list, "")
	}
	if err != nil {
		return err
	}
	show, _ := advisory.ParseLevel(o.show)
	for _, f := range list {
		if f.Ignored != "" || f.Level < show || o.id != "" && !f.Has(o.id) {
			continue
		}
		im.Findings = append(im.Findings, f)
		im.Counts[f.Level.String()]++
		im.worst, im.any = max(im.worst, f.Level), true
	}
	return nil
}

func (o *scanOptions) writeRunning(out io.Writer, r *runningReport, users *digests) error {
	if o.json {
		return writeTwoSpaces(out, r)
	}
	rows := [][]string{{"USER", "JOB", "START", "PID", "IMAGE", "FAULTS"}}
	affected := 0
	for _, im := range r.Images {
		faults := countWords(im.Counts)
		switch {
		case im.Problem != "":
			faults = "unknown"
		case len(im.Gaps) > 0:
			faults += " (the list of packages may not be complete)"
		}
		if im.any {
			affected++
		}
		for _, x := range im.Runs {
			rows = append(rows, []string{users.user(x.UID).name, orDash(x.Job), x.Start.Local().Format(time.DateTime), fmt.Sprint(x.PID), im.Image, faults})
		}
	}
	what := "known faults"
	if o.id != "" {
		what = o.id
	}
	end := fmt.Sprintf("%d of %d images that run here have %s; %d advisories, newest of %s", affected, len(r.Images), what, r.Advisories.Records, newest(r.Advisories))
	return writeTableAnd(out, rows, strings.TrimSpace(end))
}
