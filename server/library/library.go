// Package library is the container library: entities, their collections, the
// containers in these, and images under tags, with the calls that clients of the
// library protocol make.
//
// An image record names a content by its SHA-256, belongs to one container, and
// becomes visible when the content has come and is what was announced. Contents
// are kept once each; that one is there is told to nobody who may not read an
// image that has it (SC-139). Tags live in the record of their container, so
// that each moves in one write: a reader finds the old image or the new one.
//
// Every write touches one record, in an order that leaves nothing half after a
// crash: bytes, then the image that names them, then the tag that names the
// image (SC-160). What nothing names is freed later. Deleted images can be
// restored for some days.
//
// Clients are hostile. Names are checked before they are looked up and never
// become names of files; bodies are decoded into types that hold only what a
// client may choose (SC-146); an image is read by package sif, in bounds, and
// never mounted or run. Whether somebody may do something is asked of package
// auth at every call; addresses that carry their own right are signed, bound to
// one object, and end.
//
//   - model.go: the records; name.go: references and texts
//   - tree.go, edit.go: entities, collections, containers; grants.go: who may do
//     what there
//   - image.go, tag.go: images and tags, log.go: what is written down of these
//   - content.go, signers.go: what a SIF says of itself
//   - upload.go, presign.go, download.go: bytes in and out
//   - explore.go, inspect.go: what pages show beside
//   - search.go; remove.go, retention.go, collect.go: what goes, and when
//   - quota.go: what an entity has in use; oci.go: for the registry; watch.go: for
//     who looks into images
package library

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
	"singularity/server/translog"
)

// Options of the service.
type Options struct {
	URL      string        // where clients find us
	Quota    int64         // bytes that an entity may have in use; 0: no limit
	MaxImage int64         // bytes of one image; 50 GiB by default
	PartSize int64         // of an upload in parts; 64 MiB by default
	Undo     time.Duration // how long a deleted image can be restored; 7 days by default
	NoDelete bool          // nothing is deleted, by nobody
	// Log has a line for every tag that moves; nil: none is kept.
	Log    *translog.Log
	Shared bool // other processes have the same records
	// Fingerprints tells by whose keys an image is signed, of those that are
	// known and valid. Without it no image has a known signer.
	Fingerprints func(ctx context.Context, r io.ReaderAt, size int64) ([]string, error)
}

// Service is the library.
type Service struct {
	o     Options
	auth  *auth.Service
	blobs store.Blobs

	entities    *store.Collection[entity]
	collections *store.Collection[collection]
	containers  *store.Collection[container]
	images      *store.Collection[image]
	uploads     *store.Collection[upload]
	condemned   *store.Collection[condemned]
	rejudged    *store.Collection[rejudge]
	usages      *store.Collection[usage] // if Shared

	key     []byte // of presigned addresses
	tallies tallies
	// Others that keep contents, count them, and follow deletions.
	holders  []Holder
	counters []func(context.Context, string) (int64, error)
	removed  []func(context.Context, string, string) error
	// Whoever looks into contents hears of their coming and going.
	published []func(context.Context, string)
	freed     []func(context.Context, string) error
	guard     func(context.Context, Stored) error // nil: every image is sent
	now       func() time.Time

	mu        sync.Mutex
	downloads map[string]int64 // not yet in the records, by container
	swept     time.Time
	changing  map[string]*changing // keys, by their fingerprints
	changes   int64                // of keys
	rejudging chan struct{}
}

// Holder tells whether somebody else than an image needs a content.
type Holder func(ctx context.Context, sha256 string) (bool, error)

// Open opens the library in the store.
func Open(ctx context.Context, r store.Records, b store.Blobs, a *auth.Service, o Options) (*Service, error) {
	if o.MaxImage == 0 {
		o.MaxImage = 50 << 30
	}
	if o.PartSize == 0 {
		o.PartSize = 64 << 20
	}
	if o.Undo == 0 {
		o.Undo = 7 * 24 * time.Hour
	}
	s := &Service{o: o, auth: a, blobs: b, now: time.Now, downloads: map[string]int64{}, changing: map[string]*changing{}, rejudging: make(chan struct{}, 1)}
	if err := s.openRecords(ctx, r); err != nil {
		return nil, fmt.Errorf("cannot open the library: %w", err)
	}
	return s, nil
}

// secret is what signs addresses. It outlives a restart, as they do.
type secret struct{ Key []byte }

func (s *Service) openRecords(ctx context.Context, r store.Records) error {
	secrets, err := store.Open(ctx, r, "library_secrets", store.Options[secret]{})
	if err != nil {
		return err
	}
	fresh := make([]byte, 32)
	rand.Read(fresh)
	if _, err := secrets.Insert(ctx, "presign", secret{fresh}); err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	k, err := secrets.Get(ctx, "presign")
	if err != nil {
		return err
	}
	s.key = k.Value.Key
	if s.entities, err = store.Open(ctx, r, "library_entities", store.Options[entity]{Indexes: entityIndexes}); err != nil {
		return err
	}
	if s.collections, err = store.Open(ctx, r, "library_collections", store.Options[collection]{Indexes: collectionIndexes}); err != nil {
		return err
	}
	if s.containers, err = store.Open(ctx, r, "library_containers", store.Options[container]{Indexes: containerIndexes}); err != nil {
		return err
	}
	if s.images, err = store.Open(ctx, r, "library_images", store.Options[image]{Version: 1, Indexes: imageIndexes}); err != nil {
		return err
	}
	if s.uploads, err = store.Open(ctx, r, "library_uploads", store.Options[upload]{Indexes: uploadIndexes, Expires: func(u *upload) time.Time { return u.Expires }}); err != nil {
		return err
	}
	if s.rejudged, err = store.Open(ctx, r, "library_rejudged", store.Options[rejudge]{}); err != nil {
		return err
	}
	if err := s.loadRejudged(ctx); err != nil {
		return err
	}
	if s.o.Shared {
		if s.usages, err = store.Open(ctx, r, "library_usages", store.Options[usage]{}); err != nil {
			return err
		}
	}
	s.condemned, err = store.Open(ctx, r, "library_condemned", store.Options[condemned]{Expires: func(c *condemned) time.Time { return c.Expires }})
	return err
}

