package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"singularity/api"
	"singularity/sbom"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
	"singularity/trustline"
)

// severities are the words for how bad a fault is, the worst first.
var severities = []string{"critical", "high", "medium", "low", "negligible", "unknown"}

// severityCount is a number of findings, or of images.
type severityCount struct {
	Severity string
	N        int
}

// counts puts numbers by severity in order.
func counts(m map[string]int) (list []severityCount) {
	for _, s := range severities {
		if m[s] > 0 {
			list = append(list, severityCount{s, m[s]})
		}
	}
	return list
}

// badge is the class of the badge of a severity.
func badge(severity string) string {
	switch severity {
	case "critical", "high":
		return "bad"
	case "medium":
		return "warn"
	}
	return "none"
}

// facts are what the sentence about an image rests on.
func facts(t trust, i api.Image, f *api.ImageFindings) *trustline.Facts {
	v := &trustline.Facts{Signer: t.Who, Fingerprint: t.Print, Objects: t.Objects, Open: t.Open, Since: i.UpdatedAt}
	switch {
	case t.Revoked:
		v.Signature = trustline.Revoked
	case t.Checked:
		v.Signature = trustline.Good
	case len(t.Signers) > 0 || t.Unnamed:
		v.Signature = trustline.Unchecked
	}
	for _, s := range t.Signers {
		if s.Checked && s.Fingerprint != t.Print {
			v.Others++
		}
	}
	if f != nil && f.State == "done" && f.Data.Loaded {
		c := f.Counts
		v.Advisories = &trustline.Advisories{Critical: c["critical"], High: c["high"], Medium: c["medium"], Low: c["low"] + c["negligible"], Unrated: c["unknown"],
			AsOf: f.Data.Newest, Old: f.Data.Old, Partial: len(f.Gaps) > 0}
	}
	return v
}

// findings asks what is wrong with an image.
func (s *Service) findings(ctx context.Context, k api.Container, ref, arch string) (*api.ImageFindings, error) {
	f, err := get[api.ImageFindings](s, ctx, path("/v1/findings/images/", k.EntityName, k.CollectionName, k.Name)+":"+url.PathEscape(ref)+archQuery(arch))
	if err != nil {
		return nil, err
	}
	return &f, nil
}

func archQuery(arch string) string {
	if arch == "" {
		return ""
	}
	return "?arch=" + url.QueryEscape(arch)
}

// securityView is what the page about the security of an image shows.
type securityView struct {
	page.Frame
	Message    string
	Container  api.Container
	Path       string // of the container
	Ref, Arch  string
	Query      string // ?arch=...
	Image      api.Image
	Findings   api.ImageFindings
	Counts     []severityCount
	Open       []api.Finding // that count
	Suppressed []api.Finding
	Packages   []sbom.Package // if they are asked for
	Long       bool           // the list is too long for a page
	Runs       []api.StoredRun
	Own        bool // may say what does not count
}

func (s *Service) securityView(r *http.Request) (securityView, error) {
	ctx := r.Context()
	full, ref, ok := strings.Cut(r.PathValue("path"), ":")
	parts := strings.Split(full, "/")
	if !ok || len(parts) != 3 {
		return securityView{}, errGone
	}
	k, err := get[api.Container](s, ctx, path("/v1/containers/", slices.Clone(parts)...))
	if err != nil {
		return securityView{}, err
	}
	v := securityView{Frame: auth.FrameOf(ctx, "Security of "+full, "library"), Container: k, Path: full, Ref: ref, Arch: r.FormValue("arch")}
	v.Query = archQuery(v.Arch)
	f, err := s.findings(ctx, k, ref, v.Arch)
	if err != nil {
		return v, err
	}
	v.Findings, v.Counts = *f, counts(f.Counts)
	for _, x := range f.Findings {
		if x.Suppressed != "" {
			v.Suppressed = append(v.Suppressed, x)
		} else {
			v.Open = append(v.Open, x)
		}
	}
	if r.FormValue("list") == "packages" {
		if v.Long = f.Packages > maxPackages; !v.Long && f.State == "done" {
			if v.Packages, err = s.packages(ctx, v); err != nil {
				return v, err
			}
		}
	}
	v.Own = s.may(ctx, auth.Own, auth.Object{Entity: k.EntityName, Within: []string{k.Collection}})
	if auth.From(ctx).Known() {
		l, err := list[api.StoredRun](s, ctx, "/v1/runs?running=true&digest=sha256:"+url.QueryEscape(strings.TrimPrefix(f.Image, "sha256.")))
		if err != nil {
			return v, err
		}
		v.Runs = l.Data
	}
	return v, nil
}

// maxPackages is how many a page lists.
const maxPackages = 5000

