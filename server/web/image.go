package web

import (
	"context"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/trustline"
)

// rights are what the caller may do with what a page is about.
type rights struct{ Create, Write, Delete, Manage, Own bool }

func (s *Service) rights(ctx context.Context, o auth.Object) rights {
	return rights{s.may(ctx, auth.Create, o), s.may(ctx, auth.Write, o), s.may(ctx, auth.Delete, o), s.may(ctx, auth.Manage, o), s.may(ctx, auth.Own, o)}
}

func collectionObject(c api.Collection) auth.Object {
	return auth.Object{Entity: c.EntityName, Within: []string{c.ID}, Public: !c.Private}
}

// containerObject has no right by being public: whoever sees the page may read.
func containerObject(k api.Container) auth.Object {
	return auth.Object{Entity: k.EntityName, Within: []string{k.Collection, k.ID}}
}

// tag is a line of the list of tags.
type tag struct {
	Name, Arch string
	Image      api.Image
}

// container shows a container, or with a tag or hash in the last part an image.
func (s *Service) container(w http.ResponseWriter, r *http.Request) error {
	ctx, entity, collection := r.Context(), r.PathValue("entity"), r.PathValue("collection")
	name, ref, found := strings.Cut(r.PathValue("container"), ":")
	k, err := get[api.Container](s, ctx, path("/v1/containers/", entity, collection, name))
	if err != nil {
		return err
	}
	if found {
		return s.image(w, r, k, ref)
	}
	v := struct {
		page.Frame
		Container api.Container
		Text      template.HTML
		Tags      []tag
		Untagged  []api.Image
		Next      string
		May       rights
		Host      string
		Path      string
	}{Frame: auth.FrameOf(ctx, entity+"/"+collection+"/"+name, "library"), Container: k, Host: s.host(), Path: entity + "/" + collection + "/" + name}
	l, err := list[api.Image](s, ctx, path("/v1/containers/", entity, collection, name, "images")+"?"+url.Values{"limit": {"1000"}, "after": {r.FormValue("after")}}.Encode())
	if err != nil {
		return err
	}
	v.Tags, v.Untagged, v.Next = tagsOf(k, l.Data), untagged(l.Data), l.Page.Next
	if v.Text, err = render(k.FullDescription); err != nil {
		return err
	}
	v.May = s.rights(ctx, containerObject(k))
	return show(w, "container.html", v)
}

// tagsOf puts the tags of a container beside their images, the newest first.
func tagsOf(k api.Container, images []api.Image) []tag {
	byID := map[string]api.Image{}
	for _, i := range images {
		byID[i.ID] = i
	}
	var list []tag
	for _, arch := range slices.Sorted(maps.Keys(k.ArchTags)) {
		for _, name := range slices.Sorted(maps.Keys(k.ArchTags[arch])) {
			if i, ok := byID[k.ArchTags[arch][name]]; ok {
				list = append(list, tag{name, arch, i})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b tag) int { return b.Image.UpdatedAt.Compare(a.Image.UpdatedAt) })
	return list
}

func untagged(images []api.Image) (list []api.Image) {
	for _, i := range images {
		if len(i.Tags) == 0 {
			list = append(list, i)
		}
	}
	return list
}

// imageView is what the page of an image shows.
type imageView struct {
	page.Frame
	Container api.Container
	Image     api.Inspection
	Anatomy   anatomy
	Trust     trust
	Line      trustline.Line
	Sound     bool // all that the line says of signatures is good
	Findings  *api.ImageFindings
	Counts    []severityCount
	Ref       string
	Reference string // as a client writes it
	Pinned    string
	Plain     string // without library://
	Host      string
	URL       string
	Archs     []string // that have the tag
	Arch      string
	May       rights
}

func (s *Service) image(w http.ResponseWriter, r *http.Request, k api.Container, ref string) error {
	ctx := r.Context()
	full := k.EntityName + "/" + k.CollectionName + "/" + k.Name
	v := imageView{Frame: auth.FrameOf(ctx, full+":"+ref, "library"), Container: k, Ref: ref, Arch: r.FormValue("arch"), URL: s.url, May: s.rights(ctx, containerObject(k))}
	for _, arch := range slices.Sorted(maps.Keys(k.ArchTags)) {
		if k.ArchTags[arch][ref] != "" {
			v.Archs = append(v.Archs, arch)
		}
	}
	if v.Arch == "" && len(v.Archs) > 0 {
		if v.Arch = v.Archs[0]; slices.Contains(v.Archs, "amd64") {
			v.Arch = "amd64"
		}
	}
	var err error
	target := path("/v1/inspect/", k.EntityName, k.CollectionName, k.Name) + ":" + url.PathEscape(ref)
	if v.Arch != "" {
		target += "?arch=" + url.QueryEscape(v.Arch)
	}
	if v.Image, err = get[api.Inspection](s, ctx, target); err != nil {
		return err
	}
	v.Anatomy = draw(v.Image)
	if v.Trust, err = s.trustOf(ctx, v.Image, v.Anatomy); err != nil {
		return err
	}
	if v.Findings, err = s.findings(ctx, k, ref, v.Arch); err != nil {
		return err
	}
	f := facts(v.Trust, v.Image.Image, v.Findings)
	v.Line, v.Sound, v.Counts = f.Line(), f.Sound(), counts(v.Findings.Counts)
	v.Plain, v.Host = full+":"+ref, s.host()
	v.Reference, v.Pinned = "library://"+v.Plain, "library://"+full+":"+v.Image.Image.Hash
	return show(w, "image.html", v)
}
