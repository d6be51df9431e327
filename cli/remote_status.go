package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/api"
	"singularity/client/endpoint"
	"singularity/client/transfer"
	"singularity/conf/remote"
)

func newRemoteStatusCommand(log *action.Log) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status [options] [name]",
		Short: "Check the services of a remote endpoint",
		Long:  "Ask a remote endpoint, the one in use if no other is named, for its services, ask each for its version, and check the access token.",
		Example: "  $ singularity remote status\n" +
			"  $ singularity remote status --json lab",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			files, err := remotes(c)
			if err != nil {
				return err
			}
			name, e, err := files.endpoint(append(args, "")[0])
			if err != nil {
				return err
			}
			ctx, stop := interrupted(c.Context())
			defer stop()
			s, err := status(ctx, name, e)
			if err != nil {
				return err
			}
			if asJSON {
				err = writeTwoSpaces(c.OutOrStdout(), s)
			} else {
				err = writeStatus(c.OutOrStdout(), log, s)
			}
			if err == nil && s.Token == "invalid" {
				err = action.Fatal(fmt.Errorf("the access token for %q is not valid any more", name), "singularity remote login "+name)
			}
			return err
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

type serviceRow struct {
	Service string `json:"service"`
	Status  string `json:"status"` // OK or N/A
	Version string `json:"version,omitempty"`
	URI     string `json:"uri"`
	Error   string `json:"error,omitempty"`
}

type remoteStatus struct {
	Name     string       `json:"name"`
	URI      string       `json:"uri"`
	Services []serviceRow `json:"services"`
	Token    string       `json:"token"` // none, valid, invalid, unknown
	Username string       `json:"username,omitempty"`
	Email    string       `json:"email,omitempty"`
	Expires  string       `json:"expires,omitempty"`
}

// status asks all services of e at once.
func status(ctx context.Context, name string, e *remote.Endpoint) (*remoteStatus, error) {
	client, list, err := services(ctx, e)
	if err != nil {
		return nil, err
	}
	s := &remoteStatus{Name: name, URI: e.URI, Token: "none"}
	var wg sync.WaitGroup
	for _, service := range slices.Sorted(maps.Keys(list)) {
		s.Services = append(s.Services, serviceRow{Service: service, Status: "OK", URI: list[service]})
	}
	for i := range s.Services {
		row := &s.Services[i]
		wg.Go(func() {
			version, err := endpoint.Version(ctx, client, httpAddress(row.URI))
			if err != nil {
				row.Status, row.Error = "N/A", err.Error()
			}
			row.Version = version
		})
	}
	wg.Wait()
	if e.Token == "" {
		return s, ctx.Err()
	}
	s.who(ctx, client, list, e.Token)
	return s, ctx.Err()
}

// who fills in whose token it is.
func (s *remoteStatus) who(ctx context.Context, client *http.Client, list endpoint.Services, token string) {
	s.Token = "unknown"
	if base := list["token"]; base != "" {
		t, err := endpoint.CheckToken(ctx, client, base, token)
		refused, ok := errors.AsType[*transfer.StatusError](err)
		switch {
		case err == nil:
			s.Token = "valid"
			if !t.ExpiresAt.IsZero() {
				s.Expires = t.ExpiresAt.Format("2006-01-02")
			}
		case ok && refused.Code < 500:
			s.Token = "invalid"
		}
	}
	if base := list["library"]; base != "" && s.Token != "invalid" {
		if u, err := endpoint.CurrentUser(ctx, client, base, token); err == nil {
			s.Username, s.Email = u.Username, u.Email
		}
	}
}

// httpAddress returns the address of a service for HTTP.
func httpAddress(uri string) string {
	if rest, ok := strings.CutPrefix(uri, "hkps://"); ok {
		return "https://" + rest
	}
	if rest, ok := strings.CutPrefix(uri, "hkp://"); ok {
		return "http://" + rest
	}
	return uri
}

func writeStatus(w io.Writer, log *action.Log, s *remoteStatus) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tSTATUS\tVERSION\tURI")
	for _, r := range s.Services {
		name := strings.ToUpper(r.Service[:1]) + r.Service[1:]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", action.Printable(name), r.Status, action.Printable(r.Version), action.Printable(r.URI))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range s.Services {
		if r.Error != "" {
			log.Verbose(fmt.Sprintf("%s: %s", r.Service, r.Error))
		}
	}
	if s.Username != "" {
		who := s.Username
		if s.Email != "" {
			who += " <" + s.Email + ">"
		}
		fmt.Fprintf(w, "\nLogged in as: %s\n", action.Printable(who))
	}
	switch s.Token {
	case "none":
		log.Info("No authentication token set (logged out).")
	case "valid":
		log.Info("Access Token Verified!")
		if s.Expires != "" {
			log.Info("It expires on " + s.Expires)
		}
	case "unknown":
		log.Warning("the access token could not be checked")
	}
	return nil
}

func newRemoteLoginPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get-login-password",
		Short: "Print a password for the registry of the remote endpoint",
		Long:  "Print a password, which is valid for some hours, for the OCI registry beside the library of the remote endpoint in use: podman and docker log in with it.",
		Example: "  $ singularity remote get-login-password |\n" +
			"      podman login --username ada --password-stdin cloud.example.org",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			files, err := remotes(c)
			if err != nil {
				return err
			}
			u, err := currentUser(c.Context(), files)
			if err != nil {
				return err
			}
			if u.Meta.Secret == "" {
				return errors.New("the remote endpoint gives no password: it has no registry")
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), action.Printable(u.Meta.Secret))
			return err
		},
	}
}

// currentUser asks the endpoint in use who is logged in.
func currentUser(ctx context.Context, files remoteFiles) (*api.CurrentUser, error) {
	name, e, err := files.endpoint("")
	if err != nil {
		return nil, err
	}
	if e.Token == "" {
		return nil, action.Fatal(fmt.Errorf("nobody is logged in to the remote %q", name), "singularity remote login "+name)
	}
	ctx, stop := interrupted(ctx)
	defer stop()
	client, list, err := services(ctx, e)
	if err != nil {
		return nil, err
	}
	if list["library"] == "" {
		return nil, fmt.Errorf("the remote endpoint %q has no library", name)
	}
	u, err := endpoint.CurrentUser(ctx, client, list["library"], e.Token)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the remote %q who is logged in: %w", name, err)
	}
	return u, nil
}
