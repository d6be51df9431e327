package builder

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// usage is what a user had built on a day. It is counted when a build ends, by a
// write of its own: a crash in between loses one of the count, and never of a build.
type usage struct {
	Day       string    `json:"day"`
	User      string    `json:"user"`
	Name      string    `json:"name"`
	Builds    int64     `json:"builds"`
	Succeeded int64     `json:"succeeded"`
	Time      int64     `json:"time"` // milliseconds with a worker
	Bytes     int64     `json:"bytes"`
	Forget    time.Time `json:"forget"`
}

const (
	usageLife = 400 * 24 * time.Hour
	maxDays   = 366
)

// note counts a build that has ended.
func (s *Service) note(ctx context.Context, j *job) {
	day := j.Ended.Format(time.DateOnly)
	key := day + "-" + j.User
	u := usage{Day: day, User: j.User, Name: j.UserName, Forget: j.Ended.Add(usageLife)}
	_, err := s.usage.Insert(ctx, key, u)
	if err == nil || errors.Is(err, store.ErrExists) {
		_, err = s.usage.Update(ctx, key, func(u *usage) error {
			u.Builds++
			if j.State == Succeeded {
				u.Succeeded++
				u.Bytes += j.ImageSize
			}
			if !j.Started.IsZero() {
				u.Time += j.Ended.Sub(j.Started).Milliseconds()
			}
			return nil
		})
	}
	if err != nil {
		s.log.Warn("a build is not counted", "build", j.ID, "error", err.Error())
	}
}

// used shows administrators what was built of late, by days and by users.
func (s *Service) used(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := auth.From(ctx).RequireAdmin(); err != nil {
		return err
	}
	days := 30
	if text := r.URL.Query().Get("days"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxDays {
			return route.Errorf(http.StatusBadRequest, "days is a number from 1 to %d", maxDays)
		}
		days = n
	}
	today := s.now().UTC().Truncate(24 * time.Hour)
	out := api.BuildUsage{Days: make([]api.BuildCount, days), Users: []api.BuildCount{}}
	place, first := map[string]int{}, today.AddDate(0, 0, 1-days)
	for n := range days {
		out.Days[n].Name = first.AddDate(0, 0, n).Format(time.DateOnly)
		place[out.Days[n].Name] = n
	}
	users := map[string]*api.BuildCount{}
	for i, err := range s.usage.All(ctx, store.Query{From: first.Format(time.DateOnly)}) {
		if err != nil {
			return err
		}
		u := &i.Value
		n, ok := place[u.Day]
		if !ok {
			continue // counted by a server whose clock is ahead
		}
		if users[u.User] == nil {
			users[u.User] = &api.BuildCount{}
		}
		users[u.User].Name = u.Name
		for _, c := range []*api.BuildCount{&out.Days[n], users[u.User]} {
			c.Builds, c.Succeeded, c.Bytes = c.Builds+u.Builds, c.Succeeded+u.Succeeded, c.Bytes+u.Bytes
			c.Time += time.Duration(u.Time) * time.Millisecond
		}
	}
	for _, c := range users {
		out.Users = append(out.Users, *c)
	}
	slices.SortFunc(out.Users, func(a, b api.BuildCount) int {
		return cmp.Or(cmp.Compare(b.Time, a.Time), strings.Compare(a.Name, b.Name))
	})
	out.Users = out.Users[:min(len(out.Users), 100)]
	route.Data(w, out)
	return nil
}

// options tells what can be built here, and within which limits.
func (s *Service) options(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := auth.From(ctx)
	if err := c.Require(auth.Build); err != nil {
		return err
	}
	archs, err := s.archs(ctx)
	if err != nil {
		return err
	}
	active, err := s.jobs.Count(ctx, store.Query{Index: "active", Equal: c.ID})
	if err != nil {
		return err
	}
	set, err := s.read(ctx)
	if err != nil {
		return err
	}
	out := api.BuildOptions{Archs: archs, Limits: s.o.Limits, Parallel: s.o.Parallel, Queued: s.o.Queued, Active: int(active), Keep: s.o.Keep, Draining: set.Draining,
		Banned: slices.Contains(set.Banned, c.ID)}
	if s.o.Seal != nil {
		out.Signer, out.SignerKey = s.o.Seal.Name, s.o.Seal.Public
	}
	route.Data(w, out)
	return nil
}
