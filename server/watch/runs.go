package watch

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// run is a run of a container under the account that told of it and its own id, so that
// nobody changes what another has told.
type run struct {
	api.Run
	ShipperID string    `json:"shipperID"`
	Shipper   string    `json:"shipper"`
	Token     string    `json:"token"`
	Claimed   bool      `json:"claimed,omitempty"` // by its user, not by the host
	Heard     time.Time `json:"heard"`
	Forget    time.Time `json:"forget"`
}

var runIndexes = []store.Index[run]{
	{Name: "digest", Of: func(r *run) []string { return []string{r.Digest} }},
	{Name: "user", Of: func(r *run) []string { return []string{r.User} }},
	{Name: "host", Of: func(r *run) []string { return []string{r.Host} }},
	{Name: "start", Of: func(r *run) []string { return []string{stamp(r.Start)} }},
	{Name: "open", Of: func(r *run) []string {
		if !r.End.IsZero() {
			return nil
		}
		return []string{stamp(r.Start)}
	}},
}

// The bounds of a call, and how long a run counts as running that nobody speaks of.
const (
	maxRunsBody = api.MaxRunsBody
	takeTime    = 20 * time.Second
	atOnce      = 64
	silence     = 25 * time.Hour
	sameWord    = 10 * time.Minute // a word that says nothing new is written no more often
	ahead       = time.Hour        // by which the clock of a host may be wrong
)

func (r *run) running(now time.Time) bool { return r.End.IsZero() && now.Sub(r.Heard) < silence }

func (r *run) shown(now time.Time) api.StoredRun {
	return api.StoredRun{Run: r.Run, Shipper: r.Shipper, Claimed: r.Claimed, Heard: r.Heard, Running: r.running(now)}
}

// speaker is for whom an account may speak: a host, or one user.
type speaker struct {
	auth.Caller
	host, user string
}

// speaker tells for whom the caller may speak.
//
// Security: any user may make a robot of any free name. So a robot speaks for the host
// of its name only if it is an administrator's; a user speaks for themselves, and it is
// kept that no host has said so.
func (s *Service) speaker(ctx context.Context) (speaker, error) {
	c := auth.From(ctx)
	if err := c.Require(auth.RunsWrite); err != nil {
		return speaker{}, err
	}
	switch c.Kind {
	case auth.User:
		return speaker{Caller: c, user: c.Name}, nil
	case auth.Robot:
		a, err := s.auth.AccountByID(ctx, c.ID)
		if err != nil {
			return speaker{}, err
		}
		of, err := s.auth.OnBehalf(ctx, a.BelongsTo)
		if err != nil {
			return speaker{}, err
		}
		if of.Admin && !of.Invalid && of.Kind == auth.User {
			return speaker{Caller: c, host: c.Name}, nil
		}
	}
	return speaker{}, route.Errorf(http.StatusForbidden, "the robot %q is no administrator's, so it speaks for no host", c.Name)
}

// takeRuns keeps records of runs. It may be called again with the same ones.
func (s *Service) takeRuns(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	by, err := s.speaker(ctx)
	if err != nil {
		return err
	}
	var in api.Runs
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	if len(in.Records) > api.MaxRuns {
		return route.Errorf(http.StatusBadRequest, "%d records at once, more than %d", len(in.Records), api.MaxRuns)
	}
	var out api.RunsTaken
	begun := time.Now()
	for out.Done < len(in.Records) && (out.Done == 0 || time.Since(begun) < takeTime) {
		part := in.Records[out.Done:min(out.Done+atOnce, len(in.Records))]
		refused, err := s.takePart(ctx, by, part)
		if err != nil {
			return err
		}
		out.Done += len(part)
		out.Refused = append(out.Refused, refused...)
	}
	route.Data(w, out)
	return nil
}

// takePart keeps some records at once, so that they share a wait for the disk.
func (s *Service) takePart(ctx context.Context, by speaker, part []api.Run) ([]api.RunRefused, error) {
	results := make([]error, len(part))
	var waiting sync.WaitGroup
	for n := range part {
		waiting.Go(func() { results[n] = s.takeRun(ctx, by, part[n]) })
	}
	waiting.Wait()
	var refused []api.RunRefused
	for n, err := range results {
		var e *route.Error
		if errors.As(err, &e) && e.Status == http.StatusUnprocessableEntity {
			refused = append(refused, api.RunRefused{ID: part[n].ID, Message: e.Message})
		} else if err != nil {
			return nil, err
		}
	}
	return refused, nil
}

