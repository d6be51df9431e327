package keystore

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"singularity/server/route"
	"singularity/server/store"
)

// term is what a look-up searches.
type term struct {
	text  string
	ids   []string // in the order in which they are tried: upper-case hexadecimal
	short bool     // the first id has 8 digits
	words []string
	exact bool
}

const maxWords = 32 // of a user id or a search

// classOf tells which allowance a look-up counts against.
func classOf(r *http.Request) route.Class {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return route.KeyText
	}
	if t, err := parseTerm(q.Get("search"), false); err == nil && t.words != nil {
		return route.KeyText
	}
	return route.KeyID
}

// parseTerm reads the parameter search.
func parseTerm(text string, exact bool) (term, error) {
	text = strings.TrimSpace(text)
	t := term{text: text, exact: exact}
	if len(text) > 300 {
		return t, route.Errorf(http.StatusBadRequest, "a search has at most 300 bytes")
	}
	digits, prefixed := strings.CutPrefix(strings.ToUpper(text), "0X")
	if prefixed && isHex(digits) {
		t.ids = idsOf(digits)
		t.short = len(t.ids) > 0 && len(t.ids[0]) == 8
		return t, nil
	}
	if n := len(digits); !prefixed && isHex(digits) && (n == 8 || n == 16 || n == 40) {
		t.ids, t.short = idsOf(digits), n == 8
		return t, nil
	}
	if len([]rune(text)) < 3 {
		return t, route.Errorf(http.StatusBadRequest, "a search has at least 3 characters")
	}
	if t.words = wordsOf(text); exact {
		t.words = []string{"=" + strings.ToLower(text)}
		if a := address(text); a != "" {
			t.words = []string{a}
		}
	}
	if strings.HasPrefix(text, "@") && !exact {
		t.words = []string{strings.ToLower(text)}
	}
	if t.words == nil {
		t.words = []string{} // punctuation alone: no user id has it as a word
	}
	return t, nil
}

// idsOf returns the ids that digits may stand for.
//
// Clients print a 64-bit id as a number, so that zeros at its front are lost: one
// of sixteen signers would not be found.
func idsOf(digits string) []string {
	pad := func(n int) string { return strings.Repeat("0", n-len(digits)) + digits }
	switch n := len(digits); {
	case n == 40 || n == 16:
		return []string{digits}
	case n >= 1 && n <= 8:
		return []string{pad(8), pad(16)}
	case n < 16 && n > 8:
		return []string{pad(16)}
	}
	return nil // of other versions, which are not kept
}

func isHex(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return !strings.ContainsRune("0123456789ABCDEF", c) })
}

// wordsOf are the words of a text in lower case, an address being one.
func wordsOf(text string) []string {
	var list []string
	for _, w := range strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return unicode.IsSpace(c) || strings.ContainsRune("<>(),;:\"'[]", c) }) {
		if len(list) < maxWords && strings.ContainsFunc(w, func(c rune) bool { return unicode.IsLetter(c) || unicode.IsDigit(c) }) {
			list = append(list, w)
		}
	}
	return list
}

// terms are the values by which a search finds a user id.
func terms(text string) []string {
	list := append(wordsOf(text), "="+strings.ToLower(text))
	if a := address(text); a != "" {
		list = append(list, a, a[strings.LastIndexByte(a, '@'):])
	}
	return slices.DeleteFunc(list, func(s string) bool { return len(s) > store.MaxValue })
}

// find returns a page of the keys of a term. With several words one user id has
// them all.
func (s *Service) find(ctx context.Context, t term, after string, limit int) ([]record, string, error) {
	for _, id := range t.ids {
		list, next, err := s.page(ctx, store.Query{Index: "id", Equal: id, After: after, Limit: limit}, func(*record) bool { return true })
		if err != nil || len(list) > 0 {
			return list, next, err
		}
	}
	if len(t.words) == 0 {
		return nil, "", nil
	}
	rarest := slices.MaxFunc(t.words, func(a, b string) int { return len(a) - len(b) })
	return s.page(ctx, store.Query{Index: "text", Equal: rarest, After: after, Limit: limit}, func(r *record) bool {
		return slices.ContainsFunc(r.UserIDs, func(u userID) bool { return s.shown(u) && !u.Revoked && hasAll(terms(u.Text), t.words) })
	})
}

// maxPages bounds what one search reads to fill a page.
const maxPages = 8

func (s *Service) page(ctx context.Context, q store.Query, want func(*record) bool) ([]record, string, error) {
	var list []record
	for range maxPages {
		items, next, err := s.keys.List(ctx, q)
		if err != nil {
			return nil, "", err
		}
		for _, i := range items {
			if i.Value.served() && want(&i.Value) {
				list = append(list, i.Value)
			}
		}
		if q.After = next; next == "" || len(list) > 0 {
			break
		}
	}
	return list, q.After, nil
}

// shown tells whether a search may find a user id and tell it.
func (s *Service) shown(u userID) bool { return s.o.Open || u.Proven }

func hasAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) })
}
