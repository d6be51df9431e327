package cli

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/client/endpoint"
	"singularity/client/keyserver"
	"singularity/client/transfer"
	"singularity/conf/remote"
)

func newKeyserverCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "keyserver",
		Short: "Choose the key servers to use, and log in to them",
		Long: "Public keys are looked up on the key server that belongs to the remote endpoint in use, or on the servers of a list, in its order. " +
			"Users keep lists for their own remote endpoints, root those for all users.",
		Example: "  $ singularity keyserver add https://keys.openpgp.org\n" +
			"  $ singularity keyserver list",
	}
	addConfigFlag(c)
	c.AddCommand(newKeyserverAddCommand(log), newKeyserverRemoveCommand(log), newKeyserverListCommand(),
		newKeyserverLoginCommand(log), newKeyserverLogoutCommand(log))
	return c
}

// nameAndServer splits the arguments [remote] <URL>.
func nameAndServer(args []string) (name, server string) {
	if len(args) == 2 {
		return args[0], args[1]
	}
	return "", args[0]
}

func newKeyserverAddCommand(log *action.Log) *cobra.Command {
	var order uint
	var insecure bool
	c := &cobra.Command{
		Use:   "add [options] [remote] <URL>",
		Short: "Add a key server",
		Long:  "Add a key server to the list of a remote endpoint, the one in use if no other is named, behind those that are there or at the place that --order gives.",
		Example: "  $ singularity keyserver add https://keys.openpgp.org\n" +
			"  $ singularity keyserver add --order 1 lab hkps://keys.example.org",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			name, server := nameAndServer(args)
			return keyserverAdd(c, log, name, server, order, insecure)
		},
	}
	f := c.Flags()
	f.UintVarP(&order, "order", "o", 0, "`place` in the list, from 1; the last one if it is not given")
	f.BoolVarP(&insecure, "insecure", "i", false, "do not check the certificate of this server")
	return c
}

// servers are those that e looks keys up on, with the endpoint's own.
func servers(c *cobra.Command, log *action.Log, e *remote.Endpoint) []remote.Keyserver {
	if len(e.Keyservers) > 0 {
		return slices.Clone(e.Keyservers)
	}
	ctx, stop := interrupted(c.Context())
	defer stop()
	_, list, err := services(ctx, e)
	if err != nil {
		log.Warning(err.Error())
	}
	if own := list["keyserver"]; own != "" {
		return []remote.Keyserver{{URI: own}}
	}
	return nil
}

func keyserverAdd(c *cobra.Command, log *action.Log, name, server string, order uint, insecure bool) error {
	if _, err := keyserver.New([]keyserver.Server{{URL: server}}, transfer.Settings{}); err != nil {
		return err
	}
	return changeServers(c, log, name, func(list []remote.Keyserver) ([]remote.Keyserver, error) {
		at := slices.IndexFunc(list, func(k remote.Keyserver) bool { return strings.TrimRight(k.URI, "/") == strings.TrimRight(server, "/") })
		added := remote.Keyserver{URI: strings.TrimRight(server, "/"), External: true, Insecure: insecure}
		if at >= 0 {
			if !list[at].Skip {
				return nil, fmt.Errorf("the key server %q is in the list already", server)
			}
			added.External = list[at].External
			list = slices.Delete(list, at, at+1)
		}
		place := len(list)
		if order > 0 {
			if int(min(order, 1<<20)) > len(list)+1 {
				return nil, fmt.Errorf("cannot add the key server at place %d: the list has %d", order, len(list))
			}
			place = int(order) - 1
		}
		return slices.Insert(list, place, added), nil
	})
}

// changeServers edits the list of key servers of the endpoint called name.
func changeServers(c *cobra.Command, log *action.Log, name string, edit func([]remote.Keyserver) ([]remote.Keyserver, error)) error {
	files, err := remotes(c)
	if err != nil {
		return err
	}
	name, e, err := files.endpoint(name)
	if err != nil {
		return err
	}
	list, err := edit(servers(c, log, e))
	if err != nil {
		return err
	}
	return files.change(e.System, func(f *remote.File) error {
		if f.Remotes[name] == nil {
			return noRemote(name, f)
		}
		f.Remotes[name].Keyservers = list
		return nil
	})
}

