package seccomp

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxInstructions is what the kernel takes (BPF_MAXINSNS).
const maxInstructions = 4096

// maxNumber is above the number of every system call in the tables, which a
// test checks: the rest falls to the default.
const maxNumber = 1023

// convention is a calling convention of a machine: the ABI that a program's
// system calls arrive in.
type convention struct {
	name  string // SCMP_ARCH_...
	audit uint32 // AUDIT_ARCH_...
	bit   uint32 // added to every number
	table string // names and numbers, for each a space behind
}

// conventions returns those of a machine, its own first.
func conventions(arch string) []convention {
	switch arch {
	case "amd64":
		return []convention{
			{"SCMP_ARCH_X86_64", unix.AUDIT_ARCH_X86_64, 0, tableAMD64},
			{"SCMP_ARCH_X32", unix.AUDIT_ARCH_X86_64, x32Bit, tableX32},
			{"SCMP_ARCH_X86", unix.AUDIT_ARCH_I386, 0, table386},
		}
	case "arm64":
		return []convention{{"SCMP_ARCH_AARCH64", unix.AUDIT_ARCH_AARCH64, 0, tableARM64}}
	}
	return nil
}

// badArch ends a process that calls through a convention the profile does not
// name: its numbers mean other calls there.
const badArch = unix.SECCOMP_RET_KILL_PROCESS

// Compile makes p a filter for t.
//
// Of all rules for a call whose conditions hold, the strictest decides,
// wherever it stands; the conditions of one rule must all hold. Calls through a
// convention that the profile does not name end the process.
//
// Unknown are names in no table of the machine which a rule stricter than the
// default is for: the rule has no effect, which its writer may not know.
func (p *Profile) Compile(t *Target) (code []unix.SockFilter, unknown []string, err error) {
	all := conventions(t.Arch)
	if all == nil {
		return nil, nil, errors.New("profiles are not supported on " + t.Arch)
	}
	named := p.named(all[0].name)
	wanted := p.byName(t)
	trees := map[string][]unix.SockFilter{}
	for _, c := range all {
		if contains(named, c.name) {
			trees[c.name] = tree(p.ranges(&c, wanted))
		}
	}
	if len(trees) == 0 || trees[all[0].name] == nil {
		return nil, nil, errors.New("profile is not for this machine: it does not name " + all[0].name)
	}
	code = p.dispatch(all, trees)
	if len(code) > maxInstructions {
		return nil, nil, errors.New("profile makes a filter of " + strconv.Itoa(len(code)) + " instructions, and the kernel takes " + strconv.Itoa(maxInstructions) + " at most")
	}
	for name, w := range wanted {
		if !w.known && slices.ContainsFunc(w.rules, func(r *rule) bool { return r.action.strictness() < p.fallback.strictness() }) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return code, unknown, nil
}

// named returns the conventions that the profile is for, on a machine whose own
// one is native.
func (p *Profile) named(native string) []string {
	if len(p.maps) == 0 {
		return []string{native}
	}
	var names []string
	for _, m := range p.maps {
		if m.arch == native {
			names = append(append(names, m.arch), m.sub...)
		}
	}
	return names
}

// dispatch puts the trees of the conventions together: look at the
// architecture, then at the number.
func (p *Profile) dispatch(all []convention, trees map[string][]unix.SockFilter) []unix.SockFilter {
	code := []unix.SockFilter{load(dataArch)}
	for i, c := range all {
		if c.bit != 0 {
			continue // part of the one it shares the architecture with
		}
		body := trees[c.name]
		if body == nil {
			continue
		}
		for _, x := range all[i+1:] {
			if x.audit == c.audit {
				other := trees[x.name]
				if other == nil {
					// A number of -1 is a call that a tracer took away.
					other = branch(unix.BPF_JEQ, 1<<32-1, []unix.SockFilter{answer(uint32(p.fallback))}, []unix.SockFilter{answer(badArch)})
				}
				body = branch(unix.BPF_JGE, x.bit, other, body)
			}
		}
		body = append([]unix.SockFilter{load(dataNumber)}, body...)
		code = append(code, branch(unix.BPF_JEQ, c.audit, body, nil)...)
	}
	return append(code, answer(badArch))
}

// branch does yes where the comparison of the accumulator with k holds, else
// no; what is left out goes on behind.
func branch(op uint16, k uint32, yes, no []unix.SockFilter) []unix.SockFilter {
	jump := unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k}
	code := make([]unix.SockFilter, 0, len(yes)+len(no)+2)
	if no == nil {
		// A jump over yes where the comparison does not hold.
		if len(yes) <= 255 {
			jump.Jf = uint8(len(yes))
			return append(append(code, jump), yes...)
		}
		jump.Jt = 1
		return append(append(code, jump, far(len(yes))), yes...)
	}
	if len(no) <= 255 {
		jump.Jt = uint8(len(no))
		return append(append(append(code, jump), no...), yes...)
	}
	jump.Jf = 1
	return append(append(append(code, jump, far(len(no))), no...), yes...)
}

