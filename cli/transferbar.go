package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"singularity/action"
)

// transferBar shows how much of a file has come or gone, as one line that is
// drawn again and again. It is nil where standard error is no terminal.
type transferBar struct {
	log   *action.Log
	mu    sync.Mutex
	drawn time.Time
	start time.Time
	shown bool
}

func newTransferBar(log *action.Log) *transferBar {
	if !action.IsTerminal(2) || log.Level < action.LevelInfo {
		return nil
	}
	return &transferBar{log: log, start: time.Now()}
}

func (b *transferBar) show(what string, done, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Sub(b.drawn) < redrawAfter && done != total {
		return
	}
	text := fmt.Sprintf("%s: %s", what, byteSize(done))
	if total > 0 {
		text = fmt.Sprintf("%s: %s of %s, %d %%", what, byteSize(done), byteSize(total), done*100/total)
	}
	if s := now.Sub(b.start).Seconds(); s > 1 {
		text += fmt.Sprintf(", %s/s", byteSize(int64(float64(done)/s)))
	}
	b.drawn, b.shown = now, true
	io.WriteString(b.log.Out, eraseLine+action.Printable(text))
	if done == total {
		b.erase()
	}
}

// of is show for one file; nil without a bar.
func (b *transferBar) of(what string) func(done, total int64) {
	if b == nil {
		return nil
	}
	return func(done, total int64) { b.show(what, done, total) }
}

func (b *transferBar) clear() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
}

func (b *transferBar) erase() {
	if b.shown {
		io.WriteString(b.log.Out, eraseLine)
		b.shown = false
	}
}

// each returns show for one file; nil for no bar.
func (b *transferBar) each(what string) func(done, total int64) {
	if b == nil {
		return nil
	}
	return func(done, total int64) { b.show(what, done, total) }
}
