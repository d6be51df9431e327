// Package advisory says which known faults the packages of an image have.
//
// A DB is made of records in OSV form (https://ossf.github.io/osv-schema) from a
// directory, a zip or a tar archive that the operator got where they like;
// import.go makes such records of what distributions publish. Match compares the
// versions by the rules of each ecosystem and needs no network, no image and no
// file: an inventory is enough.
//
// Names: a fault has many, a record of GitHub, one of a distribution, a CVE. All
// records about one package that share a name are one finding, under the CVE if
// there is one.
//
// Trust: records are written by many. Sizes and counts are bounded, texts are
// cut and control characters taken out; a record that cannot be understood is
// counted and named, and does not hide the others. Whether data may be used at
// all (its age, its signature) is for the caller to say, by Info.
//
// Files: advisory.go (types), load.go (files), db.go (all records, and the next state of
// them), version.go (ranges and
// comparison), match.go, severity.go, ecosystem.go (which names a package has
// in records), import.go and changelog.go (other forms), vex.go (what people
// have decided about findings).
package advisory

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of what is loaded.
const (
	maxRecord   = 4 << 20   // bytes of one record
	maxRecords  = 2_000_000 // records
	maxAffected = 20_000    // packages that one record names
	maxVersions = 200_000   // versions that one record lists
	maxText     = 4096      // bytes of a text that is kept
	maxName     = 512       // bytes of a name or a version
	maxArchive  = 8 << 30   // bytes of all records
	maxBad      = 50        // unusable records that are named
)

// Record is one advisory.
type Record struct {
	ID        string     `json:"id"`
	Modified  time.Time  `json:"modified"`
	Published time.Time  `json:"published,omitzero"`
	Withdrawn time.Time  `json:"withdrawn,omitzero"`
	Aliases   []string   `json:"aliases,omitempty"`
	Upstream  []string   `json:"upstream,omitempty"`
	Related   []string   `json:"related,omitempty"`
	Summary   string     `json:"summary,omitempty"`
	Details   string     `json:"details,omitempty"`
	Severity  []Score    `json:"severity,omitempty"`
	Affected  []Affected `json:"affected"`
	Database  specific   `json:"database_specific,omitzero"`
}

// Score is one severity of a record, by a named scheme.
type Score struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

// specific is what databases add in a form of their own, as far as it is used.
type specific struct {
	Severity anyText `json:"severity,omitempty"`
	Urgency  anyText `json:"urgency,omitempty"`
	Imports  imports `json:"imports,omitempty"`
}

// imports are the parts of a Go module that have a fault, with the platforms on
// which they do, none for all.
type imports []struct {
	OS   []string `json:"goos,omitempty"`
	Arch []string `json:"goarch,omitempty"`
}

// UnmarshalJSON passes over what other databases put there.
func (i *imports) UnmarshalJSON(b []byte) error {
	type plain imports
	if json.Unmarshal(b, (*plain)(i)) != nil {
		*i = nil
	}
	return nil
}

// platforms tells whether images, which are for Linux, have any of these parts,
// and on which architectures, none for all.
func (i imports) platforms() (linux bool, archs []string) {
	all := len(i) == 0
	for _, m := range i {
		if len(m.OS) > 0 && !slices.Contains(m.OS, "linux") {
			continue
		}
		linux = true
		all = all || len(m.Arch) == 0
		archs = append(archs, m.Arch...)
	}
	if all {
		archs = nil
	}
	return linux || len(i) == 0, archs
}

// Affected is one package of a record, with its versions.
type Affected struct {
	Package   Name     `json:"package"`
	Ranges    []Range  `json:"ranges,omitempty"`
	Versions  []string `json:"versions,omitempty"`
	Severity  []Score  `json:"severity,omitempty"`
	Ecosystem specific `json:"ecosystem_specific,omitzero"`
	Database  specific `json:"database_specific,omitzero"`
}

// Name is a package in an ecosystem of OSV, with a release behind a colon for
// distributions: "Debian:12".
type Name struct {
	Ecosystem string `json:"ecosystem"`
	Name      string `json:"name"`
	PURL      string `json:"purl,omitempty"`
}

// Range is a range of versions of one order.
type Range struct {
	Type   string  `json:"type"` // SEMVER, ECOSYSTEM; GIT is not used
	Events []Event `json:"events"`
}

// Event is where a range begins or ends; one field is set.
type Event struct {
	Introduced   string `json:"introduced,omitempty"`
	Fixed        string `json:"fixed,omitempty"`
	LastAffected string `json:"last_affected,omitempty"`
	Limit        string `json:"limit,omitempty"`
}

// anyText is a string, or nothing where a database put another type.
type anyText string

func (t *anyText) UnmarshalJSON(b []byte) error {
	*t = ""
	if len(b) > 1 && b[0] == '"' && len(b) < maxName {
		*t = anyText(strings.Trim(string(b), `"`))
	}
	return nil
}

// faults are the faults that r is about, each with all its names: one with its
// aliases, or, for what distributions collect in one notice, every upstream name
// by itself. Some databases call those related.
func (r *Record) faults() [][]string {
	many := r.Upstream
	if len(many) == 0 && len(r.Aliases) == 0 {
		for _, id := range r.Related {
			if strings.HasPrefix(id, "CVE-") {
				many = append(many, id)
			}
		}
	}
	if len(many) < 2 {
		return [][]string{slices.Concat([]string{r.ID}, r.Aliases, many)}
	}
	list := make([][]string, len(many))
	for i, id := range many {
		list[i] = []string{id}
	}
	return list
}

// sortNames sorts names, those that most people know first.
func sortNames(list []string) []string {
	slices.SortFunc(list, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	return slices.Compact(list)
}

// rank orders names: a CVE says most to most people.
func rank(id string) int {
	switch {
	case strings.HasPrefix(id, "CVE-"):
		return 0
	case strings.HasPrefix(id, "GHSA-"):
		return 1
	}
	return 2
}

// Info tells how old data is and how much there is of it.
type Info struct {
	Records   int       `json:"records"`
	Withdrawn int       `json:"withdrawn,omitempty"`
	Packages  int       `json:"packages"`
	Newest    time.Time `json:"newest"` // last change of any record
	// Ecosystems are the numbers of packages of each.
	Ecosystems map[string]int `json:"ecosystems"`
	// Digest is a SHA-256 of all that the records say, whatever the order and form
	// of the files.
	Digest string `json:"digest"`
	// Unusable names records that could not be understood.
	Unusable []string `json:"unusable,omitempty"`
	Skipped  int      `json:"skipped,omitempty"`
}

// Follows tells whether data like i may take the place of data like old. It
// refuses data whose newest record is older, and data that lacks a tenth of the
// records: either would hide faults that were known.
func (i Info) Follows(old Info) error {
	switch {
	case i.Newest.Before(old.Newest):
		return fmt.Errorf("the new advisories go back in time: their newest is of %s, what is there is of %s", i.Newest.UTC().Format(time.RFC3339), old.Newest.UTC().Format(time.RFC3339))
	case (i.Records+i.Withdrawn)*10 < (old.Records+old.Withdrawn)*9:
		return fmt.Errorf("the new advisories are too few: %d, where %d are there", i.Records+i.Withdrawn, old.Records+old.Withdrawn)
	}
	return nil
}
