package librarytest

import (
	"net/http"
	"time"
)

var zero time.Time

// cutter lets a part of an answer by.
type cutter struct {
	http.ResponseWriter
	left int64
}

func (c *cutter) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.ResponseWriter.Write(p)
	c.left -= int64(n)
	if c.left == 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		return n, http.ErrAbortHandler
	}
	return n, err
}
