package openapi

import (
	"time"

	"singularity/api"
)

// Answers that only their services have types for.
type (
	refusal struct {
		Error api.Error `json:"error"`
	}
	nextPage struct {
		Next string `json:"next,omitempty"`
	}
	nothing struct{}
	service struct {
		URI         string `json:"uri"`
		RegistryURI string `json:"registryUri,omitempty"`
	}
	config struct {
		LibraryAPI  service `json:"libraryAPI"`
		KeystoreAPI service `json:"keystoreAPI"`
		BuilderAPI  service `json:"builderAPI,omitzero"`
		TokenAPI    service `json:"tokenAPI"`
		ConsentAPI  service `json:"consentAPI,omitzero"`
	}
	tokenInfo struct {
		ID      string    `json:"id"`
		Name    string    `json:"name"`
		Scopes  []string  `json:"scopes"`
		Created time.Time `json:"created"`
		Expires time.Time `json:"expires"`
		Revoked time.Time `json:"revoked,omitzero"`
		Used    time.Time `json:"used,omitzero"`
		From    string    `json:"from,omitempty"`
		Client  string    `json:"client,omitempty"`
	}
	newToken struct {
		tokenInfo
		Token string `json:"token"` // shown this once
	}
	tokenWish struct {
		Name   string   `json:"name"`
		Scopes []string `json:"scopes"`
		Days   int      `json:"days,omitempty"`
	}
	person struct {
		Name      string    `json:"name"`
		Kind      string    `json:"kind"`
		RealName  string    `json:"realName,omitempty"`
		Email     string    `json:"email,omitempty"`
		Admin     bool      `json:"admin,omitempty"`
		Disabled  bool      `json:"disabled,omitempty"`
		Deleted   bool      `json:"deleted,omitempty"`
		BelongsTo string    `json:"belongsTo,omitempty"`
		Created   time.Time `json:"created"`
	}
	group struct {
		person
		Members map[string]string `json:"members"` // names and roles
	}
	membership struct {
		Name string `json:"name"`
		Role string `json:"role"`
	}
	named struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
		BelongsTo   string `json:"belongsTo,omitempty"`
	}
	role struct {
		Role string `json:"role"`
	}
	newPerson struct {
		Name     string `json:"name"`
		RealName string `json:"realName,omitempty"`
		Email    string `json:"email,omitempty"`
		Admin    bool   `json:"admin,omitempty"`
	}
	linked struct {
		person
		Link string `json:"link"` // works once
	}
	personEdit struct {
		RealName string `json:"realName,omitempty"`
		Email    string `json:"email,omitempty"`
		Admin    bool   `json:"admin,omitempty"`
		Disabled bool   `json:"disabled,omitempty"`
		Deleted  bool   `json:"deleted,omitempty"`
		External string `json:"external,omitempty"`
	}
	event struct {
		At      time.Time         `json:"at"`
		Actor   string            `json:"actor"`
		Token   string            `json:"token,omitempty"`
		Action  string            `json:"action"`
		Object  string            `json:"object,omitempty"`
		Result  string            `json:"result"`
		From    string            `json:"from,omitempty"`
		Request string            `json:"request,omitempty"`
		Detail  map[string]string `json:"detail,omitempty"`
	}
	dryRun struct {
		DryRun bool `json:"dryRun,omitempty"`
	}
	userID struct {
		Text    string    `json:"text"`
		Created time.Time `json:"created,omitzero"`
		Revoked bool      `json:"revoked,omitempty"`
		Proven  bool      `json:"proven,omitempty"`
	}
	key struct {
		Fingerprint string    `json:"fingerprint"`
		Subkeys     []string  `json:"subkeys"`
		UserIDs     []userID  `json:"userIDs"`
		Algorithm   int       `json:"algorithm"`
		Bits        int       `json:"bits"`
		Created     time.Time `json:"created"`
		Expires     time.Time `json:"expires,omitzero"`
		Revoked     bool      `json:"revoked"`
		Added       time.Time `json:"added"`
		Changed     time.Time `json:"changed"`
		SHA256      string    `json:"sha256"`
		LogIndex    int64     `json:"logIndex"`
	}
	ociError struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	ociErrors struct {
		Errors []ociError `json:"errors"`
	}
	ociTags struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	ociToken struct {
		Token       string    `json:"token"`
		AccessToken string    `json:"access_token"`
		ExpiresIn   int       `json:"expires_in"`
		IssuedAt    time.Time `json:"issued_at"`
	}
)

// anything is the data of an answer that says nothing but that it was done.
var anything = new(any)

