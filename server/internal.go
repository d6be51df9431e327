package server

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"singularity/server/route"
)

// internalPatterns are those of the internal listener's own routes.
var internalPatterns = []string{"GET /healthz", "GET /readyz", "GET /metrics"}

// internalMux is what the internal listener serves: health for everybody who
// reaches it, and calls of other services, which show a certificate of ours.
func (s *Server) internalMux() http.Handler {
	mux := http.NewServeMux()
	for i, h := range []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok\n")) }, s.readiness, s.front.metrics.handler().ServeHTTP} {
		mux.HandleFunc(internalPatterns[i], h)
	}
	for _, r := range s.auth.Internal() {
		mux.HandleFunc(r.Pattern, func(w http.ResponseWriter, req *http.Request) {
			// Security: an address or a header says nothing about who calls.
			if req.TLS == nil || len(req.TLS.VerifiedChains) == 0 {
				route.Refuse(w, req, route.Errorf(http.StatusForbidden, "this call needs a certificate of this site"))
				return
			}
			req.Body = http.MaxBytesReader(w, req.Body, r.Body)
			from, _ := netip.ParseAddrPort(req.RemoteAddr)
			ctx := route.WithRequest(req.Context(), route.Request{Addr: from.Addr().Unmap()})
			r.Handler(w, req.WithContext(ctx))
		})
	}
	return mux
}

// readiness tells whether requests will be answered: the storage answers, and
// nobody has asked the server to stop.
func (s *Server) readiness(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	err := s.store.Records.Ping(ctx)
	if err == nil {
		err = s.store.Blobs.Ping(ctx)
	}
	if err != nil || !s.ready.Load() {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ready\n"))
}