// far is a jump of any width.
func far(n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}
}

// span is a range of numbers, from one up to that of the next span, which are
// answered alike.
type span struct {
	from  uint32
	rules []*rule // with conditions, the strictest first
	then  action
}

// call is a system call that rules name.
type call struct {
	rules []*rule
	known bool // some table has it
}

// byName sorts the rules that are meant for t by the calls they are for.
func (p *Profile) byName(t *Target) map[string]*call {
	calls := make(map[string]*call, 512)
	for i := range p.rules {
		r := &p.rules[i]
		if !r.applies(t) {
			continue
		}
		for _, n := range r.names {
			if calls[n] == nil {
				calls[n] = new(call)
			}
			calls[n].rules = append(calls[n].rules, r)
		}
	}
	return calls
}

// ranges returns what is done to each number of a convention, in order. Numbers
// that no rule is for fall to the default, the unknown ones above all too.
func (p *Profile) ranges(c *convention, wanted map[string]*call) []span {
	var calls [maxNumber + 1]span
	for i := range calls {
		calls[i] = span{from: uint32(i) | c.bit, then: p.fallback}
	}
	for name, number := range entries(c.table) {
		if w := wanted[name]; w != nil {
			w.known = true
			calls[number].rules, calls[number].then = p.decide(w.rules)
		}
	}
	out := make([]span, 0, 128)
	for _, s := range calls {
		if n := len(out); n == 0 || len(s.rules)+len(out[n-1].rules) > 0 || out[n-1].then != s.then {
			out = append(out, s)
		}
	}
	return out
}

// entries goes through a table of names and numbers.
func entries(table string) func(yield func(string, uint32) bool) {
	return func(yield func(string, uint32) bool) {
		for table != "" {
			name, rest, _ := strings.Cut(table, " ")
			number, rest, _ := strings.Cut(rest, " ")
			n, _ := strconv.ParseUint(number, 10, 32)
			if table = rest; !yield(name, uint32(n)) {
				return
			}
		}
	}
}

// decide sorts the rules for one call: those with conditions that are stricter
// than the first one without, then that one, else the default.
func (p *Profile) decide(rules []*rule) ([]*rule, action) {
	if len(rules) == 1 && len(rules[0].args) == 0 {
		return nil, rules[0].action
	}
	sorted := slices.Clone(rules)
	slices.SortStableFunc(sorted, func(a, b *rule) int { return cmp.Compare(a.action.strictness(), b.action.strictness()) })
	for i, r := range sorted {
		if len(r.args) == 0 {
			return sorted[:i], r.action
		}
	}
	return sorted, p.fallback
}

// tree lays spans out as a binary search over the number in the accumulator.
// The kernel remembers calls that a filter always allows (Linux 5.11), and asks
// it about the others only.
func tree(list []span) []unix.SockFilter {
	if len(list) == 1 {
		return list[0].leaf()
	}
	mid := len(list) / 2
	return branch(unix.BPF_JGE, list[mid].from, tree(list[mid:]), tree(list[:mid]))
}

