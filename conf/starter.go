//go:build starter

package conf

// Others are the directives that the setuid helper does not read.
type Others struct{}

func others() []Directive { return nil }

// refuses says what is wrong with the value of a directive that holds a text. Those of
// the helper are choices.
func (d *Directive) refuses(value string) string { return d.chosen(value) }
