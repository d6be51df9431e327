package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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

	seen string // signature of what was looked at last; of the goroutine that looks
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

// copyName is the directory with the copy of the advisories, below that of the service.
const copyName = "advisories"

// startData takes up the copy of the last good data.
func (s *Service) startData(ctx context.Context) {
	if s.o.Advisories == "" {
		return
	}
	dir := filepath.Join(s.o.Dir, copyName)
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var db *advisory.DB
	if err == nil {
		db, err = advisory.Load(ctx, dir)
	}
	if err == nil {
		err = s.use(ctx, db, st.ModTime())
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

// use compares everything with db.
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
	s.data.mu.Lock()
	s.data.info, s.data.since, s.data.problem = &info, at.UTC(), ""
	s.data.mu.Unlock()
	images, packages := s.corpus.size()
	s.log.Info("advisories in use", "records", info.Records, "newest", info.Newest.UTC().Format(time.RFC3339), "digest", info.Digest, "unusable", info.Skipped,
		"images", images, "packages", packages, "took", time.Since(begun).String())
	return nil
}

// lookAtData takes the advisories of the operator if they have changed.
func (s *Service) lookAtData(ctx context.Context) {
	if s.o.Advisories == "" {
		return
	}
	seen, err := signature(s.o.Advisories)
	if err == nil && seen == s.data.seen {
		return
	}
	if err == nil {
		err = s.take(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.refuse(err)
	}
	if errors.Is(err, errCopy) {
		seen = "" // to try again
	}
	s.data.seen = seen
}

var errCopy = errors.New("cannot copy the advisories")

// signature tells states of a directory, or file, apart.
func signature(path string) (string, error) {
	text := ""
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it goes away just now
		}
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			text += fmt.Sprintf("%q %d %d\n", p, st.Size(), st.ModTime().UnixNano())
		}
		return nil
	})
	return text, err
}

// take copies the advisories of the operator, looks at the copy, and uses it if it is
// good: nobody changes it meanwhile.
func (s *Service) take(ctx context.Context) error {
	fresh, dir := filepath.Join(s.o.Dir, copyName+".new"), filepath.Join(s.o.Dir, copyName)
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := copyData(ctx, s.o.Advisories, fresh); err != nil {
		return fmt.Errorf("%w: %w", errCopy, err)
	}
	db, err := advisory.Load(ctx, fresh)
	if err != nil {
		return err
	}
	s.data.mu.RLock()
	old := s.data.info
	s.data.mu.RUnlock()
	if old != nil {
		if db.Info().Digest == old.Digest {
			s.data.mu.Lock()
			s.data.problem = ""
			s.data.mu.Unlock()
			return nil
		}
		if err := db.Info().Follows(*old); err != nil {
			return fmt.Errorf("the advisories were refused, those from before stay in use: %w", err)
		}
	}
	if err := s.use(ctx, db, s.now()); err != nil {
		return err
	}
	// Between the two calls a crash leaves no copy: then the operator's is taken.
	return errors.Join(os.RemoveAll(dir), os.Rename(fresh, dir))
}

// copyData copies the regular files of a directory, or one file, into a new directory.
func copyData(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return copyFile(func() (fs.File, error) { return os.Open(from) }, filepath.Join(to, filepath.Base(from)))
	}
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		target := filepath.Join(to, path)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		err = copyFile(func() (fs.File, error) { return root.Open(path) }, target)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was replaced just now
		}
		return err
	})
}

func copyFile(open func() (fs.File, error), to string) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
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
