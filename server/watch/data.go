package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"singularity/advisory"
	"singularity/api"
	"singularity/server/store"
)

// data is the advisories in use.
type data struct {
	mu      sync.RWMutex
	info    *advisory.Info // nil for none
	since   time.Time
	problem string // why what lies in the directory is not used
	refused int    // sets that were not used

	// Of the goroutine that looks:
	db   *advisory.DB // nil for none
	copy mirrorCopy
	seen []seenFile // what was looked at last, nil for nothing
}

// state tells how the data is.
func (s *Service) state() api.WatchData {
	s.data.mu.RLock()
	defer s.data.mu.RUnlock()
	w := api.WatchData{Configured: s.o.Advisories != "", Problem: s.data.problem, MaxAge: hours(s.o.MaxAge), Loading: !s.loaded.Load()}
	if i := s.data.info; i != nil {
		w.Loaded, w.Records, w.Packages, w.Newest, w.Digest, w.Since, w.Ecosystems = true, i.Records, i.Packages, i.Newest, i.Digest, s.data.since, i.Ecosystems
		w.Old = s.now().Sub(i.Newest) > s.o.MaxAge
	}
	return w
}

// hours writes a time without units that are zero.
func hours(d time.Duration) string {
	text := d.String()
	for _, unit := range []string{"0s", "0m"} {
		if short := strings.TrimSuffix(text, unit); short != text && strings.HasSuffix(short, map[string]string{"0s": "m", "0m": "h"}[unit]) {
			text = short
		}
	}
	return text
}

// startData takes up the copy of the last good data.
func (s *Service) startData(ctx context.Context) {
	if s.o.Advisories == "" {
		return
	}
	s.data.copy = mirrorCopy{dir: filepath.Join(s.o.Dir, copyName)}
	at, err := s.data.copy.open(ctx)
	if err == nil && len(s.data.copy.files) > 0 {
		var db *advisory.DB
		if db, err = new(advisory.DB).Next(ctx, s.data.copy.sources(s.data.copy.files)); err == nil {
			err = s.use(ctx, db, at)
		}
	}
	if err != nil && ctx.Err() == nil {
		s.refuse(fmt.Errorf("cannot use the copy of the last advisories: %w", err))
	}
}

// refuse notes why data is not used.
func (s *Service) refuse(err error) {
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	if s.data.problem == short(err) {
		return // it is said
	}
	s.log.Error("advisories are not used", "directory", s.o.Advisories, "error", err.Error())
	s.data.problem = short(err)
	s.data.refused++
}

// use takes db in place of the advisories before.
func (s *Service) use(ctx context.Context, db *advisory.DB, at time.Time) error {
	begun := time.Now()
	if err := s.corpus.use(ctx, db, s.kept); err != nil {
		return err
	}
	info := db.Info()
	if info.Newest.After(at) {
		// A record that is dated ahead must not make all later data look old.
		info.Newest = at
	}
	s.data.db = db
	s.data.mu.Lock()
	s.data.info, s.data.since, s.data.problem = &info, at.UTC(), ""
	s.data.mu.Unlock()
	images, packages := s.corpus.size()
	s.log.Info("advisories in use", "records", info.Records, "newest", info.Newest.UTC().Format(time.RFC3339), "digest", info.Digest, "unusable", info.Skipped,
		"images", images, "packages", packages, "took", time.Since(begun).String())
	return nil
}

// lookAtData takes what has changed in the advisories of the operator.
func (s *Service) lookAtData(ctx context.Context) {
	if s.o.Advisories == "" {
		return
	}
	seen, err := look(s.o.Advisories, time.Now())
	if err == nil && s.data.seen != nil && slices.Equal(seen, s.data.seen) {
		return
	}
	if err == nil {
		err = s.take(ctx, seen)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.refuse(err)
	}
	if errors.Is(err, errCopy) {
		seen = nil // to try again
	}
	s.data.seen = seen
}

var errCopy = errors.New("cannot copy the advisories")

// take copies what is new of the operator's advisories, looks at the copy, and uses it
// if it is good: nobody changes it meanwhile.
func (s *Service) take(ctx context.Context, seen []seenFile) error {
	c := &s.data.copy
	files, err := c.bring(ctx, s.o.Advisories, seen)
	if err != nil {
		return fmt.Errorf("%w: %w", errCopy, err)
	}
	before := s.data.db
	if before == nil {
		before = new(advisory.DB)
	}
	db, err := before.Next(ctx, c.sources(files))
	if err == nil && db.Info().Records == 0 {
		err = fmt.Errorf("cannot use the advisories in %q: there is no usable record in OSV form among %d files", s.o.Advisories, len(files))
	}
	if err == nil {
		err = s.follows(db)
	}
	if err != nil {
		return errors.Join(err, c.drop(files))
	}
	if s.data.db != nil && db.Info().Digest == s.data.db.Info().Digest {
		s.data.db = db
		s.data.mu.Lock()
		s.data.problem = ""
		s.data.mu.Unlock()
	} else if err := s.use(ctx, db, s.now()); err != nil {
		return err
	}
	if err := c.keep(files); err != nil {
		return fmt.Errorf("%w: %w", errCopy, err)
	}
	return nil
}

// follows refuses data that goes back in time, or lacks much.
func (s *Service) follows(db *advisory.DB) error {
	if s.data.db == nil {
		return nil
	}
	s.data.mu.RLock()
	old := s.data.info
	s.data.mu.RUnlock()
	if err := cmp.Or(db.Info().Follows(*old), db.Keeps(s.data.db)); err != nil {
		return fmt.Errorf("the advisories were refused, those from before stay in use: %w", err)
	}
	return nil
}

// Figures are numbers for metrics.
type Figures struct {
	Images, Packages, Pending, Failed, Refused int
	Newest                                     time.Time // zero without data
	Problem                                    bool
}

// Figures tells how the watch is.
func (s *Service) Figures(ctx context.Context) Figures {
	var f Figures
	f.Images, f.Packages = s.corpus.size()
	for i, err := range s.inventories.All(ctx, store.Query{}) {
		if err != nil {
			break
		}
		switch v := i.Value; {
		case !v.Done && v.Next.IsZero():
			f.Failed++
		case !v.Done:
			f.Pending++
		}
	}
	s.data.mu.RLock()
	defer s.data.mu.RUnlock()
	f.Refused, f.Problem = s.data.refused, s.data.problem != ""
	if s.data.info != nil {
		f.Newest = s.data.info.Newest
	}
	return f
}

// levels are the names of severities, the worst first.
func levels() []advisory.Level {
	list := []advisory.Level{advisory.Unknown, advisory.Negligible, advisory.Low, advisory.Medium, advisory.High, advisory.Critical}
	slices.Reverse(list)
	return list
}
