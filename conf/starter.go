//go:build starter

package conf

// Others are the directives that the setuid helper does not read.
type Others struct{}

func others() []Directive { return nil }

// ParseSize is for directives that the setuid helper does not read.
func ParseSize(string) (int64, bool) { return 0, false }
