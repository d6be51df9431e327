package openapi

import "singularity/api"

type (
	priorityWish struct {
		Priority string `json:"priority"` // high, normal or low
	}
	fencedCall struct {
		Fence int64 `json:"fence"`
	}
)

var builder = []Operation{
	{Pattern: "POST /v1/build-context", Tag: "builder", Summary: "Announce the files of a build; Location is where they go, and is missing if they are here", Scope: "build", In: api.ContextRequest{}, Status: 202, Empty: true, Also: []int{200}, Refuse: []int{413}},
	{Pattern: "PUT /v1/build-context-upload/{id}", Tag: "builder", Summary: "Send the files, a tar archive with gzip", Query: []Param{{Name: "sig", Text: "from Location", Required: true}}, Media: "application/octet-stream", Status: 201, Empty: true, Refuse: []int{403, 409, 411, 413, 422}},
	{Pattern: "DELETE /v1/build-context/{digest}", Tag: "builder", Summary: "Forget the files", Scope: "build", Data: ""},
	{Pattern: "POST /v1/build", Tag: "builder", Summary: "Submit a definition", Scope: "build", In: api.BuildRequest{}, Status: 201, Data: api.BuildInfo{}, Refuse: []int{403, 404, 409, 503, 507}},
	{Pattern: "GET /v1/build/{id}", Tag: "builder", Summary: "How far a build is", Scope: "build", Data: api.BuildInfo{}},
	{Pattern: "GET /v1/build/{id}/log", Tag: "builder", Summary: "Its log", Scope: "build", Query: []Param{{Name: "follow", Text: "true: until the build is over"}, {Name: "tail", Text: "of a build that is over, the last so many bytes"}}, Type: "text/plain"},
	{Pattern: "GET /v1/build/{id}/definition", Tag: "builder", Summary: "What is built", Scope: "build", Type: "text/plain"},
	{Pattern: "GET /v1/build-ws/{id}", Tag: "builder", Summary: "Its log as a web socket, from the start to the end", Scope: "build", Status: 101, Empty: true, Refuse: []int{426}},
	{Pattern: "PUT /v1/build/{id}/_cancel", Tag: "builder", Summary: "Cancel it", Scope: "build", Status: 204, Empty: true, Also: []int{200}},
	{Pattern: "POST /v1/convert-def-file", Tag: "builder", Summary: "Parse a definition", Scope: "build", Media: "text/plain", Data: api.Definition{}, Refuse: []int{413}},
	{Pattern: "GET /v1/builds", Tag: "builder", Summary: "Builds of the caller, the newest first; of everybody by administrators", Scope: "build", Query: append([]Param{{Name: "all", Text: "true: of everybody"}}, paging[:1]...), Data: []api.BuildInfo{}, Paged: true},
	{Pattern: "GET /v1/build-secrets", Tag: "builder", Summary: "Registries for which the caller has stored a password; never the password", Scope: "build", Data: []api.RegistrySecret{}},
	{Pattern: "PUT /v1/build-secrets", Tag: "builder", Summary: "Store what one's builds log in to a registry with", Scope: "build", In: api.RegistrySecret{}, Status: 204, Empty: true, Refuse: []int{409, 501}},
	{Pattern: "DELETE /v1/build-secrets/{registry}", Tag: "builder", Summary: "Forget it", Scope: "build", Status: 204, Empty: true},
	{Pattern: "GET /v1/build-options", Tag: "builder", Summary: "What can be built, and within which limits", Scope: "build", Data: api.BuildOptions{}},
	{Pattern: "GET /v1/admin/builds/usage", Tag: "administration", Summary: "What was built of late, by days and by users", Scope: "admin", Query: []Param{{Name: "days", Text: "how many; 30 if it is missing"}}, Data: api.BuildUsage{}},
	{Pattern: "GET /v1/admin/builds", Tag: "administration", Summary: "The queue of builds and the workers", Scope: "admin", Data: api.BuildQueue{}},
	{Pattern: "PATCH /v1/admin/builds", Tag: "administration", Summary: "Stop taking builds, or ban a user from building", Scope: "admin", In: api.BuildSettings{}, Data: api.BuildQueue{}},
	{Pattern: "PATCH /v1/admin/builds/{id}", Tag: "administration", Summary: "Change the priority of a build", Scope: "admin", In: priorityWish{}, Data: api.BuildInfo{}, Refuse: []int{409}},

	{Pattern: "POST /internal/v1/builds/claim", Tag: "internal", Summary: "Take a build, for workers with a certificate", Scope: "certificate", In: api.WorkerClaim{}, Data: api.BuildTask{}, Also: []int{204}},
	{Pattern: "POST /internal/v1/builds/{id}/alive", Tag: "internal", Summary: "A sign of life", Scope: "certificate", In: fencedCall{}, Status: 204, Empty: true, Refuse: []int{409}},
	{Pattern: "POST /internal/v1/builds/{id}/log", Tag: "internal", Summary: "A piece of the log", Scope: "certificate", Media: "application/octet-stream", Status: 204, Empty: true, Refuse: []int{409}},
	{Pattern: "GET /internal/v1/builds/{id}/context", Tag: "internal", Summary: "The files of the build", Scope: "certificate", Type: "application/octet-stream"},
	{Pattern: "POST /internal/v1/builds/{id}/upload", Tag: "internal", Summary: "Where the image goes", Scope: "certificate", In: api.WorkerUpload{}, Data: api.WorkerTarget{}, Refuse: []int{409}},
	{Pattern: "POST /internal/v1/builds/{id}/done", Tag: "internal", Summary: "The end of the build", Scope: "certificate", In: api.WorkerDone{}, Status: 204, Empty: true, Refuse: []int{409}},
}
