package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/client/endpoint"
	"singularity/conf/remote"
)

type remoteLoginOptions struct {
	tokenFile, username, password string
	stdin, insecure, paste        bool
}

func newRemoteLoginCommand(log *action.Log) *cobra.Command {
	var o remoteLoginOptions
	c := &cobra.Command{
		Use:   "login [options] [name]",
		Short: "Log in to a remote endpoint",
		Long: "Check an access token with a remote endpoint, the one in use if no other is named, and keep it. On a terminal, where the endpoint can, it shows a code to enter in a browser, on any machine; " +
			"elsewhere it reads a token, that the endpoint's page /auth/tokens makes, from standard input.",
		Example: "  $ singularity remote login\n" +
			"  $ singularity remote login --tokenfile ~/token lab",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, []flagEnv{{"tokenfile", "TOKENFILE", false}, {"username", "LOGIN_USERNAME", false}, {"password", "LOGIN_PASSWORD", false}, {"insecure", "LOGIN_INSECURE", false}}); err != nil {
				return err
			}
			return remoteLogin(c, log, &o, append(args, "")[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.tokenFile, "tokenfile", "", "read the access token from the first line of this `file`")
	f.StringVarP(&o.username, "username", "u", "", "for registries: see singularity registry login")
	f.StringVarP(&o.password, "password", "p", "", "access `token`; others can see it: use --password-stdin")
	f.BoolVar(&o.stdin, "password-stdin", false, "read the access token from standard input")
	f.BoolVarP(&o.insecure, "insecure", "i", false, "for registries: see singularity registry login")
	f.BoolVar(&o.paste, "paste", false, "ask for a token instead of showing a code")
	f.MarkHidden("username")
	f.MarkHidden("insecure")
	return c
}

func remoteLogin(c *cobra.Command, log *action.Log, o *remoteLoginOptions, name string) error {
	if scheme, _, ok := strings.Cut(name, "://"); ok {
		command := "singularity keyserver login "
		if scheme == "docker" || scheme == "oras" {
			command = "singularity registry login "
		}
		return action.Fatal(fmt.Errorf("cannot log in: %q is no name of a remote endpoint", name), command+name)
	}
	files, err := remotes(c)
	if err != nil {
		return err
	}
	name, e, err := files.endpoint(name)
	if err != nil {
		return err
	}
	token, err := o.token(c, log, e)
	if err != nil {
		return action.Fatal(fmt.Errorf("cannot log in to the remote %q: %w", name, err), "")
	}
	err = files.change(false, func(f *remote.File) error {
		mine := f.Remotes[name]
		if mine == nil {
			mine = &remote.Endpoint{URI: e.URI, System: true, Insecure: e.Insecure}
		}
		mine.Token = token
		f.Put(name, mine)
		return nil
	})
	if err == nil {
		log.Info("Token stored in " + files.user)
	}
	return err
}

// services asks e for its services.
func services(ctx context.Context, e *remote.Endpoint) (*http.Client, endpoint.Services, error) {
	config, _, err := registriesConf()
	if err != nil {
		return nil, nil, err
	}
	client, err := httpClient(config, e.Insecure)
	if err != nil {
		return nil, nil, err
	}
	s, err := endpoint.Discover(ctx, client, e.URI, e.Insecure)
	return client, s, err
}

// token gets an access token for e from its user and checks it.
func (o *remoteLoginOptions) token(c *cobra.Command, log *action.Log, e *remote.Endpoint) (string, error) {
	ctx, stop := interrupted(c.Context())
	defer stop()
	client, list, err := services(ctx, e)
	if err != nil {
		return "", err
	}
	base := list["token"]
	if base == "" {
		return "", fmt.Errorf("%q has no service of tokens", e.URI)
	}
	token, err := o.read(ctx, c, e, client, base)
	if err != nil {
		return "", err
	}
	if n := len(token); n < endpoint.MinToken || n > endpoint.MaxToken {
		return "", fmt.Errorf("this is no access token: it has %d characters, and they have %d to %d", n, endpoint.MinToken, endpoint.MaxToken)
	}
	status, err := endpoint.CheckToken(ctx, client, base, token)
	if err != nil {
		return "", err
	}
	log.Info("Access Token Verified!")
	if !status.ExpiresAt.IsZero() {
		log.Info("It is " + action.Printable(status.Username) + "'s and expires on " + status.ExpiresAt.Local().Format("2 January 2006"))
	}
	return token, nil
}

// read gets the token from where the options say, or by a code, or by a prompt.
func (o *remoteLoginOptions) read(ctx context.Context, c *cobra.Command, e *remote.Endpoint, client *http.Client, base string) (string, error) {
	p := newPrompter(c)
	switch {
	case o.password != "" && o.stdin || o.tokenFile != "" && (o.stdin || o.password != ""):
		return "", usageError(c, errors.New("--tokenfile, --password and --password-stdin exclude each other"))
	case o.password != "":
		return o.password, nil
	case o.tokenFile != "":
		return readToken(o.tokenFile)
	case !o.stdin && !o.paste && p.Terminal():
		token, err := byCode(ctx, c.ErrOrStderr(), client, base)
		if !errors.Is(err, endpoint.ErrNoDevice) {
			return token, err
		}
	}
	if !o.stdin {
		scheme := "https://"
		if e.Insecure {
			scheme = "http://"
		}
		fmt.Fprintf(c.ErrOrStderr(), "Generate an access token at %s%s/auth/tokens, and paste it here.\nToken entered will be hidden for security.\n", scheme, e.URI)
		b, err := p.Secret("Access Token: ")
		return strings.TrimSpace(string(b)), err
	}
	return firstLine(c.InOrStdin())
}

func readToken(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return firstLine(f)
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, endpoint.MaxToken+2)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("cannot read the access token: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// byCode shows the user a code and waits until a browser has entered it.
func byCode(ctx context.Context, w io.Writer, client *http.Client, base string) (string, error) {
	host, _ := os.Hostname()
	code, err := endpoint.StartDevice(ctx, client, base, "singularity on "+host)
	if err != nil {
		return "", err
	}
	address := code.VerificationURI
	text := fmt.Sprintf("Open this page in a browser, on any machine:\n\n  %s\n\nand enter the code %s there. Waiting ... (Ctrl-C ends it; --paste takes a token instead)\n", address, code.UserCode)
	if _, err := io.WriteString(w, action.Printable(text)); err != nil {
		return "", err
	}
	return endpoint.WaitDevice(ctx, client, base, code)
}

func newRemoteLogoutCommand(log *action.Log) *cobra.Command {
	return &cobra.Command{
		Use:     "logout [name]",
		Short:   "Forget the access token of a remote endpoint",
		Long:    "Forget the access token for a remote endpoint, the one in use if no other is named. The token stays valid: its owner revokes it on the endpoint's page of tokens.",
		Example: "  $ singularity remote logout lab",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			files, err := remotes(c)
			if err != nil {
				return err
			}
			name, _, err := files.endpoint(append(args, "")[0])
			if err != nil {
				return err
			}
			err = files.change(false, func(f *remote.File) error {
				if e := f.Remotes[name]; e != nil {
					e.Token = ""
				}
				return nil
			})
			if err == nil {
				log.Info("Logout succeeded")
			}
			return err
		},
	}
}
