package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	"singularity/client/transfer"
)

const maxFrame = 1 << 20

// Follow writes the log of a build to w until its end. If the connection breaks off
// it begins again, and leaves out what was written. An error of w is returned as it
// is; with any other the build goes on, and Wait tells what comes of it.
func (c *Client) Follow(ctx context.Context, id string, w io.Writer) error {
	var written int64
	lost := time.Time{}
	for {
		n, err := c.follow(ctx, id, written, w)
		if n > written {
			written, lost = n, time.Time{}
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if write, ok := errors.AsType[*WriteError](err); ok {
			return write
		}
		if lost, err = c.again(lost, err); err != nil {
			return fmt.Errorf("the log breaks off: %w", err)
		}
		if err := transfer.Pause(ctx, c.pause); err != nil {
			return err
		}
	}
}

// WriteError is an error of who takes the log.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return e.Err.Error() }

func (e *WriteError) Unwrap() error { return e.Err }

// follow writes what the log has beyond skip, and tells how long it is.
func (c *Client) follow(ctx context.Context, id string, skip int64, w io.Writer) (int64, error) {
	address := "ws" + strings.TrimPrefix(c.Base, "http") + "/v1/build-ws/" + url.PathEscape(id)
	h := http.Header{}
	c.Authorize(h)
	dial, cancel := context.WithTimeout(ctx, callTime)
	conn, res, err := websocket.Dial(dial, address, &websocket.DialOptions{HTTPClient: c.socket, HTTPHeader: h, CompressionMode: websocket.CompressionDisabled})
	cancel()
	if err != nil {
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols && res.Body != nil {
			return 0, transfer.NewStatusError(res, c.TokenSource)
		}
		return 0, transfer.Plain(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxFrame)
	var at int64
	for {
		kind, text, err := conn.Read(ctx)
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			return at, nil
		}
		if err != nil {
			return at, err
		}
		if kind != websocket.MessageText {
			continue
		}
		end := at + int64(len(text))
		if end > skip {
			if _, err := w.Write(text[max(0, skip-at):]); err != nil {
				return at, &WriteError{err}
			}
		}
		at = end
	}
}
