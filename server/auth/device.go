package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/route"
	"singularity/server/store"
)

// device is a log-in that began in a terminal and waits for its user's browser,
// as RFC 8628 has it. Its key is the SHA-256 of the code that the terminal keeps;
// the code that the user types is short, lives ten minutes, and guesses of it
// are counted.
type device struct {
	UserCode string    `json:"userCode"`
	Client   string    `json:"client"`
	From     string    `json:"from"`
	Scopes   []Scope   `json:"scopes"`
	Expires  time.Time `json:"expires"`
	Polled   time.Time `json:"polled,omitzero"`
	User     string    `json:"user,omitempty"` // who approved it
	Denied   bool      `json:"denied,omitempty"`
}

const (
	deviceLife     = 10 * time.Minute
	deviceInterval = 2 * time.Second
	deviceGrant    = "urn:ietf:params:oauth:grant-type:device_code"
	maxDevices     = 10_000
)

// userCode has no vowels, so that no words come out, and nothing to mix up.
func userCode() string {
	const letters = "BCDFGHJKLMNPQRSTVWXZ"
	out, buf := make([]byte, 0, 9), make([]byte, 1)
	for len(out) < 9 {
		if len(out) == 4 {
			out = append(out, '-')
		}
		if rand.Read(buf); buf[0] < 240 {
			out = append(out, letters[buf[0]%20])
		}
	}
	return string(out)
}

// cleanUserCode forgives lower case, spaces and a missing dash.
func cleanUserCode(text string) string {
	text = strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, strings.ToUpper(printable(text, 32)))
	if len(text) != 8 {
		return ""
	}
	return text[:4] + "-" + text[4:]
}

// startDevice answers a terminal that wants to log in.
func (s *Service) startDevice(w http.ResponseWriter, r *http.Request) error {
	client := printable(r.PostFormValue("client_id"), 80)
	if client == "" {
		return oauthRefuse(w, "invalid_request")
	}
	scopes := CommandLine
	if words := strings.Fields(r.PostFormValue("scope")); len(words) > 0 {
		scopes = nil
		for _, word := range words {
			if !slices.Contains(Scopes, Scope(word)) {
				return oauthRefuse(w, "invalid_scope")
			}
			scopes = append(scopes, Scope(word))
		}
	}
	if n, err := s.devices.Count(r.Context(), store.Query{}); err != nil {
		return err
	} else if n >= maxDevices {
		return route.Errorf(http.StatusServiceUnavailable, "many people log in at this moment: try again")
	}
	code := randomText(43)
	d := device{UserCode: userCode(), Client: client, From: route.Of(r.Context()).Addr.String(), Scopes: scopes, Expires: s.now().Add(deviceLife).UTC()}
	if _, err := s.devices.Insert(r.Context(), sessionKey(code), d); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	route.JSON(w, http.StatusOK, api.DeviceCode{DeviceCode: code, UserCode: d.UserCode, VerificationURI: s.url("/auth/device"),
		Complete: s.url("/auth/device?code=" + d.UserCode), ExpiresIn: int(deviceLife / time.Second), Interval: int(deviceInterval / time.Second)})
	return nil
}

// pollDevice answers the terminal's question whether its user has agreed.
func (s *Service) pollDevice(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	if r.PostFormValue("grant_type") != deviceGrant {
		return oauthRefuse(w, "unsupported_grant_type")
	}
	ctx, key := r.Context(), sessionKey(r.PostFormValue("device_code"))
	i, err := s.devices.Get(ctx, key)
	switch {
	case isNotFound(err):
		return oauthRefuse(w, "expired_token")
	case err != nil:
		return err
	case i.Value.Denied:
		s.devices.Delete(ctx, key, 0)
		return oauthRefuse(w, "access_denied")
	case i.Value.User == "":
		fast := s.now().Sub(i.Value.Polled) < deviceInterval/2
		i.Value.Polled = s.now().UTC()
		if _, err := s.devices.Replace(ctx, i); err != nil && !errors.Is(err, store.ErrConflict) && !isNotFound(err) {
			return err
		}
		if fast {
			return oauthRefuse(w, "slow_down")
		}
		return oauthRefuse(w, "authorization_pending")
	}
	// Of two that ask at once, one gets the token.
	if err := s.devices.Delete(ctx, key, i.Rev); err != nil {
		return oauthRefuse(w, "expired_token")
	}
	c, err := s.caller(ctx, i.Value.User)
	if err != nil || c.Invalid {
		return errors.Join(err, oauthRefuse(w, "access_denied"))
	}
	text, info, err := s.mint(ctx, c.ID, "", i.Value.Client, i.Value.Scopes, s.o.TokenLife)
	if err != nil {
		return err
	}
	s.Audit(With(ctx, c), "token.create", info.ID, nil, map[string]string{"name": info.Name, "way": "device"})
	route.JSON(w, http.StatusOK, api.DeviceToken{AccessToken: text, TokenType: "Bearer", ExpiresIn: int(s.o.TokenLife / time.Second), Scope: strings.Join(scopeNames(info.Scopes), " ")})
	return nil
}

func oauthRefuse(w http.ResponseWriter, code string) error {
	route.JSON(w, http.StatusBadRequest, api.DeviceToken{Error: code})
	return nil
}

var errDevice = route.Errorf(http.StatusNotFound, "there is no such code: it has been used, has expired, or is mistyped")

// findDevice returns the log-in with the code that a user typed.
func (s *Service) findDevice(ctx context.Context, code string) (store.Item[device], error) {
	from := route.Of(ctx).Addr
	if err := s.guesses.check(from, s.now()); err != nil {
		return store.Item[device]{}, err
	}
	i, err := s.devices.Find(ctx, "code", cleanUserCode(code))
	if isNotFound(err) || err == nil && (i.Value.User != "" || i.Value.Denied) {
		s.guesses.failed(from, s.now())
		return i, errDevice
	}
	return i, err
}

// decideDevice notes what the user in the browser said.
func (s *Service) decideDevice(ctx context.Context, c Caller, code string, agree bool) error {
	i, err := s.findDevice(ctx, code)
	if err != nil {
		return err
	}
	_, err = s.devices.Update(ctx, i.Key, func(d *device) error {
		if d.User != "" || d.Denied {
			return errDevice
		}
		if agree {
			d.User = c.ID
		} else {
			d.Denied = true
		}
		return nil
	})
	return err
}
