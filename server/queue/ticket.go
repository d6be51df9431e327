package queue

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Priorities, the highest first.
var Priorities = []string{"high", "normal", "low"}

// Jobs is the name to wait for that a ticket is there.
const Jobs = "jobs"

// Ticket stands for one build.
type Ticket struct {
	ID       string
	User     string
	Arch     string
	Priority string
}

func (t Ticket) subject() (string, error) {
	if !slices.Contains(Priorities, t.Priority) || !plain(t.Arch) || !plain(t.ID) || t.User == "" {
		return "", fmt.Errorf("cannot queue the build %q: no such user, priority or architecture", t.ID)
	}
	return fmt.Sprintf("build.%s.%s.%s", t.Arch, t.Priority, hex.EncodeToString([]byte(t.User))), nil
}

// plain tells whether a word may be part of a subject.
func plain(word string) bool {
	return word != "" && len(word) <= 64 && !strings.ContainsFunc(word, func(r rune) bool { return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z') })
}

// Lease is a ticket that somebody has.
type Lease struct {
	ID   string
	Seq  uint64 // of the ticket
	Hold string // what Extend, Done and Return take
}

// Push puts a ticket into the queue and returns its number.
func (q *Queue) Push(ctx context.Context, t Ticket) (uint64, error) {
	subject, err := t.subject()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	ack, err := q.js.Publish(ctx, subject, []byte(t.ID))
	if err != nil {
		return 0, fmt.Errorf("cannot queue the build %q: %w", t.ID, err)
	}
	q.Wake(Jobs)
	return ack.Sequence, nil
}

// Has tells whether a ticket is still there.
func (q *Queue) Has(ctx context.Context, seq uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := q.jobs.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Drop takes a ticket out, if it is there.
func (q *Queue) Drop(ctx context.Context, seq uint64) error {
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	err := q.jobs.DeleteMsg(call, seq)
	if err == nil {
		return nil
	}
	if here, e := q.Has(ctx, seq); e == nil && !here {
		return nil
	}
	return err
}

// line is the tickets of one user, architecture and priority.
type line struct {
	subject, user string
	rank, running int
}

// Next offers tickets of the architectures to take, in their order, until one is
// taken, and tells whether one was. running tells how many builds of a user go on,
// and limit how many tickets of a line may be out at a time.
func (q *Queue) Next(ctx context.Context, archs []string, limit int, running func(ctx context.Context, user string) (int, error), take func(*Lease) (bool, error)) (bool, error) {
	lines, err := q.lines(ctx, archs, running)
	if err != nil {
		return false, err
	}
	for _, l := range lines {
		for {
			lease, err := q.fetch(ctx, l.subject, limit)
			if err != nil {
				return false, err
			}
			if lease == nil {
				break
			}
			taken, err := take(lease)
			if err != nil {
				return false, err
			}
			if taken {
				q.mu.Lock()
				q.served[l.user] = time.Now()
				q.mu.Unlock()
				return true, nil
			}
		}
	}
	return false, nil
}

// lines lists the lines to look at, in their order.
func (q *Queue) lines(ctx context.Context, archs []string, running func(context.Context, string) (int, error)) ([]line, error) {
	var list []line
	for _, arch := range archs {
		if !plain(arch) {
			continue
		}
		call, cancel := context.WithTimeout(ctx, callTime)
		info, err := q.jobs.Info(call, jetstream.WithSubjectFilter("build."+arch+".>"))
		cancel()
		if err != nil {
			return nil, err
		}
		for subject := range info.State.Subjects {
			words := strings.Split(subject, ".")
			if len(words) != 4 {
				continue
			}
			user, err := hex.DecodeString(words[3])
			if err != nil {
				continue
			}
			n, err := running(ctx, string(user))
			if err != nil {
				return nil, err
			}
			list = append(list, line{subject, string(user), slices.Index(Priorities, words[2]), n})
		}
	}
	q.order(list)
	return list, nil
}

// order sorts lines by whose turn it is.
func (q *Queue) order(list []line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	slices.SortFunc(list, func(a, b line) int {
		switch {
		case a.rank != b.rank:
			return a.rank - b.rank
		case a.running != b.running:
			return a.running - b.running
		}
		return q.served[a.user].Compare(q.served[b.user])
	})
}

// idleConsumer is after how long without a question a line is forgotten. A
// ticket that is out then comes out again, so it is longer than any build.
const idleConsumer = 7 * 24 * time.Hour

// fetch takes the first ticket of a line. That a user has no more than limit of
// them out is the server's promise, among all who ask.
func (q *Queue) fetch(ctx context.Context, subject string, limit int) (*Lease, error) {
	c, err := q.consumer(ctx, subject, limit)
	if err != nil {
		return nil, err
	}
	batch, err := c.FetchNoWait(1)
	if err != nil {
		q.forget(subject)
		return nil, err
	}
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		return &Lease{ID: string(m.Data()), Seq: meta.Sequence.Stream, Hold: m.Reply()}, nil
	}
	if err := batch.Error(); err != nil {
		q.forget(subject) // made anew the next time
		return nil, nil
	}
	return nil, nil
}

func (q *Queue) forget(subject string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.consumers, subject)
}

func (q *Queue) consumer(ctx context.Context, subject string, limit int) (jetstream.Consumer, error) {
	q.mu.Lock()
	c, ok := q.consumers[subject]
	q.mu.Unlock()
	if ok {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c, err := q.jobs.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{Durable: strings.ReplaceAll(subject, ".", "-"), FilterSubject: subject, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: q.lease, MaxDeliver: -1, MaxAckPending: limit, InactiveThreshold: idleConsumer})
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.consumers[subject] = c
	return c, nil
}

// Extend keeps a lease for another while.
func (q *Queue) Extend(hold string) error { return q.answer(hold, "+WPI") }

// Done ends a ticket.
func (q *Queue) Done(hold string) error { return q.answer(hold, "+ACK") }

// later is after how long a ticket comes out again that could not be taken.
const later = 2 * time.Second

// Later gives a ticket back that cannot be taken now.
func (q *Queue) Later(hold string) error {
	return q.answer(hold, fmt.Sprintf(`-NAK {"delay": %d}`, later))
}

// Return gives a ticket back at once.
func (q *Queue) Return(hold string) error {
	if err := q.answer(hold, "-NAK"); err != nil {
		return err
	}
	q.Wake(Jobs)
	return nil
}

func (q *Queue) answer(hold, word string) error {
	// Security: only what a message brought is published to.
	if !strings.HasPrefix(hold, "$JS.ACK.") || strings.ContainsAny(hold, " *>\r\n") {
		return errors.New("this is no lease")
	}
	if err := q.conn.Publish(hold, []byte(word)); err != nil {
		return err
	}
	return q.conn.FlushTimeout(callTime)
}
