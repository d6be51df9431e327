package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/client/endpoint"
	"singularity/client/library"
	"singularity/client/transfer"
	"singularity/client/translog"
	"singularity/conf"
	"singularity/conf/registries"
	"singularity/fetch"
	"singularity/fetch/cache"
	"singularity/fetch/recent"
	"singularity/host"
	"singularity/oci/registry"
)

// startConnect bounds the time for a connection when a container starts: an
// image that is here already should not have to wait for a network that is not.
const startConnect = 4 * time.Second

// fetchOptions are the flags of all commands that talk to registries and
// libraries.
type fetchOptions struct {
	noHTTPS, disableCache, dockerLogin bool
	authFile, library, tmpDir          string
	dockerHost, username, password     string
	arch, platform                     string
	shown                              bool // the password is on the command line
}

// fetchEnv are the variables of these flags.
var fetchEnv = []flagEnv{
	{"no-https", "NOHTTPS", false}, {"no-https", "NO_HTTPS", false}, {"disable-cache", "DISABLE_CACHE", false}, {"authfile", "AUTHFILE", false},
	{"library", "LIBRARY", false}, {"tmpdir", "TMPDIR", false}, {"docker-host", "DOCKER_HOST", false}, {"docker-login", "DOCKER_LOGIN", false},
	{"docker-username", "DOCKER_USERNAME", false}, {"docker-password", "DOCKER_PASSWORD", false},
}

// addFlags adds the flags that pull and push share.
func (o *fetchOptions) addFlags(c *cobra.Command) {
	o.addCredentialFlags(c)
	f := c.Flags()
	f.StringVar(&o.dockerHost, "docker-host", "", "`address` of the Docker daemon")
	f.StringVar(&o.tmpDir, "tmpdir", "", "`directory` for temporary files")
	f.MarkHidden("tmpdir")
}

// addCredentialFlags adds the flags for how and as whom to talk to registries.
func (o *fetchOptions) addCredentialFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.authFile, "authfile", "", "`file` with the credentials for registries")
	f.BoolVar(&o.dockerLogin, "docker-login", false, "ask for the user name and password of the registry")
	f.StringVar(&o.username, "docker-username", "", "user `name` for the registry")
	f.StringVar(&o.password, "docker-password", "", "`password` for the registry; others can see it: use SINGULARITY_DOCKER_PASSWORD")
	f.MarkHidden("docker-username")
	f.MarkHidden("docker-password")
	f.BoolVar(&o.noHTTPS, "no-https", false, "use http, or TLS without checking certificates, for docker, oras and library hosts")
	f.BoolVar(&o.noHTTPS, "nohttps", false, "use http")
	f.MarkDeprecated("nohttps", "use '--no-https'")
}

// fromEnv takes values of the environment for those flags that c has and that
// were not given. Docker's own variables count without our prefix.
func (o *fetchOptions) fromEnv(c *cobra.Command) error {
	var known []flagEnv
	for _, e := range fetchEnv {
		if c.Flags().Lookup(e.flag) != nil {
			known = append(known, e)
		}
	}
	o.shown = o.password != ""
	if err := setFromEnv(c, known); err != nil {
		return err
	}
	o.bare()
	return nil
}

func (o *fetchOptions) bare() {
	for field, key := range map[*string]string{&o.username: "DOCKER_USERNAME", &o.password: "DOCKER_PASSWORD", &o.dockerHost: "DOCKER_HOST"} {
		if *field == "" {
			*field = os.Getenv(key)
		}
	}
}

// chosen returns the platform that --arch or --platform names.
func (o *fetchOptions) chosen() (v1.Platform, error) {
	p := fetch.HostPlatform()
	switch {
	case o.arch != "" && o.platform != "":
		return p, errors.New("--arch and --platform cannot be used together")
	case o.platform != "":
		got, err := v1.ParsePlatform(o.platform)
		if err != nil || got.OS == "" || got.Architecture == "" {
			return p, fmt.Errorf("cannot use the platform %q: os/arch[/variant] is wanted", o.platform)
		}
		return *got, nil
	case o.arch != "":
		p.Architecture = o.arch
	}
	return p, nil
}

// registriesConf reads the configuration of registries.
func registriesConf() (*registries.File, string, error) {
	dir, err := action.ConfigDir(os.Getenv)
	if err != nil {
		return nil, "", err
	}
	f, err := registries.Load(filepath.Join(dir, "registries.conf"), filepath.Join(conf.Dir(), "registries.conf"))
	if err != nil {
		return nil, dir, err
	}
	if on, err := strconv.ParseBool(os.Getenv("SINGULARITY_OFFLINE")); err == nil {
		f.Offline = on
	}
	return f, dir, nil
}