var paging = []Param{{Name: "after", Text: "where the page before said that the next begins"}, {Name: "limit", Text: "entries, 1 to 1000"}}

var discovery = []Operation{
	{Pattern: "GET /assets/config/config.prod.json", Tag: "discovery", Summary: "Where the services of the site are", Body: config{}},
	{Pattern: "GET /version", Tag: "discovery", Summary: "Versions of library, key store and builder", Data: api.Version{}},
	{Pattern: "GET /token/version", Tag: "discovery", Summary: "Version of the accounts", Data: api.Version{}},
	{Pattern: "GET /consent/version", Tag: "discovery", Summary: "Version of the consent service", Data: api.Version{}},
	{Pattern: "GET /openapi.json", Tag: "discovery", Summary: "This description", Body: map[string]any{}},
}

var account = []Operation{
	{Pattern: "GET /token/v1/token-status", Tag: "account", Summary: "Whether a token works; 404 if not", Data: api.TokenStatus{}, Refuse: []int{404}},
	{Pattern: "GET /v1/rbac/users/current", Tag: "account", Summary: "Who the caller is, with a password for the registry", Body: api.CurrentUser{}, Refuse: []int{401}},
	{Pattern: "POST /token/v1/device", Tag: "account", Summary: "Begin a log-in from a terminal (RFC 8628)", Media: "application/x-www-form-urlencoded", Body: api.DeviceCode{}, Refuse: []int{400}},
	{Pattern: "POST /token/v1/device/token", Tag: "account", Summary: "Ask whether the log-in was agreed to", Media: "application/x-www-form-urlencoded", Body: api.DeviceToken{}, Refuse: []int{400}},
	{Pattern: "GET /v1/users/{name}/tokens", Tag: "account", Summary: "Tokens of the caller, or of a robot of theirs", Scope: "account:read", Data: []tokenInfo{}},
	{Pattern: "POST /v1/users/{name}/tokens", Tag: "account", Summary: "Make a token, whose text is in this answer alone", Scope: "account:write", In: tokenWish{}, Data: newToken{}},
	{Pattern: "DELETE /v1/users/{name}/tokens/{id}", Tag: "account", Summary: "Revoke a token", Scope: "account:write", Data: nothing{}},
	{Pattern: "GET /v1/robots", Tag: "account", Summary: "Robots of the caller and of groups that they own", Scope: "account:read", Data: []person{}},
	{Pattern: "POST /v1/robots", Tag: "account", Summary: "Make a robot", Scope: "account:write", In: named{}, Data: person{}, Refuse: []int{409}},
	{Pattern: "DELETE /v1/robots/{name}", Tag: "account", Summary: "Delete a robot and its tokens", Scope: "account:write", Data: nothing{}},
	{Pattern: "POST /v1/groups", Tag: "account", Summary: "Make a group, with the caller as its owner", Scope: "account:write", In: named{}, Data: person{}, Refuse: []int{409}},
	{Pattern: "GET /v1/groups", Tag: "account", Summary: "Groups of the caller", Scope: "account:read", Data: []membership{}},
	{Pattern: "GET /v1/groups/{group}", Tag: "account", Summary: "A group and its members, for members", Scope: "account:read", Data: group{}},
	{Pattern: "PUT /v1/groups/{group}/members/{name}", Tag: "account", Summary: "Give somebody a role in a group", Scope: "account:write", In: role{}, Data: nothing{}, Refuse: []int{409}},
	{Pattern: "DELETE /v1/groups/{group}/members/{name}", Tag: "account", Summary: "Take somebody out of a group, or leave it", Scope: "account:write", Data: nothing{}, Refuse: []int{409}},
}

