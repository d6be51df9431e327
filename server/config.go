package server

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	"singularity/server/auth"
)

// Config is the one file of the server. Every key but the list of providers and
// [storage] is a flag too, with dashes, and a variable SINGULARITY_SERVER_KEY; a flag is
// stronger than a variable, and that than the file.
type Config struct {
	Data     string `toml:"data" help:"directory of everything that is kept, mode 0700"`
	Listen   string `toml:"listen" help:"address of the public listener"`
	Internal string `toml:"internal" help:"address of the internal listener, for health, readiness, metrics and other services of the site"`
	URL      string `toml:"url" help:"where clients and browsers reach the server; by default the name of this host and the port of the listener"`

	TLSCert       string   `toml:"tls_cert" help:"file with the certificate and its chain; by default a certificate of an own authority is made in the data directory"`
	TLSKey        string   `toml:"tls_key" help:"file with the key of the certificate"`
	ACMEHosts     []string `toml:"acme_hosts" help:"names to get certificates for by ACME; the listener must be reachable there at port 443"`
	ACMEEmail     string   `toml:"acme_email" help:"address for the ACME authority"`
	ACMEDirectory string   `toml:"acme_directory" help:"another ACME authority than Let's Encrypt"`
	InsecureHTTP  bool     `toml:"insecure_http" help:"serve plain HTTP; on a loopback address only, for tests"`

	TrustedProxies []string `toml:"trusted_proxies" help:"networks whose X-Forwarded-For is believed"`
	DialNetworks   []string `toml:"dial_networks" help:"networks that are not public to which the server may connect: those of providers of log-ins and of ACME authorities"`
	MaxConnections int      `toml:"max_connections" help:"connections at a time"`
	StopTime       string   `toml:"stop_time" help:"how long running transfers may go on at a stop"`

	LogLevel  string `toml:"log_level" help:"debug, info, warn or error"`
	LogFormat string `toml:"log_format" help:"text or json"`
	AuditLog  string `toml:"audit_log" help:"file that the audit record is appended to as JSON lines; by default audit.log in the data directory"`

	TokenLife    string `toml:"token_life" help:"how long a new access token works"`
	TokenMaxLife string `toml:"token_max_life" help:"the longest that a user may choose"`
	SessionLife  string `toml:"session_life" help:"how long a browser stays logged in at most"`

	RateAnonymous int      `toml:"rate_anonymous" help:"requests a minute from one address without a token"`
	RateUser      int      `toml:"rate_user" help:"requests a minute with one token"`
	RatePush      int      `toml:"rate_push" help:"objects a minute that one token makes"`
	RateSearch    int      `toml:"rate_search" help:"searches a minute"`
	RateLogin     int      `toml:"rate_login" help:"log-ins and checks of tokens a minute"`
	RateKeys      int      `toml:"rate_keys" help:"look-ups of keys a minute; a tenth of it for searches by text"`
	RateKeyAdd    int      `toml:"rate_key_add" help:"keys an hour that one account adds"`
	RateFree      []string `toml:"rate_free" help:"networks that no rate is counted for"`

	LibraryQuota    int    `toml:"library_quota" help:"bytes that an entity may store in the library; 0 for no limit"`
	LibraryMaxImage int    `toml:"library_max_image" help:"bytes of an image at most"`
	LibraryUndo     string `toml:"library_undo" help:"how long a deleted image can be restored"`
	LibraryNoDelete bool   `toml:"library_no_delete" help:"let nobody delete images"`
	OpenKeys        bool   `toml:"open_keys" help:"take keys from anybody and let searches find every name in them; for networks where everybody is trusted"`

	BuildTime     string `toml:"build_time" help:"how long a remote build may run"`
	BuildMemory   int    `toml:"build_memory" help:"bytes of memory of a build"`
	BuildDisk     int    `toml:"build_disk" help:"bytes on disk that a build may write"`
	BuildCPUs     int    `toml:"build_cpus" help:"processors of a build"`
	BuildPIDs     int    `toml:"build_pids" help:"processes of a build"`
	BuildOutput   int    `toml:"build_output" help:"bytes of the log of a build"`
	BuildContext  int    `toml:"build_context" help:"bytes of the files that a client sends for a build, packed"`
	BuildParallel int    `toml:"build_parallel" help:"builds of a user at a time"`
	BuildQueued   int    `toml:"build_queued" help:"builds of a user that are not over"`
	BuildAttempts int    `toml:"build_attempts" help:"how many workers a build may lose before it is given up"`
	BuildSignKey  string `toml:"build_sign_key" help:"file of the private key by which the service signs what was built, PEM or OpenPGP without a passphrase; by default nothing is signed"`
	BuildSecrets  string `toml:"build_secrets_key" help:"file of 32 bytes that stored passwords of registries are sealed by; by default one is made in the data directory, and several servers need the same"`
	BuildLease    string `toml:"build_lease" help:"after how long without a sign of life a worker is taken for lost"`
	BuildKeep     string `toml:"build_keep" help:"how long an image that was built for a file of the client is kept"`
	BuildHistory  string `toml:"build_history" help:"how long builds that are over are kept, with their logs"`

	WatchAdvisories string `toml:"watch_advisories" help:"directory or archive with advisories in OSV form, to compare the stored images with; taken anew when it changes"`
	WatchMaxAge     string `toml:"watch_max_age" help:"how old the newest advisory may be until pages say that the data is old"`
	WatchParallel   int    `toml:"watch_parallel" help:"images that are read for their packages at a time"`
	WatchRuns       string `toml:"watch_runs" help:"how long records of runs are kept"`
	WatchSameUsers  bool   `toml:"watch_same_users" help:"accounts have the names of users of the hosts, so that people may see the runs that hosts tell of them"`

	WatchSMTP             string `toml:"watch_smtp" help:"mail server for notices of findings, as mail.example.org:587; it must offer STARTTLS"`
	WatchSMTPFrom         string `toml:"watch_smtp_from" help:"address that notices come from"`
	WatchSMTPUser         string `toml:"watch_smtp_user" help:"account at the mail server"`
	WatchSMTPPasswordFile string `toml:"watch_smtp_password_file" help:"file with its password"`
	WatchSMTPCA           string `toml:"watch_smtp_ca" help:"file with authorities to trust for the mail server"`

	QueueURL         string `toml:"queue_url" help:"NATS cluster to use, as tls://nats.example.org:4222; by default the queue is in this process"`
	QueueCredentials string `toml:"queue_credentials" help:"file with the credentials for it"`
	QueueCA          string `toml:"queue_ca" help:"file with authorities to trust for it"`
	QueueReplicas    int    `toml:"queue_replicas" help:"how many servers of it keep a copy"`

	Workers           int      `toml:"workers" help:"builds at a time: of serve, in this process; of worker, 1 by default"`
	WorkerName        string   `toml:"worker_name" help:"how this worker is called; by default as the host"`
	WorkerServer      string   `toml:"worker_server" help:"internal listener of the server that a worker builds for, as https://HOST:8444"`
	WorkerCertificate string   `toml:"worker_certificate" help:"file with the certificate and key of a worker, from: admin certificate --worker NAME"`
	WorkerCA          string   `toml:"worker_ca" help:"file with the authority of the server, ca.pem of its data directory"`
	WorkerDir         string   `toml:"worker_dir" help:"directory that builds work in; by default builds in the data directory"`
	WorkerIDs         int      `toml:"worker_ids" help:"first user id of the ranges of 65536 that builds get where a worker is root"`
	WorkerAllow       []string `toml:"worker_allow" help:"networks and HOST:PORTs that builds reach though they are not public: mirrors, registries of the site"`
	WorkerProgram     string   `toml:"worker_program" help:"the singularity that builds; by default the one beside this program, or of PATH"`

	Storage   Storage          `toml:"storage"`
	Providers []ProviderConfig `toml:"provider"`
}

