package openapi

import (
	"time"

	"singularity/api"
)

var faultID = Param{Name: "id", Text: "any name of a fault or an advisory, as CVE-2026-1234", Required: true}

type vex struct {
	Context    string    `json:"@context"`
	ID         string    `json:"@id"`
	Author     string    `json:"author"`
	Timestamp  time.Time `json:"timestamp"`
	Version    int       `json:"version"`
	Statements []any     `json:"statements"`
}

var suppressed = []Param{faultID, {Name: "product", Text: "a purl; without it what is said of all packages"}}

var watching = []Operation{
	{Pattern: "GET /v1/findings", Tag: "watch", Summary: "State of the images that the caller may read: totals, the worst images and faults, age of the advisories", Data: api.WatchOverview{}},
	{Pattern: "GET /v1/findings/search", Tag: "watch", Summary: "Faults by any name, and packages, in images that the caller may read", Query: []Param{{Name: "q", Text: "at least three characters", Required: true}}, Data: api.WatchSearch{}},
	{Pattern: "GET /v1/findings/images", Tag: "watch", Summary: "Images that have a fault", Query: append([]Param{faultID}, paging...), Data: []api.TouchedImage{}, Paged: true},
	{Pattern: "GET /v1/findings/runs", Tag: "watch", Summary: "Runs of images that have a fault: the caller's, or all for administrators", Scope: "account:read", Query: []Param{faultID, {Name: "ended", Text: "true: also those that have ended"}}, Data: []api.TouchedRun{}},
	{Pattern: "GET /v1/findings/images/{ref...}", Tag: "watch", Summary: "What is known to be wrong with an image", Query: []Param{{Name: "arch", Text: "an architecture"}}, Data: api.ImageFindings{}},
	{Pattern: "GET /v1/inventories/{ref...}", Tag: "watch", Summary: "Packages of an image, as a bill of materials", Query: []Param{{Name: "format", Text: "cyclonedx or spdx"}, {Name: "arch", Text: "an architecture"}}, Type: "application/vnd.cyclonedx+json", Refuse: []int{409}},
	{Pattern: "GET /v1/suppressions", Tag: "watch", Summary: "Which findings do not count on this site, in OpenVEX", Scope: "library:read", Body: vex{}},
	{Pattern: "PUT /v1/suppressions", Tag: "watch", Summary: "Take a document of OpenVEX in place of what is said for the site", Scope: "admin", Media: "application/json", Data: nothing{}, Refuse: []int{400, 413}},
	{Pattern: "POST /v1/suppressions", Tag: "watch", Summary: "Let a fault not count on this site", Scope: "admin", In: api.Suppression{}, Data: nothing{}},
	{Pattern: "DELETE /v1/suppressions", Tag: "watch", Summary: "Let a fault count again on this site", Scope: "admin", Query: suppressed, Data: nothing{}, Refuse: []int{404}},
	{Pattern: "GET /v1/suppressions/{entity}/{collection}", Tag: "watch", Summary: "Which findings do not count in a collection, in OpenVEX", Body: vex{}},
	{Pattern: "PUT /v1/suppressions/{entity}/{collection}", Tag: "watch", Summary: "Take a document of OpenVEX in place of what is said for a collection", Scope: "library:manage", Media: "application/json", Data: nothing{}, Refuse: []int{400, 413}},
	{Pattern: "POST /v1/suppressions/{entity}/{collection}", Tag: "watch", Summary: "Let a fault not count in a collection", Scope: "library:manage", In: api.Suppression{}, Data: nothing{}},
	{Pattern: "DELETE /v1/suppressions/{entity}/{collection}", Tag: "watch", Summary: "Let a fault count again in a collection", Scope: "library:manage", Query: suppressed, Data: nothing{}},
	{Pattern: "GET /v1/watch/rules", Tag: "watch", Summary: "From which severity on the site serves no images and tells administrators", Scope: "admin", Data: api.WatchRules{}},
	{Pattern: "PUT /v1/watch/rules", Tag: "watch", Summary: "Set that", Scope: "admin", In: api.WatchRules{}, Data: api.WatchRules{}},
	{Pattern: "GET /v1/watch/rules/{entity}/{collection}", Tag: "watch", Summary: "From which severity on a collection serves no images and its owners are told", Scope: "library:manage", Data: api.WatchRules{}},
	{Pattern: "PUT /v1/watch/rules/{entity}/{collection}", Tag: "watch", Summary: "Set that; a new webhook gets a secret, which is in this answer alone", Scope: "library:manage", In: api.WatchRules{}, Data: api.WatchRules{}},
	{Pattern: "GET /v1/watch/blocked", Tag: "watch", Summary: "Images that hosts do not run by the rule of the site, from which date on: for administrators, and a robot of an administrator's that speaks for a host", Scope: "runs:write", Data: api.BlockedImages{}, Refuse: []int{503}},
	{Pattern: "POST /v1/runs", Tag: "watch", Summary: "Tell where images run: a robot of an administrator for the host of its name, others for themselves; may be repeated", Scope: "runs:write", In: api.Runs{}, Data: api.RunsTaken{}, Refuse: []int{413}},
	{Pattern: "GET /v1/runs", Tag: "watch", Summary: "Runs: the caller's, or all for administrators", Scope: "account:read",
		Query: append([]Param{{Name: "digest", Text: "sha256:HEX of an image"}, {Name: "user", Text: "a user"}, {Name: "host", Text: "a host"}, {Name: "running", Text: "true: those that go on"}}, paging...), Data: []api.StoredRun{}, Paged: true},
}
