// Package endpoint asks a remote endpoint where its services are, and logs in.
//
// In goes the address of an endpoint, out come the addresses of its library and
// other services, and what they say about a token. The endpoint is trusted to name
// them, as the user chose it; its answers are bounded and its addresses are checked
// for their form. A token goes to the service that it is asked for, and nowhere
// else.
//
// Files: endpoint.go finds services, account.go asks them about tokens and gets
// one by a browser (RFC 8628).
package endpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

const maxAnswer = 1 << 20

// Services are the addresses of services by their names: library, keyserver,
// builder, token, consent.
type Services map[string]string

// Discover asks the endpoint uri, host and path, for its services.
func Discover(ctx context.Context, client *http.Client, uri string, insecure bool) (Services, error) {
	base := strings.TrimRight(uri, "/")
	if !strings.Contains(base, "://") {
		scheme := "https://"
		if insecure {
			scheme = "http://"
		}
		base = scheme + base
	}
	s, err := discover(ctx, client, base+"/assets/config/config.prod.json")
	if err != nil {
		return nil, fmt.Errorf("cannot find the services of the remote endpoint %q: %w", uri, err)
	}
	return s, nil
}

func discover(ctx context.Context, client *http.Client, address string) (Services, error) {
	var text json.RawMessage
	if err := get(ctx, client, address, "", &text); err != nil {
		return nil, err
	}
	return Parse(text)
}

// Parse reads the document that an endpoint serves.
func Parse(text []byte) (Services, error) {
	var doc map[string]struct {
		URI any `json:"uri"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("its answer lists no services: %w", err)
	}
	s := Services{}
	for key, v := range doc {
		name, ok := strings.CutSuffix(key, "API")
		uri, isString := v.URI.(string)
		if !ok || !isString || uri == "" {
			continue
		}
		if name == "keystore" {
			name = "keyserver"
		}
		u, err := url.Parse(uri)
		if err != nil || u.Host == "" || u.User != nil {
			return nil, fmt.Errorf("the address of its service %q is no URL", name)
		}
		s[name] = strings.TrimRight(uri, "/")
	}
	return s, nil
}