func newKeyserverRemoveCommand(log *action.Log) *cobra.Command {
	return &cobra.Command{
		Use:     "remove [remote] <URL>",
		Short:   "Remove a key server",
		Long:    "Remove a key server from the list of a remote endpoint, the one in use if no other is named. The endpoint's own server is skipped from then on.",
		Example: "  $ singularity keyserver remove https://keys.openpgp.org",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			name, server := nameAndServer(args)
			return changeServers(c, log, name, func(list []remote.Keyserver) ([]remote.Keyserver, error) {
				at := slices.IndexFunc(list, func(k remote.Keyserver) bool {
					return !k.Skip && strings.TrimRight(k.URI, "/") == strings.TrimRight(server, "/")
				})
				if at < 0 {
					return nil, action.Fatal(fmt.Errorf("the key server %q is not in the list", server), "singularity keyserver list")
				}
				if !list[at].External {
					list[at].Skip = true
					return list, nil
				}
				return slices.Delete(list, at, at+1), nil
			})
		},
	}
}

func newKeyserverListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list [options] [remote]",
		Short: "List key servers",
		Long: "List the key servers of all remote endpoints, or of one, in the order in which they are asked. After a name, * says that it is for all users and ^ that it is in use; " +
			"after a server, + says that there is a log-in for it.",
		Example: "  $ singularity keyserver list",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			files, err := remotes(c)
			if err != nil {
				return err
			}
			f, err := files.load()
			if err != nil {
				return err
			}
			names := slices.Sorted(maps.Keys(f.Remotes))
			if len(args) == 1 {
				if f.Remotes[args[0]] == nil {
					return noRemote(args[0], f)
				}
				names = args
			}
			return listServers(c, f, names, asJSON)
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

type keyserverRow struct {
	Remote   string `json:"remote"`
	URI      string `json:"uri"`
	Order    int    `json:"order"`
	External bool   `json:"external"`
	Insecure bool   `json:"insecure"`
	LoggedIn bool   `json:"loggedIn"`
}

func listServers(c *cobra.Command, f *remote.File, names []string, asJSON bool) error {
	quiet := &action.Log{Out: io.Discard}
	var rows []keyserverRow
	for _, name := range names {
		order := 0
		for _, k := range servers(c, quiet, f.Remotes[name]) {
			if k.Skip {
				continue
			}
			order++
			s := keyserver.Server{URL: httpAddress(k.URI)}
			logIn(&s, f.Credentials, "")
			rows = append(rows, keyserverRow{name, k.URI, order, k.External, k.Insecure, s.Auth != "" || !k.External && f.Remotes[name].Token != ""})
		}
	}
	slices.SortStableFunc(rows, func(a, b keyserverRow) int { return cmp.Compare(a.Remote, b.Remote) })
	if asJSON {
		return writeTwoSpaces(c.OutOrStdout(), rows)
	}
	return writeServers(c.OutOrStdout(), f, rows)
}

func writeServers(w io.Writer, f *remote.File, rows []keyserverRow) error {
	var b strings.Builder
	last := ""
	for _, r := range rows {
		if r.Remote != last {
			marks := ""
			if f.Remotes[r.Remote].System {
				marks += "*"
			}
			if f.Active == r.Remote {
				marks += "^"
			}
			fmt.Fprintf(&b, "%s %s\n", r.Remote, marks)
			last = r.Remote
		}
		notes := ""
		if r.LoggedIn {
			notes += " +"
		}
		if r.Insecure {
			notes += " (certificate not checked)"
		}
		fmt.Fprintf(&b, "   #%d  %s%s\n", r.Order, r.URI, notes)
	}
	_, err := io.WriteString(w, action.Printable(b.String()))
	return err
}

