package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"singularity/action"
	"singularity/advisory"
	"singularity/conf"
	"singularity/conf/blocked"
	"singularity/sif"
)

// checkBlockList refuses flags that mean nothing beside or without --block-list.
func (o *scanOptions) checkBlockList(args []string) error {
	level, ok := advisory.ParseLevel(o.block)
	switch {
	case o.blockList == "" && (o.block != "" || o.grace != 0):
		return errors.New("--block and --grace need --block-list")
	case o.blockList == "":
		return nil
	case !ok || level < advisory.Negligible:
		return fmt.Errorf("--block-list needs --block with a level from negligible to critical, not %q", o.block)
	case o.grace < 0:
		return errors.New("--grace is no time before now")
	case o.running || o.sbom != "" || o.sarif || o.all || o.id != "":
		return errors.New("--block-list excludes --running, --sbom, --sarif, --all and --id")
	case len(args) == 0:
		return errors.New("--block-list needs images")
	}
	return nil
}

// writeBlockList brings the list of blocked images up to date for some images. The lines
// of others stay, and an image that stays blocked keeps its date.
func (o *scanOptions) writeBlockList(ctx context.Context, out io.Writer, log *action.Log, db *advisory.DB, paths []string) error {
	file, err := filepath.Abs(o.blockList)
	if err != nil {
		return err
	}
	now, info := time.Now().UTC().Truncate(time.Second), db.Info()
	found, unread := o.judgeImages(ctx, log, advisory.NewMatcher(db), paths)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var failed error
	if len(unread) > 0 {
		failed = errors.New("not all images could be looked at: what the list says of the others is as before")
	}
	made := fmt.Sprintf("made %s by singularity scan --block %s, from %d advisories, newest of %s", now.Format(time.RFC3339), o.block, info.Records, newest(info))
	r := blockReport{List: file, Made: made, Unread: unread}
	err = changeBlockList("scan", file, func(l *blocked.List) {
		r.Images, l.Made = mergeBlocked(l, found, now.Add(o.grace)), made
		r.count(l, now)
	})
	if err != nil {
		return err
	}
	if o.json {
		return errors.Join(writeTwoSpaces(out, r), failed)
	}
	rows := [][]string{{"FROM", "SEVERITY", "ADVISORY", "IMAGE"}}
	for _, i := range r.Images {
		rows = append(rows, []string{i.From.Format(time.RFC3339), i.Severity, i.Advisory, i.Path})
	}
	if err := writeTableAnd(out, rows, fmt.Sprintf("%d of %d images have faults that are %s or worse; %s has %d images", len(r.Images), len(found), o.block, o.blockList, r.Blocked+r.Later)); err != nil {
		return err
	}
	return failed
}

// blockReport is a list of blocked images for programs. Blocked and Later count its lines,
// Images are those that were looked at or, of the list of a server, all.
type blockReport struct {
	List    string         `json:"list"` // the file
	Made    string         `json:"made"`
	Blocked int            `json:"blocked"`        // now
	Later   int            `json:"later"`          // when their dates have come
	More    int            `json:"more,omitempty"` // for which there was no room
	Images  []blockedImage `json:"images"`
	Unread  []unreadImage  `json:"unread,omitempty"`
}

// blockedImage is an image of the list.
type blockedImage struct {
	Path     string    `json:"path,omitempty"`
	ID       string    `json:"id"`
	Digest   string    `json:"digest,omitempty"`
	From     time.Time `json:"from"`
	Severity string    `json:"severity"`
	Advisory string    `json:"advisory"`
	Text     string    `json:"text"`
}

// unreadImage could not be looked at.
type unreadImage struct {
	Path  string `json:"path"`
	Error string `json:"error"`
}

// count sets the numbers of lines.
func (r *blockReport) count(l *blocked.List, now time.Time) {
	r.Blocked, r.Later = 0, 0
	for _, e := range l.Entries {
		if e.From.After(now) {
			r.Later++
		} else {
			r.Blocked++
		}
	}
}

// blockable is what was found of an image.
type blockable struct {
	path  string
	entry blocked.Entry // without an advisory if nothing blocks it
}

