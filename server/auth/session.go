package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"singularity/server/route"
	"singularity/server/store"
)

// session is a browser that somebody logged in with. Its key in the store is
// the SHA-256 of what the cookie holds.
type session struct {
	User    string    `json:"user"`
	CSRF    string    `json:"csrf"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"`
	Expires time.Time `json:"expires"`
	From    string    `json:"from"`
	Client  string    `json:"client"`
	Way     string    `json:"way"` // password, link or the name of a provider
}

func (s *Service) cookieName() string {
	if s.o.Secure {
		return "__Host-session"
	}
	return "session"
}

func (s *Service) cookie(value string, age time.Duration) *http.Cookie {
	c := &http.Cookie{Name: s.cookieName(), Value: value, Path: "/", Secure: s.o.Secure, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(age / time.Second)}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

func sessionKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// beginSession logs the browser in, under a new secret whatever it sent before.
func (s *Service) beginSession(w http.ResponseWriter, r *http.Request, user, way string) error {
	now, secret := s.now().UTC(), randomText(48)
	v := session{User: user, CSRF: randomText(32), Created: now, Seen: now, Expires: now.Add(s.o.SessionIdle),
		From: route.Of(r.Context()).Addr.String(), Client: printable(r.UserAgent(), 200), Way: way}
	if _, err := s.sessions.Insert(r.Context(), sessionKey(secret), v); err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(secret, s.o.SessionLife))
	return nil
}

// bySession returns the caller with the cookie of a session. A session that has
// ended is no bad credential: the browser is just not logged in.
func (s *Service) bySession(r *http.Request) (Caller, error) {
	cookies := r.CookiesNamed(s.cookieName())
	if len(cookies) != 1 || len(cookies[0].Value) != 48 {
		return Caller{}, nil
	}
	key := sessionKey(cookies[0].Value)
	i, err := s.sessions.Get(r.Context(), key)
	if isNotFound(err) {
		return Caller{}, nil
	}
	if err != nil {
		return Caller{}, err
	}
	c, err := s.caller(r.Context(), i.Value.User)
	if err != nil || c.Invalid {
		return Caller{}, err
	}
	now := s.now().UTC()
	end := i.Value.Created.Add(s.o.SessionLife)
	if !now.Before(end) {
		return Caller{}, nil
	}
	if now.Sub(i.Value.Seen) > 5*time.Minute {
		i.Value.Seen, i.Value.Expires = now, now.Add(s.o.SessionIdle)
		if i.Value.Expires.After(end) {
			i.Value.Expires = end
		}
		s.sessions.Replace(r.Context(), i) // another request may have done it
	}
	c.session, c.csrf, c.Scopes = key, i.Value.CSRF, Scopes
	return c, nil
}

// endSessions logs an account out everywhere, but for the session except.
func (s *Service) endSessions(ctx context.Context, user, except string) error {
	for i, err := range s.sessions.All(ctx, store.Query{Index: "user", Equal: user}) {
		if err != nil {
			return err
		}
		if i.Key == except {
			continue
		}
		if err := s.sessions.Delete(ctx, i.Key, 0); err != nil && !isNotFound(err) {
			return err
		}
	}
	return nil
}

// SessionInfo is what its owner may see of a session.
type SessionInfo struct {
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"`
	From    string    `json:"from"`
	Client  string    `json:"client"`
	Way     string    `json:"way"`
	Current bool      `json:"current"`
}

// Sessions lists where the caller is logged in.
func (s *Service) Sessions(ctx context.Context, c Caller) ([]SessionInfo, error) {
	var out []SessionInfo
	for i, err := range s.sessions.All(ctx, store.Query{Index: "user", Equal: c.ID}) {
		if err != nil {
			return nil, err
		}
		v := i.Value
		out = append(out, SessionInfo{v.Created, v.Seen, v.From, v.Client, v.Way, i.Key == c.session})
	}
	return out, nil
}
