package api

import "time"

// The bounds of a call that ships runs.
const (
	MaxRuns     = 1000
	MaxRunsBody = 8 << 20
)

// Run is one run of a container, as a host tells it.
type Run struct {
	ID    string    `json:"id"` // unique for who ships it
	Start time.Time `json:"start"`
	End   time.Time `json:"end,omitzero"` // not there while it runs
	Host  string    `json:"host"`
	User  string    `json:"user"` // name at the host
	UID   uint32    `json:"uid"`
	Job   string    `json:"job,omitempty"` // of the batch system
	Verb  string    `json:"verb"`
	Image string    `json:"image"` // path or URI
	// Digest of the image file, "sha256:HEX"; empty if nobody read it.
	Digest string `json:"digest,omitempty"`
}

// Runs is what POST /v1/runs takes.
type Runs struct {
	Records []Run `json:"records"`
}

// RunsTaken is its answer: the first Done records of the call are kept, or named in
// Refused, which is for ever. The others are to be sent again.
type RunsTaken struct {
	Done    int          `json:"done"`
	Refused []RunRefused `json:"refused,omitempty"`
}

// RunRefused says why a record is not kept.
type RunRefused struct {
	ID      string `json:"id"`
	Message string `json:"message"`
}

// StoredRun is a run with what the server knows of it.
type StoredRun struct {
	Run
	Shipper string    `json:"shipper"` // account that told of it
	Claimed bool      `json:"claimed"` // told by its user, not by the host
	Heard   time.Time `json:"heard"`   // when anybody spoke of it last
	Running bool      `json:"running"` // it has not ended, as far as known
	// Counts are the findings of its image by severity, if that is stored and for the
	// caller to read.
	Counts map[string]int `json:"counts,omitempty"`
}

// WatchData is the advisories that a server uses.
type WatchData struct {
	Configured bool           `json:"configured"`           // the operator has named a place of advisories
	Loading    bool           `json:"loading"`              // the server has just begun: not all images are looked at
	Loaded     bool           `json:"loaded"`               // there is data in use
	Old        bool           `json:"old"`                  // the newest record is older than the site allows
	Records    int            `json:"records"`              // advisories
	Packages   int            `json:"packages"`             // that they are about
	Newest     time.Time      `json:"newest,omitzero"`      // last change of any record
	Since      time.Time      `json:"since,omitzero"`       // in use
	Digest     string         `json:"digest,omitempty"`     // of the data
	Problem    string         `json:"problem,omitempty"`    // why what the operator has put there is not used
	MaxAge     string         `json:"maxAge"`               // as the site allows
	Ecosystems map[string]int `json:"ecosystems,omitempty"` // packages of each
}

// Finding is a fault that a package of an image has.
type Finding struct {
	ID       string         `json:"id"` // the name most people know it by
	Records  []string       `json:"records"`
	Aliases  []string       `json:"aliases,omitempty"`
	Summary  string         `json:"summary,omitempty"`
	Severity string         `json:"severity"`
	Package  WatchedPackage `json:"package"`
	Fixed    []string       `json:"fixed,omitempty"`  // versions that no longer have it
	Denied   []string       `json:"denied,omitempty"` // records by which this version has it not
	Unsure   bool           `json:"unsure,omitempty"` // the version cannot be compared
	// Suppressed is why people here do not count it, empty if they do.
	Suppressed string `json:"suppressed,omitempty"`
}

// WatchedPackage is a package of an image.
type WatchedPackage struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Source  string `json:"source,omitempty"`
	Path    string `json:"path,omitempty"`
	PURL    string `json:"purl,omitempty"`
}

// ImageFindings is what is known to be wrong with an image.
type ImageFindings struct {
	Image string `json:"image"` // sha256.HEX
	// State of the list of packages: done, waiting or failed.
	State      string         `json:"state"`
	Problem    string         `json:"problem,omitempty"`
	Made       time.Time      `json:"made,omitzero"`
	Distro     string         `json:"distro,omitempty"`
	Packages   int            `json:"packages"`
	Gaps       []string       `json:"gaps,omitempty"` // what could not be read
	Counts     map[string]int `json:"counts"`         // by severity, without suppressed ones
	Suppressed int            `json:"suppressed"`
	Findings   []Finding      `json:"findings"`
	Data       WatchData      `json:"data"`
}

// TouchedImage is an image with the findings that were asked for.
type TouchedImage struct {
	Image    Image     `json:"image"`
	Findings []Finding `json:"findings"`
}

