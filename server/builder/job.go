package builder

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// State of a job.
type State string

// The states. A job goes from queued to running to uploading to succeeded, or to
// another end from any of them; and back to queued or running if its worker was
// lost.
const (
	Queued    State = "queued"
	Running   State = "running"
	Uploading State = "uploading"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	TimedOut  State = "timed-out"
)

var states = []State{Queued, Running, Uploading, Succeeded, Failed, Cancelled, TimedOut}

// over tells whether nothing more comes.
func (s State) over() bool { return s == Succeeded || s == Failed || s == Cancelled || s == TimedOut }

// defaultAttempts is how many workers a job may lose, unless Options say.
const defaultAttempts = 3

// job is one build.
type job struct {
	ID         string    `json:"id"`
	User       string    `json:"user"` // the id of the account
	UserName   string    `json:"userName"`
	Origin     string    `json:"origin,omitempty"` // the token that asked for it
	Reads      bool      `json:"reads,omitempty"`  // that token could read
	Definition []byte    `json:"definition"`
	Context    string    `json:"context,omitempty"` // key of the files
	WorkingDir string    `json:"workingDir,omitempty"`
	Arch       string    `json:"arch"`
	Priority   string    `json:"priority"`
	Path       string    `json:"path"` // of the container
	Tag        string    `json:"tag"`
	Temporary  bool      `json:"temporary,omitempty"`
	State      State     `json:"state"`
	Reason     string    `json:"reason,omitempty"`
	Submitted  time.Time `json:"submitted"`
	Started    time.Time `json:"started,omitzero"`
	Ended      time.Time `json:"ended,omitzero"`

	Fence    int64  `json:"fence"`
	Attempts int    `json:"attempts,omitempty"`
	Worker   string `json:"worker,omitempty"`
	Ticket   uint64 `json:"ticket,omitempty"` // in the queue
	Hold     string `json:"hold,omitempty"`   // of the ticket

	ReadToken  string    `json:"readToken,omitempty"` // their ids
	WriteToken string    `json:"writeToken,omitempty"`
	ImageHash  string    `json:"imageHash,omitempty"`
	ImageSize  int64     `json:"imageSize,omitempty"` // of the library; more than 0 if it succeeded
	Stage      string    `json:"stage,omitempty"`     // where the image is until it is signed
	Built      time.Time `json:"built,omitzero"`      // when the worker had it
	Settled    bool      `json:"settled,omitempty"`   // after the end: the log is a blob, and nothing is left
}

var jobIndexes = []store.Index[job]{
	{Name: "state", Of: func(j *job) []string { return []string{string(j.State)} }},
	{Name: "active", Of: func(j *job) []string {
		if j.State.over() {
			return nil
		}
		return []string{j.User}
	}},
	{Name: "running", Of: func(j *job) []string {
		if j.State != Running && j.State != Uploading {
			return nil
		}
		return []string{j.User}
	}},
	{Name: "unsettled", Of: func(j *job) []string {
		if !j.State.over() || j.Settled {
			return nil
		}
		return []string{"yes"}
	}},
	{Name: "context", Of: func(j *job) []string {
		if j.State.over() {
			return nil
		}
		return []string{j.Context}
	}},
	{Name: "submitted", Of: func(j *job) []string { return []string{stamp(j.Submitted)} }},
	{Name: "owner", Of: func(j *job) []string { return []string{j.UserName + "/" + stamp(j.Submitted)} }},
	{Name: "temporary", Of: func(j *job) []string {
		if !j.Temporary || j.State != Succeeded {
			return nil
		}
		return []string{stamp(j.Ended)}
	}},
}

// stamp is a time that sorts as text.
func stamp(t time.Time) string { return t.UTC().Format("20060102T150405.000000000") }

func (j *job) ref() string { return "library://" + j.Path + ":" + j.Tag }

// info is what the owner sees.
func (s *Service) info(j *job) api.BuildInfo {
	i := api.BuildInfo{ID: j.ID, IsComplete: j.State.over(), LibraryRef: j.ref(), LibraryURL: s.o.URL, State: string(j.State), Reason: j.Reason, Arch: j.Arch,
		Owner: j.UserName, Priority: j.Priority, Attempts: j.Attempts, Submitted: j.Submitted, Started: j.Started, Ended: j.Ended}
	if j.Temporary && j.Tag == "latest" {
		i.LibraryRef = "library://" + j.Path
	}
	if j.State == Succeeded {
		i.ImageSize, i.ImageChecksum = j.ImageSize, "sha256."+j.ImageHash
	}
	return i
}

