package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"singularity/advisory"
	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// suppressions is what people decided about findings, in a collection or, under the
// key of site, everywhere.
type suppressions struct {
	Statements []advisory.Statement `json:"statements"`
	By         string               `json:"by"`
	At         time.Time            `json:"at"`
}

// site is the key of what holds everywhere; ids of collections are of another form.
const site = "site"

// The bounds of a document: it is one record.
const (
	maxStatements = 2000
	maxReason     = 1000
)

// said is the statements in memory, each under the names of its fault.
type said struct {
	mu   sync.RWMutex
	by   map[string]map[string][]advisory.Statement // key, name of a fault
	turn int
}

// loadSaid reads all statements.
func (s *Service) loadSaid(ctx context.Context) error {
	by := map[string]map[string][]advisory.Statement{}
	for i, err := range s.vex.All(ctx, store.Query{}) {
		if err != nil {
			return err
		}
		by[i.Key] = byName(i.Value.Statements)
	}
	s.said.mu.Lock()
	defer s.said.mu.Unlock()
	if !reflect.DeepEqual(by, s.said.by) {
		s.said.by = by
		s.said.turn++
	}
	return nil
}

func byName(list []advisory.Statement) map[string][]advisory.Statement {
	m := map[string][]advisory.Statement{}
	for _, st := range list {
		names := append([]string{st.Vulnerability.Name}, st.Vulnerability.Aliases...)
		slices.Sort(names)
		for _, n := range slices.Compact(names) {
			m[n] = append(m[n], st)
		}
	}
	return m
}

// suppress marks findings of an image that do not count: for the site, and if collection
// is not empty there as well.
func (s *Service) suppress(list []advisory.Finding, hash, collection string) {
	s.said.mu.RLock()
	defer s.said.mu.RUnlock()
	for _, key := range []string{site, collection} {
		names := s.said.by[key]
		if len(names) == 0 {
			continue
		}
		for i := range list {
			v := advisory.VEX{}
			for _, n := range slices.Concat([]string{list[i].ID}, list[i].IDs, list[i].Aliases) {
				v.Statements = append(v.Statements, names[n]...)
			}
			if len(v.Statements) > 0 {
				v.Apply(list[i:i+1], hash, s.now())
			}
		}
	}
}

// key is whose statements a request is about, if the caller may do that.
func (s *Service) key(r *http.Request, a auth.Action) (string, error) {
	ctx := r.Context()
	c := auth.From(ctx)
	entity := r.PathValue("entity")
	switch {
	case entity != "":
		return s.lib.CollectionID(ctx, a, entity+"/"+r.PathValue("collection"))
	case a == auth.Read:
		return site, c.Require(auth.LibraryRead)
	}
	return site, c.RequireAdmin()
}

// getVEX answers with the statements as a document of OpenVEX.
func (s *Service) getVEX(w http.ResponseWriter, r *http.Request) error {
	key, err := s.key(r, auth.Read)
	if err != nil {
		return err
	}
	i, err := s.vex.Get(r.Context(), key)
	if err != nil && !missing(err) {
		return err
	}
	at := i.Value.At
	if at.IsZero() {
		at = s.now().UTC()
	}
	route.JSON(w, http.StatusOK, advisory.NewVEX(fmt.Sprintf("https://openvex.dev/docs/singularity/%s-%d", key, at.Unix()), cmp.Or(i.Value.By, "nobody"), at, append([]advisory.Statement{}, i.Value.Statements...)))
	return nil
}

