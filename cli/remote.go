package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/conf"
	"singularity/conf/remote"
)

// remoteFiles are where the endpoints are kept.
type remoteFiles struct{ user, system string }

func systemRemotes() string { return filepath.Join(conf.Dir(), "remote.yaml") }

// remotes returns the files of endpoints: the one that --config of the group
// names, or the usual ones.
func remotes(c *cobra.Command) (remoteFiles, error) {
	if file, err := c.Flags().GetString("config"); err == nil && file != "" {
		return remoteFiles{file, systemRemotes()}, nil
	}
	dir, err := action.ConfigDir(os.Getenv)
	return remoteFiles{filepath.Join(dir, "remote.yaml"), systemRemotes()}, err
}

func (r remoteFiles) load() (*remote.File, error) {
	if err := conf.CheckSite(r.system); err != nil {
		return nil, action.OwnerHint(err)
	}
	return remote.Load(r.user, r.system)
}

// change edits the user's file, or with global that of the installation.
func (r remoteFiles) change(global bool, edit func(*remote.File) error) error {
	if !global {
		return remote.Change(r.user, 0o600, edit)
	}
	if err := mustBeRoot("the remotes of all users"); err != nil {
		return err
	}
	return remote.Change(r.system, 0o644, edit)
}

func mustBeRoot(what string) error {
	if os.Geteuid() != 0 {
		return action.Fatal(errors.New("cannot change "+what+": only root may"), "sudo singularity ...")
	}
	return nil
}

// endpoint returns the endpoint called name, or the active one for an empty name.
func (r remoteFiles) endpoint(name string) (string, *remote.Endpoint, error) {
	f, err := r.load()
	if err != nil {
		return "", nil, err
	}
	if name == "" {
		name = f.Active
	}
	if name == "" {
		return "", nil, action.Fatal(errors.New("no remote endpoint is in use"), "add one: singularity remote add NAME https://HOST")
	}
	e := f.Remotes[name]
	if e == nil {
		return "", nil, noRemote(name, f)
	}
	return name, e, nil
}

func noRemote(name string, f *remote.File) error {
	hint := "add it: singularity remote add " + name + " https://HOST"
	if names := slices.Sorted(maps.Keys(f.Remotes)); len(names) > 0 {
		hint = "there are: " + strings.Join(names, ", ")
	}
	return action.Fatal(fmt.Errorf("there is no remote %q", name), hint)
}

func newRemoteCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "remote",
		Short: "Choose the services to use, and log in to them",
		Long: "A remote endpoint is a host that has a library of images, a key server, a builder, or some of these. Commands talk to the one in use, with the access token of the log-in. " +
			"Endpoints are kept in ~/.singularity/remote.yaml, those of all users in that file of the installation.",
		Example: "  $ singularity remote add lab https://cloud.example.org\n" +
			"  $ singularity remote login lab\n" +
			"  $ singularity remote status",
	}
	addConfigFlag(c)
	c.AddCommand(newRemoteAddCommand(log), newRemoteLoginPasswordCommand(), newRemoteListCommand(), newRemoteLoginCommand(log),
		newRemoteLogoutCommand(log), newRemoteRemoveCommand(log), newRemoteStatusCommand(log), newRemoteUseCommand(log))
	return c
}

func addConfigFlag(c *cobra.Command) {
	c.PersistentFlags().StringP("config", "c", "", "`file` of the user's remote endpoints")
}

type remoteAddOptions struct {
	global, noLogin, insecure, noDefault bool
	login                                remoteLoginOptions
}