// leaf decides a call whose number is known.
func (s *span) leaf() []unix.SockFilter {
	var code []unix.SockFilter
	for _, r := range s.rules {
		code = append(code, r.test()...)
	}
	return append(code, answer(uint32(s.then)))
}

// miss is the target of a jump to the next rule, before its distance is known.
const miss = 255

// test answers a call for which all conditions hold, and goes on behind itself
// where one does not.
func (r *rule) test() []unix.SockFilter {
	var code []unix.SockFilter
	for i := range r.args {
		code = append(code, r.args[i].test()...)
	}
	code = append(code, answer(uint32(r.action)))
	for i := range code {
		rest := uint8(len(code) - i - 1)
		if code[i].Jt == miss {
			code[i].Jt = rest
		}
		if code[i].Jf == miss {
			code[i].Jf = rest
		}
	}
	return code
}

// test goes on behind itself where the condition holds, else to miss. The
// machine has 32 bits, so the two halves are compared one after the other.
func (c *condition) test() []unix.SockFilter {
	low := dataArgs + 8*c.index
	high := low + 4
	vh, vl := uint32(c.value>>32), uint32(c.value)
	jump := func(op uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	switch c.op {
	case "NE":
		return []unix.SockFilter{load(high), ifEqual(vh, 0, 2), load(low), ifEqual(vl, miss, 0)}
	case "GT":
		return []unix.SockFilter{load(high), jump(unix.BPF_JGT, vh, 3, 0), ifEqual(vh, 0, miss), load(low), jump(unix.BPF_JGT, vl, 0, miss)}
	case "GE":
		return []unix.SockFilter{load(high), jump(unix.BPF_JGT, vh, 3, 0), ifEqual(vh, 0, miss), load(low), jump(unix.BPF_JGE, vl, 0, miss)}
	case "LT":
		return []unix.SockFilter{load(high), jump(unix.BPF_JGT, vh, miss, 0), ifEqual(vh, 0, 2), load(low), jump(unix.BPF_JGE, vl, miss, 0)}
	case "LE":
		return []unix.SockFilter{load(high), jump(unix.BPF_JGT, vh, miss, 0), ifEqual(vh, 0, 2), load(low), jump(unix.BPF_JGT, vl, miss, 0)}
	case "MASKED_EQ":
		return []unix.SockFilter{load(high), and(vh), ifEqual(uint32(c.second>>32), 0, miss), load(low), and(vl), ifEqual(uint32(c.second), 0, miss)}
	}
	return []unix.SockFilter{load(high), ifEqual(vh, 0, miss), load(low), ifEqual(vl, 0, miss)}
}

// Answer returns what code answers to a system call of this machine's own
// convention: a SECCOMP_RET_ value. Whoever installs a filter can ask before
// whether the calls that must still follow go through.
func Answer(code []unix.SockFilter, arch string, number uint32, args ...uint64) uint32 {
	all := conventions(arch)
	if all == nil {
		return badArch
	}
	return eval(code, all[0].audit, number, args...)
}

// eval runs a filter as the kernel would.
func eval(code []unix.SockFilter, audit, number uint32, args ...uint64) uint32 {
	var acc uint32
	for pc := 0; pc < len(code); pc++ {
		f := &code[pc]
		holds := false
		switch f.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = word(f.K, audit, number, args)
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= f.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			return f.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(f.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			holds = acc == f.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			holds = acc > f.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			holds = acc >= f.K
		default:
			return badArch
		}
		if holds {
			pc += int(f.Jt)
		} else {
			pc += int(f.Jf)
		}
	}
	return badArch
}

// word is one of the kernel's struct seccomp_data.
func word(off, audit, number uint32, args []uint64) uint32 {
	switch i := (off - dataArgs) / 8; {
	case off == dataNumber:
		return number
	case off == dataArch:
		return audit
	case off < dataArgs || int(i) >= len(args):
		return 0
	case off%8 == 4:
		return uint32(args[i] >> 32)
	default:
		return uint32(args[i])
	}
}
