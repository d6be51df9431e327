package watch

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"singularity/advisory"
	"singularity/api"
	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/route"
	"singularity/server/store"
)

// rules is what holds for a collection, or under the key of site for all images, with
// where its notices are.
type rules struct {
	Block        advisory.Level `json:"block,omitempty"` // unknown for none
	Grace        time.Duration  `json:"grace,omitempty"`
	BlockUnknown bool           `json:"blockUnknown,omitempty"`
	Notify       advisory.Level `json:"notify,omitempty"`
	Webhook      string         `json:"webhook,omitempty"`
	Secret       string         `json:"secret,omitempty"`
	Mail         bool           `json:"mail,omitempty"`
	About        string         `json:"about"` // ENTITY/COLLECTION, or site

	Next      time.Time `json:"next,omitzero"` // when to look for notices
	Tries     int       `json:"tries,omitempty"`
	LastSent  time.Time `json:"lastSent,omitzero"`
	LastError string    `json:"lastError,omitempty"`
}

// firstSeen is when a fault became known here, by a name of it.
type firstSeen struct {
	At time.Time `json:"at"`
}

// ruling is what is in memory of that, as a pull must not wait for the store.
type ruling struct {
	mu    sync.RWMutex
	by    map[string]rules
	first map[string]time.Time
	turn  int               // of the corpus, when faults were noted last
	told  map[string]string // by key: newsOf when all was told
}

func (s *Service) loadRules(ctx context.Context) error {
	by := map[string]rules{}
	for i, err := range s.rules.All(ctx, store.Query{}) {
		if err != nil {
			return err
		}
		by[i.Key] = i.Value
	}
	s.ruling.mu.Lock()
	defer s.ruling.mu.Unlock()
	s.ruling.by = by
	return nil
}

func (s *Service) loadFirst(ctx context.Context) error {
	first := map[string]time.Time{}
	for i, err := range s.faults.All(ctx, store.Query{}) {
		if err != nil {
			return err
		}
		first[i.Key] = i.Value.At
	}
	s.ruling.mu.Lock()
	defer s.ruling.mu.Unlock()
	s.ruling.first = first
	return nil
}

// noteFaults writes down when faults became known that are new.
func (s *Service) noteFaults(ctx context.Context) error {
	turn := s.corpus.turnOf()
	s.ruling.mu.RLock()
	known := s.ruling.turn == turn
	s.ruling.mu.RUnlock()
	if known {
		return nil
	}
	var fresh []string
	for id := range s.corpus.names("") {
		s.ruling.mu.RLock()
		_, ok := s.ruling.first[id]
		s.ruling.mu.RUnlock()
		if !ok && len(id) <= store.MaxKey {
			fresh = append(fresh, id)
		}
	}
	now := s.now().UTC()
	for len(fresh) > 0 {
		part := fresh[:min(len(fresh), atOnce)]
		fresh = fresh[len(part):]
		at, failed := make([]time.Time, len(part)), make([]error, len(part))
		var waiting sync.WaitGroup
		for n, id := range part {
			waiting.Go(func() {
				i, err := s.faults.Insert(ctx, id, firstSeen{now})
				if errors.Is(err, store.ErrExists) { // another process was first
					i, err = s.faults.Get(ctx, id)
				}
				at[n], failed[n] = i.Value.At, err
			})
		}
		waiting.Wait()
		if err := errors.Join(failed...); err != nil {
			return err
		}
		s.ruling.mu.Lock()
		for n, id := range part {
			s.ruling.first[id] = at[n]
		}
		s.ruling.mu.Unlock()
	}
	s.ruling.mu.Lock()
	s.ruling.turn = turn
	s.ruling.mu.Unlock()
	return nil
}

// guard refuses to serve an image that the rules of the site or of its collection
// forbid. Its maintainers still may read it.
//
// Security: what a collection says of its findings does not weaken the rule of the site.
func (s *Service) guard(ctx context.Context, i library.Stored) error {
	s.ruling.mu.RLock()
	ofSite, ofCollection := s.ruling.by[site], s.ruling.by[i.Collection]
	s.ruling.mu.RUnlock()
	if !ofSite.guards() && !ofCollection.guards() {
		return nil
	}
	role, err := s.auth.Role(ctx, auth.From(ctx), auth.Object{Entity: i.Entity, Within: []string{i.Collection, i.Container}})
	if err != nil || role.AtLeast(auth.Maintainer) {
		return err
	}
	if err := s.judgeBy(ofSite, i, "", "this site"); err != nil {
		return err
	}
	return s.judgeBy(ofCollection, i, i.Collection, "the collection "+i.Entity+"/"+i.Image.CollectionName)
}

func (r *rules) guards() bool { return r.Block > advisory.Unknown || r.BlockUnknown }

