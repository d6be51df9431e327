package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/cli/prompt"
	"singularity/oci/registry"
)

func newRegistryCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "registry",
		Short: "Log in to registries",
		Long: "Log in to OCI registries, for pull, push, build and the start of containers. Credentials are kept in ~/.singularity/docker-config.json, which has the form of Docker's own file and mode 0600. " +
			"Log-ins of Docker and Podman count too, after ours.",
		Example: "  $ singularity registry login --username ada docker://registry.example.org\n" +
			"  $ singularity registry list\n" +
			"  $ singularity registry logout docker://registry.example.org",
	}
	c.PersistentFlags().StringP("config", "c", "", "`file` of remote endpoints")
	c.PersistentFlags().MarkHidden("config")
	c.AddCommand(newRegistryLoginCommand(log), newRegistryLogoutCommand(log), newRegistryListCommand())
	return c
}

type loginOptions struct {
	fetchOptions
	stdin bool
}

var loginEnv = []flagEnv{{"username", "LOGIN_USERNAME", false}, {"password", "LOGIN_PASSWORD", false}, {"authfile", "AUTHFILE", false},
	{"no-https", "LOGIN_INSECURE", false}, {"no-https", "NOHTTPS", false}, {"no-https", "NO_HTTPS", false}}

func newRegistryLoginCommand(log *action.Log) *cobra.Command {
	var o loginOptions
	c := &cobra.Command{
		Use:   "login [options] <URI>",
		Short: "Log in to a registry",
		Long: "Check a user name and password with a registry, by a request that needs them, and keep them. A URI with a path, docker://HOST/PATH, checks the right to read that repository. " +
			"Where the file names a credential helper for the registry, that keeps them.",
		Example: "  $ singularity registry login --username ada docker://registry.example.org\n" +
			"  $ singularity registry login --username ada --password-stdin \\\n" +
			"      oras://registry.example.org <secret",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, loginEnv); err != nil {
				return err
			}
			return explainFetch(login(c, log, &o, args[0]))
		},
	}
	f := c.Flags()
	f.StringVar(&o.authFile, "authfile", "", "keep the credentials in this `file`")
	f.StringVarP(&o.username, "username", "u", "", "user `name`")
	f.StringVarP(&o.password, "password", "p", "", "`password`; others can see it: use --password-stdin")
	f.BoolVar(&o.stdin, "password-stdin", false, "read the password from standard input")
	f.BoolVar(&o.noHTTPS, "no-https", false, "use http, or TLS without checking certificates")
	return c
}

// credentialFile is the file that log-ins are kept in.
func (o *fetchOptions) credentialFile() (string, error) {
	if o.authFile != "" {
		return o.authFile, nil
	}
	dir, err := action.ConfigDir(os.Getenv)
	return filepath.Join(dir, "docker-config.json"), err
}

func login(c *cobra.Command, log *action.Log, o *loginOptions, uri string) error {
	where, err := registry.Host(uri)
	if err != nil {
		return err
	}
	if o.password != "" && o.password != os.Getenv("SINGULARITY_LOGIN_PASSWORD") {
		log.Warning("other users can see a password on the command line: use --password-stdin")
	}
	a, err := o.secret(c)
	if err != nil {
		return err
	}
	file, err := o.credentialFile()
	if err != nil {
		return err
	}
	ctx, stop := interrupted(c.Context())
	defer stop()
	client, err := o.registryClient(ctx, log)
	if err != nil {
		return err
	}
	switch err := client.Login(ctx, where, a); {
	case errors.Is(err, registry.ErrOpen):
		log.Warning(where + " asks for no credentials: nobody has checked them")
	case err != nil:
		return err
	}
	host, _, _ := strings.Cut(where, "/")
	if err := registry.Store(file, host, a); err != nil {
		return err
	}
	log.Info("Token stored in " + file)
	return nil
}

// secret collects the user name and password.
func (o *loginOptions) secret(c *cobra.Command) (registry.Auth, error) {
	a := registry.Auth{Username: o.username, Password: o.password}
	if o.stdin && o.password != "" {
		return a, usageError(c, errors.New("--password and --password-stdin exclude each other"))
	}
	if o.stdin {
		if a.Username == "" {
			return a, usageError(c, errors.New("--password-stdin needs --username"))
		}
		text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), prompt.MaxAnswer+1))
		if err != nil {
			return a, fmt.Errorf("cannot read the password: %w", err)
		}
		if len(text) > prompt.MaxAnswer {
			return a, fmt.Errorf("cannot use the password: it has more than %d bytes", prompt.MaxAnswer)
		}
		a.Password = strings.TrimRight(string(text), "\r\n")
	}
	p := newPrompter(c)
	var err error
	if a.Username == "" {
		if a.Username, err = p.Line("Username: "); err != nil {
			return a, err
		}
	}
	if a.Password == "" && !o.stdin {
		secret, err := p.Secret("Password / Token: ")
		if err != nil {
			return a, err
		}
		a.Password = string(secret)
	}
	if a.Username == "" || a.Password == "" || strings.Contains(a.Username, ":") {
		return a, errors.New("cannot log in: a user name, without a colon, and a password are needed")
	}
	return a, nil
}

func newRegistryLogoutCommand(log *action.Log) *cobra.Command {
	var o fetchOptions
	c := &cobra.Command{
		Use:     "logout [options] <URI>",
		Short:   "Forget the log-in to a registry",
		Long:    "Remove the credentials for a registry from the file they are kept in.",
		Example: "  $ singularity registry logout docker://registry.example.org",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.fromEnv(c); err != nil {
				return err
			}
			return logout(log, &o, args[0])
		},
	}
	c.Flags().StringVar(&o.authFile, "authfile", "", "remove the credentials from this `file`")
	return c
}

func logout(log *action.Log, o *fetchOptions, uri string) error {
	where, err := registry.Host(uri)
	if err != nil {
		return err
	}
	file, err := o.credentialFile()
	if err != nil {
		return err
	}
	host, _, _ := strings.Cut(where, "/")
	if err := registry.Erase(file, host); err != nil {
		return fmt.Errorf("cannot log out of %q: %w", uri, err)
	}
	log.Info("Logout succeeded")
	return nil
}

func newRegistryListCommand() *cobra.Command {
	var o fetchOptions
	c := &cobra.Command{
		Use:     "list [options]",
		Short:   "List registries with a log-in",
		Long:    "List the registries that there are credentials for in our file.",
		Example: "  $ singularity registry list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.fromEnv(c); err != nil {
				return err
			}
			return listRegistries(c.OutOrStdout(), &o)
		},
	}
	c.Flags().StringVar(&o.authFile, "authfile", "", "list the registries of this `file`")
	return c
}

func listRegistries(w io.Writer, o *fetchOptions) error {
	file, err := o.credentialFile()
	if err != nil {
		return err
	}
	hosts, err := registry.List(file)
	if err != nil {
		return err
	}
	config, _, err := registriesConf()
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "URI\tSECURE?")
	for _, h := range hosts {
		secure := "✓"
		if r := config.Lookup(h); r != nil && r.Insecure {
			secure = "✗!"
		}
		fmt.Fprintf(t, "docker://%s\t%s\n", action.Printable(h), secure)
	}
	return t.Flush()
}
