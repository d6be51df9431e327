package advisory

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/osv-scalibr/semantic"
)

// Bounds of a changelog.
const (
	maxChangelog = 64 << 20 // bytes, decompressed
	maxEntries   = 20_000
)

// Changelogs makes records of the CVE numbers in the changelogs of Debian's
// packages: tree has them as /usr/share/doc does, PACKAGE/changelog.Debian.gz or
// PACKAGE/changelog.gz. The first version that speaks of a CVE is taken as the
// one that corrected it.
//
// That is not what a security team decided but what maintainers wrote: a CVE
// that is mentioned because it does not apply looks the same as one that was
// corrected, and one nobody mentioned is missing.
func Changelogs(ctx context.Context, tree fs.FS, ecosystem string) ([]Record, error) {
	c := changelogs{ecosystem: ecosystem, found: map[[2]string]Record{}}
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch path.Base(p) {
		case "changelog.Debian.gz", "changelog.gz", "changelog.Debian":
		default:
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := tree.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		var in io.Reader = f
		if strings.HasSuffix(p, ".gz") {
			if in, err = gzip.NewReader(f); err != nil {
				return fmt.Errorf("cannot read %q: %w", p, err)
			}
		}
		if err := c.read(io.LimitReader(in, maxChangelog)); err != nil {
			return fmt.Errorf("cannot read %q: %w", p, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	list := make([]Record, 0, len(c.found))
	for _, r := range c.found {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Record) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// changelogs collects corrections, by source package and CVE.
type changelogs struct {
	ecosystem string
	found     map[[2]string]Record
}

// changelogHead is the first line of an entry (deb-changelog(5)).
var changelogHead = regexp.MustCompile(`^([a-z0-9][a-z0-9+.-]*) \(([^() ]+)\) `)

var cveNumber = regexp.MustCompile(`CVE-[0-9]{4}-[0-9]{4,9}`)

// read reads one changelog, the newest version first.
func (c *changelogs) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	var source, version string
	var pending []string // numbers of the present entry, whose date is at its end
	entries := 0
	flush := func(date time.Time) {
		for _, id := range pending {
			c.add(source, id, version, date)
		}
		pending = nil
	}
	for lines.Scan() {
		line := lines.Text()
		if m := changelogHead.FindStringSubmatch(line); m != nil {
			flush(time.Time{})
			if entries++; entries > maxEntries {
				return fmt.Errorf("it has over %d entries", maxEntries)
			}
			source, version = m[1], m[2]
			continue
		}
		if rest, ok := strings.CutPrefix(line, " -- "); ok {
			flush(changelogDate(rest))
			continue
		}
		if source != "" && len(pending) < maxEntries {
			pending = append(pending, cveNumber.FindAllString(line, -1)...)
		}
	}
	flush(time.Time{})
	return lines.Err()
}

func changelogDate(trailer string) time.Time {
	_, date, ok := strings.Cut(trailer, ">  ")
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse("Mon, _2 Jan 2006 15:04:05 -0700", strings.TrimSpace(date))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// add notes that version corrected id; an older version that did so counts.
func (c *changelogs) add(source, id, version string, date time.Time) {
	at := [2]string{source, id}
	if old, ok := c.found[at]; ok && !older(version, old.Affected[0].Ranges[0].Events[1].Fixed) {
		return
	}
	c.found[at] = Record{
		ID: "DEBIAN-CHANGELOG-" + id + "-" + source, Modified: date, Upstream: []string{id},
		Summary: fmt.Sprintf("%s in %s, corrected in %s according to its changelog", id, source, version),
		Affected: []Affected{{Package: Name{Ecosystem: c.ecosystem, Name: source},
			Ranges: []Range{{Type: "ECOSYSTEM", Events: []Event{{Introduced: "0"}, {Fixed: version}}}}}},
	}
}

func older(a, b string) bool {
	v, err := semantic.ParseDebianVersion(a)
	if err != nil {
		return false
	}
	n, err := v.CompareStr(b)
	return err == nil && n < 0
}
