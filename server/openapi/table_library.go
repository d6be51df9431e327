package openapi

import (
	"time"

	"singularity/api"
)

type (
	newEntity struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
	}
	newCollection struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
		Entity      string `json:"entity"` // its id
		Private     bool   `json:"private,omitempty"`
	}
	newContainer struct {
		Name            string `json:"name"`
		Description     string `json:"description,omitempty"`
		FullDescription string `json:"fullDescription,omitempty"`
		Collection      string `json:"collection"` // its id
		Private         bool   `json:"private,omitempty"`
	}
	newImage struct {
		Hash        string `json:"hash"` // sha256.HEX
		Description string `json:"description,omitempty"`
		Container   string `json:"container"` // its id
	}
	entityEdit struct {
		Description    string `json:"description,omitempty"`
		DefaultPrivate bool   `json:"defaultPrivate,omitempty"`
		Quota          int64  `json:"quota,omitempty"` // by administrators
	}
	collectionEdit struct {
		Description     string `json:"description,omitempty"`
		FullDescription string `json:"fullDescription,omitempty"`
		Private         bool   `json:"private,omitempty"`
	}
	containerEdit struct {
		Description     string         `json:"description,omitempty"`
		FullDescription string         `json:"fullDescription,omitempty"`
		Private         bool           `json:"private,omitempty"`
		ReadOnly        bool           `json:"readOnly,omitempty"`
		ImmutableTags   []string       `json:"immutableTags,omitempty"`
		Retention       *api.Retention `json:"retention,omitempty"`
	}
	grantWish struct {
		Name    string    `json:"name"`
		Role    string    `json:"role"` // reader, writer, maintainer or owner
		Expires time.Time `json:"expires,omitzero"`
	}
	retain struct {
		Retention *api.Retention `json:"retention,omitempty"`
		DryRun    bool           `json:"dryRun,omitempty"`
	}
	flatTag struct {
		Tag     string
		ImageID string
	}
)

var arch = []Param{{Name: "arch", Text: "architecture of the tag; amd64 if it is missing"}}

var library = []Operation{
	{Pattern: "GET /v1/entities", Tag: "library", Summary: "Owners that the caller may see", Query: paging, Data: []api.Entity{}, Paged: true},
	{Pattern: "GET /v1/entities/{entity}", Tag: "library", Summary: "An owner", Data: api.Entity{}},
	{Pattern: "PATCH /v1/entities/{entity}", Tag: "library", Summary: "Edit an owner; its quota by administrators", Scope: "library:write", In: entityEdit{}, Data: api.Entity{}},
	{Pattern: "GET /v1/entities/{entity}/collections", Tag: "library", Summary: "Collections of an owner", Query: paging, Data: []api.Collection{}, Paged: true},
	{Pattern: "POST /v1/entities", Tag: "library", Summary: "Make the owner of the caller's name; others by administrators", Scope: "library:create", In: newEntity{}, Data: api.Entity{}, Refuse: []int{409}},
	{Pattern: "GET /v1/collections/{entity}/{collection}", Tag: "library", Summary: "A collection", Data: api.Collection{}},
	{Pattern: "PATCH /v1/collections/{entity}/{collection}", Tag: "library", Summary: "Edit a collection", Scope: "library:write", In: collectionEdit{}, Data: api.Collection{}},
	{Pattern: "DELETE /v1/collections/{entity}/{collection}", Tag: "library", Summary: "Delete a collection without containers", Scope: "library:manage", Data: nothing{}, Refuse: []int{405, 409}},
	{Pattern: "GET /v1/collections/{entity}/{collection}/containers", Tag: "library", Summary: "Containers of a collection", Query: paging, Data: []api.Container{}, Paged: true},
	{Pattern: "POST /v1/collections", Tag: "library", Summary: "Make a collection", Scope: "library:create", In: newCollection{}, Data: api.Collection{}, Refuse: []int{404, 409}},
	{Pattern: "GET /v1/containers/{entity}/{collection}/{container}", Tag: "library", Summary: "A container with its tags", Data: api.Container{}},
	{Pattern: "PATCH /v1/containers/{entity}/{collection}/{container}", Tag: "library", Summary: "Edit a container, its settings by maintainers", Scope: "library:write", In: containerEdit{}, Data: api.Container{}},
	{Pattern: "DELETE /v1/containers/{entity}/{collection}/{container}", Tag: "library", Summary: "Delete a container and its images", Scope: "library:manage", Data: nothing{}, Refuse: []int{405}},
	{Pattern: "GET /v1/containers/{entity}/{collection}/{container}/images", Tag: "library", Summary: "Images of a container, or those that can be restored", Query: append([]Param{{Name: "deleted", Text: "true: those that were deleted"}}, paging...), Data: []api.Image{}, Paged: true},
	{Pattern: "POST /v1/containers/{entity}/{collection}/{container}/retention", Tag: "library", Summary: "Delete what outlived a rule, or with dryRun list it", Scope: "library:delete", In: retain{}, Data: []api.Image{}, Refuse: []int{405}},
	{Pattern: "POST /v1/containers", Tag: "library", Summary: "Make a container", Scope: "library:create", In: newContainer{}, Data: api.Container{}, Refuse: []int{404, 409}},
	{Pattern: "GET /v1/images/{ref...}", Tag: "library", Summary: "An image", Query: arch, Data: api.Image{}},
	{Pattern: "GET /v1/objects/{ref...}", Tag: "library", Summary: "A data object of an image, as it is", Query: append([]Param{{Name: "id", Text: "its number in the image", Required: true}}, arch...), Type: "application/octet-stream", Refuse: []int{413}},
	{Pattern: "GET /v1/inspect/{ref...}", Tag: "library", Summary: "What an image says of itself", Query: arch, Data: api.Inspection{}},
	{Pattern: "GET /v1/signers/{fingerprint}/images", Tag: "library", Summary: "Images with a good signature of a key", Query: paging, Data: []api.Image{}, Paged: true},
	{Pattern: "GET /v1/grants/{path...}", Tag: "library", Summary: "Who has a role at an owner, a collection or a container, for its owners", Scope: "library:manage", Data: []api.Grant{}},
	{Pattern: "PUT /v1/grants/{path...}", Tag: "library", Summary: "Give a user, group or robot a role there", Scope: "library:manage", In: grantWish{}, Data: nothing{}},
	{Pattern: "DELETE /v1/grants/{path...}", Tag: "library", Summary: "Take a role", Scope: "library:manage", Query: []Param{{Name: "name", Text: "whose", Required: true}}, Data: nothing{}},
	{Pattern: "GET /v1/latest", Tag: "library", Summary: "The newest images", Query: paging, Data: []api.Image{}, Paged: true},
	{Pattern: "DELETE /v1/images/{ref...}", Tag: "library", Summary: "Delete an image and its tags; it can be restored for some days", Scope: "library:delete", Query: arch, Data: nothing{}, Refuse: []int{405}},
	{Pattern: "POST /v1/images/{id}/_restore", Tag: "library", Summary: "Bring a deleted image back", Scope: "library:delete", Data: api.Image{}, Refuse: []int{409}},
	{Pattern: "GET /v1/imagefile/{ref...}", Tag: "library", Summary: "The bytes of an image, or where they are", Query: arch, Headers: []Param{{Name: "Range", Text: "bytes=FROM-TO"}}, Type: "application/octet-stream", Also: []int{206, 303}},
	{Pattern: "GET /data/image/{id}", Tag: "library", Summary: "The bytes of an image, at an address that an answer gave", Query: presigned, Headers: []Param{{Name: "Range", Text: "bytes=FROM-TO"}}, Type: "application/octet-stream", Also: []int{206}, Refuse: []int{403, 416}},
	{Pattern: "GET /v1/tags/{id}", Tag: "library", Summary: "Tags of a container, without architectures", Data: map[string]string{}},
	{Pattern: "POST /v1/tags/{id}", Tag: "library", Summary: "Set a tag for the image's own architecture", Scope: "library:create", In: flatTag{}, Data: map[string]string{}, Refuse: []int{409}},
	{Pattern: "GET /v2/tags/{id}", Tag: "library", Summary: "Tags of a container by architecture", Data: map[string]map[string]string{}},
	{Pattern: "POST /v2/tags/{id}", Tag: "library", Summary: "Set a tag for an architecture", Scope: "library:create", In: api.Tag{}, Data: map[string]map[string]string{}, Refuse: []int{409}},
	{Pattern: "GET /v1/search", Tag: "library", Summary: "Search by name, tag or description", Query: []Param{{Name: "value", Text: "3 to 200 characters", Required: true}, {Name: "arch", Text: "architectures, with commas between"}, {Name: "signed", Text: "true or false"}}, Data: api.Search{}, Refuse: []int{503}},
	{Pattern: "GET /v1/oci-redirect", Tag: "library", Summary: "No image here comes from a registry: always 404", Data: nothing{}, Refuse: []int{404}},
}

