package container

import (
	"encoding/binary"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"singularity/linux/script"
	"singularity/plan"
)

// Security: every setting is read back after it was made, since a call that
// succeeds without its effect would start a program with more rights than the
// plan says (SC-010). A difference ends the start.

func (b *builder) prctl(label string, option int, args ...int) script.Slot {
	a := []script.Arg{script.Int(option)}
	for i := range 4 {
		v := 0
		if i < len(args) {
			v = args[i]
		}
		a = append(a, script.Int(v))
	}
	return b.s.Call(label, unix.SYS_PRCTL, a...)
}

// bound takes what is not in the final set out of the bounding set. That needs
// CAP_SETPCAP, so it comes before anything is given up. A process without it
// passes only if there is nothing to take.
func (b *builder) bound(r *plan.Rights) {
	for c := range 64 {
		if r.Drop&(1<<c) == 0 {
			continue
		}
		b.s.Optional(b.prctl("limit the bounding set", unix.PR_CAPBSET_DROP, c))
		b.s.Want(b.prctl("read back the bounding set", unix.PR_CAPBSET_READ, c), 0)
	}
}

// setIDs changes user and groups. The permitted capabilities are kept until
// capabilities chooses among them; nothing is effective in between.
func (b *builder) setIDs(r *plan.Rights) {
	if !r.SetIDs {
		return
	}
	s := b.s
	b.prctl("keep the capabilities", unix.PR_SET_KEEPCAPS, 1)
	groups := slices.Clone(r.GIDs)
	slices.Sort(groups) // as the kernel returns them
	var list []byte
	for _, g := range groups {
		list = binary.NativeEndian.AppendUint32(list, uint32(g))
	}
	n, want := script.Int(len(groups)), words(list)
	s.Call("set the groups", unix.SYS_SETGROUPS, n, s.Words(want))
	found := make([]uint64, len(want))
	s.Want(s.Call("read back the groups", unix.SYS_GETGROUPS, n, s.Words(found)), len(groups))
	b.same("see the groups set", found, want)
	for _, id := range []struct {
		what     string
		set, get uintptr
		value    int
	}{
		{"group", unix.SYS_SETRESGID, unix.SYS_GETRESGID, r.GIDs[0]},
		{"user", unix.SYS_SETRESUID, unix.SYS_GETRESUID, r.UID},
	} {
		v := script.Int(id.value)
		s.Call("become "+id.what+" "+strconv.Itoa(id.value), id.set, v, v, v)
		w := make([]uint64, 4)
		s.Call("read back the "+id.what, id.get, s.Words(w), s.Words(w[1:]), s.Words(w[2:]))
		s.Equal("see the "+id.what+" changed", w, 0, 1, uint64(id.value), uint64(id.value))
		s.Equal("see the "+id.what+" changed", w, 2, 2, uint64(id.value), uint64(id.value))
	}
}

// words returns b as memory of whole pairs of words, filled up with zeros.
func words(b []byte) []uint64 {
	w := make([]uint64, (len(b)+15)/16*2)
	padded := append(slices.Clone(b), make([]byte, 8*len(w)-len(b))...)
	for i := range w {
		w[i] = binary.NativeEndian.Uint64(padded[8*i:])
	}
	return w
}

// same adds a check that found holds want when the step runs.
func (b *builder) same(label string, found, want []uint64) {
	for i := 0; i < len(want); i += 2 {
		b.s.Equal(label, found, i, i+1, want[i], want[i+1])
	}
}

// capabilities sets the final sets. Root gets them from the bounding set when
// it executes a program; any other user only keeps what is ambient.
func (b *builder) capabilities(r *plan.Rights) {
	s := b.s
	caps, inherit := uint64(r.Caps), uint64(0)
	if r.Ambient {
		inherit = caps
	}
	header := []uint64{unix.LINUX_CAPABILITY_VERSION_3} // struct __user_cap_header_struct: version, pid 0
	data := capData(caps, inherit)
	s.Call("set the capabilities", unix.SYS_CAPSET, s.Words(header), s.Words(data))
	found := make([]uint64, 3)
	s.Call("read back the capabilities", unix.SYS_CAPGET, s.Words(header), s.Words(found))
	s.Equal("see the capabilities set", found, 0, 1, data[0], data[1])
	s.Equal("see the capabilities set", found, 2, 2, data[2], data[2])
	// What is not inheritable cannot be ambient: the kernel sees to it.
	for c := range 64 {
		if inherit&(1<<c) != 0 {
			b.prctl("raise an ambient capability", unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c)
			s.Want(b.prctl("read back an ambient capability", unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, c), 1)
		}
	}
}

// capData is struct __user_cap_data_struct, twice: the low halves of the
// effective, permitted and inheritable sets, then the high ones.
func capData(caps, inherit uint64) []uint64 {
	low, high := caps&(1<<32-1), caps>>32
	return []uint64{low | low<<32, inherit&(1<<32-1) | high<<32, high | inherit>>32<<32}
}

// noNewPrivs keeps setuid programs and file capabilities without effect.
func (b *builder) noNewPrivs() {
	if r := b.p.Rights; r != nil && !r.NoNewPrivs {
		return
	}
	b.prctl("set no_new_privs", unix.PR_SET_NO_NEW_PRIVS, 1)
	b.s.Want(b.prctl("read back no_new_privs", unix.PR_GET_NO_NEW_PRIVS), 1)
}