// Hold has h asked before a content is freed.
func (s *Service) Hold(h Holder) { s.holders = append(s.holders, h) }

// Routes are the calls of the library.
func (s *Service) Routes() []route.Route {
	f := route.Func
	return []route.Route{
		{Pattern: "GET /v1/entities", Handler: f(s.listEntities)},
		{Pattern: "GET /v1/entities/{entity}", Handler: f(s.getEntity)},
		{Pattern: "PATCH /v1/entities/{entity}", Handler: f(s.editEntity)},
		{Pattern: "GET /v1/entities/{entity}/collections", Handler: f(s.listCollections)},
		{Pattern: "POST /v1/entities", Handler: f(s.createEntity), Class: route.Push},
		{Pattern: "GET /v1/collections/{entity}/{collection}", Handler: f(s.getCollection)},
		{Pattern: "PATCH /v1/collections/{entity}/{collection}", Handler: f(s.editCollection)},
		{Pattern: "DELETE /v1/collections/{entity}/{collection}", Handler: f(s.deleteCollection)},
		{Pattern: "GET /v1/collections/{entity}/{collection}/containers", Handler: f(s.listContainers)},
		{Pattern: "POST /v1/collections", Handler: f(s.createCollection), Class: route.Push},
		{Pattern: "GET /v1/containers/{entity}/{collection}/{container}", Handler: f(s.getContainer)},
		{Pattern: "PATCH /v1/containers/{entity}/{collection}/{container}", Handler: f(s.editContainer)},
		{Pattern: "DELETE /v1/containers/{entity}/{collection}/{container}", Handler: f(s.deleteContainer)},
		{Pattern: "GET /v1/containers/{entity}/{collection}/{container}/images", Handler: f(s.listImages)},
		{Pattern: "POST /v1/containers/{entity}/{collection}/{container}/retention", Handler: f(s.retain)},
		{Pattern: "POST /v1/containers", Handler: f(s.createContainer), Class: route.Push},
		{Pattern: "GET /v1/images/{ref...}", Handler: f(s.getImage)},
		{Pattern: "GET /v1/inspect/{ref...}", Handler: f(s.inspectImage)},
		{Pattern: "GET /v1/objects/{ref...}", Handler: f(s.readObject)},
		{Pattern: "GET /v1/signers/{fingerprint}/images", Handler: f(s.signedBy), Class: route.Search},
		{Pattern: "GET /v1/grants/{path...}", Handler: f(s.listGrants)},
		{Pattern: "PUT /v1/grants/{path...}", Handler: f(s.setGrant)},
		{Pattern: "DELETE /v1/grants/{path...}", Handler: f(s.deleteGrant)},
		{Pattern: "GET /v1/latest", Handler: f(s.latest), Class: route.Search},
		{Pattern: "DELETE /v1/images/{ref...}", Handler: f(s.deleteImage)},
		{Pattern: "POST /v1/images", Handler: f(s.createImage), Class: route.Push},
		{Pattern: "POST /v1/images/{id}/_restore", Handler: f(s.restoreImage)},

		{Pattern: "POST /v1/imagefile/{id}", Handler: f(s.uploadV1), Class: route.Push, Body: route.Stream},
		{Pattern: "POST /v2/imagefile/{id}", Handler: f(s.startSingle), Class: route.Push},
		{Pattern: "PUT /v2/imagefile/{id}/_complete", Handler: f(s.completeSingle)},
		{Pattern: "POST /v2/imagefile/{id}/_multipart", Handler: f(s.startParts), Class: route.Push},
		{Pattern: "PUT /v2/imagefile/{id}/_multipart", Handler: f(s.signPart), Class: route.Transfer},
		{Pattern: "PUT /v2/imagefile/{id}/_multipart_complete", Handler: f(s.completeParts), Class: route.Transfer},
		{Pattern: "PUT /v2/imagefile/{id}/_multipart_abort", Handler: f(s.abortParts), Class: route.Transfer},
		{Pattern: "PUT /data/upload/{id}/{part}", Handler: f(s.receive), Class: route.Transfer, Body: route.Stream, Presigned: true},

		{Pattern: "GET /v1/imagefile/{ref...}", Handler: f(s.download)},
		{Pattern: "GET /data/image/{id}", Handler: s.serve, Class: route.Transfer, Presigned: true},

		{Pattern: "GET /v1/tags/{id}", Handler: f(s.flatTags)},
		{Pattern: "POST /v1/tags/{id}", Handler: f(s.setFlatTag), Class: route.Push},
		{Pattern: "GET /v2/tags/{id}", Handler: f(s.archTags)},
		{Pattern: "POST /v2/tags/{id}", Handler: f(s.setArchTag), Class: route.Push},

		{Pattern: "GET /v1/search", Handler: f(s.search), Class: route.Search},
		{Pattern: "GET /v1/oci-redirect", Handler: f(s.noRedirect)},
	}
}