// putVEX takes a document in place of all statements.
func (s *Service) putVEX(w http.ResponseWriter, r *http.Request) error {
	key, err := s.key(r, auth.Own)
	if err != nil {
		return err
	}
	v, err := advisory.ReadVEX(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	if err != nil {
		return route.Errorf(http.StatusBadRequest, "this is no document of OpenVEX that can be used: %s", short(err))
	}
	return s.say(w, r, key, func(list []advisory.Statement) ([]advisory.Statement, error) { return v.Statements, nil })
}

// addVEX adds one statement: that a fault does not count, why, and until when.
func (s *Service) addVEX(w http.ResponseWriter, r *http.Request) error {
	key, err := s.key(r, auth.Own)
	if err != nil {
		return err
	}
	var in api.Suppression
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	until := time.Time{}
	if in.Until != "" {
		if until, err = time.Parse(time.DateOnly, in.Until); err != nil || !until.AddDate(0, 0, 1).After(s.now()) {
			return route.Errorf(http.StatusBadRequest, "until is a day to come, as 2026-12-31")
		}
	}
	switch {
	case in.ID == "" || len(in.ID) > 200 || short(errors.New(in.ID)) != in.ID || strings.ContainsAny(in.ID, " \t"):
		return route.Errorf(http.StatusBadRequest, "name the fault, as CVE-2026-1234")
	case strings.TrimSpace(in.Reason) == "" || len(in.Reason) > maxReason:
		return route.Errorf(http.StatusBadRequest, "say why in up to %d characters: others have to trust it", maxReason)
	case in.Product != "" && (len(in.Product) > 600 || !strings.HasPrefix(in.Product, "pkg:")):
		return route.Errorf(http.StatusBadRequest, "a product is a purl, as pkg:deb/debian/zlib1g")
	}
	st := advisory.Ignore(in.ID, in.Product, in.Reason, until)
	st.Timestamp = s.now().UTC()
	return s.say(w, r, key, func(list []advisory.Statement) ([]advisory.Statement, error) {
		return append(without(list, in), st), nil
	})
}

// removeVEX removes the statements about a fault, of all products or one.
func (s *Service) removeVEX(w http.ResponseWriter, r *http.Request) error {
	key, err := s.key(r, auth.Own)
	if err != nil {
		return err
	}
	in := api.Suppression{ID: r.URL.Query().Get("id"), Product: r.URL.Query().Get("product")}
	return s.say(w, r, key, func(list []advisory.Statement) ([]advisory.Statement, error) {
		left := without(list, in)
		if len(left) == len(list) {
			return nil, route.Errorf(http.StatusNotFound, "nothing is said about that")
		}
		return left, nil
	})
}

func without(list []advisory.Statement, in api.Suppression) []advisory.Statement {
	return slices.DeleteFunc(slices.Clone(list), func(st advisory.Statement) bool {
		product := ""
		if len(st.Products) > 0 {
			product = st.Products[0].ID
		}
		return st.Vulnerability.Name == in.ID && product == in.Product
	})
}

// say changes the statements of a key.
func (s *Service) say(w http.ResponseWriter, r *http.Request, key string, change func([]advisory.Statement) ([]advisory.Statement, error)) error {
	ctx := r.Context()
	apply := func(v *suppressions) error {
		list, err := change(v.Statements)
		if err == nil && len(list) > maxStatements {
			err = route.Errorf(http.StatusBadRequest, "there would be %d statements, more than %d: remove old ones", len(list), maxStatements)
		}
		if err == nil {
			*v = suppressions{list, auth.From(ctx).Name, s.now().UTC()}
		}
		return err
	}
	_, err := s.vex.Update(ctx, key, apply)
	if missing(err) {
		var v suppressions
		if err = apply(&v); err == nil {
			_, err = s.vex.Insert(ctx, key, v)
		}
	}
	if errors.Is(err, store.ErrInvalid) {
		err = route.Errorf(http.StatusRequestEntityTooLarge, "the statements are larger than what is kept")
	}
	object := site
	if key != site {
		object = r.PathValue("entity") + "/" + r.PathValue("collection")
	}
	s.auth.Audit(ctx, "suppression.change", object, err, nil)
	if err != nil {
		return err
	}
	if err := s.loadSaid(ctx); err != nil {
		return err
	}
	route.Data(w, struct{}{})
	return nil
}
