package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"singularity/client/transfer"
	"singularity/conf/registries"
)

// ErrOpen says that a registry did not ask for the credentials, so that nobody
// knows whether they are good.
var ErrOpen = errors.New("the registry asks for no credentials")

// Login checks credentials by a request that needs them: of the list of tags if
// where names a repository, else of the registry's base address.
func (c *Client) Login(ctx context.Context, where string, a Auth) error {
	host, path, _ := strings.Cut(where, "/")
	repository := host + "/" + path
	if path == "" {
		repository = host + "/login"
	}
	err := func() error {
		// A mirror has credentials of its own.
		var e registries.Endpoint
		if c.Config != nil {
			list, err := c.Config.Endpoints(repository, false)
			if err != nil {
				return err
			}
			e = list[0]
		}
		e.Repository = repository
		s, err := (&Client{Config: c.Config, Plain: c.Plain, UserAgent: c.UserAgent, CertDirs: c.CertDirs, Connect: c.Connect,
			Credentials: &Resolver{Explicit: a}}).open(e)
		if err != nil {
			return err
		}
		if err := s.login(ctx, path != ""); err != nil {
			return s.explain(err)
		}
		return nil
	}()
	if err != nil {
		return &Error{Verb: "log in to", Ref: where, Err: err}
	}
	return nil
}

func (s *session) login(ctx context.Context, scoped bool) error {
	challenge, err := transport.Ping(ctx, s.repo.Registry, s.rt)
	if err != nil {
		return err
	}
	if challenge.Scheme == "" {
		return ErrOpen
	}
	s.used = "this log-in"
	scope := []string{}
	if scoped {
		scope = append(scope, s.repo.Scope(transport.PullScope))
	}
	t, err := transport.NewWithContext(ctx, s.repo.Registry, s.auth, s.rt, scope)
	if err != nil {
		return err
	}
	to := s.base(challenge.Insecure) + "/v2/"
	if scoped {
		to += s.repo.RepositoryStr() + "/tags/list?n=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return err
	}
	res, err := transfer.NewClient(t).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK || scoped && res.StatusCode == http.StatusNotFound {
		return nil
	}
	return transfer.NewStatusError(res, s.used)
}

func (s *session) base(insecure bool) string {
	if insecure {
		return "http://" + s.repo.RegistryStr()
	}
	return "https://" + s.repo.RegistryStr()
}

// Host returns the host, and the path if there is one, of what a log-in names:
// docker://HOST, oras://HOST/PATH or HOST.
func Host(text string) (string, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		rest = text
	} else if scheme != "docker" && scheme != "oras" && scheme != "https" {
		return "", fmt.Errorf("%q is no registry: docker://HOST or oras://HOST is wanted", text)
	}
	rest = strings.TrimRight(rest, "/")
	host, path, _ := strings.Cut(rest, "/")
	if _, err := name.NewRegistry(host, name.StrictValidation); err != nil || host == "" {
		return "", fmt.Errorf("%q is no registry: docker://HOST or oras://HOST is wanted", text)
	}
	if path != "" {
		if _, err := name.NewRepository(host+"/"+path, name.StrictValidation); err != nil {
			return "", fmt.Errorf("%q is no repository of a registry", text)
		}
	}
	return canonical(rest), nil
}