var presigned = []Param{{Name: "exp", Text: "as in the address", Required: true}, {Name: "sig", Text: "as in the address", Required: true}}

var push = []Operation{
	{Pattern: "POST /v1/images", Tag: "push", Summary: "Announce an image by its hash", Scope: "library:create", In: newImage{}, Data: api.Image{}, Refuse: []int{404, 409}},
	{Pattern: "POST /v1/imagefile/{id}", Tag: "push", Summary: "Send an image in one request, as old clients do", Scope: "library:create", Media: "application/octet-stream", Data: api.UploadComplete{}, Refuse: []int{409, 411, 413, 422}},
	{Pattern: "POST /v2/imagefile/{id}", Tag: "push", Summary: "Ask where to send an image in one part", Scope: "library:create", In: api.Upload{}, Data: api.UploadURL{}, Refuse: []int{409, 413}},
	{Pattern: "PUT /v2/imagefile/{id}/_complete", Tag: "push", Summary: "End an upload in one part", Scope: "library:create", In: nothing{}, Data: api.UploadComplete{}, Refuse: []int{409, 410, 422}},
	{Pattern: "POST /v2/imagefile/{id}/_multipart", Tag: "push", Summary: "Begin an upload in parts", Scope: "library:create", In: api.MultipartStart{}, Data: api.Multipart{}, Refuse: []int{409, 413}},
	{Pattern: "PUT /v2/imagefile/{id}/_multipart", Tag: "push", Summary: "Ask where to send a part", Scope: "library:create", In: api.Part{}, Data: api.PartURL{}, Refuse: []int{410}},
	{Pattern: "PUT /v2/imagefile/{id}/_multipart_complete", Tag: "push", Summary: "End an upload in parts", Scope: "library:create", In: api.MultipartComplete{}, Data: api.UploadComplete{}, Refuse: []int{409, 410, 422}},
	{Pattern: "PUT /v2/imagefile/{id}/_multipart_abort", Tag: "push", Summary: "Give an upload in parts up", Scope: "library:create", In: api.MultipartAbort{}, Status: 204, Empty: true, Refuse: []int{410}},
	{Pattern: "PUT /data/upload/{id}/{part}", Tag: "push", Summary: "Send a part, at an address that an answer gave", Query: presigned, Headers: []Param{{Name: "x-amz-content-sha256", Text: "SHA-256 of the part"}}, Media: "application/octet-stream", Empty: true, Refuse: []int{403, 410, 411, 422}},
}