func refusedRun(format string, args ...any) error {
	return route.Errorf(http.StatusUnprocessableEntity, format, args...)
}

func (s *Service) takeRun(ctx context.Context, by speaker, in api.Run) error {
	now := s.now().UTC()
	if err := by.check(&in, now); err != nil {
		return err
	}
	v := run{Run: in, ShipperID: by.ID, Shipper: by.Name, Token: by.TokenID, Claimed: by.host == "", Heard: now}
	v.setForget(s.o.KeepRuns)
	if !v.Forget.After(now) {
		return refusedRun("it ended on %s, which is too long ago", in.End.UTC().Format(time.DateOnly))
	}
	key := by.ID + "/" + in.ID
	_, err := s.runs.Insert(ctx, key, v)
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	_, err = s.runs.Update(ctx, key, func(old *run) error {
		if !old.Start.Equal(v.Start) || old.Host != v.Host || old.User != v.User || old.Image != v.Image || old.Job != v.Job || old.UID != v.UID || old.Verb != v.Verb || old.Digest != "" && v.Digest != "" && old.Digest != v.Digest {
			return refusedRun("another run was told of under this id")
		}
		if v.End.IsZero() && (!old.End.IsZero() || now.Sub(old.Heard) < sameWord) && (old.Digest != "" || v.Digest == "") || !old.End.IsZero() && old.Digest == cmp.Or(v.Digest, old.Digest) {
			return errNothingNew
		}
		old.Digest, old.Heard, old.Token = cmp.Or(old.Digest, v.Digest), now, v.Token
		old.End = cmp.Or(old.End, v.End)
		old.setForget(s.o.KeepRuns)
		return nil
	})
	if errors.Is(err, errNothingNew) {
		return nil
	}
	return err
}

var errNothingNew = errors.New("nothing new")

func (r *run) setForget(keep time.Duration) {
	r.Forget = r.Heard.Add(keep)
	if !r.End.IsZero() {
		r.Forget = r.End.Add(keep)
	}
}

// check refuses a record that cannot be kept, or is about somebody for whom the
// account does not speak.
func (by speaker) check(r *api.Run, now time.Time) error {
	r.Start, r.End = r.Start.UTC(), r.End.UTC()
	for _, f := range []struct {
		name, text string
		limit      int
		optional   bool
	}{{"host", r.Host, 255, false}, {"user", r.User, 255, false}, {"job", r.Job, 160, true}, {"verb", r.Verb, 32, true}, {"image", r.Image, 4096, false}} {
		if len(f.text) > f.limit || f.text == "" && !f.optional || short(errors.New(f.text[:min(len(f.text), maxErrorLen)])) != f.text[:min(len(f.text), maxErrorLen)] || hasControl(f.text) {
			return refusedRun("its %s is not usable", f.name)
		}
	}
	switch {
	case !isRunID(r.ID):
		return refusedRun("its id is not usable")
	case r.Digest != "" && !isDigest(r.Digest):
		return refusedRun("its digest is not sha256: and 64 hexadecimal digits")
	case r.Start.IsZero() || r.Start.After(now.Add(ahead)) || r.End.After(now.Add(ahead)) || !r.End.IsZero() && r.End.Before(r.Start):
		return refusedRun("its times are not possible")
	case by.host == "" && r.User != by.user:
		return refusedRun("the account %q speaks for no other user", by.user)
	}
	host := strings.ToLower(r.Host)
	label, _, _ := strings.Cut(host, ".")
	if by.host != "" && host != by.host && label != by.host {
		return refusedRun("the account %q speaks for no other host", by.host)
	}
	return nil
}

func hasControl(text string) bool {
	return strings.ContainsFunc(text, func(c rune) bool {
		return c < 0x20 || c >= 0x7f && c < 0xa0 || c == 0xfffd || c >= 0x200b && c <= 0x200f || c >= 0x2028 && c <= 0x202e || c >= 0x2060 && c <= 0x206f
	})
}

func isRunID(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(c rune) bool {
		return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-')
	})
}

func isDigest(text string) bool {
	hash, ok := strings.CutPrefix(text, "sha256:")
	return ok && len(hash) == 64 && strings.Trim(hash, "0123456789abcdef") == ""
}

// mayRun tells whether the caller may see a run: their own word, or if accounts are those
// of the hosts, what a host says of them.
func (s *Service) mayRun(c auth.Caller, r *run) bool {
	return all(c) || r.ShipperID == c.ID || s.o.SameUsers && c.Kind == auth.User && r.User == c.Name
}