var keys = []Operation{
	{Pattern: "GET /pks/lookup", Tag: "keys", Summary: "Look keys up (HKP): op=get answers with armoured text, op=index with a list", Type: "text/plain", Refuse: []int{404, 409, 501},
		Query: []Param{{Name: "op", Text: "get or index", Required: true}, {Name: "search", Text: "a name, an address, or 0x and a fingerprint or id", Required: true}, {Name: "exact", Text: "on: whole words alone"}, {Name: "options", Text: "mr: for machines"}, {Name: "fingerprint", Text: "on: whole fingerprints in a list"},
			{Name: "x-pagesize", Text: "keys in a list"}, {Name: "x-pagetoken", Text: "of X-HKP-Next-Page-Token"}}},
	{Pattern: "POST /pks/add", Tag: "keys", Summary: "Publish a key: the field keytext of a form", Scope: "keys:write", Media: "application/x-www-form-urlencoded", Type: "text/plain", Refuse: []int{400, 413, 422}},
	{Pattern: "OPTIONS /pks/lookup", Tag: "keys", Summary: "For browsers of other sites", Status: 204, Empty: true},
	{Pattern: "OPTIONS /pks/add", Tag: "keys", Summary: "For browsers of other sites", Status: 204, Empty: true},
	{Pattern: "GET /v1/keys", Tag: "keys", Summary: "Keys that the caller brought", Scope: "account:read", Data: []key{}},
	{Pattern: "GET /v1/keys/{fingerprint}", Tag: "keys", Summary: "What is known of a key", Data: key{}},
	{Pattern: "GET /v1/keys/{fingerprint}/proof", Tag: "keys", Summary: "Proof that the key is in the log", Query: []Param{{Name: "from", Text: "a size of the log that the caller knows"}}, Data: api.LogProof{}},
	{Pattern: "DELETE /v1/keys/{fingerprint}", Tag: "keys", Summary: "Take a key out of all answers", Scope: "keys:write", Data: anything},
	{Pattern: "PUT /v1/keys/{fingerprint}/addresses/{address}", Tag: "keys", Summary: "Confirm an address of a key", Scope: "admin", Data: anything},
	{Pattern: "PUT /v1/keys/{fingerprint}/block", Tag: "keys", Summary: "Let a key not come back", Scope: "admin", Data: anything},
	{Pattern: "DELETE /v1/keys/{fingerprint}/block", Tag: "keys", Summary: "Let a key come again", Scope: "admin", Data: anything},
}

var translog = []Operation{
	{Pattern: "GET /v1/log/key", Tag: "log", Summary: "Key of the log, as a verifier of signed notes", Type: "text/plain"},
	{Pattern: "GET /v1/log/checkpoint", Tag: "log", Summary: "Signed size and root of the log", Type: "text/plain"},
	{Pattern: "GET /v1/log/tile/{path...}", Tag: "log", Summary: "Hashes and lines, as c2sp.org/tlog-tiles", Type: "application/octet-stream", Refuse: []int{400}},
	{Pattern: "GET /v1/log/inclusion", Tag: "log", Summary: "Proof that a line is in the log", Query: []Param{{Name: "index", Text: "of the line", Required: true}, {Name: "from", Text: "a size that the caller knows"}}, Data: api.LogProof{}, Refuse: []int{404}},
	{Pattern: "GET /v1/log/consistency", Tag: "log", Summary: "Proof that the log went on from a size", Query: []Param{{Name: "from", Text: "the smaller size", Required: true}, {Name: "to", Text: "the larger one; by default the present one"}}, Data: api.LogConsistency{}},
}

