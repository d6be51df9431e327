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

const (
	maxFrame = 1 << 20
	retries  = 30 * time.Second // without a server
)

// Follow writes the log of a build to w until the build is over. If the
// connection breaks off it begins again, and leaves out what was written.
func (c *Client) Follow(ctx context.Context, id string, w io.Writer) error {
	var written int64
	lost := time.Time{}
	for {
		n, err := c.follow(ctx, id, written, w)
		if n > written {
			written, lost = n, time.Time{}
		}
		var refused *transfer.StatusError
		var write *writeError
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case errors.As(err, &write):
			return write.error
		case errors.As(err, &refused) && refused.Code < 500:
			return err
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > retries:
			return fmt.Errorf("the log breaks off: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// writeError is one of this side.
type writeError struct{ error }

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
				return at, &writeError{err}
			}
		}
		at = end
	}
}
