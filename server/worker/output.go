package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"singularity/api"
)

const (
	flushEvery = 200 * time.Millisecond
	maxChunk   = 16 << 10 // of the log, in one call
	maxPending = 1 << 20  // then the build waits for the log
)

// output sends what a build says to the server's log, without secrets. A build
// that says too much is heard no more, and goes on.
type output struct {
	w    *Worker
	task *api.BuildTask
	ctx  context.Context

	mu      sync.Mutex
	pending []byte
	secrets [][]byte
	taken   int64
	room    *sync.Cond
	wake    chan struct{}
	done    chan struct{}
	closed  bool
	broken  bool
}

func newOutput(ctx context.Context, w *Worker, t *api.BuildTask) *output {
	o := &output{w: w, task: t, ctx: ctx, wake: make(chan struct{}, 1), done: make(chan struct{})}
	o.room = sync.NewCond(&o.mu)
	o.hide(secretsOf(t)...)
	go o.send()
	return o
}

// hide has texts masked from now on.
func (o *output) hide(texts ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range texts {
		if len(t) >= 4 {
			o.secrets = append(o.secrets, []byte(t))
		}
	}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.pending) > maxPending && !o.broken {
		o.room.Wait()
	}
	// A little more than the limit, so that the server sees that it is more.
	if left := o.task.Limits.Output + maxChunk - o.taken; left > 0 && !o.broken {
		part := p[:min(int64(len(p)), left)]
		o.pending = append(o.pending, part...)
		o.taken += int64(len(part))
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
	return len(p), nil
}

// close sends what is left.
func (o *output) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
	<-o.done
}

// send sends what has come, at once if that is much or the first, and else a
// little later.
func (o *output) send() {
	defer close(o.done)
	var last time.Time
	offset := int64(-1)
	for {
		<-o.wake
		if wait := flushEvery - time.Since(last); wait > 0 {
			o.pause(wait)
		}
		last = time.Now()
		for {
			chunk, end := o.next()
			if len(chunk) > 0 {
				if err := o.post(&offset, chunk); err != nil {
					o.fail()
				}
			}
			if end {
				return
			}
			if len(chunk) == 0 {
				break
			}
		}
	}
}

// pause waits for more to send, or for the end.
func (o *output) pause(wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		o.mu.Lock()
		now := o.closed || len(o.pending) >= maxChunk
		o.mu.Unlock()
		if now {
			return
		}
		select {
		case <-timer.C:
			return
		case <-o.wake:
		}
	}
}

func (o *output) fail() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken, o.pending = true, nil
	o.room.Broadcast()
}

func (o *output) post(offset *int64, chunk []byte) error {
	return persist(o.ctx, func() error {
		ctx, cancel := context.WithTimeout(o.ctx, callTime)
		defer cancel()
		var end int64
		err := o.w.call(ctx, "POST", fmt.Sprintf("/internal/v1/builds/%s/log?fence=%d&offset=%d", o.task.ID, o.task.Fence, *offset), bytes.NewReader(chunk), &end)
		var no *refusal
		if errors.As(err, &no) {
			*offset = -1
		}
		if err == nil {
			*offset = end
		}
		return err
	})
}

// next takes a piece to send: whole characters, without secrets, and without what
// may be the beginning of one unless nothing follows.
func (o *output) next() (chunk []byte, end bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	keep := 0
	if !o.closed {
		keep = max(half(o.pending), begun(o.pending, o.secrets))
	}
	text := o.pending[:len(o.pending)-keep]
	for _, s := range o.secrets {
		text = bytes.ReplaceAll(text, s, []byte("***"))
	}
	rest := o.pending[len(o.pending)-keep:]
	if len(text) > maxChunk {
		cut := maxChunk - max(half(text[:maxChunk]), 0)
		chunk, rest = text[:cut], append(bytes.Clone(text[cut:]), rest...)
	} else {
		chunk = text
	}
	chunk = bytes.ToValidUTF8(bytes.Clone(chunk), []byte("?"))
	o.pending = bytes.Clone(rest)
	o.room.Broadcast()
	return chunk, o.closed && len(o.pending) == 0
}

// half is how many bytes at the end are the beginning of a character.
func half(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if tail := text[len(text)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return n
			}
			return 0
		}
	}
	return 0
}

// begun is how many bytes at the end may be the beginning of a secret.
func begun(text []byte, secrets [][]byte) int {
	most := 0
	for _, s := range secrets {
		for n := min(len(s)-1, len(text)); n > most; n-- {
			if bytes.HasSuffix(text, s[:n]) {
				most = n
				break
			}
		}
	}
	return most
}
