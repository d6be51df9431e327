package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// ErrDigest says that what came is not what was named.
var ErrDigest = errors.New("content does not match its digest")

// ErrSize says that a server sent more or less than it announced.
var ErrSize = errors.New("the server sent another size than it announced")

// How a download is kept going.
const (
	maxTries   = 6 // in a row, without a byte
	firstPause = 250 * time.Millisecond
	// MaxSize bounds a download whose size nobody announced.
	MaxSize = 1 << 40
)

// Download describes a file to fetch.
type Download struct {
	Client   *http.Client
	URL      string
	Header   http.Header
	Size     int64  // -1: not known
	Digest   string // 64 hexadecimal digits of SHA-256; empty: not known
	Used     string // the source of credentials, for errors
	Progress func(done, total int64)
	// Idle is how long the server may be silent; 0: a minute.
	Idle time.Duration
}

// To fetches d into f and returns the SHA-256 of the content. What f holds
// already is the beginning of it if the digest is known; else it is dropped.
// After an error f holds what came, for the next try, but nothing that is known
// to be wrong.
func (d *Download) To(ctx context.Context, f *os.File) (string, error) {
	sum := sha256.New()
	have, err := d.have(f, sum)
	if err != nil {
		return "", err
	}
	s := d.stream(ctx, have)
	defer s.Close()
	buf := make([]byte, 256<<10)
	restarts := 0
	for {
		n, err := s.Read(buf)
		if n > 0 {
			if _, err := f.Write(buf[:n]); err != nil {
				return "", err
			}
			sum.Write(buf[:n])
		}
		if errors.Is(err, errRestart) {
			if restarts++; restarts > maxTries && s.last != nil {
				err = s.last
			}
			if restarts > maxTries {
				return "", Plain(err)
			}
			sum.Reset()
			s.off, s.etag = 0, ""
			err = empty(f)
		}
		switch {
		case err == io.EOF:
			return d.check(f, sum)
		case errors.Is(err, ErrSize):
			return "", errors.Join(err, empty(f))
		case err != nil:
			return "", err
		}
	}
}

func (d *Download) check(f *os.File, sum hash.Hash) (string, error) {
	got := hex.EncodeToString(sum.Sum(nil))
	if d.Digest != "" && got != d.Digest {
		// Security: the bytes must not be the beginning of a later try.
		empty(f)
		return "", fmt.Errorf("%w: got sha256 %s, want %s", ErrDigest, got, d.Digest)
	}
	return got, nil
}

// have hashes what f holds already and returns its size.
func (d *Download) have(f *os.File, sum hash.Hash) (int64, error) {
	if d.Digest == "" {
		return 0, empty(f)
	}
	n, err := io.Copy(sum, io.NewSectionReader(f, 0, MaxSize))
	if err != nil {
		return 0, err
	}
	if d.Size >= 0 && n > d.Size {
		sum.Reset()
		return 0, empty(f)
	}
	_, err = f.Seek(n, io.SeekStart)
	return n, err
}

func empty(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// Open returns the content as a stream, which is resumed where it breaks off.
// Reading to the end checks the digest, which must be known.
func (d *Download) Open(ctx context.Context) io.ReadCloser {
	return &checked{stream: d.stream(ctx, 0), sum: sha256.New()}
}

type checked struct {
	*stream
	sum hash.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.stream.Read(p)
	c.sum.Write(p[:n])
	if err == io.EOF {
		if got := hex.EncodeToString(c.sum.Sum(nil)); got != c.Digest {
			err = fmt.Errorf("%w: got sha256 %s, want %s", ErrDigest, got, c.Digest)
		}
	}
	return n, err
}

// errRestart says that a server does not go on where its answer broke off.
var errRestart = errors.New("the server sends it from the start again")

// stream reads a download, asking again where it breaks off.
type stream struct {
	*Download
	ctx    context.Context
	off    int64
	total  int64  // -1: not known
	etag   string // a strong validator of what has come so far
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	tries  int
	wait   time.Duration
	last   error // why it had to ask again
}

func (d *Download) stream(ctx context.Context, off int64) *stream {
	return &stream{Download: d, ctx: ctx, off: off, total: d.Size, wait: firstPause}
}

func (s *stream) Close() error {
	if s.body == nil {
		return nil
	}
	err := s.body.Close()
	s.cancel(nil)
	s.body = nil
	return err
}

func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.Size >= 0 && s.off == s.Size && s.body == nil {
			return 0, io.EOF
		}
		var n int
		again, err := true, error(nil)
		if s.body == nil {
			again, err = s.open()
		}
		if err == nil {
			n, again, err = s.read(p)
		}
		if n > 0 {
			s.tries, s.wait = 0, firstPause
			if s.Progress != nil {
				s.Progress(s.off, s.total)
			}
		}
		if err == nil || err == io.EOF || errors.Is(err, errRestart) {
			return n, err
		}
		s.Close()
		s.last = err
		if s.tries++; s.ctx.Err() != nil {
			return n, s.ctx.Err()
		} else if !again || s.tries >= maxTries {
			return n, Plain(err)
		}
		if n > 0 {
			return n, nil
		}
		if err := Pause(s.ctx, s.wait); err != nil {
			return 0, err
		}
		s.wait = min(2*s.wait, 8*time.Second)
	}
}

