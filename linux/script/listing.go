package script

import "unsafe"

// Listing is a script as data, for a process that carries it out in place of
// this one: the setuid helper. Addresses are Refs.
type Listing struct {
	Memory  [][]byte
	Links   []Link
	Steps   []Step
	Program *Program // nil for none
}

// Ref is a place in the memory of a listing: its number, then the offset in 32
// bits.
type Ref uint64

// Mem and Off are the parts of a Ref.
func (r Ref) Mem() int { return int(r >> 32) }
func (r Ref) Off() int { return int(r & (1<<32 - 1)) }

// Link says that the word at At holds the address To.
type Link struct{ At, To Ref }

// Step is a step of a listing. Bit k of Slots says that argument k is the number
// of a step, whose result is meant; of Refs, that it is a Ref.
type Step struct {
	Op, Slots, Refs uint8
	Ignore, Want    bool
	SkipOK, SkipNo  uint8
	Nr              uint16
	Expect          uint64
	Args            [6]uint64
	// Mem are the words of OpEqual, and the first of them that of OpStore.
	Mem [2]Ref
	// Raise are the capabilities that the step is made with, besides none.
	Raise uint64
}

// NewMaker adds steps of l to s. Every Ref of l must lie in its memory, and every
// slot before its step: whoever got l from somebody else checks that first.
func (s *Script) NewMaker(l *Listing) *Maker {
	m := &Maker{s: s, l: l}
	for _, b := range l.Memory {
		w := make([]uint64, len(b)/8+1)
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), len(b)), b)
		s.keep = append(s.keep, w)
		m.memory = append(m.memory, w)
	}
	for _, k := range l.Links {
		*m.word(k.At) = uint64(m.at(k.To))
	}
	return m
}

// Maker adds the steps of a listing to a script.
type Maker struct {
	s      *Script
	l      *Listing
	memory [][]uint64
	slots  []int // of each step of the listing, in s
}

func (m *Maker) at(r Ref) uintptr {
	return uintptr(unsafe.Pointer(&m.memory[r.Mem()][0])) + uintptr(r.Off())
}

func (m *Maker) word(r Ref) *uint64 {
	return &m.memory[r.Mem()][r.Off()/8]
}

// Add adds the next step of the listing. permitted are the capabilities that the
// thread has and raises none of, but for the step's own.
func (m *Maker) Add(permitted uint64) {
	i := len(m.slots)
	in := &m.l.Steps[i]
	st := step{op: in.Op, ref: in.Slots, ptr: in.Refs, ignore: in.Ignore, want: in.Want, skipOK: in.SkipOK, skipNo: in.SkipNo, nr: uintptr(in.Nr), expect: uintptr(in.Expect), code: uintptr(i + 1)}
	for k, v := range in.Args {
		switch {
		case in.Refs&(1<<k) != 0:
			st.a[k] = m.at(Ref(v))
		case in.Slots&(1<<k) != 0:
			st.a[k] = uintptr(m.slots[v])
		default:
			st.a[k] = uintptr(v)
		}
	}
	switch in.Op {
	case OpEqual:
		st.mem = [2]*uint64{m.word(in.Mem[0]), m.word(in.Mem[1])}
	case OpStore:
		st.mem[0] = m.word(in.Mem[0])
		st.a[0] = uintptr(m.slots[in.Args[0]])
	case OpInit, OpIdle:
		findEnvironment()
	case OpExec:
		p := m.l.Program
		m.s.exec = m.s.program(p.Paths, p.Args, p.Env, p.Shell)
		if p.OtherArgs != nil {
			m.s.exec.otherwise, m.s.exec.otherwiseArgv = uintptr(p.OtherFD), m.s.strings(p.OtherArgs)
		}
	}
	if in.Raise != 0 {
		st.raise = &[2][3]uint64{CapData(in.Raise, permitted, 0), CapData(0, permitted, 0)}
	}
	slot := m.s.add("", st)
	m.s.res[slot] = ^uintptr(0) // no descriptor, unless the step is made
	m.slots = append(m.slots, int(slot))
}

// Foreign is what a step that is not of the listing is reported as, and its number.
const Foreign = 1 << 20

// Number makes failures of steps that are not of the listing known as such.
func (s *Script) Number() {
	for i := range s.steps {
		if s.steps[i].code == 0 {
			s.steps[i].code = uintptr(Foreign + i + 1)
		}
	}
}

// CapData is struct __user_cap_data_struct, twice: the low halves of the
// effective, permitted and inheritable sets, then the high ones.
func CapData(effective, permitted, inheritable uint64) [3]uint64 {
	const half = 1<<32 - 1
	return [3]uint64{effective&half | permitted&half<<32, inheritable&half | effective>>32<<32, permitted>>32 | inheritable>>32<<32}
}
