package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"singularity/api"
)

const maxAnswer = 8 << 20 // a definition in base64, with the rest

// errGone says that the build is over or another worker's.
var errGone = errors.New("the build is over, or was given to another worker")

const callTime = 30 * time.Second

// call makes a call of the internal listener.
func (w *Worker) call(ctx context.Context, method, path string, in io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, w.o.Server+path, in)
	if err != nil {
		return err
	}
	res, err := w.o.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	var e api.Envelope[json.RawMessage]
	switch {
	case res.StatusCode == http.StatusConflict || res.StatusCode == http.StatusNotFound:
		return errGone
	case res.StatusCode == http.StatusNoContent:
		return nil
	case res.StatusCode != http.StatusOK:
		json.Unmarshal(text, &e)
		if e.Error != nil {
			return &refusal{res.StatusCode, e.Error.Message}
		}
		return &refusal{res.StatusCode, res.Status}
	}
	if err := json.Unmarshal(text, &e); err != nil || out == nil {
		return err
	}
	return json.Unmarshal(e.Data, out)
}

// refusal is a no of the server, for a reason.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return r.message }

func (w *Worker) post(ctx context.Context, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return w.call(ctx, http.MethodPost, path, bytes.NewReader(text), out)
}

// claim asks for a build; nil if there is none for now.
func (w *Worker) claim(ctx context.Context) (*api.BuildTask, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	text, err := json.Marshal(api.WorkerClaim{Worker: w.o.Name, Archs: w.archs, Slots: w.o.Slots})
	if err != nil {
		return nil, err
	}
	var t *api.BuildTask
	err = w.call(ctx, http.MethodPost, "/internal/v1/builds/claim", bytes.NewReader(text), &t)
	if err == nil && t != nil && (t.Fence == 0 || len(t.ID) != 24 || t.Limits.Time <= 0 || t.Every <= 0) {
		err = errors.New("the server's task makes no sense")
	}
	return t, err
}

// persist makes a call again and again until it is answered, as long as the
// build may still be ours: a server that starts anew has lost nothing.
func persist(ctx context.Context, call func() error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 3*time.Second) {
		err := call()
		var no *refusal
		if err == nil || errors.Is(err, errGone) || errors.As(err, &no) && no.status < 500 && no.status != http.StatusTooManyRequests {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// download fetches the files of a build.
func (w *Worker) download(ctx context.Context, t *api.BuildTask, to string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/internal/v1/builds/%s/context?fence=%d", w.o.Server, t.ID, t.Fence), nil)
	if err != nil {
		return err
	}
	res, err := w.o.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusConflict {
		return errGone
	}
	if res.StatusCode != http.StatusOK || res.ContentLength < 0 {
		return fmt.Errorf("cannot fetch the files of the build: %s", res.Status)
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, res.Body)
	if err == nil && n != res.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, f.Close())
}