func newRemoteAddCommand(log *action.Log) *cobra.Command {
	var o remoteAddOptions
	c := &cobra.Command{
		Use:   "add [options] <name> <URI>",
		Short: "Add a remote endpoint",
		Long:  "Add a remote endpoint, use it from now on, and log in to it. Nothing is kept if the log-in fails, but with --no-login.",
		Example: "  $ singularity remote add lab https://cloud.example.org\n" +
			"  $ singularity remote add --no-login --no-default test https://test.example.org",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, []flagEnv{{"global", "GLOBAL", false}, {"insecure", "ADD_INSECURE", false}, {"tokenfile", "TOKENFILE", false}}); err != nil {
				return err
			}
			return remoteAdd(c, log, &o, args[0], args[1])
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.global, "global", "g", false, "add it for all users (root only); nobody is logged in")
	f.BoolVar(&o.noLogin, "no-login", false, "do not log in")
	f.BoolVarP(&o.insecure, "insecure", "i", false, "use http")
	f.BoolVarP(&o.noDefault, "no-default", "n", false, "do not use it from now on")
	f.StringVar(&o.login.tokenFile, "tokenfile", "", "read the access token from this `file`")
	return c
}

// endpointURI returns uri as it is kept: host and path.
func endpointURI(uri string, insecure bool) (string, error) {
	rest, plain := strings.CutPrefix(uri, "http://")
	if plain && !insecure {
		return "", action.Fatal(fmt.Errorf("cannot use %q: log-in and images would not be encrypted", uri), "use https://, or allow it with --insecure")
	}
	rest = strings.TrimRight(strings.TrimPrefix(rest, "https://"), "/")
	host, _, _ := strings.Cut(rest, "/")
	if host == "" || strings.Contains(rest, "://") || strings.ContainsAny(rest, "@?#\\ \t\r\n") {
		return "", fmt.Errorf("cannot use %q as a remote endpoint: want https://HOST", uri)
	}
	return rest, nil
}

func remoteAdd(c *cobra.Command, log *action.Log, o *remoteAddOptions, name, uri string) error {
	files, err := remotes(c)
	if err != nil {
		return err
	}
	at, err := endpointURI(uri, o.insecure)
	if err != nil {
		return err
	}
	e := &remote.Endpoint{URI: at, Insecure: o.insecure}
	if f, err := files.load(); err != nil {
		return err
	} else if err := f.Add(name, &remote.Endpoint{URI: at}); err != nil { // before a log-in that would be in vain
		return action.Fatal(err, "remove it before: singularity remote remove "+name)
	}
	if !o.global && !o.noLogin {
		if e.Token, err = o.login.token(c, log, e); err != nil {
			return action.Fatal(fmt.Errorf("cannot add the remote %q: %w", name, err), "add it without a log-in: --no-login")
		}
	}
	err = files.change(o.global, func(f *remote.File) error {
		if err := f.Add(name, e); err != nil {
			return err
		}
		if !o.noDefault {
			f.Active = name
		}
		return nil
	})
	if err != nil {
		return err
	}
	log.Info("Remote " + action.Printable(fmt.Sprintf("%q", name)) + " added.")
	if e.Token != "" {
		log.Info("Token stored in " + files.user)
	} else if o.global {
		log.Info("Global option detected. Will not automatically log into remote.")
	}
	return nil
}

func newRemoteRemoveCommand(log *action.Log) *cobra.Command {
	var global bool
	c := &cobra.Command{
		Use:     "remove [options] <name>",
		Short:   "Remove a remote endpoint",
		Long:    "Remove a remote endpoint and the access token for it. The token stays valid: its owner revokes it on the endpoint's page of tokens.",
		Example: "  $ singularity remote remove test",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, []flagEnv{{"global", "GLOBAL", false}}); err != nil {
				return err
			}
			files, err := remotes(c)
			if err != nil {
				return err
			}
			if _, e, err := files.endpoint(args[0]); err != nil {
				return err
			} else if e.System && !global {
				return action.Fatal(fmt.Errorf("cannot remove the remote %q: it is for all users", args[0]), "root removes it with --global")
			}
			err = files.change(global, func(f *remote.File) error {
				if f.Remotes[args[0]] == nil {
					return noRemote(args[0], f)
				}
				delete(f.Remotes, args[0])
				if f.Active == args[0] {
					f.Active = ""
				}
				return nil
			})
			if err == nil {
				log.Info(fmt.Sprintf("Remote %q removed.", args[0]))
			}
			return err
		},
	}
	c.Flags().BoolVarP(&global, "global", "g", false, "remove it for all users (root only)")
	return c
}

