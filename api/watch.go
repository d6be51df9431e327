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
}
