package entry

// scrubbed is 1 if the stub of the setuid helper did its work; see suid_amd64.s.
var scrubbed uint64

// Scrubbed tells whether the stub of the setuid helper did its work.
func Scrubbed() bool { return scrubbed == 1 }
