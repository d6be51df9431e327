//go:build !starter

package script

import (
	"cmp"
	"errors"
	"slices"
	"sort"
	"syscall"
	"unsafe"
)

// region is memory that a script keeps. Number is its own in the listing that is
// handed over, 0 if it has none yet.
type region struct {
	at     uintptr
	data   []byte
	number int
}

// lister numbers the memory that steps refer to: what overlaps is one.
type lister struct {
	s   *Script
	all []region // by address
	l   *Listing
}

func (r *lister) regions() {
	var found []region
	for _, m := range r.s.Memory {
		found = append(found, region{at: uintptr(unsafe.Pointer(unsafe.SliceData(m))), data: m})
	}
	slices.SortFunc(found, func(a, b region) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(len(b.data), len(a.data)))
	})
	end := uintptr(0)
	for _, m := range found {
		// Slices of one array begin at or behind its own beginning.
		if m.at+uintptr(len(m.data)) > end {
			r.all = append(r.all, m)
			end = m.at + uintptr(len(m.data))
		}
	}
}

// ref returns what is handed over for v.
func (r *lister) ref(v Ref) Ref {
	if v == 0 {
		return 0
	}
	at := r.s.at(v)
	m := &r.all[sort.Search(len(r.all), func(i int) bool { return r.all[i].at+uintptr(len(r.all[i].data)) > at })]
	if m.number == 0 {
		m.number = len(r.l.Memory)
		r.l.Memory = append(r.l.Memory, m.data)
	}
	return Ref(m.number)<<32 | Ref(at-m.at)
}

// List returns s as data. Programs beside the one of the script are not part of
// that, nor is Send.
func (s *Script) List() (*Listing, error) {
	r := &lister{s: s, l: &Listing{Memory: [][]byte{make([]byte, 1)}}}
	r.regions()
	for i, st := range s.Steps {
		if st.Op == OpLaunch || st.Args[1] == ^uint64(0) && st.Nr == syscall.SYS_WRITE {
			return nil, errors.New("cannot hand over the step to " + s.labels[i])
		}
		for k, v := range st.Args {
			if st.Refs&(1<<k) != 0 {
				st.Args[k] = uint64(r.ref(Ref(v)))
			}
		}
		r.l.Steps = append(r.l.Steps, st)
	}
	if p := s.Program; p != nil {
		x := &Program{Argv: r.ref(p.Argv), Envp: r.ref(p.Envp), Shell: r.ref(p.Shell), Other: r.ref(p.Other), OtherFD: p.OtherFD}
		for _, path := range p.Paths {
			x.Paths = append(x.Paths, r.ref(path))
		}
		r.l.Program = x
	}
	for _, k := range s.Links {
		r.l.Links = append(r.l.Links, Link{r.ref(k.At), r.ref(k.To)})
	}
	return r.l, nil
}
