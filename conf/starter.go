//go:build starter

package conf

func others() []Directive { return nil }

// ParseSize is for directives that the setuid helper does not read.
func ParseSize(string) (int64, bool) { return 0, false }
