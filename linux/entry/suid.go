package entry

// scrubbed is 1 if the stub of the setuid helper ran; see suid_amd64.s.
var scrubbed uint64

// Scrubbed tells whether the stub of the setuid helper ran.
func Scrubbed() bool { return scrubbed == 1 }
