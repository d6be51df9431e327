package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"singularity/server/auth"
	"singularity/server/queue"
	"singularity/server/store"
)

// end makes a job over, once, and then does what follows.
func (s *Service) end(ctx context.Context, id string, fence int64, state State, reason string, more func(*job)) error {
	i, err := s.alter(ctx, id, fence, func(j *job) error {
		j.State, j.Reason, j.Ended = state, reason, s.now().UTC()
		j.Fence++ // who holds it now holds it no more
		if more != nil {
			more(j)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.audit(ctx, &i.Value)
	s.note(context.WithoutCancel(ctx), &i.Value)
	// It is over now, whatever happens to the rest: settle does that again. Who told
	// of the end, often a worker that could have the next, does not wait for it.
	if s.tidying.TryRLock() {
		go func() {
			defer s.tidying.RUnlock()
			if err := s.tidy(context.WithoutCancel(ctx), &i.Value); err != nil {
				s.log.Warn("a build that is over is not settled yet", "build", id, "error", err.Error())
			}
		}()
	}
	return nil
}

func (s *Service) audit(ctx context.Context, j *job) {
	var err error
	if j.State != Succeeded {
		err = errors.New(string(j.State))
	}
	s.auth.Audit(ctx, "build.end", j.ID, err, map[string]string{"owner": j.UserName, "state": string(j.State), "reason": j.Reason, "worker": j.Worker, "target": j.ref(),
		"image": j.ImageHash, "took": j.Ended.Sub(j.Submitted).Round(time.Millisecond).String()})
}

// lastLine is how the log ends.
func (j *job) lastLine() string {
	switch j.State {
	case Succeeded:
		return fmt.Sprintf("Build complete: %s\n", j.ref())
	case TimedOut:
		return fmt.Sprintf("Build stopped: %s\n", j.Reason)
	case Cancelled:
		return "Build cancelled\n"
	}
	return fmt.Sprintf("Build failed: %s\n", j.Reason)
}

// tidy does what follows an end. Each step may be done twice.
func (s *Service) tidy(ctx context.Context, j *job) error {
	if j.Hold != "" { // first: then its user may have room for another
		if err := s.queue.Done(j.Hold); err != nil {
			return err
		}
		s.queue.Wake(queue.Jobs)
	}
	for _, id := range []string{j.ReadToken, j.WriteToken} {
		if err := s.auth.EndDelegation(ctx, j.User, id); err != nil {
			return err
		}
	}
	if err := s.unstage(ctx, j); err != nil {
		s.log.Warn("cannot tidy after a build", "build", j.ID, "error", err.Error())
	}
	if err := s.keepLog(ctx, j); err != nil {
		return err
	}
	if _, err := s.jobs.Update(ctx, j.ID, func(j *job) error { j.Settled, j.ReadToken, j.WriteToken = true, "", ""; return nil }); err != nil {
		return err
	}
	s.queue.Wake(j.ID)
	if j.Ticket != 0 {
		if err := s.queue.Drop(ctx, j.Ticket); err != nil {
			return err
		}
	}
	s.queue.Wake(queue.Jobs) // a user may have room for another
	return s.queue.Forget(ctx, j.ID)
}

// keepLog makes the log one blob, with its last line.
func (s *Service) keepLog(ctx context.Context, j *job) error {
	r, w := io.Pipe()
	go func() {
		var seq uint64
		for {
			c, ok, err := s.queue.Read(ctx, j.ID, seq+1)
			if err != nil || !ok {
				if err == nil {
					_, err = io.WriteString(w, j.lastLine())
				}
				w.CloseWithError(err)
				return
			}
			if _, err := w.Write(c.Text); err != nil {
				return
			}
			seq = c.Seq
		}
	}()
	_, err := s.blobs.Put(ctx, logBlob(j.ID), r, store.Unknown)
	r.Close()
	return err
}

// settle does what follows the end of jobs, where that was broken off.
func (s *Service) settle(ctx context.Context) error {
	for i, err := range s.jobs.All(ctx, store.Query{Index: "unsettled", Equal: "yes"}) {
		if err != nil {
			return err
		}
		if s.now().Sub(i.Value.Ended) < 2*time.Second {
			continue // whoever ended it is at it
		}
		if err := s.tidy(ctx, &i.Value); err != nil {
			return err
		}
	}
	return nil
}

// requeue makes tickets of jobs that have none: their record was written and the
// ticket not, or the queue lost it.
func (s *Service) requeue(ctx context.Context) error {
	for _, state := range []State{Queued, Running, Uploading} {
		for i, err := range s.jobs.All(ctx, store.Query{Index: "state", Equal: string(state)}) {
			if err != nil {
				return err
			}
			j := &i.Value
			if j.Ticket == 0 && s.now().Sub(j.Submitted) < 10*time.Second {
				continue // on its way
			}
			if j.Ticket != 0 {
				here, err := s.queue.Has(ctx, j.Ticket)
				if err != nil {
					return err
				}
				if here {
					continue
				}
			}
			if err := s.ticket(ctx, j); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep removes what is old: files of builds, images without a place of their
// own, jobs with their logs.
func (s *Service) sweep(ctx context.Context) error {
	now := s.now()
	for b, err := range s.contexts.All(ctx, store.Query{Index: "until", To: stamp(now)}) {
		if err != nil {
			return err
		}
		if err := s.freeContext(ctx, b); err != nil {
			return err
		}
	}
	for j, err := range s.jobs.All(ctx, store.Query{Index: "temporary", To: stamp(now.Add(-s.o.Keep))}) {
		if err != nil {
			return err
		}
		if err := s.expire(ctx, &j.Value); err != nil {
			return err
		}
	}
	for j, err := range s.jobs.All(ctx, store.Query{Index: "submitted", To: stamp(now.Add(-s.o.History))}) {
		if err != nil {
			return err
		}
		if !j.Value.Settled || j.Value.Temporary && j.Value.State == Succeeded {
			continue
		}
		if err := s.blobs.Delete(ctx, logBlob(j.Key)); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := s.jobs.Delete(ctx, j.Key, 0); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

// expire deletes the image of a job that had no place of its own.
func (s *Service) expire(ctx context.Context, j *job) error {
	c, err := s.auth.OnBehalf(ctx, j.User, auth.LibraryRead, auth.LibraryDelete, auth.LibraryManage)
	if err != nil {
		return err
	}
	if !c.Invalid {
		if err := s.ask(ctx, c, http.MethodDelete, "/v1/containers/"+j.Path, nil, nil); err != nil && !isMissing(err) {
			return err
		}
	}
	_, err = s.jobs.Update(ctx, j.ID, func(j *job) error { j.Temporary = false; return nil })
	return err
}
