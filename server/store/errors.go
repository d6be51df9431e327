package store

import "errors"

// Errors that callers tell apart by errors.Is.
var (
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("exists already")       // the key, or the value of a unique index
	ErrConflict    = errors.New("changed by another")   // the revision is not the one that was read
	ErrInvalid     = errors.New("invalid")              // no backend would store it
	ErrContent     = errors.New("content not as named") // size or digest is not the declared one
	ErrBusy        = errors.New("in use")               // the same part arrives twice at once
	ErrUnsupported = errors.New("not supported by this storage")
	ErrFull        = errors.New("no space left in the storage")
)
