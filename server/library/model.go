package library

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/store"
)

// entity is a user's or group's part of the library.
type entity struct {
	ID             string    `json:"id"`
	Name           string    `json:"name"`
	Description    string    `json:"description,omitempty"`
	DefaultPrivate bool      `json:"defaultPrivate,omitempty"`
	Quota          *int64    `json:"quota,omitempty"` // in place of the one for all
	CreatedBy      string    `json:"createdBy"`
	CreatedAt      time.Time `json:"createdAt"`
	UpdatedAt      time.Time `json:"updatedAt,omitzero"`
}

var entityIndexes = []store.Index[entity]{
	{Name: "name", Unique: true, Of: func(e *entity) []string { return []string{e.Name} }},
	{Name: "text", Of: func(e *entity) []string { return []string{e.Name, searchable(e.Description)} }},
}

// collection is a project of an entity.
type collection struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Entity      string    `json:"entity"`
	EntityName  string    `json:"entityName"`
	Description string    `json:"description,omitempty"`
	Private     bool      `json:"private,omitempty"`
	CreatedBy   string    `json:"createdBy"`
	CreatedAt   time.Time `json:"createdAt"`
	UpdatedAt   time.Time `json:"updatedAt,omitzero"`

	FullDescription string `json:"fullDescription,omitempty"`
}

func (c *collection) path() string { return c.EntityName + "/" + c.Name }

var collectionIndexes = []store.Index[collection]{
	{Name: "path", Unique: true, Of: func(c *collection) []string { return []string{c.path()} }},
	{Name: "entity", Of: func(c *collection) []string { return []string{c.Entity} }},
	{Name: "text", Of: func(c *collection) []string { return []string{c.path(), searchable(c.Description)} }},
}

// container holds images under tags. The tags are in it, so that each moves in
// one write.
type container struct {
	ID              string                       `json:"id"`
	Name            string                       `json:"name"`
	Entity          string                       `json:"entity"`
	EntityName      string                       `json:"entityName"`
	Collection      string                       `json:"collection"`
	CollectionName  string                       `json:"collectionName"`
	Description     string                       `json:"description,omitempty"`
	FullDescription string                       `json:"fullDescription,omitempty"`
	Private         bool                         `json:"private,omitempty"`
	ReadOnly        bool                         `json:"readOnly,omitempty"`
	Immutable       []string                     `json:"immutable,omitempty"` // patterns of tags
	Retention       *api.Retention               `json:"retention,omitempty"`
	Tags            map[string]map[string]string `json:"tags,omitempty"`    // architecture, tag: image
	OCITags         map[string]string            `json:"ociTags,omitempty"` // tag: digest of a manifest
	Logged          map[string]logged            `json:"logged,omitempty"`  // by tagKey: the tag's line of the log
	Downloads       int64                        `json:"downloads,omitempty"`
	CreatedBy       string                       `json:"createdBy"`
	CreatedAt       time.Time                    `json:"createdAt"`
	UpdatedAt       time.Time                    `json:"updatedAt,omitzero"`
	DeletedAt       time.Time                    `json:"deletedAt,omitzero"`
}

func (k *container) path() string { return k.EntityName + "/" + k.CollectionName + "/" + k.Name }

// tags counts all tags.
func (k *container) tags() int {
	n := len(k.OCITags)
	for _, m := range k.Tags {
		n += len(m)
	}
	return n
}

// tagsOf lists the tags of an image.
func (k *container) tagsOf(image string) []string {
	var list []string
	for _, m := range k.Tags {
		for tag, id := range m {
			if id == image && !slices.Contains(list, tag) {
				list = append(list, tag)
			}
		}
	}
	slices.Sort(list)
	return list
}

// immutable tells whether a tag, once set, stays.
func (k *container) immutable(tag string) bool {
	return slices.ContainsFunc(k.Immutable, func(pattern string) bool { ok, err := path.Match(pattern, tag); return ok && err == nil })
}

var containerIndexes = []store.Index[container]{
	{Name: "path", Unique: true, Of: func(k *container) []string {
		if !k.DeletedAt.IsZero() {
			return nil
		}
		return []string{k.path()}
	}},
	{Name: "collection", Of: func(k *container) []string {
		if !k.DeletedAt.IsZero() {
			return nil
		}
		return []string{k.Collection}
	}},
	{Name: "deleted", Of: func(k *container) []string { return []string{stamp(k.DeletedAt)} }},
	{Name: "retained", Of: func(k *container) []string {
		if k.Retention == nil || !k.DeletedAt.IsZero() {
			return nil
		}
		return []string{"yes"}
	}},
	{Name: "text", Of: func(k *container) []string {
		if !k.DeletedAt.IsZero() {
			return nil
		}
		list := []string{k.path(), searchable(k.Description)}
		for _, m := range k.Tags {
			for tag := range m {
				list = append(list, strings.ToLower(tag))
			}
		}
		return list
	}},
}

// image is one image of a container.
type image struct {
	ID           string    `json:"id"`
	Hash         string    `json:"hash"` // hexadecimal SHA-256
	Container    string    `json:"container"`
	Entity       string    `json:"entity"`
	EntityName   string    `json:"entityName"`
	Path         string    `json:"path"` // of the container
	Description  string    `json:"description,omitempty"`
	Uploaded     bool      `json:"uploaded,omitempty"`
	Content      content   `json:"content,omitzero"`
	Fingerprints []string  `json:"fingerprints,omitempty"`
	CreatedBy    string    `json:"createdBy"`
	CreatedAt    time.Time `json:"createdAt"`
	UploadedAt   time.Time `json:"uploadedAt,omitzero"`
	DeletedAt    time.Time `json:"deletedAt,omitzero"`
	DeletedBy    string    `json:"deletedBy,omitempty"`
	DeletedTags  []archTag `json:"deletedTags,omitempty"`
}