// userAgent is how we call ourselves.
func userAgent() string { return "singularity/" + conf.Version }

// credentials returns where credentials for registries come from.
func (o *fetchOptions) credentials(dir string) *registry.Resolver {
	r := &registry.Resolver{Explicit: registry.Auth{Username: o.username, Password: o.password}, AuthFile: o.authFile,
		Own: filepath.Join(dir, "docker-config.json")}
	if u, err := host.LookupUser(action.RealUID(), os.Getgid()); err == nil {
		home := u.Home
		if h := os.Getenv("HOME"); h != "" && filepath.IsAbs(h) {
			home = h
		}
		r.Others = registry.OtherFiles(os.Getenv, home)
	}
	return r
}

// registryClient returns the client of registries.
func (o *fetchOptions) registryClient(ctx context.Context, log *action.Log) (*registry.Client, error) {
	config, dir, err := registriesConf()
	if err != nil {
		return nil, err
	}
	if o.shown {
		o.shown = false // once is enough
		log.Warning("other users can see a password on the command line: use SINGULARITY_DOCKER_PASSWORD, or log in")
	}
	return &registry.Client{
		Config: config, Credentials: o.credentials(dir), Plain: o.noHTTPS, UserAgent: userAgent(), Context: ctx,
		CertDirs: []string{filepath.Join(dir, "certs.d"), filepath.Join(conf.Dir(), "certs.d"), "/etc/containers/certs.d", "/etc/docker/certs.d"},
		Log:      log.Verbose,
	}, nil
}

// httpClient returns a client for services that are no registries.
func httpClient(config *registries.File, plain bool) (*http.Client, error) {
	t, err := transfer.NewTransport(&transfer.Settings{Offline: config.Offline, Proxy: config.Proxy, Plain: plain, UserAgent: userAgent(), Again: true})
	if err != nil {
		return nil, err
	}
	return transfer.NewClient(t), nil
}

// fetcher returns what fetches images for command lines with these flags.
func (o *fetchOptions) fetcher(ctx context.Context, log *action.Log, p *transferBar) (*fetch.Fetcher, error) {
	platform, err := o.chosen()
	if err != nil {
		return nil, err
	}
	f := &fetch.Fetcher{Platform: platform, PlainHTTP: o.noHTTPS, Info: log.Info, Warning: log.Warning, Verbose: log.Verbose}
	if p != nil {
		f.Progress = p.show
		f.Info = func(s string) { p.clear(); log.Info(s) }
	}
	if f.Registry, err = o.registryClient(ctx, log); err != nil {
		return nil, err
	}
	if f.HTTP, err = httpClient(f.Registry.Config, o.noHTTPS); err != nil {
		return nil, err
	}
	f.Library = func(ctx context.Context, host string) (*library.Client, error) {
		return o.libraryClient(ctx, f.Registry.Config, host)
	}
	f.Convert, f.Local = o.convert(log), o.local()
	f.TempDir = o.temporary()
	f.Cache = o.openCache(log)
	return f, nil
}

// temporary is where large temporary files go.
func (o *fetchOptions) temporary() string { return tempDir(o.tmpDir) }

// tempDir is where temporary files go: the directory that a flag names, that of
// the environment, or one on disk.
func tempDir(flag string) string {
	return host.TempDir(flag, os.Getenv("SINGULARITY_TMPDIR"), os.Getenv("TMPDIR"))
}

// cacheRoot returns the root of the cache.
func cacheRoot() (string, error) {
	if dir := os.Getenv("SINGULARITY_CACHEDIR"); dir != "" && !filepath.IsAbs(dir) {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		os.Setenv("SINGULARITY_CACHEDIR", abs)
	}
	var err error
	root := recent.Root(os.Getenv, func() string {
		var dir string
		dir, err = action.ConfigDir(os.Getenv)
		return dir
	})
	return root, err
}

// openCache opens the cache; nil if there is to be none or it cannot be used.
func (o *fetchOptions) openCache(log *action.Log) *cache.Cache {
	if o.disableCache {
		return nil
	}
	root, err := cacheRoot()
	var c *cache.Cache
	if err == nil {
		c, err = cache.Open(root)
	}
	if err == nil {
		c.Size, err = cacheSize(os.Getenv("SINGULARITY_CACHE_SIZE"))
	}
	if err != nil {
		log.Warning("going on without a cache: " + err.Error())
		return nil
	}
	c.Evicted = func(e cache.Entry) {
		log.Info(fmt.Sprintf("Removed %s, last used on %s: the cache %s holds more than %s", e.Name, e.Used.Format("2006-01-02"), c.Root, byteSize(c.Size)))
	}
	return c
}

