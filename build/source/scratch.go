package source

import "context"

// scratch leaves the directory empty: %setup and %files fill it.
type scratch struct{}

func (scratch) Fetch(context.Context, string) error { return nil }