// ProviderConfig is a [[provider]] of the file: one that people log in by.
type ProviderConfig struct {
	Name             string   `toml:"name"`
	Title            string   `toml:"title"`
	Issuer           string   `toml:"issuer"`
	ClientID         string   `toml:"client_id"`
	ClientSecretFile string   `toml:"client_secret_file"`
	Scopes           []string `toml:"scopes"`
	GroupsClaim      string   `toml:"groups_claim"`
	AdminGroup       string   `toml:"admin_group"`
	Domains          []string `toml:"domains"`
	NoSignUp         bool     `toml:"no_sign_up"`
}

// Defaults returns what holds where nobody says otherwise.
func Defaults() Config {
	return Config{Data: defaultData(), Listen: ":8443", Internal: "127.0.0.1:8444", MaxConnections: 10_000, StopTime: "60s", LogLevel: "info", LogFormat: "text",
		TokenLife: "720h", TokenMaxLife: "8784h", SessionLife: "168h", RateAnonymous: 300, RateUser: 1200, RatePush: 60, RateSearch: 30, RateLogin: 30, RateKeys: 600, RateKeyAdd: 30,
		LibraryMaxImage: 50 << 30, LibraryUndo: "168h",
		BuildTime: "1h", BuildMemory: 4 << 30, BuildDisk: 20 << 30, BuildCPUs: 2, BuildPIDs: 4096, BuildOutput: 64 << 20, BuildContext: 2 << 30, BuildParallel: 2, BuildQueued: 50, BuildAttempts: 3,
		WatchMaxAge: "168h", WatchParallel: 1, WatchRuns: "2160h",
		BuildLease: "20s", BuildKeep: "24h", BuildHistory: "2160h", QueueReplicas: 1, WorkerIDs: 1 << 30, Storage: Storage{Records: inDirectory, Blobs: inDirectory}}
}

func defaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/singularity-server"
	}
	dir := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(dir, "singularity-server")
}

// DefaultFile is read if no other is named, and may be missing.
const DefaultFile = "/etc/singularity/server.toml"

const maxConfig = 1 << 20

// ParseConfig reads the text of a file into c. A key that nobody knows is an
// error: a rule that is misspelt would not hold.
func ParseConfig(text []byte, c *Config) error {
	if len(text) > maxConfig {
		return fmt.Errorf("it is longer than %d bytes", maxConfig)
	}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(c)
	var strict *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &strict) && len(strict.Errors) > 0:
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: there is no key %q", row, strings.Join(strict.Errors[0].Key(), "."))
	case errors.As(err, &bad):
		row, _ := bad.Position()
		return fmt.Errorf("line %d: %s", row, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	return err
}

// each calls f for every key that is a flag.
func (c *Config) each(f func(key, help string, value reflect.Value)) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if help := v.Type().Field(i).Tag.Get("help"); help != "" {
			f(v.Type().Field(i).Tag.Get("toml"), help, v.Field(i))
		}
	}
}

// AddFlags adds --config and a flag for every key.
func AddFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "file with the configuration (default "+DefaultFile+", if it is there)")
	d := Defaults()
	d.each(func(key, help string, v reflect.Value) {
		name := strings.ReplaceAll(key, "_", "-")
		switch v.Kind() {
		case reflect.Bool:
			flags.Bool(name, v.Bool(), help)
		case reflect.Int:
			flags.Int(name, int(v.Int()), help)
		case reflect.Slice:
			flags.StringSlice(name, nil, help)
		default:
			flags.String(name, v.String(), help)
		}
	})
}

