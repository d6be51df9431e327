package server

import (
	"net/http"
	"net/url"

	"singularity/api"
	"singularity/conf"
	"singularity/server/route"
)

// apiVersion is the version of the library protocol: tags know architectures.
const apiVersion = "2.0.0"

// discovery are the calls by which clients find the services, and what each says
// of itself.
func (s *Server) discovery() []route.Route {
	version := func(w http.ResponseWriter, r *http.Request) {
		route.Data(w, api.Version{Version: conf.Version, APIVersion: apiVersion})
	}
	// The top level holds objects alone, and one of keystoreAPI and keyserverAPI:
	// clients stumble over anything else.
	u, err := url.Parse(s.config.URL)
	if err != nil {
		u = &url.URL{}
	}
	document := map[string]map[string]string{
		"libraryAPI":  {"uri": s.config.URL, "registryUri": s.config.scheme() + "://" + u.Host},
		"keystoreAPI": {"uri": s.config.URL},
		"builderAPI":  {"uri": s.config.URL},
		"tokenAPI":    {"uri": s.config.URL + "/token"},
		"consentAPI":  {"uri": s.config.URL + "/consent"},
	}
	return []route.Route{
		{Pattern: "GET /assets/config/config.prod.json", Class: route.Free, Presigned: true, Handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=300")
			route.JSON(w, http.StatusOK, document)
		}},
		{Pattern: "GET /version", Handler: version, Class: route.Free, Presigned: true},
		{Pattern: "GET /token/version", Handler: version, Class: route.Free, Presigned: true},
		{Pattern: "GET /consent/version", Handler: version, Class: route.Free, Presigned: true},
	}
}

// root answers at "/" where no service has pages: a log-in to a key server asks
// there whether its credential is good.
func (s *Server) root() route.Route {
	return route.Route{Pattern: "GET /{$}", Handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("singularity-server " + conf.Version + "\n"))
	}}
}
