package plan

import (
	"strings"

	"singularity/conf"
)

// Caps is a set of capabilities: bit n is capability n of capabilities(7).
type Caps uint64

// allCaps are all sets that a kernel can know.
const allCaps = ^Caps(0)

// Has tells whether the capability called name is in c.
func (c Caps) Has(name string) bool {
	n := conf.CapNumber(name)
	return n >= 0 && c&(1<<n) != 0
}

// Names returns the capabilities of c with CAP_ before them, in the order of
// their numbers. Those without a name are left out.
func (c Caps) Names() []string {
	var out []string
	for n, name := range strings.Fields(conf.CapNames) {
		if c&(1<<n) != 0 {
			out = append(out, "CAP_"+name)
		}
	}
	return out
}

// ParseCaps returns the set of the names in list, where "all" stands for all of
// them, and the names that it does not know.
func ParseCaps(list []string) (set Caps, unknown []string) {
	for _, l := range list {
		for name := range strings.SplitSeq(l, ",") {
			name = strings.TrimSpace(name)
			switch n := conf.CapNumber(name); {
			case name == "":
			case strings.EqualFold(name, "all") || strings.EqualFold(name, "cap_all"):
				set = allCaps
			case n < 0:
				unknown = append(unknown, name)
			default:
				set |= 1 << n
			}
		}
	}
	return set, unknown
}