// LoadConfig puts file, environment and flags together.
func LoadConfig(flags *pflag.FlagSet) (Config, error) {
	c := Defaults()
	name, err := flags.GetString("config")
	if err != nil {
		return c, err
	}
	named := name != ""
	if !named {
		name = DefaultFile
	}
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
	case err != nil:
		return c, fmt.Errorf("cannot read the configuration %q: %w", name, errors.Unwrap(err))
	default:
		if err := ParseConfig(text, &c); err != nil {
			return c, fmt.Errorf("cannot use the configuration %q: %w", name, err)
		}
	}
	var wrong error
	c.each(func(key, _ string, v reflect.Value) {
		flag := flags.Lookup(strings.ReplaceAll(key, "_", "-"))
		variable := "SINGULARITY_SERVER_" + strings.ToUpper(key)
		if value, ok := os.LookupEnv(variable); ok && !flag.Changed {
			wrong = errors.Join(wrong, set(v, variable, value))
		}
		if !flag.Changed {
			return
		}
		if s, ok := flag.Value.(pflag.SliceValue); ok {
			v.Set(reflect.ValueOf(s.GetSlice()))
			return
		}
		wrong = errors.Join(wrong, set(v, "--"+flag.Name, flag.Value.String()))
	})
	if wrong != nil {
		return c, wrong
	}
	return c, c.check()
}

func set(v reflect.Value, name, text string) error {
	var err error
	switch v.Kind() {
	case reflect.Bool:
		var b bool
		b, err = strconv.ParseBool(text)
		v.SetBool(b)
	case reflect.Int:
		var n int
		n, err = strconv.Atoi(text)
		v.SetInt(int64(n))
	case reflect.Slice:
		v.Set(reflect.ValueOf(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })))
	default:
		v.SetString(text)
	}
	if err != nil {
		return fmt.Errorf("cannot use %s=%q: it takes %s", name, text, map[reflect.Kind]string{reflect.Bool: "true or false", reflect.Int: "a number"}[v.Kind()])
	}
	return nil
}

// check refuses what could not be served, or not safely.
func (c *Config) check() error {
	bad := func(key, format string, args ...any) error {
		return fmt.Errorf("cannot use the setting %s: %s", key, fmt.Sprintf(format, args...))
	}
	if err := c.Storage.check(); err != nil {
		return bad("[storage]", "%v", err)
	}
	if !filepath.IsAbs(c.Data) {
		return bad("data", "%q is no absolute path", c.Data)
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return bad("listen", "%q is no address", c.Listen)
	}
	if _, _, err := net.SplitHostPort(c.Internal); err != nil {
		return bad("internal", "%q is no address", c.Internal)
	}
	if a, err := netip.ParseAddr(host); c.InsecureHTTP && host != "localhost" && (err != nil || !a.IsLoopback()) {
		return bad("insecure_http", "%q is no loopback address, and tokens would be read on the way", c.Listen)
	}
	if ways := btoi(c.TLSCert != "" || c.TLSKey != "") + btoi(len(c.ACMEHosts) > 0) + btoi(c.InsecureHTTP); ways > 1 {
		return bad("tls_cert", "choose one of tls_cert, acme_hosts and insecure_http")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return bad("tls_cert", "it needs tls_key, and the other way round")
	}
	if c.URL == "" && port != "0" {
		c.URL = c.defaultURL(host, port)
	}
	if c.URL != "" {
		if err := c.checkURL(); err != nil {
			return bad("url", "%v", err)
		}
	}
	return c.checkValues(bad)
}

