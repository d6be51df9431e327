package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"singularity/server/dial"
	"singularity/server/watch"
)

// openWatch opens the watch of the library.
func (s *Server) openWatch(ctx context.Context) (*watch.Service, error) {
	c := &s.config
	dir := filepath.Join(c.Data, "watch")
	if !s.recordsOnly {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	networks, err := prefixes(c.DialNetworks)
	if err != nil {
		return nil, err
	}
	mail, err := c.mail()
	if err != nil {
		return nil, err
	}
	return watch.Open(ctx, s.store.Records, s.store.Blobs, s.auth, s.lib, watch.Options{Dir: dir, Advisories: c.WatchAdvisories, MaxAge: duration(c.WatchMaxAge), Parallel: c.WatchParallel,
		KeepRuns: duration(c.WatchRuns), SameUsers: c.WatchSameUsers, Shared: s.store.shared, URL: c.URL, HTTP: dial.Client(nil, networks), Mail: mail, Log: s.log})
}

// mail is how notices are sent as letters.
func (c *Config) mail() (watch.Mail, error) {
	m := watch.Mail{Server: c.WatchSMTP, From: c.WatchSMTPFrom, User: c.WatchSMTPUser}
	if c.WatchSMTPPasswordFile != "" {
		text, err := os.ReadFile(c.WatchSMTPPasswordFile)
		if err != nil {
			return m, fmt.Errorf("cannot read the password of the mail server: %w", err)
		}
		m.Password = strings.TrimSpace(string(text))
	}
	if c.WatchSMTPCA != "" {
		text, err := os.ReadFile(c.WatchSMTPCA)
		if err != nil {
			return m, fmt.Errorf("cannot read the authorities of the mail server: %w", err)
		}
		m.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		if !m.TLS.RootCAs.AppendCertsFromPEM(text) {
			return m, fmt.Errorf("cannot use the setting watch_smtp_ca: no certificate in %q", c.WatchSMTPCA)
		}
	}
	return m, nil
}

// watchFigures are what metrics tell of the watch.
type watchFigures struct {
	s           *Server
	images, age *prometheus.Desc
	refused     *prometheus.Desc
	problem     *prometheus.Desc
}

func newWatchFigures(s *Server) *watchFigures {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("singularity_watch_"+name, help, labels, nil)
	}
	return &watchFigures{s, desc("images", "Stored images by what is known of their packages.", "state"), desc("advisories_age_seconds", "Age of the newest advisory; absent without data."),
		desc("advisories_refused_total", "Sets of advisories that were not used."), desc("advisories_problem", "Whether what lies in the directory of advisories is not used.")}
}

func (f *watchFigures) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{f.images, f.age, f.refused, f.problem} {
		c <- d
	}
}

func (f *watchFigures) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	v := f.s.watch.Figures(ctx)
	for state, n := range map[string]int{"done": v.Images, "waiting": v.Pending, "failed": v.Failed} {
		c <- prometheus.MustNewConstMetric(f.images, prometheus.GaugeValue, float64(n), state)
	}
	if !v.Newest.IsZero() {
		c <- prometheus.MustNewConstMetric(f.age, prometheus.GaugeValue, time.Since(v.Newest).Seconds())
	}
	problem := 0.0
	if v.Problem {
		problem = 1
	}
	c <- prometheus.MustNewConstMetric(f.refused, prometheus.CounterValue, float64(v.Refused))
	c <- prometheus.MustNewConstMetric(f.problem, prometheus.GaugeValue, problem)
}
