package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/client/endpoint"
	"singularity/client/keyserver"
	"singularity/client/transfer"
	"singularity/client/translog"
	"singularity/conf"
	"singularity/conf/registries"
	"singularity/conf/remote"
	"singularity/pgp"
)

// serverOptions name key servers.
type serverOptions struct{ urls []string }

// serverEnv are the variables that name key servers, the first one first.
var serverEnv = []flagEnv{{flag: "url", key: "KEYSERVER_URL"}, {flag: "url", key: "URL"}}

func (o *serverOptions) addFlags(c *cobra.Command) {
	c.Flags().StringSliceVarP(&o.urls, "url", "u", nil, "use the key server at this `address`; several are asked in their order")
}

// client returns a client of the servers that o names, or else of those of the
// active remote endpoint. keyserver.ErrNoServer is wrapped if there are none.
func (o *serverOptions) client(ctx context.Context) (*keyserver.Client, error) {
	config, dir, err := registriesConf()
	if err != nil {
		return nil, err
	}
	user := filepath.Join(dir, "remote.yaml")
	var list []keyserver.Server
	for _, u := range o.urls {
		list = append(list, keyserver.Server{URL: u})
	}
	if len(list) == 0 {
		if list, err = remoteServers(ctx, config, user); err != nil {
			return nil, err
		}
	}
	logIns, err := remote.Credentials(user)
	if err != nil {
		return nil, err
	}
	for i := range list {
		logIn(&list[i], logIns, user)
	}
	client, err := keyserver.New(list, transfer.Settings{Offline: config.Offline, Proxy: config.Proxy, UserAgent: userAgent(), Again: true})
	if errors.Is(err, keyserver.ErrNoServer) {
		return nil, action.Fatal(err, "name one with --url https://HOST, with the variable SINGULARITY_KEYSERVER_URL, or in remote.yaml")
	}
	if err != nil {
		return nil, err
	}
	client.Remember(logMemory{filepath.Join(dir, "logs")})
	return client, nil
}

// activeRemote returns the endpoint that the user's remote.yaml and that of the
// site lead to.
func activeRemote(user string) (string, *remote.Endpoint, error) {
	site := systemRemotes()
	if err := conf.CheckSite(site); err != nil {
		return "", nil, action.OwnerHint(err)
	}
	return remote.Active(user, site)
}

// remoteServers returns the key servers of the active remote endpoint: those that
// are listed for it, or else the one that it says it has.
func remoteServers(ctx context.Context, config *registries.File, user string) ([]keyserver.Server, error) {
	name, e, err := activeRemote(user)
	if err != nil || e == nil {
		return nil, err
	}
	own := keyserver.Server{AuthSource: "the remote endpoint " + strconv.Quote(name)}
	if e.Token != "" {
		own.Auth = "Bearer " + e.Token
	}
	var list []keyserver.Server
	for _, k := range e.Keyservers {
		if k.Skip {
			continue
		}
		s := keyserver.Server{URL: k.URI, Insecure: k.Insecure}
		if !k.External { // the token is the endpoint's, and for its own server alone
			s.Auth, s.AuthSource = own.Auth, own.AuthSource
		}
		list = append(list, s)
	}
	if len(e.Keyservers) > 0 {
		return list, nil
	}
	client, err := httpClient(config, e.Insecure)
	if err != nil {
		return nil, err
	}
	services, err := endpoint.Discover(ctx, client, e.URI, e.Insecure)
	if err != nil {
		return nil, err
	}
	if own.URL = services["keyserver"]; own.URL == "" {
		return nil, fmt.Errorf("the remote endpoint %q has no key server", name)
	}
	return []keyserver.Server{own}, nil
}

// logIn gives s the stored log-in of its address, if it has none of its own.
func logIn(s *keyserver.Server, list []remote.Credential, path string) {
	at, err := url.Parse(s.URL)
	if err != nil || s.Auth != "" {
		return
	}
	for _, c := range list {
		u, err := url.Parse(c.URI)
		if err == nil && u.Host != "" && transfer.Origin(u) == transfer.Origin(at) &&
			(strings.HasPrefix(c.Auth, "Bearer ") || strings.HasPrefix(c.Auth, "Basic ")) {
			s.Auth, s.AuthSource = c.Auth, path
			s.Insecure = s.Insecure || c.Insecure
			return
		}
	}
}

// serversOfEnv are the servers for commands without the flag.
func serversOfEnv() serverOptions {
	for _, e := range serverEnv {
		if v := strings.TrimSpace(os.Getenv("SINGULARITY_" + e.key)); v != "" {
			return serverOptions{urls: strings.Split(v, ",")}
		}
	}
	return serverOptions{}
}

// explainServer gives err of a key server the hint that helps the user.
func explainServer(err error) error {
	if _, ok := errors.AsType[*action.Failure](err); ok {
		return err
	}
	if s, ok := errors.AsType[*transfer.StatusError](err); ok && s.Code == http.StatusUnauthorized && s.Used == "" {
		return action.Fatal(err, "this key server wants a token: it is sent over https alone, and comes from remote.yaml")
	}
	if errors.Is(err, translog.ErrHistory) {
		return action.Fatal(err, historyHint)
	}
	if errors.Is(err, keyserver.ErrNotFound) {
		return action.Fatal(err, "singularity key search looks for names and addresses")
	}
	return err
}

// lookUp returns a function that gets the keys of a 64-bit id from the servers of
// o. They are looked for when they are wanted first. A fault becomes a warning,
// and the key is one that nobody has.
func (o serverOptions) lookUp(ctx context.Context, log *action.Log) func(uint64) []*pgp.Key {
	client := sync.OnceValues(func() (*keyserver.Client, error) { return o.client(ctx) })
	known := map[uint64][]*pgp.Key{} // several signatures are often by one key
	return func(id uint64) []*pgp.Key {
		keys, ok := known[id]
		if ok {
			return keys
		}
		c, err := client()
		if err == nil {
			keys, err = c.Get(ctx, keyserver.ByLongID(id))
		}
		if err != nil && !errors.Is(err, keyserver.ErrNoServer) {
			log.Warning(fmt.Sprintf("cannot get the key %016X: %v", id, err))
		}
		for _, k := range keys {
			log.Warning(fmt.Sprintf("the key %s is in no keyring of this host, and came from a key server: anybody can put a key there, so ask the owner for the fingerprint", k.Fingerprint()))
		}
		known[id] = keys
		return keys
	}
}
