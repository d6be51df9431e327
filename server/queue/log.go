package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// MaxChunk bounds a piece of a log.
const MaxChunk = 32 << 10

const offsetHeader = "Offset"

// Chunk is a piece of a log.
type Chunk struct {
	Seq    uint64
	Offset int64 // of its first byte in the log
	Text   []byte
}

// Append adds text to the log of a build, if offset is where the log ends now,
// and returns the new end. What was appended before is not appended again.
func (q *Queue) Append(ctx context.Context, id string, offset int64, text []byte) (int64, error) {
	if !plain(id) || len(text) > MaxChunk {
		return 0, errors.New("cannot write the log: bad id or size")
	}
	end, err := q.LogSize(ctx, id)
	if err != nil || len(text) == 0 {
		return end, err
	}
	switch {
	case offset+int64(len(text)) <= end && offset >= 0:
		return end, nil // said before, and the answer got lost
	case offset >= 0 && offset != end:
		return end, fmt.Errorf("cannot write the log at %d: it ends at %d", offset, end)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	m := nats.NewMsg("log." + id)
	m.Data = text
	m.Header.Set(offsetHeader, strconv.FormatInt(end, 10))
	if _, err := q.js.PublishMsg(ctx, m, jetstream.WithMsgID(id+"-"+strconv.FormatInt(end, 10))); err != nil {
		return end, err
	}
	q.Wake(id)
	return end + int64(len(text)), nil
}

// LogSize tells where the log of a build ends.
func (q *Queue) LogSize(ctx context.Context, id string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	m, err := q.logs.GetLastMsgForSubject(ctx, "log."+id)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c, err := chunk(m)
	return c.Offset + int64(len(c.Text)), err
}

// Read returns the first chunk of a log whose number is at least seq, or false if
// there is none yet.
func (q *Queue) Read(ctx context.Context, id string, seq uint64) (Chunk, bool, error) {
	if !plain(id) {
		return Chunk{}, false, errors.New("cannot read the log: bad id")
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	m, err := q.logs.GetMsg(ctx, max(seq, 1), jetstream.WithGetMsgSubject("log."+id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Chunk{}, false, nil
	}
	if err != nil {
		return Chunk{}, false, err
	}
	c, err := chunk(m)
	return c, err == nil, err
}

func chunk(m *jetstream.RawStreamMsg) (Chunk, error) {
	off, err := strconv.ParseInt(m.Header.Get(offsetHeader), 10, 64)
	return Chunk{Seq: m.Sequence, Offset: off, Text: m.Data}, err
}

// Forget removes the log of a build, which is kept elsewhere by then.
func (q *Queue) Forget(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return q.logs.Purge(ctx, jetstream.WithPurgeSubject("log."+id))
}
