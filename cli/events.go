package cli

import (
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"singularity/action"
	"singularity/build"
	"singularity/build/deffile"
)

// event is a line that build --json writes.
type event struct {
	Event string `json:"event"` // message, progress or end

	Level string `json:"level,omitempty"` // of a message: verbose, info, warning
	Text  string `json:"text,omitempty"`

	Phase string `json:"phase,omitempty"` // of progress
	Bytes int64  `json:"bytes,omitempty"`
	Total int64  `json:"total,omitempty"` // absent where nobody knows
	Done  bool   `json:"done,omitempty"`

	OK     *bool  `json:"ok,omitempty"` // of the end, which is the last line
	Target string `json:"target,omitempty"`
	Error  string `json:"error,omitempty"`
	Hint   string `json:"hint,omitempty"`
	File   string `json:"file,omitempty"` // of a fault in a definition
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// eventsEvery is how often progress is written at most.
const eventsEvery = 200 * time.Millisecond

// events writes what happens for programs. A nil one writes nothing.
type events struct {
	mu    sync.Mutex
	enc   *json.Encoder
	last  time.Time
	phase string
}

func newEvents(w io.Writer) *events { return &events{enc: json.NewEncoder(w)} }

// write writes a line. Whoever read them may be gone: that is no reason to stop.
func (e *events) write(v event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.enc.Encode(v)
}

func (e *events) message(level, text string) {
	if e != nil {
		e.write(event{Event: "message", Level: level, Text: text})
	}
}

// progress is called from one goroutine at a time.
func (e *events) progress(s build.Progress, now time.Time) {
	if e == nil || !s.Done && s.Phase == e.phase && now.Sub(e.last) < eventsEvery {
		return
	}
	e.last, e.phase = now, s.Phase
	e.write(event{Event: "progress", Phase: s.Phase, Bytes: s.Bytes, Total: s.Total, Done: s.Done})
}

// wasKilled tells whether a process with this exit status was ended by a signal.
func wasKilled(s exitStatus) bool { return s > 128 && s <= 128+64 }

// end writes the last line, and returns err. The process that builds has
// written it unless it was killed; the one that started it knows its status.
func (e *events) end(target string, err error) error {
	status, isStatus := errors.AsType[exitStatus](err)
	if _, _, inside := rootKind(); !inside && (err == nil || isStatus && !wasKilled(status)) {
		return err
	}
	ok := err == nil
	v := event{Event: "end", OK: &ok, Target: target}
	if err != nil {
		v.Error = err.Error()
		if isStatus {
			v.Error = "the build was killed"
		}
		if f, ok := errors.AsType[*action.Failure](err); ok {
			v.Hint = f.Hint
		}
		if d, ok := errors.AsType[*deffile.Error](err); ok {
			v.File, v.Line, v.Column = d.File, d.Line, d.Column
		}
	}
	e.write(v)
	return err
}
