package server

import (
	"context"
	"fmt"
	"io"
	"net/url"
)

// greet tells the person who starts a server for the first time how to go on.
// The link is the only secret, works once, and is nowhere else.
func (s *Server) greet(ctx context.Context, out io.Writer) error {
	link, err := s.auth.FirstAdmin(ctx)
	if err != nil || link == "" {
		return err
	}
	u, err := url.Parse(s.config.URL)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "singularity-server at %s\n\nChoose the administrator's password within 24 hours, by this link:\n    %s\n\nThen go on with:\n", s.config.URL, link)
	if s.config.TLSCert == "" && len(s.config.ACMEHosts) == 0 && !s.config.InsecureHTTP {
		fmt.Fprintf(out, "    export SSL_CERT_FILE=%s\n", s.ca.path())
	} else {
		fmt.Fprintf(out, "    curl %s/version\n", s.config.URL)
	}
	insecure := ""
	if s.config.InsecureHTTP {
		insecure = " --insecure"
	}
	fmt.Fprintf(out, "    singularity remote add --no-login%s site %s\n    singularity remote login site\n", insecure, u.Host)
	return nil
}
