package builder

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"singularity/server/queue"
	"singularity/server/route"
	"singularity/server/store"
)

const (
	pingEvery = 20 * time.Second // proxies cut what is silent
	stallTime = 60 * time.Second // of a reader
	lookAgain = time.Second      // in case a wake-up got lost
)

func logBlob(id string) string { return "builds/" + id + "/log" }

// follow calls write with the log of a job from its start, until the job is over
// and the log is at its end. Then it returns nil. idle is called when there is
// nothing new.
func (s *Service) follow(ctx context.Context, id string, write func([]byte) error) error {
	var seq uint64
	var done int64
	for {
		wake := s.queue.Waiting(id)
		c, ok, err := s.queue.Read(ctx, id, seq+1)
		if err != nil {
			return err
		}
		if ok {
			// Lines may be cut where the log moved on between two looks.
			if text := c.Text[min(int64(len(c.Text)), max(0, done-c.Offset)):]; len(text) > 0 {
				if err := write(text); err != nil {
					return err
				}
			}
			seq, done = c.Seq, max(done, c.Offset+int64(len(c.Text)))
			continue
		}
		j, err := s.jobs.Get(ctx, id)
		if err != nil {
			return err
		}
		if j.Value.Settled {
			return s.rest(ctx, id, done, write)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stopping:
			return errStopping
		case <-wake:
		case <-time.After(lookAgain):
		}
	}
}

var errStopping = errors.New("the server stops")

// rest gives what the whole log has from a place on.
func (s *Service) rest(ctx context.Context, id string, from int64, write func([]byte) error) error {
	b, err := s.blobs.Open(ctx, logBlob(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Close()
	buf := make([]byte, 0, queue.MaxChunk)
	for at := from; ; {
		n, err := b.ReadAt(buf[len(buf):cap(buf)], at)
		at += int64(n)
		buf = buf[:len(buf)+n]
		whole := len(buf) - halfRune(buf)
		if err != nil {
			whole = len(buf)
		}
		if whole > 0 {
			if e := write(buf[:whole]); e != nil {
				return e
			}
			buf = append(buf[:0], buf[whole:]...)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// halfRune is how many bytes at the end begin a character that is not whole.
func halfRune(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if c := text[len(text)-n]; utf8.RuneStart(c) {
			if !utf8.FullRune(text[len(text)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// watch sends the log over a web socket. It ends with code 1000 when the job is
// over, whatever came of it: clients take any other code for a fault of the log,
// and ask for the status at once.
func (s *Service) watch(w http.ResponseWriter, r *http.Request) error {
	j, err := s.find(r)
	if err != nil {
		return err
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return route.Errorf(http.StatusUpgradeRequired, "the log comes over a web socket; /v1/build/%s/log is it as text", j.ID)
	}
	// Security: a browser sends its cookie to any site's socket: its Origin must
	// be ours. Programs send none.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{s.host}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil // it has answered
	}
	defer c.CloseNow()
	ctx, cancel := context.WithCancel(c.CloseRead(context.WithoutCancel(r.Context())))
	defer cancel()
	go s.ping(ctx, cancel, c)
	err = s.follow(ctx, j.ID, func(text []byte) error {
		ctx, cancel := context.WithTimeout(ctx, stallTime)
		defer cancel()
		return c.Write(ctx, websocket.MessageText, text)
	})
	switch {
	case err == nil:
		c.Close(websocket.StatusNormalClosure, "")
	case errors.Is(err, errStopping):
		c.Close(websocket.StatusGoingAway, "the server stops: ask again")
	default:
		c.Close(websocket.StatusInternalError, "")
	}
	return nil
}

func (s *Service) ping(ctx context.Context, cancel func(), c *websocket.Conn) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wait, done := context.WithTimeout(ctx, stallTime)
		err := c.Ping(wait)
		done()
		if err != nil {
			cancel()
			return
		}
	}
}

// readLog answers with the log as it is now, or as it is written until the build
// is over.
func (s *Service) readLog(w http.ResponseWriter, r *http.Request) error {
	j, err := s.find(r)
	if err != nil {
		return err
	}
	form := r.URL.Query()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	ctx, id := r.Context(), j.ID
	if form.Get("follow") == "true" || j.State.over() && !j.Settled { // soon it is whole
		out := http.NewResponseController(w)
		s.follow(ctx, id, func(text []byte) error {
			if _, err := w.Write(text); err != nil {
				return err
			}
			return out.Flush()
		})
		return nil // what was sent cannot be taken back
	}
	write := func(text []byte) error {
		_, err := w.Write(text)
		return err
	}
	var seq uint64
	var done int64
	for {
		c, ok, err := s.queue.Read(ctx, id, seq+1)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := write(c.Text); err != nil {
			return nil
		}
		seq, done = c.Seq, c.Offset+int64(len(c.Text))
	}
	if j.Settled || j.State.over() {
		if tail, err := strconv.ParseInt(form.Get("tail"), 10, 64); err == nil && tail > 0 && done == 0 {
			done = s.tail(ctx, id, tail)
		}
		s.rest(ctx, id, done, write)
	}
	return nil
}

// tail is where the last so many bytes of a whole log begin: after a line's end.
func (s *Service) tail(ctx context.Context, id string, size int64) int64 {
	b, err := s.blobs.Open(ctx, logBlob(id))
	if err != nil {
		return 0
	}
	defer b.Close()
	at := b.Info().Size - size
	if at <= 0 {
		return 0
	}
	buf := make([]byte, min(size, 64<<10))
	n, _ := b.ReadAt(buf, at-1)
	if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
		return at + int64(i)
	}
	return at
}