func (s *stream) read(p []byte) (n int, again bool, err error) {
	n, err = s.body.Read(p)
	s.off += int64(n)
	limit := s.total
	if limit < 0 {
		limit = MaxSize
	}
	switch {
	case s.off > limit:
		return 0, false, fmt.Errorf("%w: more than %d bytes", ErrSize, limit)
	case err == io.ErrUnexpectedEOF, err == io.EOF && s.total >= 0 && s.off < s.total:
		return n, true, fmt.Errorf("the connection broke off after %d of %d bytes", s.off, s.total)
	}
	return n, true, err
}

// open asks for what is missing. again tells whether another try may help.
func (s *stream) open() (again bool, err error) {
	if s.off > 0 && s.Digest == "" && s.etag == "" {
		return false, errRestart
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(s.ctx, onceKey, true))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		cancel(nil)
		return false, err
	}
	if s.Header != nil {
		req.Header = s.Header.Clone()
	}
	if s.off > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(s.off, 10)+"-")
		if s.etag != "" {
			req.Header.Set("If-Range", s.etag)
		}
	}
	res, err := s.Client.Do(req)
	if err != nil {
		cancel(nil)
		return retryable(err), err
	}
	skip, again, err := s.accept(res)
	if err != nil {
		res.Body.Close()
		cancel(nil)
		return again, err
	}
	s.body, s.cancel = &idleReader{ReadCloser: res.Body, limit: s.idle(), cancel: cancel}, cancel
	if skip > 0 {
		if _, err := io.CopyN(io.Discard, s.body, skip); err != nil {
			return true, err
		}
	}
	return true, nil
}

func (d *Download) idle() time.Duration {
	if d.Idle > 0 {
		return d.Idle
	}
	return idleTimeout
}

// accept looks at the head of an answer. skip bytes of it are known already.
func (s *stream) accept(res *http.Response) (skip int64, again bool, err error) {
	switch res.StatusCode {
	case http.StatusPartialContent:
		from, total, ok := contentRange(res.Header.Get("Content-Range"))
		switch {
		case ok && from == s.off:
			return 0, false, s.known(total)
		case s.off == 0:
			return 0, false, fmt.Errorf("%s sent a part that was not asked for", res.Request.URL.Host)
		}
		return 0, false, errRestart
	case http.StatusOK:
		if s.off > 0 && s.Digest == "" {
			return 0, false, errRestart
		}
		if tag := res.Header.Get("Etag"); strings.HasPrefix(tag, `"`) {
			s.etag = tag
		}
		return s.off, false, s.known(res.ContentLength)
	case http.StatusRequestedRangeNotSatisfiable:
		if s.tries > 0 || s.off == 0 {
			return 0, false, NewStatusError(res, s.Used)
		}
		s.tries++
		return 0, false, errRestart
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 0, true, NewStatusError(res, s.Used)
	}
	return 0, false, NewStatusError(res, s.Used)
}

// known compares the size that an answer announces with what is known.
func (s *stream) known(total int64) error {
	switch {
	case s.Size >= 0 && total >= 0 && total != s.Size:
		return fmt.Errorf("%w: %d bytes, want %d", ErrSize, total, s.Size)
	case total > MaxSize:
		return fmt.Errorf("the file has %d bytes, more than the %d that are allowed", total, int64(MaxSize))
	case s.Size < 0:
		s.total = total
	}
	return nil
}

// contentRange reads "bytes FROM-TO/TOTAL"; an unknown total is -1.
func contentRange(s string) (from, total int64, ok bool) {
	s, found := strings.CutPrefix(s, "bytes ")
	span, all, found2 := strings.Cut(s, "/")
	first, _, found3 := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if !found || !found2 || !found3 || err != nil || from < 0 {
		return 0, 0, false
	}
	if all == "*" {
		return from, -1, true
	}
	total, err = strconv.ParseInt(all, 10, 64)
	return from, total, err == nil && total >= from
}

// retryable tells whether a request that had no answer may have one later.
func retryable(err error) bool {
	_, plain := errors.AsType[*PlainError](err)
	return !plain && !errors.Is(err, ErrOffline) && !isTLS(err)
}

// errIdle ends a request whose server fell silent.
var errIdle = errors.New("the server fell silent")

// idleReader cancels the request when nothing comes for a while.
type idleReader struct {
	io.ReadCloser
	limit  time.Duration
	cancel context.CancelCauseFunc
}

func (i *idleReader) Read(p []byte) (int, error) {
	t := time.AfterFunc(i.limit, func() { i.cancel(errIdle) })
	n, err := i.ReadCloser.Read(p)
	if !t.Stop() && errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w for %v", errIdle, i.limit)
	}
	return n, err
}