func newRemoteUseCommand(log *action.Log) *cobra.Command {
	var global, exclusive bool
	c := &cobra.Command{
		Use:   "use [options] <name>",
		Short: "Use a remote endpoint from now on",
		Long:  "Make a remote endpoint the one that commands use. With --exclusive, which is for root and all users, they can use no other.",
		Example: "  $ singularity remote use lab\n" +
			"  $ sudo singularity remote use --global --exclusive lab",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, []flagEnv{{"global", "GLOBAL", false}, {"exclusive", "EXCLUSIVE", false}}); err != nil {
				return err
			}
			return remoteUse(c, log, args[0], global, exclusive)
		},
	}
	f := c.Flags()
	f.BoolVarP(&global, "global", "g", false, "for all users (root only)")
	f.BoolVarP(&exclusive, "exclusive", "e", false, "for all users, who can use no other (root only)")
	return c
}

func remoteUse(c *cobra.Command, log *action.Log, name string, global, exclusive bool) error {
	files, err := remotes(c)
	if err != nil {
		return err
	}
	joined, err := files.load()
	if err != nil {
		return err
	}
	if e := joined.Remotes[joined.Active]; e != nil && e.Exclusive && joined.Active != name && !global && !exclusive {
		return action.Fatal(fmt.Errorf("cannot use the remote %q: the administrator allows %q only", name, joined.Active), "")
	}
	global = global || exclusive
	err = files.change(global, func(f *remote.File) error {
		if e := joined.Remotes[name]; e == nil || global && f.Remotes[name] == nil {
			return noRemote(name, joined)
		}
		f.Active = name
		for other, e := range f.Remotes {
			if global {
				e.Exclusive = exclusive && other == name
			}
		}
		return nil
	})
	if err == nil {
		log.Info(fmt.Sprintf("Remote %q now in use.", name))
	}
	return err
}

func newRemoteListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "list [options]",
		Short:   "List remote endpoints",
		Long:    "List the remote endpoints of the user and of the installation, and which one is in use.",
		Example: "  $ singularity remote list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			files, err := remotes(c)
			if err != nil {
				return err
			}
			f, err := files.load()
			if err != nil {
				return err
			}
			return listRemotes(c.OutOrStdout(), f, asJSON)
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

type remoteRow struct {
	Name      string `json:"name"`
	URI       string `json:"uri"`
	Active    bool   `json:"active"`
	Global    bool   `json:"global"`
	Exclusive bool   `json:"exclusive"`
	Insecure  bool   `json:"insecure"`
	LoggedIn  bool   `json:"loggedIn"`
}

func listRemotes(w io.Writer, f *remote.File, asJSON bool) error {
	rows := []remoteRow{}
	for name, e := range f.Remotes {
		rows = append(rows, remoteRow{name, e.URI, name == f.Active, e.System, e.Exclusive, e.Insecure, e.Token != ""})
	}
	slices.SortFunc(rows, func(a, b remoteRow) int { return cmp.Compare(a.Name, b.Name) })
	if asJSON {
		return writeTwoSpaces(w, rows)
	}
	mark := func(on bool, sign string) string {
		if on {
			return sign
		}
		return ""
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tURI\tDEFAULT?\tGLOBAL?\tEXCLUSIVE?\tSECURE?")
	for _, r := range rows {
		secure := "✓"
		if r.Insecure {
			secure = "✗!"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", action.Printable(r.Name), action.Printable(r.URI), mark(r.Active, "✓"), mark(r.Global, "✓"), mark(r.Exclusive, "✓"), secure)
	}
	return t.Flush()
}
