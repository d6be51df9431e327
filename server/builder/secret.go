package builder

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// registrySecret is what a user's builds log in to a registry with. It goes in and
// out to a worker, and to nobody else: not to who stored it either.
type registrySecret struct {
	User     string    `json:"user"` // the id of the account
	Registry string    `json:"registry"`
	Username string    `json:"username"`
	Password []byte    `json:"password"` // sealed by the key of this service
	Changed  time.Time `json:"changed"`
}

var secretIndexes = []store.Index[registrySecret]{{Name: "user", Of: func(r *registrySecret) []string { return []string{r.User} }}}

const maxRegistries = 20 // of a user

var registryName = regexp.MustCompile(`^[a-z0-9]+(?:[.-][a-z0-9]+)*(?::[0-9]{1,5})?$`)

func secretKey(user, registry string) string {
	return user + "-" + strings.ReplaceAll(registry, ":", "-")
}

// aead seals passwords: whoever reads the records, or a copy of them, without the
// file of the key, has none.
func (s *Service) aead() (cipher.AEAD, error) {
	if len(s.o.SecretKey) != 32 {
		return nil, route.Errorf(http.StatusNotImplemented, "this server keeps no passwords of registries")
	}
	b, err := aes.NewCipher(s.o.SecretKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(b)
}

// setSecret stores a password of the caller, in place of an older one.
func (s *Service) setSecret(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := auth.From(ctx)
	if err := c.Require(auth.Build); err != nil {
		return err
	}
	var in api.RegistrySecret
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	text := func(t string, most int) bool {
		return t != "" && len(t) <= most && utf8.ValidString(t) && !strings.ContainsFunc(t, func(r rune) bool { return r < 0x20 })
	}
	if in.Registry = strings.ToLower(in.Registry); len(in.Registry) > 200 || !registryName.MatchString(in.Registry) || !text(in.Username, 200) || strings.Contains(in.Username, ":") || !text(in.Password, 4096) || len(in.Password) < 4 {
		return route.Errorf(http.StatusBadRequest, "a registry (HOST or HOST:PORT), a name and a password of 4 characters or more are wanted")
	}
	a, err := s.aead()
	if err != nil {
		return err
	}
	key := secretKey(c.ID, in.Registry)
	n, err := s.secrets.Count(ctx, store.Query{Index: "user", Equal: c.ID})
	if err != nil {
		return err
	}
	if _, err := s.secrets.Get(ctx, key); n >= maxRegistries && err != nil {
		return route.Errorf(http.StatusConflict, "you have stored %d passwords: delete one first", n)
	}
	v := registrySecret{User: c.ID, Registry: in.Registry, Username: in.Username, Password: a.Seal(nil, nil, []byte(in.Password), []byte(key)), Changed: s.now().UTC()}
	_, err = s.secrets.Insert(ctx, key, v)
	if errors.Is(err, store.ErrExists) {
		_, err = s.secrets.Update(ctx, key, func(r *registrySecret) error { *r = v; return nil })
	}
	s.auth.Audit(ctx, "build.secret.set", in.Registry, err, nil)
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// listSecrets tells for which registries the caller has stored something.
func (s *Service) listSecrets(w http.ResponseWriter, r *http.Request) error {
	c := auth.From(r.Context())
	if err := c.Require(auth.Build); err != nil {
		return err
	}
	list := []api.RegistrySecret{}
	for i, err := range s.secrets.All(r.Context(), store.Query{Index: "user", Equal: c.ID}) {
		if err != nil {
			return err
		}
		list = append(list, api.RegistrySecret{Registry: i.Value.Registry, Username: i.Value.Username, Changed: i.Value.Changed})
	}
	route.Data(w, list)
	return nil
}

func (s *Service) deleteSecret(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := auth.From(ctx)
	if err := c.Require(auth.Build); err != nil {
		return err
	}
	registry := strings.ToLower(r.PathValue("registry"))
	if !registryName.MatchString(registry) || len(registry) > 200 {
		return c.NotFound()
	}
	err := s.secrets.Delete(ctx, secretKey(c.ID, registry), 0)
	if errors.Is(err, store.ErrNotFound) {
		return c.NotFound()
	}
	s.auth.Audit(ctx, "build.secret.delete", registry, err, nil)
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// registries are the secrets of a user, for a worker.
func (s *Service) registries(ctx context.Context, user string) (list []api.RegistrySecret, err error) {
	if len(s.o.SecretKey) == 0 {
		return nil, nil
	}
	a, err := s.aead()
	if err != nil {
		return nil, err
	}
	for i, err := range s.secrets.All(ctx, store.Query{Index: "user", Equal: user}) {
		if err != nil {
			return nil, err
		}
		text, err := a.Open(nil, nil, i.Value.Password, []byte(i.Key))
		if err != nil {
			s.log.Warn("a stored password cannot be opened: the key is another one", "registry", i.Value.Registry)
			continue
		}
		list = append(list, api.RegistrySecret{Registry: i.Value.Registry, Username: i.Value.Username, Password: string(text)})
	}
	return list, nil
}
