// Package api holds the requests and answers of the services that clients and
// servers of ours share: plain data, nothing that acts.
package api

// The path of the library API and what it answers follow the public behaviour
// of container libraries: a value is enveloped as {"data": ...}, an error as
// {"error": {"code": ..., "message": ...}}.

// Envelope holds the answer of a library.
type Envelope[T any] struct {
	Data  T      `json:"data"`
	Error *Error `json:"error,omitempty"`
}

// Error is the refusal of a service.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Image is one image of a library.
type Image struct {
	ID           string   `json:"id"`
	Hash         string   `json:"hash"` // sha256.HEX
	Description  string   `json:"description"`
	Container    string   `json:"container"`
	Size         int64    `json:"size"`
	Uploaded     bool     `json:"uploaded"`
	Signed       *bool    `json:"signed,omitempty"`
	Arch         string   `json:"arch,omitempty"`
	Fingerprints []string `json:"fingerprints,omitempty"`

	EntityName     string   `json:"entityName,omitempty"`
	CollectionName string   `json:"collectionName,omitempty"`
	ContainerName  string   `json:"containerName,omitempty"`
	Tags           []string `json:"tags,omitempty"`
}

// Entity is a user or group, which has collections.
type Entity struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// Collection has containers.
type Collection struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Entity      string `json:"entity"` // its id
	Private     bool   `json:"private"`
}

// Container has images under tags.
type Container struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Collection  string `json:"collection"` // its id
	Private     bool   `json:"private"`
}

// Version is what a service says of itself.
type Version struct {
	Version    string `json:"version"`
	APIVersion string `json:"apiVersion"`
}

// Upload announces a file that is sent in one part.
type Upload struct {
	FileSize  int64  `json:"filesize"`
	MD5Sum    string `json:"md5sum"`
	SHA256Sum string `json:"sha256sum"`
}

// UploadURL tells where to send it.
type UploadURL struct {
	UploadURL string `json:"uploadURL"`
}

// MultipartStart announces a file that is sent in several parts.
type MultipartStart struct {
	FileSize int64 `json:"filesize"`
}

// Multipart is the plan of such an upload.
type Multipart struct {
	UploadID   string `json:"uploadID"`
	TotalParts int    `json:"totalParts"`
	PartSize   int64  `json:"partSize"`
	// Options has s3compliant, "true" or "false".
	Options map[string]string `json:"options"`
}

// Part asks where to send one part.
type Part struct {
	PartSize   int64  `json:"partSize"`
	UploadID   string `json:"uploadID"`
	PartNumber int    `json:"partNumber"` // from 1
	SHA256Sum  string `json:"sha256sum"`
}

// PartURL tells it.
type PartURL struct {
	PresignedURL string `json:"presignedURL"`
}

// CompletedPart is a part that was sent.
type CompletedPart struct {
	PartNumber int    `json:"partNumber"`
	Token      string `json:"token"` // its ETag, with the quotes
}

// MultipartComplete ends an upload, and MultipartAbort gives it up.
type MultipartComplete struct {
	UploadID       string          `json:"uploadID"`
	CompletedParts []CompletedPart `json:"completedParts"`
}

// MultipartAbort gives an upload up.
type MultipartAbort struct {
	UploadID string `json:"uploadID"`
}

// UploadComplete is the answer to the end of an upload.
type UploadComplete struct {
	Quota        Quota  `json:"quota"`
	ContainerURL string `json:"containerUrl"`
}

// Quota is what an entity may store and does, in bytes.
type Quota struct {
	Total int64 `json:"quotaTotal"` // 0: no limit
	Usage int64 `json:"quotaUsage"`
}

// Tag lets a tag name an image, for an architecture. Its keys are capitalised.
type Tag struct {
	Arch    string
	Tag     string
	ImageID string
}

// Search is what a search found.
type Search struct {
	Entities    []Entity     `json:"entity"`
	Collections []Collection `json:"collection"`
	Containers  []Container  `json:"container"`
	Images      []Image      `json:"image"`
}
