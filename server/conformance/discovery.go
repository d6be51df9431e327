package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"singularity/api"
)

var discoveryChecks = []check{
	{"discovery", "the discovery document names the services, as objects alone", "", (*run).discovery},
	{"version", "each service says its version, and the library one from 2.0.0-alpha.2", "discovery", (*run).versions},
	{"token-unknown", "a token that nobody has is 404 in the envelope", "discovery", (*run).unknownToken},
	{"token-status", "the token's status says whose it is", "discovery", (*run).tokenStatus},
	{"token-length", "the token has a length that clients take", "discovery", (*run).tokenLength},
	{"user-nobody", "who is asked for without a token, or with an empty one, gets 401", "discovery", (*run).nobody},
	{"user", "the current user is answered without an envelope", "token-status", (*run).currentUser},
	{"description", "the server describes itself", "", (*run).description},
	{"registry", "the registry asks who comes, with WWW-Authenticate", "discovery", (*run).registryPing},
	{"registry-push", "an upload of nobody is told to log in", "registry", (*run).registryPush},
	{"oci-redirect", "no image comes from elsewhere: 404", "discovery", (*run).ociRedirect},
}

type service struct{ URI, RegistryURI string }

func (r *run) discovery() error {
	a, err := r.do(request{method: "GET", url: r.site + "/assets/config/config.prod.json"})
	if err != nil {
		return err
	}
	if err := a.is(http.StatusOK); err != nil {
		return err
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &top); err != nil {
		return wrong("the document is no JSON object")
	}
	services := map[string]service{}
	for name, text := range top {
		var s service
		if err := json.Unmarshal(text, &s); err != nil || !strings.HasPrefix(strings.TrimSpace(string(text)), "{") {
			return wrong("%q is no object: clients stumble over it", name)
		}
		if strings.HasSuffix(s.URI, "/") {
			return wrong("%s.uri ends in a slash: clients append /version to it", name)
		}
		services[name] = s
	}
	if services["keystoreAPI"].URI != "" && services["keyserverAPI"].URI != "" {
		return wrong("both keystoreAPI and keyserverAPI are there: clients take either")
	}
	r.library, r.registry = services["libraryAPI"].URI, services["libraryAPI"].RegistryURI
	r.keystore = services["keystoreAPI"].URI + services["keyserverAPI"].URI
	r.tokens, r.consent, r.builder = services["tokenAPI"].URI, services["consentAPI"].URI, services["builderAPI"].URI
	for name, uri := range map[string]string{"libraryAPI": r.library, "keystoreAPI": r.keystore, "tokenAPI": r.tokens} {
		if u, err := url.Parse(uri); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return wrong("%s.uri is %q, no address", name, uri)
		}
	}
	if u, _ := url.Parse(r.keystore); u.Path != "" {
		return wrong("keystoreAPI.uri has the path %q, which clients drop", u.Path)
	}
	return nil
}

var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$`)

func (r *run) versions() error {
	for name, uri := range map[string]string{"library": r.library, "keystore": r.keystore, "token": r.tokens, "consent": r.consent} {
		if uri == "" {
			continue
		}
		var v api.Envelope[api.Version]
		if _, err := r.shaped(request{method: "GET", url: uri + "/version"}, "/version", &v, http.StatusOK); err != nil {
			return err
		}
		if name != "library" {
			continue
		}
		m := semver.FindStringSubmatch(v.Data.APIVersion)
		if m == nil {
			return wrong("the library's apiVersion %q is no version without a v", v.Data.APIVersion)
		}
		major, _ := strconv.Atoi(m[1])
		if major < 2 || v.Data.APIVersion == "2.0.0-alpha.1" {
			return wrong("the library's apiVersion %q is below 2.0.0-alpha.2: tags without architectures", v.Data.APIVersion)
		}
	}
	return nil
}

func (r *run) unknownToken() error {
	q := request{method: "GET", url: r.tokens + "/v1/token-status", bearer: "Bearer " + strings.Repeat("x", 220)}
	return r.refused(q, "/token/v1/token-status", http.StatusNotFound)
}

func (r *run) tokenStatus() error {
	if err := r.needToken(); err != nil {
		return err
	}
	// Clients differ in how they write the scheme.
	for _, scheme := range []string{"Bearer ", "BEARER "} {
		var v api.Envelope[api.TokenStatus]
		if _, err := r.shaped(request{method: "GET", url: r.tokens + "/v1/token-status", bearer: scheme + r.token}, "/token/v1/token-status", &v, http.StatusOK); err != nil {
			return err
		}
		if r.user = v.Data.Username; r.user == "" {
			return wrong("username is empty")
		}
	}
	return nil
}

func (r *run) tokenLength() error {
	if err := r.needToken(); err != nil {
		return err
	}
	if n := len(r.token); n < 200 || n > 4096 {
		return wrong("it has %d characters: clients want 200 to 4096", n)
	}
	return nil
}

func (r *run) nobody() error {
	for _, bearer := range []string{"", "Bearer", "Bearer "} {
		if err := r.refused(request{method: "GET", url: r.library + "/v1/rbac/users/current", bearer: bearer}, "/v1/rbac/users/current", http.StatusUnauthorized); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) currentUser() error {
	var v api.CurrentUser
	if _, err := r.shaped(request{method: "GET", url: r.library + "/v1/rbac/users/current", token: true}, "/v1/rbac/users/current", &v, http.StatusOK); err != nil {
		return err
	}
	if v.Username != r.user {
		return wrong("it is %q, and the token's status says %q", v.Username, r.user)
	}
	return nil
}

func (r *run) description() error {
	a, err := r.do(request{method: "GET", url: r.site + "/openapi.json"})
	if err != nil {
		return err
	}
	if a.status == http.StatusNotFound {
		return skipped{"the server has no /openapi.json"}
	}
	var d struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err := json.Unmarshal(a.body, &d); err != nil || !strings.HasPrefix(d.OpenAPI, "3.") || len(d.Paths) == 0 {
		return wrong("%s is no description of OpenAPI 3", a.call)
	}
	return nil
}

func (r *run) registryPing() error {
	if r.registry == "" {
		return skipped{"the discovery document has no registryUri"}
	}
	a, err := r.do(request{method: "GET", url: r.registry + "/v2/"})
	if err != nil {
		return err
	}
	if err := a.is(http.StatusOK, http.StatusUnauthorized); err != nil {
		return err
	}
	if a.status == http.StatusUnauthorized && a.header.Get("WWW-Authenticate") == "" {
		return wrong("401 without WWW-Authenticate: clients do not know how to log in")
	}
	return nil
}

func (r *run) registryPush() error {
	a, err := r.do(request{method: "POST", url: r.registry + "/v2/" + randomName() + "/x/blobs/uploads/"})
	if err != nil {
		return err
	}
	if err := a.is(http.StatusUnauthorized); err != nil {
		return err
	}
	if a.header.Get("WWW-Authenticate") == "" {
		return wrong("401 without WWW-Authenticate")
	}
	return nil
}

func (r *run) ociRedirect() error {
	a, err := r.do(request{method: "GET", url: r.library + "/v1/oci-redirect?accessTypes=pull&mapped=1&namespace=a%2Fb%2Fc", token: true})
	if err != nil {
		return err
	}
	return a.is(http.StatusNotFound)
}
