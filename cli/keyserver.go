package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/client/keyserver"
	"singularity/conf"
	"singularity/pgp"
)

// serverOptions name key servers.
type serverOptions struct{ urls []string }

// serverEnv are the variables that name key servers, the first one first.
var serverEnv = []flagEnv{{flag: "url", key: "KEYSERVER_URL"}, {flag: "url", key: "URL"}}

func (o *serverOptions) addFlags(c *cobra.Command) {
	c.Flags().StringSliceVarP(&o.urls, "url", "u", nil, "use the key server at this `address`; several are asked in their order")
}

// client returns a client of the servers that o names. keyserver.ErrNoServer is
// wrapped if there are none.
func (o *serverOptions) client() (*keyserver.Client, error) {
	var list []keyserver.Server
	for _, u := range o.urls {
		list = append(list, keyserver.Server{URL: u})
	}
	client, err := keyserver.New(list, "singularity/"+conf.Version, nil)
	if errors.Is(err, keyserver.ErrNoServer) {
		return nil, action.Fatal(err, "name one with --url https://HOST, or with the variable SINGULARITY_KEYSERVER_URL")
	}
	return client, err
}

// explainServer gives err of a key server the hint that helps the user.
func explainServer(err error) error {
	if s, ok := errors.AsType[*keyserver.StatusError](err); ok && s.Code == http.StatusUnauthorized && !s.Authorized {
		return action.Fatal(err, "this key server wants a token, and none was sent: tokens are sent over https alone")
	}
	if errors.Is(err, keyserver.ErrNotFound) {
		return action.Fatal(err, "singularity key search looks for names and addresses")
	}
	return err
}

// lookUp returns a function that gets the keys of a 64-bit id from client. A
// fault becomes a warning, and the key is one that nobody has.
func lookUp(ctx context.Context, log *action.Log, client *keyserver.Client) func(uint64) []*pgp.Key {
	type answer struct{ keys []*pgp.Key }
	known := map[uint64]answer{} // several signatures are often by one key
	return func(id uint64) []*pgp.Key {
		if a, ok := known[id]; ok {
			return a.keys
		}
		keys, err := client.Get(ctx, keyserver.ByLongID(id))
		if err != nil {
			log.Warning(fmt.Sprintf("cannot get the key %016X: %v", id, err))
		}
		for _, k := range keys {
			log.Warning(fmt.Sprintf("the key %s is in no keyring of this host, and came from a key server: anybody can put a key there, so ask the owner for the fingerprint", k.Fingerprint()))
		}
		known[id] = answer{keys}
		return keys
	}
}
