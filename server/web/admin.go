package web

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
)

// account is a line of the list of accounts.
type account struct {
	Name, Kind, RealName, Email string
	Admin, Disabled, Deleted    bool
	BelongsTo                   string
	Created                     time.Time
}

// administrator returns nil for an administrator in a browser.
func administrator(ctx context.Context) error {
	c, err := person(ctx)
	if err != nil {
		return err
	}
	return c.RequireAdmin()
}

// span writes a time that has passed as people say it.
func span(d time.Duration) string {
	for _, u := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int(d / u.length); n > 1 {
			return strconv.Itoa(n) + " " + u.name + "s"
		} else if n == 1 {
			return "1 " + u.name
		}
	}
	return "moments"
}

// admin shows how the server is, and what was done last.
func (s *Service) admin(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	v := struct {
		page.Frame
		System  api.System
		Up      string
		Full    int64 // percent of the disk
		Soon    bool  // the certificate ends
		Events  []auth.Event
		Owners  int
		Total   int64
		Largest []api.Entity
	}{Frame: auth.FrameOf(ctx, "Administration", "admin")}
	if err := administrator(ctx); err != nil {
		return err
	}
	var err error
	if v.System, err = get[api.System](s, ctx, "/v1/admin/system"); err != nil {
		return err
	}
	v.Up = span(time.Since(v.System.Started))
	if v.System.DiskSize > 0 {
		v.Full = 100 - v.System.DiskFree*100/v.System.DiskSize
	}
	v.Soon = !v.System.CertificateExpires.IsZero() && time.Until(v.System.CertificateExpires) < 30*24*time.Hour
	owners, err := s.owners(ctx)
	if err != nil {
		return err
	}
	for _, e := range owners {
		v.Total += e.Size
	}
	v.Owners, v.Largest = len(owners), owners[:min(5, len(owners))]
	l, err := list[auth.Event](s, ctx, "/v1/admin/audit?limit=8")
	v.Events = l.Data
	if err != nil {
		return err
	}
	return show(w, "admin.html", v)
}