var registry = []Operation{
	{Pattern: "GET /registry/token", Tag: "registry", Summary: "A token for the registry, for name and access token by Basic", Query: []Param{{Name: "service", Text: "as the challenge says"}, {Name: "scope", Text: "as the challenge says"}}, Body: ociToken{}, Refuse: []int{401}},
	{Pattern: "/v2/{rest...}", As: "GET /v2/", Tag: "registry", Summary: "Whether this is a registry, and the caller is known", Body: nothing{}, Refuse: []int{401}, OCI: true},
	{Pattern: "/v2/{rest...}", As: "GET /v2/{name}/tags/list", Tag: "registry", Summary: "Tags of a repository", Query: []Param{{Name: "n", Text: "tags"}, {Name: "last", Text: "the last one known"}}, Body: ociTags{}, OCI: true},
	{Pattern: "/v2/{rest...}", As: "GET /v2/{name}/manifests/{reference}", Tag: "registry", Summary: "A manifest", Headers: []Param{{Name: "Accept", Text: "media types that the caller knows"}}, Type: "application/vnd.oci.image.manifest.v1+json", OCI: true},
	{Pattern: "PUT /v2/{rest...}", As: "PUT /v2/{name}/manifests/{reference}", Tag: "registry", Summary: "Push a manifest", Scope: "library:write", Media: "application/vnd.oci.image.manifest.v1+json", Status: 201, Empty: true, Refuse: []int{400, 413}, OCI: true},
	{Pattern: "/v2/{rest...}", As: "DELETE /v2/{name}/manifests/{reference}", Tag: "registry", Summary: "Delete a tag or a manifest", Scope: "library:delete", Status: 202, Empty: true, Refuse: []int{405}, OCI: true},
	{Pattern: "/v2/{rest...}", As: "GET /v2/{name}/blobs/{digest}", Tag: "registry", Summary: "A blob, or a range of it", Headers: []Param{{Name: "Range", Text: "bytes=FROM-TO"}}, Type: "application/octet-stream", Also: []int{206}, Refuse: []int{416}, OCI: true},
	{Pattern: "/v2/{rest...}", As: "DELETE /v2/{name}/blobs/{digest}", Tag: "registry", Summary: "Delete a blob of a repository", Scope: "library:delete", Status: 202, Empty: true, Refuse: []int{405}, OCI: true},
	{Pattern: "POST /v2/{rest...}", As: "POST /v2/{name}/blobs/uploads/", Tag: "registry", Summary: "Begin to push a blob, or take it from another repository", Scope: "library:write", Query: []Param{{Name: "mount", Text: "digest of a blob"}, {Name: "from", Text: "repository that has it"}, {Name: "digest", Text: "of a body that is the whole blob"}}, Status: 202, Empty: true, Also: []int{201}, OCI: true},
	{Pattern: "/v2/{rest...}", As: "GET /v2/{name}/blobs/uploads/{upload}", Tag: "registry", Summary: "How much of a blob has come", Scope: "library:write", Status: 204, Empty: true, OCI: true},
	{Pattern: "/v2/{rest...}", As: "PATCH /v2/{name}/blobs/uploads/{upload}", Tag: "registry", Summary: "Push a piece of a blob", Scope: "library:write", Media: "application/octet-stream", Status: 202, Empty: true, Refuse: []int{416}, OCI: true},
	{Pattern: "PUT /v2/{rest...}", As: "PUT /v2/{name}/blobs/uploads/{upload}", Tag: "registry", Summary: "End the push of a blob", Scope: "library:write", Query: []Param{{Name: "digest", Text: "of the blob", Required: true}}, Media: "application/octet-stream", Status: 201, Empty: true, Refuse: []int{416}, OCI: true},
	{Pattern: "/v2/{rest...}", As: "DELETE /v2/{name}/blobs/uploads/{upload}", Tag: "registry", Summary: "Give the push of a blob up", Scope: "library:write", Status: 204, Empty: true, OCI: true},
	{Pattern: "/v2/{rest...}", As: "GET /v2/{name}/referrers/{digest}", Tag: "registry", Summary: "What refers to a manifest", Query: []Param{{Name: "artifactType", Text: "only these"}}, Type: "application/vnd.oci.image.index.v1+json", OCI: true},
}

var administration = []Operation{
	{Pattern: "GET /v1/admin/users", Tag: "administration", Summary: "Accounts", Scope: "admin", Query: paging, Data: []person{}, Paged: true},
	{Pattern: "POST /v1/admin/users", Tag: "administration", Summary: "Make a user, with a one-time link", Scope: "admin", In: newPerson{}, Data: linked{}, Refuse: []int{409}},
	{Pattern: "PATCH /v1/admin/users/{name}", Tag: "administration", Summary: "Change, disable or delete an account", Scope: "admin", In: personEdit{}, Data: person{}, Refuse: []int{409}},
	{Pattern: "POST /v1/admin/users/{name}/link", Tag: "administration", Summary: "Make a one-time link to set a password", Scope: "admin", Data: linked{}},
	{Pattern: "GET /v1/admin/system", Tag: "administration", Summary: "How the server is: version, storage, space, certificate", Scope: "admin", Data: api.System{}},
	{Pattern: "POST /v1/admin/gc", Tag: "administration", Summary: "Free what nobody needs any more, or with dryRun tell how much that is", Scope: "admin", In: dryRun{}, Data: api.Collected{}, Refuse: []int{409}},
	{Pattern: "GET /v1/admin/audit", Tag: "administration", Summary: "Who did what, the newest first", Scope: "admin", Query: append([]Param{{Name: "actor", Text: "who did it"}, {Name: "action", Text: "what"}, {Name: "object", Text: "to what"}}, paging...), Data: []event{}, Paged: true},
}

var internal = []Operation{
	{Pattern: "GET /healthz", Tag: "internal", Summary: "Whether the program runs", Type: "text/plain"},
	{Pattern: "GET /readyz", Tag: "internal", Summary: "Whether requests are answered", Type: "text/plain", Refuse: []int{503}},
	{Pattern: "GET /metrics", Tag: "internal", Summary: "Figures for Prometheus", Type: "text/plain"},
	{Pattern: "POST /internal/v1/introspect", Tag: "internal", Summary: "Whose a token is, for services with a certificate", Scope: "certificate", Media: "application/x-www-form-urlencoded", Body: api.Introspection{}},
}