var (
	// errLost is for a worker whose job is not its own any more.
	errLost = route.Errorf(http.StatusConflict, "this build is over or another worker's")
	errOver = errors.New("the build is over")
)

// alter changes a job that is not over, under a fence unless that is 0.
func (s *Service) alter(ctx context.Context, id string, fence int64, change func(*job) error) (store.Item[job], error) {
	return s.jobs.Update(ctx, id, func(j *job) error {
		switch {
		case fence != 0 && (j.Fence != fence || j.State.over()):
			return errLost
		case j.State.over():
			return errOver
		}
		return change(j)
	})
}

// held returns the job of a worker's call.
func (s *Service) held(ctx context.Context, id string, fence int64) (*job, error) {
	j, err := s.jobs.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && (fence == 0 || j.Value.Fence != fence || j.Value.State != Running && j.Value.State != Uploading) {
		return nil, errLost
	}
	return &j.Value, err
}

// find returns a job that the caller may see.
func (s *Service) find(r *http.Request) (*job, error) {
	c := auth.From(r.Context())
	if err := c.Require(auth.Build); err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	if len(id) != 24 || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, c.NotFound()
	}
	j, err := s.jobs.Get(r.Context(), id)
	// Security: to others a build is as if it were not there.
	if errors.Is(err, store.ErrNotFound) || err == nil && j.Value.User != c.ID && c.RequireAdmin() != nil {
		return nil, c.NotFound()
	}
	return &j.Value, err
}

func (s *Service) status(w http.ResponseWriter, r *http.Request) error {
	j, err := s.find(r)
	if err != nil {
		return err
	}
	i := s.info(j)
	if auth.From(r.Context()).RequireAdmin() == nil {
		i.Worker = j.Worker
	}
	route.Data(w, i)
	return nil
}

func (s *Service) definition(w http.ResponseWriter, r *http.Request) error {
	j, err := s.find(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(j.Definition)
	return nil
}

// list shows the caller's builds, the newest first; with ?all=true those of
// everybody, to administrators.
func (s *Service) list(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := auth.From(ctx)
	if err := c.Require(auth.Build); err != nil {
		return err
	}
	form := r.URL.Query()
	q := store.Query{Index: "owner", Prefix: c.Name + "/", Reverse: true, Limit: 50, After: form.Get("after")}
	if form.Get("all") == "true" {
		if err := c.RequireAdmin(); err != nil {
			return err
		}
		q.Index, q.Prefix = "submitted", ""
	}
	items, next, err := s.jobs.List(ctx, q)
	if err != nil {
		return err
	}
	list := make([]api.BuildInfo, 0, len(items))
	for _, i := range items {
		info := s.info(&i.Value)
		if q.Index == "submitted" {
			info.Worker = i.Value.Worker
		}
		list = append(list, info)
	}
	route.JSON(w, http.StatusOK, api.Listing[api.BuildInfo]{Data: list, Page: api.Page{Next: next}})
	return nil
}

func (s *Service) cancel(w http.ResponseWriter, r *http.Request) error {
	j, err := s.find(r)
	if err != nil {
		return err
	}
	if j.State.over() {
		route.Data(w, s.info(j))
		return nil
	}
	by := ""
	if c := auth.From(r.Context()); c.ID != j.User {
		by = " by an administrator"
	}
	err = s.end(r.Context(), j.ID, 0, Cancelled, "cancelled"+by, nil)
	if err != nil && !errors.Is(err, errOver) {
		return err
	}
	s.auth.Audit(r.Context(), "build.cancel", j.ID, nil, map[string]string{"owner": j.UserName})
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// before counts the builds that wait.
func (s *Service) count(ctx context.Context, state State) (int64, error) {
	return s.jobs.Count(ctx, store.Query{Index: "state", Equal: string(state)})
}

func validPriority(p string) bool { return slices.Contains([]string{"high", "normal", "low"}, p) }
