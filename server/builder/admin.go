package builder

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/queue"
	"singularity/server/route"
	"singularity/server/store"
)

// settings are what administrators change while the server runs.
type settings struct {
	Draining bool     `json:"draining,omitempty"` // workers get nothing new
	Banned   []string `json:"banned,omitempty"`   // ids of accounts
}

const settingsKey = "all"

func (s *Service) read(ctx context.Context) (settings, error) {
	i, err := s.settings.Get(ctx, settingsKey)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return i.Value, err
}

func (s *Service) write(ctx context.Context, change func(*settings) error) error {
	_, err := s.settings.Update(ctx, settingsKey, change)
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if _, err := s.settings.Insert(ctx, settingsKey, settings{}); err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	_, err = s.settings.Update(ctx, settingsKey, change)
	return err
}

// state shows the queue to administrators.
func (s *Service) state(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := auth.From(ctx).RequireAdmin(); err != nil {
		return err
	}
	set, err := s.read(ctx)
	if err != nil {
		return err
	}
	out := api.BuildQueue{Draining: set.Draining, States: map[string]int64{}, Workers: []api.BuildWorker{}, Banned: []string{}}
	for _, st := range states {
		if out.States[string(st)], err = s.count(ctx, st); err != nil {
			return err
		}
	}
	busy := map[string][]string{}
	for _, st := range []State{Running, Uploading} {
		for j, err := range s.jobs.All(ctx, store.Query{Index: "state", Equal: string(st)}) {
			if err != nil {
				return err
			}
			busy[j.Value.Worker] = append(busy[j.Value.Worker], j.Key)
		}
	}
	for v, err := range s.workers.All(ctx, store.Query{}) {
		if err != nil {
			return err
		}
		out.Workers = append(out.Workers, api.BuildWorker{Name: v.Value.Name, Archs: v.Value.Archs, Slots: v.Value.Slots, Seen: v.Value.Seen, Builds: busy[v.Value.Name]})
	}
	for _, id := range set.Banned {
		if a, err := s.auth.AccountByID(ctx, id); err == nil {
			out.Banned = append(out.Banned, a.Name)
		}
	}
	route.Data(w, out)
	return nil
}

// change drains the queue, or lets a user build no more.
func (s *Service) change(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := auth.From(ctx).RequireAdmin(); err != nil {
		return err
	}
	var in api.BuildSettings
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	ban, unban := "", ""
	for name, id := range map[string]*string{in.Ban: &ban, in.Unban: &unban} {
		if name == "" {
			continue
		}
		a, err := s.auth.Account(ctx, name)
		if err != nil {
			return err
		}
		*id = a.ID
	}
	err := s.write(ctx, func(set *settings) error {
		if in.Draining != nil {
			set.Draining = *in.Draining
		}
		set.Banned = slices.DeleteFunc(set.Banned, func(id string) bool { return id == unban || id == ban })
		if ban != "" {
			set.Banned = append(set.Banned, ban)
		}
		return nil
	})
	detail := map[string]string{"ban": in.Ban, "unban": in.Unban}
	if in.Draining != nil {
		detail["draining"] = map[bool]string{true: "yes", false: "no"}[*in.Draining]
	}
	s.auth.Audit(ctx, "build.settings", "", err, detail)
	if err != nil {
		return err
	}
	if ban != "" {
		err = s.stopAll(ctx, ban)
	}
	s.queue.Wake(queue.Jobs)
	if err != nil {
		return err
	}
	return s.state(w, r)
}

// stopAll cancels what a user has in the queue.
func (s *Service) stopAll(ctx context.Context, user string) error {
	for j, err := range s.jobs.All(ctx, store.Query{Index: "active", Equal: user}) {
		if err != nil {
			return err
		}
		if err := s.end(ctx, j.Key, 0, Cancelled, "an administrator does not let this user build", nil); ignoreLost(err) != nil {
			return err
		}
	}
	return nil
}

// prioritize moves a job that waits.
func (s *Service) prioritize(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := auth.From(ctx).RequireAdmin(); err != nil {
		return err
	}
	var in struct{ Priority string }
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	if !validPriority(in.Priority) {
		return route.Errorf(http.StatusBadRequest, "a priority is high, normal or low")
	}
	j, err := s.find(r)
	if err != nil {
		return err
	}
	i, err := s.alter(ctx, j.ID, 0, func(j *job) error { j.Priority = in.Priority; return nil })
	if errors.Is(err, errOver) {
		return route.Errorf(http.StatusConflict, "the build is over")
	}
	if err != nil {
		return err
	}
	if i.Value.State == Queued {
		old := i.Value.Ticket
		if err := s.ticket(ctx, &i.Value); err != nil {
			return err
		}
		if old != 0 {
			if err := s.queue.Drop(ctx, old); err != nil {
				return err
			}
		}
	}
	s.auth.Audit(ctx, "build.priority", j.ID, nil, map[string]string{"priority": in.Priority, "at": s.now().UTC().Format(time.RFC3339)})
	route.Data(w, s.info(&i.Value))
	return nil
}