// mergeBlocked puts what was found into l, and returns what of it is blocked.
func mergeBlocked(l *blocked.List, found []blockable, from time.Time) []blockedImage {
	images := []blockedImage{}
	old := map[string]time.Time{}
	for _, e := range l.Entries {
		if at, ok := old[e.ID]; !ok || e.From.Before(at) {
			old[e.ID] = e.From
		}
	}
	looked, done := map[string]bool{}, map[string]bool{}
	for _, f := range found {
		looked[f.entry.ID] = true
	}
	var kept []blocked.Entry
	for _, e := range l.Entries {
		if !looked[e.ID] {
			kept = append(kept, e)
		}
	}
	for _, f := range found {
		e := f.entry
		if e.Advisory == "" {
			continue
		}
		e.From = from
		if at, ok := old[e.ID]; ok {
			e.From = at
		}
		if !done[e.ID] {
			kept = append(kept, e)
		}
		done[e.ID] = true
		images = append(images, blockedImage{Path: f.path, ID: e.ID, From: e.From.UTC(), Severity: e.Severity, Advisory: e.Advisory, Text: e.Text})
	}
	l.Entries = kept
	return images
}

// judgeImages looks at images. Of one that cannot be looked at nothing is found, so what
// the list has of it stays.
func (o *scanOptions) judgeImages(ctx context.Context, log *action.Log, m *advisory.Matcher, paths []string) (found []blockable, unread []unreadImage) {
	for _, path := range paths {
		e, failed := o.judgeImage(ctx, log, m, path)
		if ctx.Err() != nil {
			return nil, nil
		}
		if failed != nil {
			log.Warning(oneLine(fmt.Sprintf("cannot scan %q: %v", path, failed)))
			unread = append(unread, unreadImage{path, failed.Error()})
			continue
		}
		found = append(found, blockable{path, e})
	}
	return found, unread
}

// judgeImage tells what blocks an image: the worst of its faults.
func (o *scanOptions) judgeImage(ctx context.Context, log *action.Log, m *advisory.Matcher, path string) (e blocked.Entry, err error) {
	im, err := openImage(path)
	if err != nil {
		return e, err
	}
	defer im.Close()
	if im.SIF == nil || im.SIF.Header().ID == (sif.ID{}) {
		return e, errors.New("it is no SIF with an id, so it cannot be blocked")
	}
	e.ID = im.SIF.Header().ID.String()
	digest := ""
	if len(o.vex) > 0 {
		if digest, err = fileDigest(im.File); err != nil {
			return e, err
		}
	}
	inv, err := inventoryOf(ctx, im)
	if err != nil {
		return e, err
	}
	for _, g := range inv.Gaps {
		log.Warning(oneLine(path + ": the list of packages may not be complete: " + g))
	}
	list, err := m.Match(ctx, inv)
	if err == nil {
		err = o.applyVEX(list, digest)
	}
	if err != nil {
		return e, err
	}
	level, _ := advisory.ParseLevel(o.block)
	worst := advisory.Unknown
	for _, f := range list {
		if f.Ignored != "" || f.Level < level || f.Level <= worst {
			continue
		}
		worst = f.Level
		e.Severity, e.Advisory, e.Text = f.Level.String(), f.ID, f.Brief()
	}
	return e, nil
}

// changeBlockList replaces the list of blocked images at path by what edit makes of it:
// whole, while no other call of ours changes a file of that directory.
func changeBlockList(verb, path string, edit func(*blocked.List)) error {
	return inSiteDir(verb, path, func(dir *os.File) error {
		l := &blocked.List{}
		f, err := conf.OpenSite(path)
		if err == nil {
			l, err = blocked.Read(f)
			f.Close()
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return action.Fatal(fmt.Errorf("cannot use the list %q: %w", path, cause(err)), "correct it, or remove it to have a new one made, in which all dates begin anew")
		}
		edit(l)
		return writeBlocked(path, l, dir)
	})
}

// replaceBlockList makes l the list at path, whatever was there.
func replaceBlockList(verb, path string, l *blocked.List) error {
	return inSiteDir(verb, path, func(dir *os.File) error { return writeBlocked(path, l, dir) })
}

func writeBlocked(path string, l *blocked.List, dir *os.File) error {
	text, err := l.Encode()
	if err != nil {
		return err
	}
	return writeSiteFile(path, string(text), dir)
}
