package advisory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// maxImport bounds the files that distributions publish, bytes.
const maxImport = 512 << 20

// Import makes records of what a distribution publishes: the JSON of Debian's
// security tracker (data/json) or of Alpine's security database
// (vVERSION/main.json). at is when it was published, which these files do not
// say.
func Import(r io.Reader, at time.Time) ([]Record, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxImport+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxImport {
		return nil, fmt.Errorf("it is larger than %d bytes", maxImport)
	}
	var probe map[string]json.RawMessage
	if err := json.Unmarshal(b, &probe); err != nil {
		return nil, err
	}
	if _, ok := probe["distroversion"]; ok {
		return importAlpine(b, at)
	}
	return importDebian(probe, at)
}

// trackerFault is one CVE of a source package in Debian's tracker.
type trackerFault struct {
	Description string
	Releases    map[string]struct {
		Status, Urgency string
		Fixed           string `json:"fixed_version"`
		NoDSA           string `json:"nodsa"`
	}
}

// debianReleases are the numbers of Debian's names, of which the tracker speaks.
var debianReleases = map[string]string{
	"buster": "10", "bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14", "duke": "15",
}

func importDebian(sources map[string]json.RawMessage, at time.Time) ([]Record, error) {
	var list []Record
	for source, raw := range sources {
		var faults map[string]trackerFault
		if err := json.Unmarshal(raw, &faults); err != nil {
			return nil, fmt.Errorf("it is neither Debian's security tracker nor Alpine's security database: %q: %w", clean(source), err)
		}
		for id, f := range faults {
			r := Record{ID: "DEBIAN-" + id + "-" + source, Modified: at, Upstream: []string{id}, Summary: f.Description}
			for release, s := range f.Releases {
				number := debianReleases[release]
				// "0" means that no version of this release ever had it.
				if number == "" || s.Fixed == "0" || s.Status == "undetermined" {
					continue
				}
				e := []Event{{Introduced: "0"}}
				if s.Status == "resolved" && s.Fixed != "" {
					e = append(e, Event{Fixed: s.Fixed})
				}
				a := Affected{Package: Name{Ecosystem: "Debian:" + number, Name: source}, Ranges: []Range{{Type: "ECOSYSTEM", Events: e}}}
				a.Ecosystem.Urgency = anyText(s.Urgency)
				r.Affected = append(r.Affected, a)
			}
			if len(r.Affected) > 0 {
				slices.SortFunc(r.Affected, func(a, b Affected) int { return strings.Compare(a.Package.Ecosystem, b.Package.Ecosystem) })
				list = append(list, r)
			}
		}
	}
	if len(list) == 0 {
		return nil, errors.New("it names no release of Debian that is known here")
	}
	slices.SortFunc(list, func(a, b Record) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

func importAlpine(b []byte, at time.Time) ([]Record, error) {
	var db struct {
		DistroVersion, RepoName string
		Packages                []struct {
			Pkg struct {
				Name     string
				Secfixes map[string][]string
			}
		}
	}
	if err := json.Unmarshal(b, &db); err != nil {
		return nil, err
	}
	var list []Record
	for _, p := range db.Packages {
		for version, ids := range p.Pkg.Secfixes {
			e := []Event{{Introduced: "0"}, {Fixed: version}}
			if version == "0" { // never had it
				continue
			}
			for _, id := range ids {
				// Several names of one fault stand in one string.
				names := strings.Fields(id)
				if len(names) == 0 {
					continue
				}
				list = append(list, Record{
					ID: fmt.Sprintf("ALPINE-%s-%s-%s", names[0], p.Pkg.Name, db.DistroVersion), Modified: at, Aliases: names,
					Summary:  fmt.Sprintf("%s in %s", names[0], p.Pkg.Name),
					Affected: []Affected{{Package: Name{Ecosystem: "Alpine:" + db.DistroVersion, Name: p.Pkg.Name}, Ranges: []Range{{Type: "ECOSYSTEM", Events: e}}}},
				})
			}
		}
	}
	slices.SortFunc(list, func(a, b Record) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}
