package fusefs

// lean decides whether lists of names carry the attributes of all files.
//
// The kernel asks for names with attributes (READDIRPLUS) whenever it first
// reads a directory, whoever reads it. To a program that only wants names they
// are a waste, and a costly one: the kernel makes an inode for each. To one that
// asks for every file's attributes next they save a request per file. So a list
// has them for directories only, which tree walkers ask for always, until
// LOOKUPs follow for a good part of what was left out. Then lists are full for
// a while, and after that it is tried again. Used by the reader only.
type lean struct {
	recent  [16]uint64 // nodes of the directories listed last without attributes
	next    int
	omitted int // names listed without attributes since the last decision
	asked   int // LOOKUPs that this caused
	full    int // names that may still be listed with attributes
}

const (
	leanFull  = 8192 // names listed with attributes before the next trial
	leanTrial = 2048 // names after which the counters fade
)

// omit reports whether the list of a directory leaves attributes out.
func (l *lean) omit(dir uint64) bool {
	if l.full > 0 {
		return false
	}
	for _, d := range l.recent {
		if d == dir {
			return true
		}
	}
	l.recent[l.next] = dir
	l.next = (l.next + 1) % len(l.recent)
	return true
}

// listed counts the names of a list, of which some had no attributes.
func (l *lean) listed(names, omitted int) {
	l.full = max(0, l.full-names)
	if l.omitted += omitted; l.omitted > leanTrial {
		l.omitted /= 2
		l.asked /= 2
	}
}

// lookup counts a LOOKUP of a file that exists and is not a directory.
func (l *lean) lookup(dir uint64) {
	if l.full > 0 {
		return
	}
	for _, d := range l.recent {
		if d != dir {
			continue
		}
		if l.asked++; l.asked >= 4 && l.asked*4 > l.omitted {
			*l = lean{full: leanFull}
		}
		return
	}
}
