//go:build starter

package conf

import "slices"

// Others are the directives that the setuid helper does not read.
type Others struct{}

// Directives is the table without those.
func Directives() []Directive { return boundary }

// allows tells whether a directive that holds a text may have that value. Those of
// the helper are choices.
func (d *Directive) allows(value string) bool { return slices.Contains(d.Allowed, value) }
