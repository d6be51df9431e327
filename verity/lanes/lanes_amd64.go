package lanes

// cpuid is the instruction of that name.
//
//go:noescape
func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)

//go:noescape
func blocks(s, t *State, p, q *byte, n int)

//go:noescape
func block(s *State, p *byte, n int)

// Have tells whether this processor can do it.
func Have() bool {
	const ssse3, sse41, sha = 1 << 9, 1 << 19, 1 << 29
	leaves, _, _, _ := cpuid(0, 0)
	if leaves < 7 {
		return false
	}
	_, _, c, _ := cpuid(1, 0)
	_, b, _, _ := cpuid(7, 0)
	return c&ssse3 != 0 && c&sse41 != 0 && b&sha != 0
}
