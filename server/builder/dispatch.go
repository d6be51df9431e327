package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/queue"
	"singularity/server/route"
	"singularity/server/store"
)

// WorkerUnit is the organizational unit in the certificate of a worker.
const WorkerUnit = "worker"

// asWorker lets workers alone call: a certificate of this site is not enough.
func asWorker(h func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || !slices.Contains(r.TLS.VerifiedChains[0][0].Subject.OrganizationalUnit, WorkerUnit) {
			return route.Errorf(http.StatusForbidden, "this call needs the certificate of a worker")
		}
		return h(w, r)
	}
}

func fenceOf(r *http.Request) int64 {
	n, err := strconv.ParseInt(r.URL.Query().Get("fence"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// worker is one that asked for builds.
type worker struct {
	Name   string    `json:"name"`
	Archs  []string  `json:"archs"`
	Slots  int       `json:"slots"`
	Seen   time.Time `json:"seen"`
	Forget time.Time `json:"forget"`
}

const (
	claimTime  = 25 * time.Second // a claim waits so long
	forgetTime = 7 * 24 * time.Hour
	noteTime   = 10 * time.Second // how old the note of a worker may be
)

// claim gives a worker the next job, or 204 after a while without one.
func (s *Service) claim(w http.ResponseWriter, r *http.Request) error {
	var in api.WorkerClaim
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	// A worker says its name; its certificate says whether it may.
	in.Worker = strings.ToLower(in.Worker)
	if len(in.Worker) > 64 || !namePart.MatchString(in.Worker) || len(in.Archs) == 0 || len(in.Archs) > 16 || slices.ContainsFunc(in.Archs, func(a string) bool { return !archName.MatchString(a) }) {
		return route.Errorf(http.StatusBadRequest, "a worker has a name and architectures")
	}
	ctx := r.Context()
	if err := s.meet(ctx, &in); err != nil {
		return err
	}
	end := time.After(claimTime)
	for {
		wake := s.queue.Waiting(queue.Jobs)
		task, err := s.next(ctx, &in)
		if err != nil {
			return err
		}
		if task != nil {
			route.Data(w, task)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stopping:
			w.WriteHeader(http.StatusNoContent)
			return nil
		case <-end:
			w.WriteHeader(http.StatusNoContent)
			return nil
		case <-wake:
		case <-time.After(lookAgain):
		}
	}
}

// meet notes that a worker is there.
func (s *Service) meet(ctx context.Context, in *api.WorkerClaim) error {
	now := s.now().UTC()
	v := worker{Name: in.Worker, Archs: in.Archs, Slots: in.Slots, Seen: now, Forget: now.Add(forgetTime)}
	old, err := s.workers.Get(ctx, in.Worker)
	if err == nil && now.Sub(old.Value.Seen) < noteTime && slices.Equal(old.Value.Archs, v.Archs) && old.Value.Slots == v.Slots {
		return nil
	}
	_, err = s.workers.Insert(ctx, in.Worker, v)
	if errors.Is(err, store.ErrExists) {
		_, err = s.workers.Update(ctx, in.Worker, func(w *worker) error { *w = v; return nil })
	}
	return err
}

// next takes a job out of the queue for a worker.
func (s *Service) next(ctx context.Context, in *api.WorkerClaim) (task *api.BuildTask, err error) {
	set, err := s.read(ctx)
	if err != nil || set.Draining {
		return nil, err
	}
	s.claiming.Lock()
	defer s.claiming.Unlock()
	_, err = s.queue.Next(ctx, in.Archs, s.o.Parallel, s.running, func(l *queue.Lease) (bool, error) {
		task, err = s.take(ctx, l, in.Worker)
		return task != nil, err
	})
	return task, err
}

func (s *Service) running(ctx context.Context, user string) (int, error) {
	n, err := s.jobs.Count(ctx, store.Query{Index: "running", Equal: user})
	return int(n), err
}

// take makes the job of a ticket the worker's, if it is to be built. A ticket of
// a job that runs comes out only if its worker was silent for too long: the new
// fence keeps that one from changing anything.
func (s *Service) take(ctx context.Context, l *queue.Lease, name string) (*api.BuildTask, error) {
	i, err := s.jobs.Get(ctx, l.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	j := &i.Value
	if err != nil || j.State.over() || j.Ticket != 0 && j.Ticket != l.Seq {
		return nil, s.queue.Done(l.Hold) // nothing to do, or a ticket too many
	}
	if j.State == Queued {
		n, err := s.running(ctx, j.User)
		if err != nil {
			return nil, err
		}
		if n >= s.o.Parallel {
			return nil, s.queue.Later(l.Hold)
		}
	} else if over, err := s.lost(ctx, j, l); over || err != nil {
		return nil, err
	}
	before := *j
	i, err = s.alter(ctx, j.ID, 0, func(now *job) error {
		if now.Fence != before.Fence || now.State != before.State {
			return errOver
		}
		now.State, now.Worker, now.Ticket, now.Hold = Running, name, l.Seq, l.Hold
		now.Fence++
		now.Attempts++
		now.ReadToken, now.WriteToken, now.ImageHash = "", "", ""
		if now.Started.IsZero() {
			now.Started = s.now().UTC()
		}
		return nil
	})
	if errors.Is(err, errOver) {
		return nil, s.queue.Later(l.Hold)
	}
	if err != nil {
		return nil, err
	}
	return s.task(ctx, &before, &i.Value)
}

// lost is for a job whose worker is gone: it may be done all but for the word of
// it, or have lost too many.
func (s *Service) lost(ctx context.Context, j *job, l *queue.Lease) (bool, error) {
	s.log.Warn("a worker of a build is lost", "build", j.ID, "worker", j.Worker, "attempt", j.Attempts)
	if got, ok, err := s.arrived(ctx, j); err != nil || ok {
		if err == nil {
			err = s.succeed(ctx, j, got)
		}
		return true, ignoreLost(err)
	}
	if j.Attempts >= s.o.Attempts {
		return true, ignoreLost(s.end(ctx, j.ID, j.Fence, Failed, fmt.Sprintf("%d workers were lost while they built it", j.Attempts), nil))
	}
	return false, nil
}

func ignoreLost(err error) error {
	if errors.Is(err, errLost) || errors.Is(err, errOver) {
		return nil
	}
	return err
}

// task is what the worker gets to know.
func (s *Service) task(ctx context.Context, before, j *job) (*api.BuildTask, error) {
	for _, id := range []string{before.ReadToken, before.WriteToken} {
		if err := s.auth.EndDelegation(ctx, j.User, id); err != nil {
			return nil, err
		}
	}
	t := &api.BuildTask{ID: j.ID, Fence: j.Fence, Arch: j.Arch, Definition: j.Definition, WorkingDir: j.WorkingDir, Context: j.Context != "", LibraryURL: s.o.URL,
		Limits: s.o.Limits, Every: s.o.Lease / 4}
	if j.Reads {
		// Security: the user's own token never reaches a worker. This one reads
		// what they may read, and ends with the build.
		text, id, err := s.auth.Delegate(ctx, j.User, j.Origin, auth.Only{Build: j.ID}, []auth.Scope{auth.LibraryRead}, s.tokenLife())
		if err != nil {
			return nil, err
		}
		t.Token = text
		if _, err := s.alter(ctx, j.ID, j.Fence, func(j *job) error { j.ReadToken = id; return nil }); err != nil {
			return nil, err
		}
	}
	var err error
	if t.Registries, err = s.registries(ctx, j.User); err != nil {
		return nil, err
	}
	line := "Started\n"
	if before.State != Queued || j.Attempts > 1 {
		line = fmt.Sprintf("Started again, attempt %d of %d\n", j.Attempts, s.o.Attempts)
	}
	s.say(ctx, j.ID, line)
	return t, nil
}

func (s *Service) tokenLife() time.Duration { return s.o.Limits.Time + 15*time.Minute }

// begun is when this process began: workers see a restart by it.
var begun = time.Now()

// alive is a sign of life of a worker. The answer 409 tells it to stop.
func (s *Service) alive(w http.ResponseWriter, r *http.Request) error {
	j, err := s.held(r.Context(), r.PathValue("id"), fenceOf(r))
	if err != nil {
		return err
	}
	if err := s.queue.Extend(j.Hold); err != nil {
		return err
	}
	route.Data(w, api.WorkerAlive{Up: time.Since(begun)})
	return nil
}

// appendLog takes the next piece of a log, and answers where the log ends.
func (s *Service) appendLog(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	j, err := s.held(ctx, r.PathValue("id"), fenceOf(r))
	if err != nil {
		return err
	}
	offset, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	if err != nil {
		return route.Errorf(http.StatusBadRequest, "the offset is no number")
	}
	end, err := s.queue.LogSize(ctx, j.ID)
	if err != nil {
		return err
	}
	if offset < 0 {
		offset = end
	}
	text = []byte(strings.ToValidUTF8(string(text), "?"))
	if limit := s.o.Limits.Output; end >= limit {
		text = nil
	} else if end+int64(len(text)) > limit {
		notice := fmt.Sprintf("\nThe log is cut here: it has more than %s\n", size(limit))
		text = append(text[:limit-end:limit-end], notice...)
		text = []byte(strings.ToValidUTF8(string(text), "?"))
	}
	if len(text) > queue.MaxChunk {
		text = text[len(text)-queue.MaxChunk:]
	}
	if end, err = s.queue.Append(ctx, j.ID, offset, text); err != nil {
		return err
	}
	route.Data(w, end)
	return nil
}

// upload tells a worker where its image goes, and gives it a token for that.
func (s *Service) upload(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	var in api.WorkerUpload
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	if !hexDigest.MatchString("sha256." + in.SHA256) {
		return route.Errorf(http.StatusBadRequest, "this is no digest")
	}
	j, err := s.held(ctx, r.PathValue("id"), in.Fence)
	if err != nil {
		return err
	}
	// Security: whether the user may still write is asked now, not believed from
	// the time of the submission.
	c, err := s.auth.OnBehalf(ctx, j.User, auth.LibraryRead, auth.LibraryWrite)
	if err != nil {
		return err
	}
	if c.Invalid {
		return route.Errorf(http.StatusForbidden, "the account is closed")
	}
	staged := *j
	staged.Path, staged.Tag = s.stage(j)
	staged.Temporary = j.Temporary || staged.Path != j.Path
	k, err := s.container(ctx, c, &staged)
	if err != nil {
		return err
	}
	text, id, err := s.auth.Delegate(ctx, j.User, j.Origin, auth.Only{Build: j.ID, Container: k.ID, Tag: staged.Tag}, []auth.Scope{auth.LibraryRead, auth.LibraryWrite}, s.tokenLife())
	if err != nil {
		return err
	}
	old := j.WriteToken
	_, err = s.alter(ctx, j.ID, in.Fence, func(j *job) error {
		j.State, j.ImageHash, j.WriteToken = Uploading, in.SHA256, id
		if j.Built, j.Stage = s.now().UTC().Truncate(time.Second), ""; s.o.Seal != nil {
			j.Stage = staged.Path + ":" + staged.Tag
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, s.auth.EndDelegation(ctx, j.User, id))
	}
	if err := s.auth.EndDelegation(ctx, j.User, old); err != nil {
		return err
	}
	route.Data(w, api.WorkerTarget{Ref: staged.ref(), Token: text})
	return nil
}

// done ends a job as its worker says, if that is true; or takes it back.
func (s *Service) done(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	var in api.WorkerDone
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	j, err := s.held(ctx, r.PathValue("id"), in.Fence)
	if err != nil {
		return err
	}
	reason := printable(in.Reason)
	switch state := State(in.State); state {
	case Queued:
		err = s.giveBack(ctx, j, reason)
	case Failed, TimedOut:
		err = s.end(ctx, j.ID, j.Fence, state, reason, nil)
	case Succeeded:
		got, ok, e := s.arrived(ctx, j)
		switch {
		case e != nil:
			err = e
		case ok:
			err = s.succeed(ctx, j, got)
		default:
			err = s.end(ctx, j.ID, j.Fence, Failed, "the image is not in the library", nil)
		}
	default:
		return route.Errorf(http.StatusBadRequest, "there is no such end")
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// giveBack puts a job back that its worker will not end: because the worker stops,
// or, with a reason, because it failed while this server was away, which counts as
// an attempt.
func (s *Service) giveBack(ctx context.Context, j *job, reason string) error {
	if got, ok, err := s.arrived(ctx, j); err != nil || ok {
		if err == nil { // all but the word of it was done
			err = s.succeed(ctx, j, got)
		}
		return err
	}
	if reason != "" && j.Attempts >= s.o.Attempts {
		return s.end(ctx, j.ID, j.Fence, Failed, reason, nil)
	}
	_, err := s.alter(ctx, j.ID, j.Fence, func(j *job) error {
		j.State, j.Worker = Queued, ""
		j.Fence++
		if reason == "" {
			j.Attempts--
		}
		return nil
	})
	if err != nil {
		return err
	}
	line := "The worker stops: the build waits for another\n"
	if reason != "" {
		line = "The server was away meanwhile: the build begins anew (" + reason + ")\n"
	}
	s.say(ctx, j.ID, line)
	return s.queue.Return(j.Hold)
}

// printable is a reason of a worker as it may be shown.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if route.Acts(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "")
	}
	return text
}