// sightOf remembers which images the caller may read.
type sightOf struct {
	s     *Service
	ctx   context.Context
	all   bool
	known map[string]bool
}

func (v *sightOf) may(hash string) (bool, error) {
	if v.all {
		return true, nil
	}
	may, ok := v.known[hash]
	if ok {
		return may, nil
	}
	for _, err := range v.s.lib.Visible(v.ctx, hash) {
		if err != nil {
			return false, err
		}
		may = true
		break
	}
	v.known[hash] = may
	return may, nil
}

func (s *Service) sight(ctx context.Context) *sightOf {
	return &sightOf{s, ctx, all(auth.From(ctx)), map[string]bool{}}
}

// maxLooked bounds the records that one question looks at.
const maxLooked = 20_000

// listRuns lists runs, the newest first, that the caller may see.
func (s *Service) listRuns(w http.ResponseWriter, r *http.Request) error {
	ctx, q := r.Context(), r.URL.Query()
	c := auth.From(ctx)
	if err := c.Require(auth.AccountRead); err != nil {
		return err
	}
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	query := store.Query{Index: "start", Reverse: true, After: q.Get("after"), Limit: limit}
	switch {
	case q.Get("digest") != "":
		query.Index, query.Equal, query.Reverse = "digest", q.Get("digest"), false
	case q.Get("user") != "" || !all(c):
		query.Index, query.Equal, query.Reverse = "user", cmp.Or(q.Get("user"), c.Name), false
	case q.Get("host") != "":
		query.Index, query.Equal, query.Reverse = "host", q.Get("host"), false
	case q.Get("running") == "true":
		query.Index = "open"
	}
	list, sight, now := []api.StoredRun{}, s.sight(ctx), s.now()
	for looked := 0; ; {
		items, next, err := s.runs.List(ctx, query)
		if err != nil {
			return err
		}
		for _, i := range items {
			v := &i.Value
			if !s.mayRun(c, v) || q.Get("running") == "true" && !v.running(now) || q.Get("digest") != "" && v.Digest != q.Get("digest") || q.Get("user") != "" && v.User != q.Get("user") || q.Get("host") != "" && v.Host != q.Get("host") {
				continue
			}
			shown := v.shown(now)
			if shown.Counts, err = s.runCounts(v, sight); err != nil {
				return err
			}
			list = append(list, shown)
		}
		query.After = next
		if looked += len(items); next == "" || len(list) >= limit || looked >= maxLooked {
			route.JSON(w, http.StatusOK, api.Listing[api.StoredRun]{Data: list, Page: api.Page{Next: next}})
			return nil
		}
	}
}

// runCounts counts the findings of the image of a run, if it is stored and the caller
// may read it.
func (s *Service) runCounts(r *run, sight *sightOf) (map[string]int, error) {
	hash := strings.TrimPrefix(r.Digest, "sha256:")
	if hash == "" || !s.corpus.has(hash) {
		return nil, nil
	}
	if may, err := sight.may(hash); err != nil || !may {
		return nil, err
	}
	if v := s.judge(hash, ""); v != nil {
		return v.counts, nil
	}
	return nil, nil
}

// touchedRuns lists runs whose image has a fault: those that go on, or with ended=true all.
func (s *Service) touchedRuns(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := auth.From(ctx)
	if err := c.Require(auth.AccountRead); err != nil {
		return err
	}
	id, err := faultName(r)
	if err != nil {
		return err
	}
	hashes, sight, now := s.corpus.touched(id), s.sight(ctx), s.now()
	findings := map[string][]api.Finding{}
	list := []api.TouchedRun{}
	query := store.Query{Index: "open", Reverse: true}
	if r.URL.Query().Get("ended") == "true" {
		query.Index = "start"
	}
	looked := 0
	for i, err := range s.runs.All(ctx, query) {
		if err != nil {
			return err
		}
		v := &i.Value
		hash := strings.TrimPrefix(v.Digest, "sha256:")
		if looked++; looked > 10*maxLooked || len(list) == maxShown {
			break
		}
		if !hashes[hash] || !s.mayRun(c, v) || query.Index == "open" && !v.running(now) {
			continue
		}
		may, err := sight.may(hash)
		if err != nil {
			return err
		}
		if !may {
			continue
		}
		if findings[hash] == nil {
			findings[hash] = s.about(id, hash, "")
		}
		list = append(list, api.TouchedRun{Run: v.shown(now), Findings: findings[hash]})
	}
	route.Data(w, list)
	return nil
}