// packages reads the bill of materials that the service gives to everybody.
func (s *Service) packages(ctx context.Context, v securityView) ([]sbom.Package, error) {
	a, err := s.send(ctx, http.MethodGet, path("/v1/inventories/", strings.Split(v.Path, "/")...)+":"+url.PathEscape(v.Ref)+v.Query, nil)
	if err != nil {
		return nil, err
	}
	inv, err := sbom.Decode(&a.Body)
	if err != nil {
		return nil, err
	}
	return inv.Packages, nil
}

// imageSecurity shows what is in an image and what is wrong with it.
func (s *Service) imageSecurity(w http.ResponseWriter, r *http.Request) error {
	v, err := s.securityView(r)
	if err != nil {
		return err
	}
	return show(w, "imagesecurity.html", v)
}

// imageSecurityForm lets a fault not count in the collection, or count again.
func (s *Service) imageSecurityForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if _, err := person(ctx); err != nil {
		return err
	}
	v, err := s.securityView(r)
	if err != nil {
		return err
	}
	target := path("/v1/suppressions/", v.Container.EntityName, v.Container.CollectionName)
	if r.PostFormValue("again") != "" {
		err = s.call(ctx, http.MethodDelete, target+"?"+url.Values{"id": {r.PostFormValue("id")}, "product": {r.PostFormValue("product")}}.Encode(), nil, nil)
	} else {
		err = s.call(ctx, http.MethodPost, target, api.Suppression{ID: strings.TrimSpace(r.PostFormValue("id")), Product: r.PostFormValue("product"), Reason: r.PostFormValue("reason"), Until: r.PostFormValue("until")}, nil)
	}
	if err != nil {
		return s.sayAgain(w, err, "imagesecurity.html", func(message string) (any, error) { v.Message = message; return v, nil })
	}
	http.Redirect(w, r, "/security/images/"+path("", strings.Split(v.Path, "/")...)+":"+url.PathEscape(v.Ref)+v.Query, http.StatusSeeOther)
	return nil
}

// security shows the state of all images, and searches.
func (s *Service) security(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	v := struct {
		page.Frame
		Query    string
		Message  string
		Overview api.WatchOverview
		Counts   []severityCount
		Found    *api.WatchSearch
	}{Frame: auth.FrameOf(ctx, "Security", "security"), Query: strings.TrimSpace(r.FormValue("q"))}
	var err error
	if v.Overview, err = get[api.WatchOverview](s, ctx, "/v1/findings"); err != nil {
		return err
	}
	v.Counts = counts(v.Overview.Counts)
	if v.Query != "" {
		found, err := get[api.WatchSearch](s, ctx, "/v1/findings/search?q="+url.QueryEscape(v.Query))
		if message, bad := refusal(err); bad {
			v.Message = message
		} else if err != nil {
			return err
		} else {
			v.Found = &found
		}
	}
	return show(w, "security.html", v)
}

// refusal is the message of an error that is the visitor's to mend.
func refusal(err error) (string, bool) {
	if e, ok := err.(*route.Error); ok && e.Status == http.StatusBadRequest {
		return e.Message, true
	}
	return "", false
}

// fault shows the images and running jobs that a fault touches.
func (s *Service) fault(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	id := r.FormValue("id")
	v := struct {
		page.Frame
		ID     string
		First  *api.Finding
		Images []api.TouchedImage
		Next   string
		Runs   []api.TouchedRun
	}{Frame: auth.FrameOf(ctx, "Who has "+id, "security"), ID: id}
	query := url.Values{"id": {id}}
	l, err := list[api.TouchedImage](s, ctx, "/v1/findings/images?"+url.Values{"id": {id}, "after": {r.FormValue("after")}}.Encode())
	if err != nil {
		return err
	}
	v.Images, v.Next = l.Data, l.Page.Next
	for n := range v.Images {
		if f := v.Images[n].Findings; v.First == nil && len(f) > 0 {
			v.First = &f[0]
		}
	}
	if v.User != "" {
		if v.Runs, err = get[[]api.TouchedRun](s, ctx, "/v1/findings/runs?"+query.Encode()); err != nil {
			return err
		}
	}
	return show(w, "fault.html", v)
}

// running shows what runs, as far as the visitor may see it.
func (s *Service) running(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	v := struct {
		page.Frame
		Runs []api.StoredRun
		Next string
	}{Frame: auth.FrameOf(ctx, "Running", "security")}
	if _, err := person(ctx); err != nil {
		return err
	}
	l, err := list[api.StoredRun](s, ctx, "/v1/runs?"+url.Values{"running": {"true"}, "after": {r.FormValue("after")}}.Encode())
	if err != nil {
		return err
	}
	v.Runs, v.Next = l.Data, l.Page.Next
	return show(w, "running.html", v)
}