func newKeyserverLoginCommand(log *action.Log) *cobra.Command {
	var o loginOptions
	c := &cobra.Command{
		Use:   "login [options] <URL>",
		Short: "Log in to a key server",
		Long:  "Check a user name and password, or without a user name a token, with a key server, and keep them. The key server of a remote endpoint needs no log-in of its own: it takes the endpoint's token.",
		Example: "  $ singularity keyserver login --username ada https://keys.example.org\n" +
			"  $ singularity keyserver login --password-stdin \\\n" +
			"      https://keys.example.org <token",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, []flagEnv{{"username", "LOGIN_USERNAME", false}, {"password", "LOGIN_PASSWORD", false}, {"insecure", "LOGIN_INSECURE", false}}); err != nil {
				return err
			}
			return explainServer(keyserverLogin(c, log, &o, args[0]))
		},
	}
	f := c.Flags()
	f.StringVarP(&o.username, "username", "u", "", "user `name`; without it the password is a token")
	f.StringVarP(&o.password, "password", "p", "", "`password`; others can see it: use --password-stdin")
	f.BoolVar(&o.stdin, "password-stdin", false, "read the password from standard input")
	f.BoolVarP(&o.noHTTPS, "insecure", "i", false, "refused: a password goes over checked TLS only")
	f.MarkHidden("insecure")
	return c
}

func keyserverLogin(c *cobra.Command, log *action.Log, o *loginOptions, server string) error {
	if _, err := keyserver.New([]keyserver.Server{{URL: server}}, transfer.Settings{}); err != nil {
		return err
	}
	address := strings.TrimRight(httpAddress(server), "/")
	if o.noHTTPS || !strings.HasPrefix(address, "https://") {
		return action.Fatal(fmt.Errorf("cannot log in to %q: the password would not be safe on its way", server), "use https, and SSL_CERT_FILE for an authority of your own")
	}
	auth, err := keyserverSecret(c, o)
	if err != nil {
		return err
	}
	files, err := remotes(c)
	if err != nil {
		return err
	}
	config, _, err := registriesConf()
	if err != nil {
		return err
	}
	client, err := httpClient(config, false)
	if err != nil {
		return err
	}
	ctx, stop := interrupted(c.Context())
	defer stop()
	if err := endpoint.CheckCredential(ctx, client, address+"/", auth); err != nil {
		return fmt.Errorf("cannot log in to %q: %w", server, err)
	}
	err = files.change(false, func(f *remote.File) error {
		f.Credentials = slices.DeleteFunc(f.Credentials, func(k remote.Credential) bool { return k.URI == address })
		f.Credentials = append(f.Credentials, remote.Credential{URI: address, Auth: auth})
		return nil
	})
	if err == nil {
		log.Info("Token stored in " + files.user)
	}
	return err
}

// keyserverSecret returns the value of an Authorization header.
func keyserverSecret(c *cobra.Command, o *loginOptions) (string, error) {
	if o.stdin && o.password != "" {
		return "", usageError(c, errors.New("--password and --password-stdin exclude each other"))
	}
	secret := o.password
	switch {
	case o.stdin:
		line, err := firstLine(c.InOrStdin())
		if err != nil {
			return "", err
		}
		secret = line
	case secret == "":
		b, err := newPrompter(c).Secret("Password / Token: ")
		if err != nil {
			return "", err
		}
		secret = string(b)
	}
	switch {
	case secret == "" || strings.ContainsAny(secret, "\r\n") || strings.Contains(o.username, ":"):
		return "", errors.New("cannot log in: a password or token is needed, and a user name has no colon")
	case o.username != "":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(o.username+":"+secret)), nil
	}
	return "Bearer " + secret, nil
}

func newKeyserverLogoutCommand(log *action.Log) *cobra.Command {
	return &cobra.Command{
		Use:     "logout <URL>",
		Short:   "Forget the log-in to a key server",
		Long:    "Remove the password or token for a key server from the file it is kept in.",
		Example: "  $ singularity keyserver logout https://keys.example.org",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			files, err := remotes(c)
			if err != nil {
				return err
			}
			address := strings.TrimRight(httpAddress(args[0]), "/")
			err = files.change(false, func(f *remote.File) error {
				n := len(f.Credentials)
				f.Credentials = slices.DeleteFunc(f.Credentials, func(k remote.Credential) bool { return k.URI == address })
				if len(f.Credentials) == n {
					return fmt.Errorf("cannot log out of %q: there is no log-in", args[0])
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
