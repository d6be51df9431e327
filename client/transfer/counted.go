package transfer

import "io"

// Counted tells how much of a body was read.
type Counted struct {
	R           io.Reader
	Done, Total int64 // bytes; Done is where R begins
	Progress    func(done, total int64)
}

func (c *Counted) Read(p []byte) (int, error) {
	n, err := c.R.Read(p)
	c.Done += int64(n)
	if c.Progress != nil && n > 0 {
		c.Progress(c.Done, c.Total)
	}
	return n, err
}