// WatchedImage is an image with the number of its findings.
type WatchedImage struct {
	Image  Image          `json:"image"`
	Counts map[string]int `json:"counts"`
}

// FaultCount is a fault with the number of images that have it.
type FaultCount struct {
	ID       string `json:"id"`
	Summary  string `json:"summary,omitempty"`
	Severity string `json:"severity"`
	Images   int    `json:"images"`
	Fixed    bool   `json:"fixed"` // some version no longer has it
}

// PackageCount is a package with the number of images that have it.
type PackageCount struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Images  int    `json:"images"`
}

// WatchOverview is the state of all images that the caller may read.
type WatchOverview struct {
	Images   int            `json:"images"`
	Done     int            `json:"done"` // whose packages are known
	Waiting  int            `json:"waiting"`
	Failed   int            `json:"failed"`
	Affected int            `json:"affected"` // that have findings
	Counts   map[string]int `json:"counts"`   // images by their worst finding
	Worst    []WatchedImage `json:"worst"`
	Faults   []FaultCount   `json:"faults"`
	Data     WatchData      `json:"data"`
}

// WatchSearch is what a search finds.
type WatchSearch struct {
	Faults   []FaultCount   `json:"faults"`
	Packages []PackageCount `json:"packages"`
}

// Suppression says that a fault does not count.
type Suppression struct {
	ID      string `json:"id"`
	Product string `json:"product,omitempty"` // a purl; empty for all packages
	Reason  string `json:"reason"`
	Until   string `json:"until,omitempty"` // the last day, 2026-12-31; empty for no end
}

// TouchedRun is a run with the findings of its image that were asked for.
type TouchedRun struct {
	Run      StoredRun `json:"run"`
	Findings []Finding `json:"findings"`
}

// WatchRules is what holds for the images of a collection, or of the site.
type WatchRules struct {
	// Block is the severity from which on an image is not served, empty for none, when
	// Grace is over since the fault was known here, or the image pushed.
	Block string `json:"block,omitempty"`
	Grace string `json:"grace,omitempty"` // as 168h
	// BlockUnknown does not serve what was not compared with data of the allowed age.
	BlockUnknown bool `json:"blockUnknown,omitempty"`
	// Notify is the severity from which on owners are told of new findings, empty for none.
	Notify  string `json:"notify,omitempty"`
	Webhook string `json:"webhook,omitempty"` // https address
	Mail    bool   `json:"mail,omitempty"`    // to the addresses of the owners' accounts
	// Secret signs what is sent to the webhook. It is in the answer to the call that
	// set the address, and in no other.
	Secret string `json:"secret,omitempty"`

	LastSent  time.Time `json:"lastSent,omitzero"`
	LastError string    `json:"lastError,omitempty"` // of sending
}

// BlockedImages are the images that hosts do not run, by the rule of the site.
type BlockedImages struct {
	Made    time.Time      `json:"made"`
	Block   string         `json:"block,omitempty"` // the severity from which on, empty for none
	Grace   string         `json:"grace,omitempty"`
	Records int            `json:"records"`         // advisories
	Newest  time.Time      `json:"newest,omitzero"` // of them
	Images  []BlockedImage `json:"images"`
	More    int            `json:"more,omitempty"` // images for which there is no room
}

// BlockedImage is an image that does not run, or will not.
type BlockedImage struct {
	ID       string    `json:"id"`   // in the header of the SIF
	Hash     string    `json:"hash"` // hexadecimal SHA-256
	From     time.Time `json:"from"`
	Severity string    `json:"severity"`
	Advisory string    `json:"advisory"`
	Text     string    `json:"text"` // the package, and what corrects it
}

// Notice is what a webhook gets: new findings, all at once.
type Notice struct {
	ID     string         `json:"id"` // the same if it has to be sent again
	Site   string         `json:"site"`
	About  string         `json:"about"` // ENTITY/COLLECTION, or site
	At     time.Time      `json:"at"`
	DataOf time.Time      `json:"dataOf"` // the newest advisory
	Images []NoticedImage `json:"images"`
	More   int            `json:"more,omitempty"` // further findings
	Counts map[string]int `json:"counts"`
}

// NoticedImage is an image with new findings.
type NoticedImage struct {
	Image    string    `json:"image"` // ENTITY/COLLECTION/CONTAINER
	Hash     string    `json:"hash"`
	Tags     []string  `json:"tags,omitempty"`
	URL      string    `json:"url"`
	Findings []Finding `json:"findings"`
}
