package route

import "unicode"

// Acts tells whether a character acts on a terminal, or turns the direction of the
// text around it.
func Acts(r rune) bool {
	return unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}