// judgeBy asks one set of rules.
func (s *Service) judgeBy(r rules, i library.Stored, collection, whose string) error {
	if !r.guards() {
		return nil
	}
	k, ok := s.corpus.image(i.Hash)
	data := s.state()
	if r.BlockUnknown && (!ok || !data.Loaded || data.Old || data.Loading) {
		return route.Errorf(http.StatusForbidden, "the image is not served: its packages were not compared with advisories that are young enough, and %s wants that. Ask whoever administers the server", whose)
	}
	if !ok || r.Block == advisory.Unknown {
		return nil
	}
	s.suppress(k.findings, i.Hash, collection)
	now := s.now()
	for n := range k.findings { // the worst first
		f := &k.findings[n]
		if f.Level < r.Block {
			break
		}
		if f.Ignored != "" || now.Before(s.since(f.ID, i.Image.UpdatedAt).Add(r.Grace)) {
			continue
		}
		cure := "no correction is known yet"
		if len(f.Fixed) > 0 {
			cure = "it is corrected in " + strings.Join(f.Fixed[:min(len(f.Fixed), 3)], " and ")
		}
		return route.Errorf(http.StatusForbidden, "the image is not served: %s %s has %s (%s); %s. Pull an image that was made anew, or ask %s for one: %s serves nothing with faults that are %s or worse",
			f.Package.Name, f.Package.Version, f.ID, f.Level, cure, i.Entity, whose, r.Block)
	}
	return nil
}

// since is when a fault of an image could be known: not before its push.
func (s *Service) since(id string, pushed time.Time) time.Time {
	s.ruling.mu.RLock()
	first, ok := s.ruling.first[id]
	s.ruling.mu.RUnlock()
	if !ok {
		first = s.now()
	}
	if pushed.After(first) {
		return pushed
	}
	return first
}

// rulesKey is whose rules a request is about: those of a collection are for its
// owners.
func (s *Service) rulesKey(r *http.Request) (key, about string, err error) {
	if e := r.PathValue("entity"); e != "" {
		about = e + "/" + r.PathValue("collection")
		key, err = s.lib.CollectionID(r.Context(), auth.Own, about)
		return key, about, err
	}
	return site, site, auth.From(r.Context()).RequireAdmin()
}

func (s *Service) getRules(w http.ResponseWriter, r *http.Request) error {
	key, _, err := s.rulesKey(r)
	if err != nil {
		return err
	}
	i, err := s.rules.Get(r.Context(), key)
	if err != nil && !missing(err) {
		return err
	}
	route.Data(w, i.Value.shown())
	return nil
}

// shown is what may be told of rules: the secret never.
func (r *rules) shown() api.WatchRules {
	v := api.WatchRules{BlockUnknown: r.BlockUnknown, Webhook: r.Webhook, Mail: r.Mail, LastSent: r.LastSent, LastError: r.LastError}
	if r.Block > advisory.Unknown {
		v.Block = r.Block.String()
	}
	if r.Notify > advisory.Unknown {
		v.Notify = r.Notify.String()
	}
	if r.Grace > 0 {
		v.Grace = hours(r.Grace)
	}
	return v
}

const maxGrace = 366 * 24 * time.Hour

// parseRules reads what a request wants.
func parseRules(in api.WatchRules) (rules, error) {
	r := rules{BlockUnknown: in.BlockUnknown, Mail: in.Mail, Webhook: in.Webhook}
	for _, f := range []struct {
		name, text string
		to         *advisory.Level
	}{{"block", in.Block, &r.Block}, {"notify", in.Notify, &r.Notify}} {
		l, ok := advisory.ParseLevel(f.text)
		if f.text != "" && (!ok || l < advisory.Negligible || l.String() != f.text) {
			return r, route.Errorf(http.StatusBadRequest, "%s is negligible, low, medium, high or critical", f.name)
		}
		*f.to = l
	}
	var err error
	if in.Grace != "" {
		if r.Grace, err = time.ParseDuration(in.Grace); err != nil || r.Grace < 0 || r.Grace > maxGrace {
			return r, route.Errorf(http.StatusBadRequest, "grace is a time like 168h, up to a year")
		}
	}
	if in.Webhook != "" {
		u, err := url.Parse(in.Webhook)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || len(in.Webhook) > 1000 || hasControl(in.Webhook) {
			return r, route.Errorf(http.StatusBadRequest, "webhook is an address like https://chat.example.org/hook")
		}
	}
	return r, nil
}

// putRules sets the rules. A webhook gets a new secret if its address is new.
func (s *Service) putRules(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	key, about, err := s.rulesKey(r)
	if err != nil {
		return err
	}
	var in api.WatchRules
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	v, err := parseRules(in)
	if err != nil {
		return err
	}
	fresh := ""
	apply := func(old *rules) error {
		v.About, v.Next, v.LastSent, v.Secret, fresh = about, s.now().UTC(), old.LastSent, old.Secret, ""
		if v.Webhook == "" {
			v.Secret = ""
		} else if v.Webhook != old.Webhook {
			fresh = newSecret()
			v.Secret = fresh
		}
		*old = v
		return nil
	}
	if _, err = s.rules.Update(ctx, key, apply); missing(err) {
		var first rules
		apply(&first)
		_, err = s.rules.Insert(ctx, key, first)
	}
	s.auth.Audit(ctx, "watch.rules", about, err, map[string]string{"block": in.Block, "grace": in.Grace, "notify": in.Notify})
	if err = cmp.Or(err, s.loadRules(ctx)); err != nil {
		return err
	}
	out := v.shown()
	out.Secret = fresh
	route.Data(w, out)
	return nil
}

func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// idOf is an id that is the same for the same things.
func idOf(parts ...string) string {
	sum := sha256.Sum256([]byte(fmt.Sprintf("%q", parts)))
	return hex.EncodeToString(sum[:16])
}
