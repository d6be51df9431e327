package advisory

import (
	"slices"
	"strings"

	"github.com/google/osv-scalibr/semantic"
)

// order compares versions of one ecosystem.
type order struct{ scheme string }

// compare orders a and b. It returns false if either is no version.
func (o order) compare(a, b string) (n int, ok bool) {
	if a == b {
		return 0, true
	}
	if !o.orders(a) || !o.orders(b) {
		return 0, false
	}
	defer func() {
		if recover() != nil { // the library promises nothing about hostile versions
			n, ok = 0, false
		}
	}()
	v, err := semantic.Parse(a, o.scheme)
	if err != nil {
		return 0, false
	}
	n, err = v.CompareStr(b)
	return n, err == nil
}

// orders tells whether s may be a version where all begin with a number: the library
// orders other texts too, behind all versions, so that a record with a false one
// would tell of no fault.
func (o order) orders(s string) bool {
	switch o.scheme {
	case "Go", "npm", "crates.io":
		s = strings.TrimPrefix(s, "v")
		return s != "" && s[0] >= '0' && s[0] <= '9'
	}
	return true
}

// in tells whether version lies in the range r, by the algorithm of the OSV
// schema ("evaluation"). Events in any order are sorted first.
func (o order) in(version string, r Range) (affected, ok bool) {
	type point struct {
		at   string
		kind int // what ends a range at a version comes before what begins one
	}
	var points []point
	for _, e := range r.Events {
		switch {
		case e.Introduced != "":
			points = append(points, point{e.Introduced, 1})
		case e.Fixed != "":
			points = append(points, point{e.Fixed, 0})
		case e.LastAffected != "":
			points = append(points, point{e.LastAffected, 2})
		}
	}
	ok = true
	cmp := func(a, b string) int {
		switch {
		case a == "0" && b == "0":
			return 0
		case a == "0":
			return -1
		case b == "0":
			return 1
		}
		n, fine := o.compare(a, b)
		ok = ok && fine
		return n
	}
	slices.SortStableFunc(points, func(a, b point) int {
		if n := cmp(a.at, b.at); n != 0 {
			return n
		}
		return a.kind - b.kind
	})
	for _, p := range points {
		n := cmp(version, p.at)
		switch {
		case p.kind == 1 && (p.at == "0" || n >= 0):
			affected = true
		case p.kind == 0 && n >= 0, p.kind == 2 && n > 0:
			affected = false
		}
	}
	return affected, ok
}

// fixes are the versions in r that end the fault after version.
func (o order) fixes(version string, r Range) (list []string) {
	for _, e := range r.Events {
		if e.Fixed == "" {
			continue
		}
		if n, ok := o.compare(e.Fixed, version); ok && n > 0 {
			list = append(list, e.Fixed)
		}
	}
	return list
}

// scheme is the name by which the library knows how eco compares versions.
func scheme(eco string) string {
	base, _, _ := strings.Cut(eco, ":")
	return base
}
