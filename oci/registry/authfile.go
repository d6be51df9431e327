package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxAuthFile bounds a file of credentials, in bytes.
const maxAuthFile = 4 << 20

// hubKey is what the files call Docker Hub.
const hubKey = "https://index.docker.io/v1/"

// AuthFile is a file of credentials in the form of Docker's config.json.
type AuthFile struct {
	Auths   map[string]AuthEntry `json:"auths"`
	Helpers map[string]string    `json:"credHelpers"`
	Store   string               `json:"credsStore"`
}

// AuthEntry is what a file knows of one registry.
type AuthEntry struct {
	Auth          string `json:"auth,omitempty"` // base64 of user:password
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// ParseAuthFile reads the text of a file of credentials.
func ParseAuthFile(text []byte) (*AuthFile, error) {
	if len(text) > maxAuthFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxAuthFile)
	}
	f := &AuthFile{}
	if len(strings.TrimSpace(string(text))) == 0 {
		return f, nil
	}
	if err := json.Unmarshal(text, f); err != nil {
		return nil, errors.New("it is no JSON of credentials") // the cause would quote them
	}
	return f, nil
}

func readAuthFile(path string) (*AuthFile, error) {
	text, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	f, err := ParseAuthFile(text)
	if err != nil {
		return nil, fmt.Errorf("cannot use %q: %w", path, err)
	}
	return f, nil
}

func readLimited(path string) ([]byte, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxAuthFile+1))
}

// credentials decodes e.
func (e *AuthEntry) credentials() (Auth, error) {
	a := Auth{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth != "" {
		b, err := base64.StdEncoding.DecodeString(strings.TrimRight(e.Auth, "\x00"))
		user, password, ok := strings.Cut(string(b), ":")
		if err != nil || !ok {
			return Auth{}, errors.New("its auth is not the base64 of user:password")
		}
		a.Username, a.Password = user, strings.TrimRight(password, "\x00")
	}
	return a, nil
}

// keyHost returns the host, and the path if there is one, that a key of a file
// means: keys are hosts, hosts with a path, or URLs.
func keyHost(key string) string {
	rest, isURL := strings.CutPrefix(key, "https://")
	if !isURL {
		rest, isURL = strings.CutPrefix(key, "http://")
	}
	if isURL {
		host, path, _ := strings.Cut(rest, "/")
		if p := strings.Trim(path, "/"); p != "" && p != "v1" && p != "v2" {
			host += "/" + p
		}
		rest = host
	}
	return canonical(strings.TrimSuffix(rest, "/"))
}

// canonical gives Docker Hub one name.
func canonical(repository string) string {
	host, path, ok := strings.Cut(repository, "/")
	switch host = strings.ToLower(host); host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		host = defaultHost
	}
	if ok {
		host += "/" + path
	}
	return host
}

// find returns the key of m that fits repository best: a host fits only
// itself, a path all below it.
func find[T any](m map[string]T, repository string) (key string, ok bool) {
	repository = canonical(repository)
	best := -1
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys) // the same every time, should two fit
	for _, k := range keys {
		h := keyHost(k)
		rest, fits := strings.CutPrefix(repository, h)
		if h != "" && fits && (rest == "" || rest[0] == '/') && len(h) > best {
			key, ok, best = k, true, len(h)
		}
	}
	return key, ok
}

// storeKey is the key under which credentials of a host are stored.
func storeKey(host string) string {
	if canonical(host) == defaultHost {
		return hubKey
	}
	return host
}

// Store writes credentials for host into the file at path, which keeps what else
// it holds. Where the file names a helper for the host, that gets them.
func Store(path, host string, a Auth) error {
	return change(path, func(f *AuthFile, raw map[string]json.RawMessage) error {
		if h := f.helper(host); h != "" {
			return runHelper(h, "store", helperEntry{ServerURL: storeKey(host), Username: a.Username, Secret: a.Password}, nil)
		}
		auths, err := rawAuths(raw)
		if err != nil {
			return err
		}
		for k := range auths {
			if keyHost(k) == canonical(host) {
				delete(auths, k)
			}
		}
		entry, _ := json.Marshal(AuthEntry{Auth: base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))})
		auths[storeKey(host)] = entry
		raw["auths"], err = json.Marshal(auths)
		return err
	})
}

// ErrNotLoggedIn says that a file has no credentials of a registry.
var ErrNotLoggedIn = errors.New("not logged in")

// Erase drops the credentials of host from the file at path.
func Erase(path, host string) error {
	return change(path, func(f *AuthFile, raw map[string]json.RawMessage) error {
		if h := f.helper(host); h != "" {
			return runHelper(h, "erase", storeKey(host), nil)
		}
		auths, err := rawAuths(raw)
		if err != nil {
			return err
		}
		found := false
		for k := range auths {
			if keyHost(k) == canonical(host) {
				delete(auths, k)
				found = true
			}
		}
		if !found {
			return ErrNotLoggedIn
		}
		raw["auths"], err = json.Marshal(auths)
		return err
	})
}

func rawAuths(raw map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	auths := map[string]json.RawMessage{}
	if raw["auths"] != nil {
		if err := json.Unmarshal(raw["auths"], &auths); err != nil {
			return nil, errors.New("its auths are no JSON object")
		}
	}
	return auths, nil
}

// helper returns the name of the program that keeps the credentials of host.
func (f *AuthFile) helper(repository string) string {
	if key, ok := find(f.Helpers, repository); ok {
		return f.Helpers[key]
	}
	return f.Store
}

// change edits the file at path under a lock, and replaces it whole.
func change(path string, edit func(f *AuthFile, raw map[string]json.RawMessage) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot make the directory of %q: %w", path, err)
	}
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("cannot lock %q: %w", path, err)
	}
	defer lock.Close() // drops the lock
	for {
		err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil || err == unix.ENOLCK || err == unix.EOPNOTSUPP { // some file servers have no locks
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("cannot lock %q: %w", path, err)
		}
	}
	text, err := readLimited(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read credentials: %w", err)
	}
	f, err := ParseAuthFile(text)
	raw := map[string]json.RawMessage{}
	if err == nil && len(strings.TrimSpace(string(text))) > 0 {
		err = json.Unmarshal(text, &raw)
	}
	if err != nil {
		return fmt.Errorf("cannot use %q: it is no JSON of credentials", path)
	}
	before, _ := json.Marshal(raw)
	if err := edit(f, raw); err != nil {
		return err
	}
	if after, _ := json.Marshal(raw); string(after) == string(before) {
		return nil
	}
	return replace(path, raw)
}

// replace writes the file anew: mode 0600, on disk before it has its name.
func replace(path string, raw map[string]json.RawMessage) error {
	text, err := json.MarshalIndent(raw, "", "\t")
	if err != nil {
		return err
	}
	// A link to a file elsewhere is kept.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp_auth_") // mode 0600
	if err != nil {
		return fmt.Errorf("cannot write credentials: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("cannot write credentials: %w", err)
	}
	return nil
}

// List returns the hosts that the file at path has credentials of.
func List(path string) ([]string, error) {
	f, err := readAuthFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []string
	for k := range f.Auths {
		list = append(list, keyHost(k))
	}
	for k := range f.Helpers {
		list = append(list, keyHost(k))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// hostOf returns the host of a repository.
func hostOf(repository string) string {
	host, _, _ := strings.Cut(repository, "/")
	return host
}
