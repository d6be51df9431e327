package auth

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"

	"singularity/server/route"
	"singularity/server/store"
)

// Event is a line of the audit record: who did what to what, from where, and
// what came of it. It never holds a secret.
type Event struct {
	At      time.Time         `json:"at"`
	Actor   string            `json:"actor"` // the name of the account, or empty
	Token   string            `json:"token,omitempty"`
	Action  string            `json:"action"` // as token.create or image.delete
	Object  string            `json:"object,omitempty"`
	Result  string            `json:"result"` // ok, or why not
	From    string            `json:"from,omitempty"`
	Request string            `json:"request,omitempty"`
	Detail  map[string]string `json:"detail,omitempty"`
	Forget  time.Time         `json:"-"`
}

// auditLife is how long the record is kept in the store; the log has its own.
const auditLife = 400 * 24 * time.Hour

// Audit adds a line to the record. Actor, address and request are those of the
// context. The change it tells of has happened already, so a line that cannot
// be stored goes to the log.
func (s *Service) Audit(ctx context.Context, action, object string, err error, detail map[string]string) {
	c, req := From(ctx), route.Of(ctx)
	now := s.now().UTC()
	e := Event{At: now, Actor: c.Name, Token: c.TokenID, Action: action, Object: printable(object, 300), Result: "ok", Request: req.ID, Detail: map[string]string{}, Forget: now.Add(auditLife)}
	if req.Addr.IsValid() {
		e.From = req.Addr.String()
	}
	if err != nil {
		e.Result = printable(err.Error(), 300)
	}
	for k, v := range detail {
		e.Detail[k] = printable(v, 300)
	}
	s.o.AuditLog.LogAttrs(ctx, slog.LevelInfo, "audit", slog.String("action", e.Action), slog.String("actor", e.Actor), slog.String("token", e.Token), slog.String("object", e.Object),
		slog.String("result", e.Result), slog.String("from", e.From), slog.String("request", e.Request), slog.Any("detail", e.Detail))
	var tail [4]byte
	rand.Read(tail[:])
	key := fmt.Sprintf("%016x-%s", now.UnixNano(), hex.EncodeToString(tail[:]))
	write, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := s.audits.Insert(write, key, e); err != nil {
		slog.ErrorContext(ctx, "an audit line is not stored", "error", err.Error(), "action", e.Action)
	}
}

// Events lists the record, the newest first. Index is empty or one of actor,
// action and object, with the value to find.
func (s *Service) Events(ctx context.Context, index, value, after string, limit int) ([]Event, string, error) {
	q := store.Query{Reverse: true, After: after, Limit: limit}
	if index != "" && value != "" {
		q.Index, q.Equal = index, value
	}
	items, next, err := s.audits.List(ctx, q)
	out := make([]Event, 0, len(items))
	for _, i := range items {
		out = append(out, i.Value)
	}
	return out, next, err
}
