package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"singularity/action"
	"singularity/build"
)

const (
	redrawAfter = 200 * time.Millisecond
	eraseLine   = "\r\x1b[K"
)

// progress shows how far a build is: on a terminal as one line that is drawn
// again and again, elsewhere as a line when a long step has ended. It is also
// the log of the build, so that messages and that line do not mix.
type progress struct {
	log      *action.Log
	terminal bool
	events   *events // nil without --json

	mu    sync.Mutex
	phase string
	start time.Time
	drawn time.Time
	shown bool // the line is on the screen
}

func newProgress(log *action.Log, terminal bool) *progress {
	return &progress{log: log, terminal: terminal && log.Level >= action.LevelInfo}
}

// show takes the state of a step.
func (p *progress) show(s build.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.events.progress(s, now)
	if s.Phase != p.phase {
		p.phase, p.start, p.drawn = s.Phase, now, now
	}
	passed := now.Sub(p.start)
	text := fmt.Sprintf("%s: %s in %.1f s", s.Phase, byteSize(s.Bytes), passed.Seconds())
	switch {
	case s.Done:
		p.erase()
		p.phase = ""
		if passed >= time.Second {
			p.log.Info(text)
		} else {
			p.log.Verbose(text)
		}
	case p.terminal && now.Sub(p.drawn) >= redrawAfter:
		p.drawn, p.shown = now, true
		io.WriteString(p.log.Out, eraseLine+action.Printable(text))
	}
}

// clear takes the line off the screen.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
}

func (p *progress) erase() {
	if p.shown {
		io.WriteString(p.log.Out, eraseLine)
		p.shown = false
	}
}

// Info implements build.Log.
func (p *progress) Info(msg string) { p.clear(); p.events.message("info", msg); p.log.Info(msg) }

// Warning implements build.Log.
func (p *progress) Warning(msg string) {
	p.clear()
	p.events.message("warning", msg)
	p.log.Warning(msg)
}

// Verbose implements build.Log.
func (p *progress) Verbose(msg string) {
	p.events.message("verbose", msg)
	if p.log.Level >= action.LevelVerbose {
		p.clear()
		p.log.Verbose(msg)
	}
}