func (c *Config) checkValues(bad func(key, format string, args ...any) error) error {
	for key, list := range map[string][]string{"trusted_proxies": c.TrustedProxies, "rate_free": c.RateFree, "dial_networks": c.DialNetworks} {
		if _, err := prefixes(list); err != nil {
			return bad(key, "%v", err)
		}
	}
	for key, text := range map[string]string{"stop_time": c.StopTime, "token_life": c.TokenLife, "token_max_life": c.TokenMaxLife, "session_life": c.SessionLife, "library_undo": c.LibraryUndo,
		"build_time": c.BuildTime, "build_lease": c.BuildLease, "build_keep": c.BuildKeep, "build_history": c.BuildHistory, "watch_max_age": c.WatchMaxAge, "watch_runs": c.WatchRuns} {
		least := time.Minute
		if key == "stop_time" || key == "build_time" || key == "build_lease" {
			least = time.Second
		}
		if d, err := time.ParseDuration(text); err != nil || d < 0 || d < least && key != "stop_time" {
			return bad(key, "%q is no time like 720h or 60s", text)
		}
	}
	for key, n := range map[string]int{"max_connections": c.MaxConnections, "rate_anonymous": c.RateAnonymous, "rate_user": c.RateUser, "rate_push": c.RatePush, "rate_search": c.RateSearch, "rate_login": c.RateLogin, "rate_keys": c.RateKeys, "rate_key_add": c.RateKeyAdd,
		"build_memory": c.BuildMemory, "build_disk": c.BuildDisk, "build_cpus": c.BuildCPUs, "build_pids": c.BuildPIDs, "build_output": c.BuildOutput, "build_context": c.BuildContext,
		"watch_parallel": c.WatchParallel, "build_parallel": c.BuildParallel, "build_queued": c.BuildQueued, "queue_replicas": c.QueueReplicas, "worker_ids": c.WorkerIDs} {
		if n < 1 {
			return bad(key, "%d is less than 1", n)
		}
	}
	if c.WatchAdvisories != "" && !filepath.IsAbs(c.WatchAdvisories) {
		return bad("watch_advisories", "%q is no absolute path", c.WatchAdvisories)
	}
	if _, _, err := net.SplitHostPort(c.WatchSMTP); c.WatchSMTP != "" && (err != nil || strings.Count(c.WatchSMTPFrom, "@") != 1 || strings.ContainsAny(c.WatchSMTPFrom, "\r\n <>")) {
		return bad("watch_smtp", "it is an address with a port, as mail.example.org:587, and watch_smtp_from is one for mail")
	}
	if c.Workers < 0 || c.Workers > 1000 {
		return bad("workers", "%d is no number of builds at a time", c.Workers)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return bad("log_level", "%q is not debug, info, warn or error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return bad("log_format", "%q is not text or json", c.LogFormat)
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (c *Config) scheme() string {
	if c.InsecureHTTP {
		return "http"
	}
	return "https"
}

// defaultURL names this host, or the address of the listener if it has one.
func (c *Config) defaultURL(host, port string) string {
	a, err := netip.ParseAddr(host)
	switch {
	case len(c.ACMEHosts) > 0:
		host = c.ACMEHosts[0]
	case host == "" || err == nil && a.IsUnspecified():
		if host, err = os.Hostname(); err != nil || host == "" {
			host = "localhost"
		}
	}
	if port == "443" || len(c.ACMEHosts) > 0 {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return c.scheme() + "://" + host
	}
	return c.scheme() + "://" + net.JoinHostPort(host, port)
}

// checkURL: clients put paths behind the address, and keys may have no path.
func (c *Config) checkURL() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q is no address like https://images.example.org:8443", c.URL)
	case u.Scheme != c.scheme():
		return fmt.Errorf("%q does not begin with %s://", c.URL, c.scheme())
	case u.Path != "":
		return fmt.Errorf("%q has a path or a slash at its end", c.URL)
	}
	return nil
}

func prefixes(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if a, e := netip.ParseAddr(text); e == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is no network like 10.0.0.0/8", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// duration of a setting that check has seen.
func duration(text string) time.Duration {
	d, _ := time.ParseDuration(text)
	return d
}

// providers reads the secrets of the providers from their files.
func (c *Config) providers() ([]auth.Provider, error) {
	var out []auth.Provider
	for _, p := range c.Providers {
		secret := ""
		if p.ClientSecretFile != "" {
			text, err := os.ReadFile(p.ClientSecretFile)
			if err != nil {
				return nil, fmt.Errorf("cannot read the secret of the provider %q: %w", p.Name, err)
			}
			secret = strings.TrimSpace(string(text))
		}
		out = append(out, auth.Provider{Name: p.Name, Title: p.Title, Issuer: p.Issuer, ClientID: p.ClientID, ClientSecret: secret, Scopes: p.Scopes, GroupsClaim: p.GroupsClaim,
			AdminGroup: p.AdminGroup, Domains: p.Domains, NoSignUp: p.NoSignUp})
	}
	return out, nil
}
