package web

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

// buildsView is who builds what, for administrators.
type buildsView struct {
	page.Frame
	Message string
	Queue   api.BuildQueue
	Active  []build
	Builds  []build
	Workers []workerLine
	Usage   api.BuildUsage
	Bars    []bar
	Days    int
	Total   api.BuildCount
	Next    string
}

type workerLine struct {
	api.BuildWorker
	Away bool
	Ago  string
}

// bar is a day in the drawing of the usage, in a box of 100 by 100.
type bar struct {
	X, Width, Height, Good float64
	Title                  string
}

// buildsView reads all of it.
func (s *Service) buildsView(r *http.Request) (buildsView, error) {
	ctx := r.Context()
	v := buildsView{Frame: auth.FrameOf(ctx, "Builds", "admin"), Days: 30}
	if err := administrator(ctx); err != nil {
		return v, err
	}
	if n, err := strconv.Atoi(r.FormValue("days")); err == nil && (n == 7 || n == 90 || n == 365) {
		v.Days = n
	}
	var err error
	if v.Queue, err = get[api.BuildQueue](s, ctx, "/v1/admin/builds"); err != nil {
		return v, err
	}
	now := time.Now()
	for _, w := range v.Queue.Workers {
		ago := now.Sub(w.Seen)
		v.Workers = append(v.Workers, workerLine{w, ago > 2*time.Minute && len(w.Builds) == 0, span(ago)})
		for _, id := range w.Builds {
			i, err := get[api.BuildInfo](s, ctx, path("/v1/build/", id))
			if err != nil {
				continue // it ended meanwhile
			}
			v.Active = append(v.Active, describe(i, now))
		}
	}
	l, err := list[api.BuildInfo](s, ctx, "/v1/builds?"+url.Values{"all": {"true"}, "after": {r.FormValue("after")}}.Encode())
	if err != nil {
		return v, err
	}
	for _, i := range l.Data {
		v.Builds = append(v.Builds, describe(i, now))
	}
	if l.Page.Next != "" {
		v.Next = "/admin/builds?" + url.Values{"after": {l.Page.Next}}.Encode()
	}
	return v, s.usage(ctx, &v)
}

func (s *Service) usage(ctx context.Context, v *buildsView) (err error) {
	if v.Usage, err = get[api.BuildUsage](s, ctx, "/v1/admin/builds/usage?days="+strconv.Itoa(v.Days)); err != nil {
		return err
	}
	v.Bars = bars(v.Usage.Days)
	for _, d := range v.Usage.Days {
		v.Total.Builds, v.Total.Succeeded, v.Total.Time, v.Total.Bytes = v.Total.Builds+d.Builds, v.Total.Succeeded+d.Succeeded, v.Total.Time+d.Time, v.Total.Bytes+d.Bytes
	}
	return nil
}

// bars draws how many builds there were on each day, and how many succeeded.
func bars(days []api.BuildCount) (list []bar) {
	most := int64(1)
	for _, d := range days {
		most = max(most, d.Builds)
	}
	step := 100 / float64(max(len(days), 1))
	for n, d := range days {
		height := 100 * float64(d.Builds) / float64(most)
		good := 100 * float64(d.Succeeded) / float64(most)
		list = append(list, bar{X: float64(n) * step, Width: step * .8, Height: height, Good: good, Title: d.Name + ": " + strconv.FormatInt(d.Builds, 10) + " builds, " + strconv.FormatInt(d.Succeeded, 10) + " succeeded, " + clock(d.Time)})
	}
	return list
}

// adminBuilds shows who builds what, now and of late.
func (s *Service) adminBuilds(w http.ResponseWriter, r *http.Request) error {
	v, err := s.buildsView(r)
	if err != nil {
		return err
	}
	return show(w, "adminbuilds.html", v)
}

// adminBuildsForm drains the queue, stops a build, or bans somebody.
func (s *Service) adminBuildsForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := administrator(ctx); err != nil {
		return err
	}
	name := strings.TrimSpace(r.PostFormValue("name"))
	yes, no := true, false
	change := func(in api.BuildSettings) error { return s.call(ctx, http.MethodPatch, "/v1/admin/builds", in, nil) }
	var err error
	switch r.PostFormValue("do") {
	case "drain":
		err = change(api.BuildSettings{Draining: &yes})
	case "go":
		err = change(api.BuildSettings{Draining: &no})
	case "ban":
		err = change(api.BuildSettings{Ban: name})
	case "unban":
		err = change(api.BuildSettings{Unban: name})
	case "stop":
		err = s.call(ctx, http.MethodPut, path("/v1/build/", r.PostFormValue("id"))+"/_cancel", nil, nil)
	case "first":
		err = s.call(ctx, http.MethodPatch, path("/v1/admin/builds/", r.PostFormValue("id")), map[string]string{"priority": "high"}, nil)
	default:
		err = route.Errorf(http.StatusBadRequest, "the form says nothing to do")
	}
	if missing(err) {
		err = route.Errorf(http.StatusBadRequest, "there is no such account or build")
	}
	if err != nil {
		return s.sayAgain(w, err, "adminbuilds.html", func(message string) (any, error) {
			v, err := s.buildsView(r)
			v.Message = message
			return v, err
		})
	}
	http.Redirect(w, r, "/admin/builds", http.StatusSeeOther)
	return nil
}