type archTag struct {
	Arch string `json:"arch"`
	Tag  string `json:"tag"`
}

// there tells whether the image can be pulled.
func (i *image) there() bool { return i.Uploaded && i.DeletedAt.IsZero() }

var imageIndexes = []store.Index[image]{
	{Name: "path", Unique: true, Of: func(i *image) []string {
		if !i.DeletedAt.IsZero() {
			return nil
		}
		return []string{i.Container + "/" + i.Hash}
	}},
	{Name: "uuid", Of: func(i *image) []string {
		if !i.there() || i.Content.UUID == "" {
			return nil
		}
		return []string{i.Container + "/" + i.Content.UUID}
	}},
	{Name: "container", Of: func(i *image) []string {
		if !i.DeletedAt.IsZero() {
			return nil
		}
		return []string{i.Container}
	}},
	{Name: "bin", Of: func(i *image) []string {
		if i.DeletedAt.IsZero() {
			return nil
		}
		return []string{i.Container}
	}},
	{Name: "charged", Of: func(i *image) []string {
		if !i.there() {
			return nil
		}
		return []string{i.Entity}
	}},
	// Whatever was uploaded needs its content as long as it can be restored.
	{Name: "blob", Of: func(i *image) []string {
		if !i.Uploaded {
			return nil
		}
		return []string{i.Hash}
	}},
	{Name: "signer", Of: func(i *image) []string {
		if !i.there() {
			return nil
		}
		return slices.Concat(i.Content.Signers, i.Fingerprints)
	}},
	{Name: "newest", Of: func(i *image) []string {
		if !i.there() {
			return nil
		}
		return []string{stamp(i.UploadedAt)}
	}},
	{Name: "deleted", Of: func(i *image) []string { return []string{stamp(i.DeletedAt)} }},
	{Name: "pending", Of: func(i *image) []string {
		if i.Uploaded || !i.DeletedAt.IsZero() {
			return nil
		}
		return []string{stamp(i.CreatedAt)}
	}},
	{Name: "text", Of: func(i *image) []string {
		if !i.there() {
			return nil
		}
		return []string{searchable(i.Description)}
	}},
}

// upload is an upload that goes on, under the id that the storage gave it.
type upload struct {
	ID        string    `json:"id"`
	Image     string    `json:"image"`
	User      string    `json:"user"`
	Size      int64     `json:"size"`
	PartSize  int64     `json:"partSize"`
	Single    bool      `json:"single,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	Expires   time.Time `json:"expires"`
}

var uploadIndexes = []store.Index[upload]{
	{Name: "image", Of: func(u *upload) []string { return []string{u.Image} }},
	{Name: "user", Of: func(u *upload) []string { return []string{u.User} }},
}

// stamp is a time that sorts as text, empty for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("20060102T150405.000000000")
}

// searchable is the part of a text that a search looks at.
func searchable(text string) string {
	text = strings.ToLower(text)
	if text == "no description" {
		return ""
	}
	if len(text) > 1000 {
		text = strings.ToValidUTF8(text[:1000], "")
	}
	return text
}

func (e *entity) answer() api.Entity {
	return api.Entity{ID: e.ID, Name: e.Name, Description: e.Description, DefaultPrivate: e.DefaultPrivate, CreatedBy: e.CreatedBy, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt}
}

func (c *collection) answer() api.Collection {
	return api.Collection{ID: c.ID, Name: c.Name, Description: c.Description, FullDescription: c.FullDescription, Entity: c.Entity, EntityName: c.EntityName, Private: c.Private,
		CreatedBy: c.CreatedBy, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt}
}

func (k *container) answer() api.Container {
	a := api.Container{ID: k.ID, Name: k.Name, Description: k.Description, FullDescription: k.FullDescription, Entity: k.Entity, EntityName: k.EntityName,
		Collection: k.Collection, CollectionName: k.CollectionName, Private: k.Private, ReadOnly: k.ReadOnly, ImmutableTags: k.Immutable, Retention: k.Retention,
		ArchTags: k.Tags, ImageTags: k.flat(), OCITags: k.OCITags, DownloadCount: k.Downloads, CreatedBy: k.CreatedBy, CreatedAt: k.CreatedAt, UpdatedAt: k.UpdatedAt}
	return a
}

// flat are the tags for clients that know no architectures: the one of amd64, if
// several have the tag.
func (k *container) flat() map[string]string {
	out := map[string]string{}
	archs := slices.Sorted(maps.Keys(k.Tags))
	for _, arch := range archs {
		for tag, id := range k.Tags[arch] {
			if _, taken := out[tag]; !taken || arch == "amd64" {
				out[tag] = id
			}
		}
	}
	return out
}

func (i *image) answer(k *container) api.Image {
	a := api.Image{ID: i.ID, Hash: "sha256." + i.Hash, Description: i.Description, Container: i.Container, Uploaded: i.Uploaded,
		EntityName: k.EntityName, CollectionName: k.CollectionName, ContainerName: k.Name, ContainerDescription: k.Description, ContainerDownloads: k.Downloads,
		Tags: k.tagsOf(i.ID), CreatedBy: i.CreatedBy, CreatedAt: i.CreatedAt, UpdatedAt: i.UploadedAt,
		Deleted: !i.DeletedAt.IsZero(), DeletedAt: i.DeletedAt, DeletedBy: i.DeletedBy}
	if i.Uploaded {
		signed := i.Content.Signed
		a.Size, a.Signed, a.Arch, a.Encrypted, a.Fingerprints = i.Content.Size, &signed, i.Content.Arch, i.Content.Encrypted, i.Fingerprints
	}
	return a
}
