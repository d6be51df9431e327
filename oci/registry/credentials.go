package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Auth are credentials for one registry.
type Auth struct {
	Username, Password           string
	IdentityToken, RegistryToken string
}

func (a Auth) empty() bool { return a == Auth{} }

// Found are credentials and where they are from; Source is empty if there are
// none.
type Found struct {
	Auth
	Source string
}

func (f Found) authenticator() authn.Authenticator {
	if f.Source == "" {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{Username: f.Username, Password: f.Password,
		IdentityToken: f.IdentityToken, RegistryToken: f.RegistryToken})
}

// Resolver finds credentials. Its fields are in the order in which they count;
// the first one that knows the registry does.
type Resolver struct {
	Explicit Auth   // of flags and variables: for the registry that the user names
	AuthFile string // of --authfile
	Own      string // our docker-config.json
	Others   []string
}

// OtherFiles returns the files of Docker and Podman, as they look for them.
func OtherFiles(getenv func(string) string, home string) []string {
	var list []string
	docker := getenv("DOCKER_CONFIG")
	if docker == "" && home != "" {
		docker = filepath.Join(home, ".docker")
	}
	if docker != "" {
		list = append(list, filepath.Join(docker, "config.json"))
	}
	if f := getenv("REGISTRY_AUTH_FILE"); f != "" {
		return append(list, f)
	}
	run := getenv("XDG_RUNTIME_DIR")
	if run == "" {
		run = fmt.Sprintf("/run/user/%d", os.Getuid())
	}
	list = append(list, filepath.Join(run, "containers", "auth.json"))
	config := getenv("XDG_CONFIG_HOME")
	if config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		list = append(list, filepath.Join(config, "containers", "auth.json"))
	}
	return list
}

// files returns the files to ask.
func (r *Resolver) files() []string {
	var list []string
	if r.AuthFile != "" {
		list = append(list, r.AuthFile)
	}
	if r.Own != "" {
		list = append(list, r.Own)
	}
	return append(list, r.Others...)
}

// Order names the sources in the order in which they count.
func (r *Resolver) Order() []string {
	if r == nil {
		return []string{"nothing"}
	}
	return append(append([]string{"flags and variables"}, r.files()...), "anonymous")
}

// For returns the credentials for repository, which begins with its host.
// explicit tells whether those of flags may be used: they are for the registry
// that the user names, and not for a mirror of it.
//
// Security: a source that is damaged, or a helper that fails, ends the search.
// Going on would use other credentials than the user means. Files of Docker and
// Podman that belong to somebody else, as after su, are none of the user's.
func (r *Resolver) For(repository string, explicit bool) (Found, error) {
	if r == nil {
		return Found{}, nil
	}
	if explicit && !r.Explicit.empty() {
		return Found{Auth: r.Explicit, Source: "flags and variables"}, nil
	}
	for _, path := range r.files() {
		f, err := readAuthFile(path)
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) && path != r.AuthFile {
			continue
		}
		if err != nil {
			return Found{}, fmt.Errorf("cannot read credentials: %w", err)
		}
		a, source, err := f.lookup(repository, path)
		if err != nil || !a.empty() {
			return Found{Auth: a, Source: source}, err
		}
	}
	return Found{}, nil
}

// lookup asks one file, and the helper that it names.
func (f *AuthFile) lookup(repository, path string) (Auth, string, error) {
	key, here := find(f.Auths, repository)
	if here {
		e := f.Auths[key]
		a, err := e.credentials()
		if err != nil {
			return Auth{}, "", fmt.Errorf("cannot use %q: entry %q: %w", path, key, err)
		}
		if !a.empty() {
			return a, path, nil
		}
	}
	// A general store is asked only for what the file lists or for nothing
	// better, as Docker does; a helper of the host is asked in any case.
	name := f.helper(repository)
	if name == "" {
		return Auth{}, "", nil
	}
	url := storeKey(hostOf(repository))
	if here {
		url = key
	}
	var e helperEntry
	err := runHelper(name, "get", url, &e)
	if errors.Is(err, errNoEntry) {
		return Auth{}, "", nil
	}
	if err != nil {
		return Auth{}, "", err
	}
	source := "docker-credential-" + name + " (named in " + path + ")"
	if e.Username == "<token>" {
		return Auth{IdentityToken: e.Secret}, source, nil
	}
	return Auth{Username: e.Username, Password: e.Secret}, source, nil
}
