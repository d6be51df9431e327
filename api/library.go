// Package api holds the requests and answers of the services that clients and
// servers of ours share: plain data, nothing that acts.
package api

import "time"

// The path of the library API and what it answers follow the public behaviour
// of container libraries: a value is enveloped as {"data": ...}, an error as
// {"error": {"code": ..., "message": ...}}.

// Envelope holds the answer of a library.
type Envelope[T any] struct {
	Data  T      `json:"data"`
	Error *Error `json:"error,omitempty"`
	// Proof is there if the caller asked for it and the server has a log.
	Proof *LogProof `json:"proof,omitempty"`
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

	Encrypted            bool      `json:"encrypted,omitempty"`
	ContainerDescription string    `json:"containerDescription,omitempty"`
	ContainerDownloads   int64     `json:"containerDownloads,omitempty"`
	CreatedBy            string    `json:"createdBy,omitempty"`
	CreatedAt            time.Time `json:"createdAt,omitzero"`
	UpdatedAt            time.Time `json:"updatedAt,omitzero"`
	Deleted              bool      `json:"deleted,omitempty"`
	DeletedAt            time.Time `json:"deletedAt,omitzero"`
	DeletedBy            string    `json:"deletedBy,omitempty"`
}

// Entity is a user or group, which has collections.
type Entity struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`

	Collections    []string  `json:"collections,omitempty"` // their ids
	Size           int64     `json:"size,omitempty"`        // bytes in use
	Quota          int64     `json:"quota,omitempty"`       // 0: no limit
	DefaultPrivate bool      `json:"defaultPrivate,omitempty"`
	CreatedBy      string    `json:"createdBy,omitempty"`
	CreatedAt      time.Time `json:"createdAt,omitzero"`
	UpdatedAt      time.Time `json:"updatedAt,omitzero"`
}

// Collection has containers.
type Collection struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Entity      string `json:"entity"` // its id
	Private     bool   `json:"private"`

	FullDescription string    `json:"fullDescription,omitempty"` // Markdown
	EntityName      string    `json:"entityName,omitempty"`
	Containers      []string  `json:"containers,omitempty"` // their ids
	CreatedBy       string    `json:"createdBy,omitempty"`
	CreatedAt       time.Time `json:"createdAt,omitzero"`
	UpdatedAt       time.Time `json:"updatedAt,omitzero"`
}

// Container has images under tags.
type Container struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Collection  string `json:"collection"` // its id
	Private     bool   `json:"private"`

	FullDescription string                       `json:"fullDescription,omitempty"` // Markdown
	Entity          string                       `json:"entity,omitempty"`
	EntityName      string                       `json:"entityName,omitempty"`
	CollectionName  string                       `json:"collectionName,omitempty"`
	Images          []string                     `json:"images,omitempty"`
	ImageTags       map[string]string            `json:"imageTags,omitempty"`
	ArchTags        map[string]map[string]string `json:"archTags,omitempty"`
	OCITags         map[string]string            `json:"ociTags,omitempty"` // tags of OCI images: their digests
	DownloadCount   int64                        `json:"downloadCount,omitempty"`
	ReadOnly        bool                         `json:"readOnly,omitempty"`
	ImmutableTags   []string                     `json:"immutableTags,omitempty"` // patterns
	Retention       *Retention                   `json:"retention,omitempty"`
	CreatedBy       string                       `json:"createdBy,omitempty"`
	CreatedAt       time.Time                    `json:"createdAt,omitzero"`
	UpdatedAt       time.Time                    `json:"updatedAt,omitzero"`
}

// Retention says which images of a container go by themselves: those that are
// older than Days and not among the newest KeepLast of their architecture. A
// tag that matches one of KeepTags keeps its image.
type Retention struct {
	KeepLast int      `json:"keepLast,omitempty"`
	Days     int      `json:"days,omitempty"`
	KeepTags []string `json:"keepTags,omitempty"`
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

// Listing is a part of a list.
type Listing[T any] struct {
	Data []T  `json:"data"`
	Page Page `json:"page,omitzero"`
}

// Page says where the next part of a list begins.
type Page struct {
	Next string `json:"next,omitempty"`
}

// Inspection is what an image says of itself. All of it is text from a stranger:
// what a signature covers is known only to who checks it.
type Inspection struct {
	Image       Image             `json:"image"`
	ID          string            `json:"id"` // of the SIF
	Launch      string            `json:"launch,omitempty"`
	Created     time.Time         `json:"created,omitzero"`
	Objects     []SIFObject       `json:"objects"`
	Definition  string            `json:"definition,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Environment map[string]string `json:"environment,omitempty"` // files and their text
	Runscript   string            `json:"runscript,omitempty"`
	Help        string            `json:"help,omitempty"`
}

// SIFObject is a data object of an image. A signature names the objects that it
// is about in Covers, and in Signer by whose key it says to be.
type SIFObject struct {
	ID         uint32   `json:"id"`
	Type       string   `json:"type"`
	Name       string   `json:"name,omitempty"`
	Group      uint32   `json:"group,omitempty"`
	Offset     int64    `json:"offset"`
	Size       int64    `json:"size"`
	FileSystem string   `json:"fileSystem,omitempty"`
	Arch       string   `json:"arch,omitempty"`
	Encrypted  bool     `json:"encrypted,omitempty"`
	Signer     string   `json:"signer,omitempty"`
	Covers     []uint32 `json:"covers,omitempty"`
}