// cacheSize reads a size such as 20G; 0 means no limit.
func cacheSize(s string) (int64, error) {
	if s == "" {
		return cache.DefaultSize, nil
	}
	digits := strings.TrimRight(strings.ToUpper(s), "IB")
	shift := 0
	if i := strings.IndexAny(digits, "KMGT"); i >= 0 && i == len(digits)-1 {
		shift = 10 * (strings.IndexByte("KMGT", digits[i]) + 1)
		digits = digits[:i]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("SINGULARITY_CACHE_SIZE=%q is no size such as 20G", s)
	}
	return n << shift, nil
}

// errNoLibrary says that no library is configured.
func errNoLibrary() error {
	return action.Fatal(errors.New("no library is configured"), "name one by --library URL or SINGULARITY_LIBRARY, or a remote endpoint in remote.yaml")
}

// libraryClient returns the client of the library of host, of --library, or of
// the active remote endpoint, whose token goes to it alone.
func (o *fetchOptions) libraryClient(ctx context.Context, config *registries.File, host string) (*library.Client, error) {
	client, err := httpClient(config, o.noHTTPS)
	if err != nil {
		return nil, err
	}
	scheme := "https://"
	if o.noHTTPS {
		scheme = "http://"
	}
	base := o.library
	if host != "" {
		base = host
	}
	dir, err := action.ConfigDir(os.Getenv)
	if err != nil {
		return nil, err
	}
	memory := logMemory{filepath.Join(dir, "logs")}
	if base != "" {
		if !strings.Contains(base, "://") {
			base = scheme + base
		}
		l, err := library.New(base, "", client)
		if err == nil {
			l.Memory = memory
		}
		return l, err
	}
	name, e, err := activeRemote(filepath.Join(dir, "remote.yaml"))
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, errNoLibrary()
	}
	if e.Insecure && !o.noHTTPS {
		if client, err = httpClient(config, true); err != nil {
			return nil, err
		}
	}
	services, err := endpoint.Discover(ctx, client, e.URI, e.Insecure)
	if err != nil {
		return nil, err
	}
	if services["library"] == "" {
		return nil, fmt.Errorf("the remote endpoint %q has no library", name)
	}
	l, err := library.New(services["library"], e.Token, client)
	if err == nil {
		l.TokenSource, l.Memory = "the remote endpoint "+strconv.Quote(name), memory
	}
	return l, err
}

// explainFetch gives an error of fetching the hint that helps.
func explainFetch(err error) error {
	if _, ok := errors.AsType[*action.Failure](err); ok || err == nil {
		return err
	}
	hint := ""
	status, refused := errors.AsType[*transfer.StatusError](err)
	credential, _ := errors.AsType[*registry.CredentialError](err)
	_, plain := errors.AsType[*transfer.PlainError](err)
	_, ofRegistry := errors.AsType[*registry.Error](err)
	_, missing := errors.AsType[*library.NotFoundError](err)
	_, helper := errors.AsType[*registry.HelperError](err)
	_, owner := errors.AsType[*cache.OwnerError](err)
	full, _ := errors.AsType[*host.SpaceError](err)
	switch {
	case errors.Is(err, translog.ErrHistory):
		hint = historyHint
	case credential != nil:
		hint = "if that host belongs to the registry, name it in auth-hosts of registries.conf"
	case refused && ofRegistry && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden):
		hint = "log in with: singularity registry login docker://" + status.Host + "; -v shows which credentials are used"
	case refused && ofRegistry && status.Code == http.StatusTooManyRequests:
		hint = "the registry limits pulls: log in, or set a mirror in registries.conf"
	case refused && status.Code == http.StatusNotFound, missing:
		hint = "check the name and the tag"
	case plain:
		hint = "--no-https allows it"
	case errors.Is(err, transfer.ErrOffline):
		hint = "unset SINGULARITY_OFFLINE and offline in registries.conf, or pull the image before"
	case errors.Is(err, registry.ErrNotSIF):
		hint = "images of layers have the scheme docker://"
	case helper:
		hint = "repair the helper, or take it out of the file that names it"
	case full != nil:
		hint = spaceCure(full)
	case owner:
		hint = "let SINGULARITY_CACHEDIR name a directory of your own"
	case errors.Is(err, fs.ErrExist):
		hint = "--force replaces it"
	default:
		return err
	}
	return action.Fatal(err, hint)
}
