//go:build !amd64

package lanes

// Have tells whether this processor can do it.
func Have() bool { return false }

func blocks(s, t *State, p, q *byte, n int) { panic("lanes: not on this processor") }

func block(s *State, p *byte, n int) { panic("lanes: not on this processor") }
