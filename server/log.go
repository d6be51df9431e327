package server

import (
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
)

func newLog(c Config, w io.Writer) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.LogLevel))
	o := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// reopened is a file that is only appended to, and opened anew when asked: so it
// can be moved away while the server runs.
type reopened struct {
	name string
	mu   sync.Mutex
	file *os.File
}

func openLog(name string) (*reopened, error) {
	r := &reopened{name: name}
	return r, r.reopen()
}

func (r *reopened) reopen() error {
	f, err := os.OpenFile(r.name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil {
		r.file.Close()
	}
	r.file = f
	return nil
}

func (r *reopened) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Write(p)
}

func (r *reopened) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
