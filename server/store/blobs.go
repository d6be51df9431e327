package store

import (
	"context"
	"io"
	"iter"
	"time"
)

// Content is what the sender says about bytes that arrive. A size of -1 and an
// empty digest are not known.
type Content struct {
	Size   int64
	SHA256 string // hexadecimal
}

// Unknown is content of which the sender says nothing.
var Unknown = Content{Size: -1}

// Info is what the storage knows about a blob.
type Info struct {
	Name     string
	Size     int64
	SHA256   string // set by Put and Complete alone: nothing is read again to know it
	Modified time.Time
}

// Blob is an open blob. It stays readable when the blob is deleted or replaced
// meanwhile.
type Blob interface {
	io.ReadSeeker
	io.ReaderAt
	io.Closer
	Info() Info
}

// Plan is how an upload in parts comes. With a PartSize every part but the last
// has it and parts may come in any order; with PartSize 0 parts of any size are
// appended one after another, and Size may be -1.
type Plan struct {
	Size     int64
	PartSize int64
}

// Parts returns the number of parts of the plan, 0 if it does not say.
func (p Plan) Parts() int {
	if p.PartSize <= 0 || p.Size < 0 {
		return 0
	}
	return int((p.Size + p.PartSize - 1) / p.PartSize)
}

// Size of the part with a number from 1.
func (p Plan) Part(number int) int64 {
	return min(p.PartSize, p.Size-int64(number-1)*p.PartSize)
}

// Part is a part that has arrived.
type Part struct {
	Number int
	Size   int64
	SHA256 string
	Tag    string // what the storage wants to see again at completion
}

// Upload is an upload that goes on.
type Upload struct {
	ID      string
	Plan    Plan
	Size    int64 // what has arrived
	Parts   []Part
	Started time.Time
}

// Access is what a presigned address lets its holder do.
type Access struct {
	Method  string // GET or PUT
	Name    string // of a blob, or
	Upload  string // of an upload with the number of a part
	Part    int
	Content Content
	Expires time.Duration
}

// Blobs keeps streams of bytes. A blob is whole or absent, at every moment and
// after every crash. What arrives is read to its declared size and no further.
type Blobs interface {
	// Put stores what r gives as name, in place of an older blob. ErrContent:
	// size or digest is not the declared one, and nothing has changed.
	Put(ctx context.Context, name string, r io.Reader, want Content) (Info, error)
	// Open opens a blob for reading from any place, or returns ErrNotFound.
	Open(ctx context.Context, name string) (Blob, error)
	Stat(ctx context.Context, name string) (Info, error)
	// List gives the blobs whose names begin with prefix, in order.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// Delete removes a blob, or returns ErrNotFound.
	Delete(ctx context.Context, name string) error

	// Start begins an upload in parts.
	Start(ctx context.Context, p Plan) (Upload, error)
	// PutPart stores one part, in place of an older one with its number.
	PutPart(ctx context.Context, upload string, number int, r io.Reader, want Content) (Part, error)
	// Complete makes the parts the blob name if they are all there and as a
	// whole what want says, and ends the upload. ErrContent leaves the upload.
	Complete(ctx context.Context, upload, name string, want Content) (Info, error)
	// Abort forgets an upload and frees its bytes; ErrNotFound.
	Abort(ctx context.Context, upload string) error
	// Upload tells how far an upload is, or returns ErrNotFound.
	Upload(ctx context.Context, upload string) (Upload, error)
	// Uploads gives all that have begun and not ended.
	Uploads(ctx context.Context) iter.Seq2[Upload, error]

	// Presign returns an address of the storage itself with which a client
	// moves the bytes past this program. ErrUnsupported: the storage has none,
	// and the service serves the bytes under an address of its own.
	Presign(ctx context.Context, a Access) (string, error)

	Ping(ctx context.Context) error
	Close() error
}
