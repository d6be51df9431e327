//go:build !starter

package script

import (
	"cmp"
	"errors"
	"slices"
	"syscall"
	"unsafe"
)

// region is memory that a script keeps.
type region struct {
	at   uintptr
	data []byte
}

// regions returns what s keeps, by address; what overlaps is one.
func (s *Script) regions() []region {
	var out []region
	for _, k := range s.keep {
		switch m := k.(type) {
		case []byte:
			out = append(out, region{uintptr(unsafe.Pointer(unsafe.SliceData(m))), m})
		case []uint64:
			out = append(out, region{uintptr(unsafe.Pointer(unsafe.SliceData(m))), unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(m))), 8*len(m))})
		case []uintptr:
			out = append(out, region{uintptr(unsafe.Pointer(unsafe.SliceData(m))), unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(m))), 8*len(m))})
		}
	}
	slices.SortFunc(out, func(a, b region) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(len(b.data), len(a.data)))
	})
	return out
}

// lister numbers the memory that steps refer to.
type lister struct {
	all     []region
	numbers map[uintptr]int
	l       *Listing
}

// ref returns where the address v is.
func (r *lister) ref(v uintptr) Ref {
	// Slices of one array begin at or behind its own beginning, so the first
	// region that reaches v is the largest.
	for i := range r.all {
		m := &r.all[i]
		if v < m.at || v >= m.at+uintptr(len(m.data)) {
			continue
		}
		n, ok := r.numbers[m.at]
		if !ok {
			n = len(r.l.Memory)
			r.numbers[m.at] = n
			r.l.Memory = append(r.l.Memory, m.data)
		}
		return Ref(n)<<32 | Ref(v-m.at)
	}
	panic("script: an address outside of the script")
}

// List returns s as data. Programs beside the one of the script are not part of
// that, nor is Send.
func (s *Script) List() (*Listing, error) {
	r := &lister{all: s.regions(), numbers: map[uintptr]int{}, l: &Listing{Program: s.source}}
	for i := range s.steps {
		st := &s.steps[i]
		if st.op == OpLaunch || st.a[1] == ^uintptr(0) && st.nr == syscall.SYS_WRITE {
			return nil, errors.New("cannot hand over the step to " + s.labels[i])
		}
		out := Step{Op: st.op, Slots: st.ref, Refs: st.ptr, Ignore: st.ignore, Want: st.want, SkipOK: st.skipOK, SkipNo: st.skipNo, Nr: uint16(st.nr), Expect: uint64(st.expect)}
		for k, v := range st.a {
			if out.Args[k] = uint64(v); st.ptr&(1<<k) != 0 {
				out.Args[k] = uint64(r.ref(v))
			}
		}
		for k, m := range st.mem {
			if m != nil {
				out.Mem[k] = r.ref(uintptr(unsafe.Pointer(m)))
			}
		}
		r.l.Steps = append(r.l.Steps, out)
	}
	for i, list := range s.lists {
		for k, a := range list {
			if at := uintptr(unsafe.Pointer(&s.tables[i][k])); a.mem {
				r.l.Links = append(r.l.Links, Link{r.ref(at), r.ref(a.v)})
			}
		}
	}
	return r.l, nil
}
