package keyserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Limits on an index.
const (
	pageSize   = 256
	maxResults = 10000
	maxUserIDs = 64 // of a key, later ones are left out
)

// pageHeader names the next page.
const pageHeader = "X-HKP-Next-Page-Token"

// Result is a key in an index. A server says so, and nothing was checked.
type Result struct {
	ID        string // 8, 16 or 40 upper-case hexadecimal digits: the fingerprint, or its end
	Algorithm int    // number in OpenPGP
	Bits      int
	Created   time.Time // zero if not said
	Expires   time.Time // zero for never
	Flags     string    // of r revoked, d disabled, e expired
	UserIDs   []string
}

// Search asks the first server for keys: by a part of a user id, or by an id of 8,
// 16 or 40 hexadecimal digits. All pages are read, up to a limit; more tells
// that there is more than what was returned.
func (c *Client) Search(ctx context.Context, text string) (list []Result, more bool, err error) {
	if isHex(text) {
		text = "0x" + text
	}
	s := c.servers[0]
	query := url.Values{"op": {"index"}, "fingerprint": {"on"}, "options": {"mr"}, "search": {text},
		"x-pagesize": {strconv.Itoa(pageSize)}}
	seen := map[string]bool{}
	for {
		a, err := c.lookup(ctx, s, query, maxPage)
		if err != nil {
			return nil, false, err
		}
		page, err := parseIndex(string(a.body))
		if err != nil {
			return nil, false, fmt.Errorf("the answer of key server %q is not usable: %w", s.base.Host, err)
		}
		list = append(list, page...)
		token := a.header.Get(pageHeader)
		if token == "" || len(list) > maxResults {
			break
		}
		// A server that sends us round in circles, or without end.
		if seen[token] || len(page) == 0 {
			return nil, false, fmt.Errorf("key server %q lists pages without end", s.base.Host)
		}
		seen[token] = true
		query.Set("x-pagetoken", token)
	}
	if len(list) > maxResults {
		return list[:maxResults], true, nil
	}
	return list, false, nil
}

// parseIndex reads a machine-readable index. Lines that are not known are left
// out, as the format says.
func parseIndex(text string) ([]Result, error) {
	var list []Result
	count := -1
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		switch f[0] {
		case "info":
			n, err := strconv.Atoi(field(f, 2))
			if err != nil || n < 0 || count >= 0 {
				return nil, errors.New("its list has a bad first line")
			}
			count = n
		case "pub":
			r, err := parsePub(f)
			if err != nil {
				return nil, err
			}
			list = append(list, r)
		case "uid":
			id, err := url.QueryUnescape(field(f, 1))
			if err != nil || len(list) == 0 {
				return nil, errors.New("its list has a bad user id")
			}
			if r := &list[len(list)-1]; len(r.UserIDs) < maxUserIDs {
				r.UserIDs = append(r.UserIDs, id)
			}
		}
	}
	if count < 0 && len(list) == 0 {
		return nil, errors.New("it is no list of keys")
	}
	if count >= 0 && count != len(list) {
		return nil, fmt.Errorf("its list promises %d keys and has %d", count, len(list))
	}
	return list, nil
}

func field(f []string, i int) string {
	if i < len(f) {
		return f[i]
	}
	return ""
}

func parsePub(f []string) (Result, error) {
	r := Result{ID: strings.ToUpper(strings.TrimPrefix(field(f, 1), "0x")), Flags: field(f, 6)}
	if !isHex(r.ID) {
		return r, fmt.Errorf("its list has a bad key id, %q", field(f, 1))
	}
	for _, n := range []struct {
		text string
		to   *int
	}{{field(f, 2), &r.Algorithm}, {field(f, 3), &r.Bits}} {
		v, err := strconv.ParseUint(n.text, 10, 31)
		if err != nil && n.text != "" {
			return r, fmt.Errorf("its list has a bad number, %q", n.text)
		}
		*n.to = int(v)
	}
	for _, t := range []struct {
		text string
		to   *time.Time
	}{{field(f, 4), &r.Created}, {field(f, 5), &r.Expires}} {
		if t.text == "" {
			continue
		}
		seconds, err := strconv.ParseUint(t.text, 10, 33)
		if err != nil {
			return r, fmt.Errorf("its list has a bad time, %q", t.text)
		}
		*t.to = time.Unix(int64(seconds), 0).UTC()
	}
	return r, nil
}
