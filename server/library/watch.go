package library

import (
	"context"
	"iter"
	"net/http"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/store"
)

// Stored is an image that can be pulled, for those who look into images beside
// this package.
type Stored struct {
	Image      api.Image
	Hash       string // hexadecimal SHA-256
	Entity     string // its name
	Collection string // ids
	Container  string
}

// Path is the container with the names of what it is in.
func (i Stored) Path() string {
	return i.Image.EntityName + "/" + i.Image.CollectionName + "/" + i.Image.ContainerName
}

// Published has f called with the hash of each content that an image begins to
// show. The one who pushes waits for it.
func (s *Service) Published(f func(ctx context.Context, hash string)) {
	s.published = append(s.published, f)
}

// Freed has f called with the hash of each content that is no more.
func (s *Service) Freed(f func(ctx context.Context, hash string) error) {
	s.freed = append(s.freed, f)
}

// Contents gives the hash of the content of every image; some come several times.
func (s *Service) Contents(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i, err := range s.images.All(ctx, store.Query{Index: "newest"}) {
			if !yield(i.Value.Hash, err) || err != nil {
				return
			}
		}
	}
}

// Resolve returns the image that the path value ref of a request names, if the
// caller may read it.
func (s *Service) Resolve(r *http.Request) (Stored, error) {
	ref, err := parseReference(r)
	if err != nil {
		return Stored{}, err
	}
	i, k, err := s.imageFor(r.Context(), auth.Read, ref)
	if err != nil {
		return Stored{}, err
	}
	if !i.Value.there() {
		return Stored{}, auth.From(r.Context()).NotFound()
	}
	return s.stored(&i.Value, &k.Value), nil
}

func (s *Service) stored(i *image, k *container) Stored {
	return Stored{Image: s.shown(i, k), Hash: i.Hash, Entity: k.EntityName, Collection: k.Collection, Container: k.ID}
}

// Visible gives the images that the caller may read: of one content, or of all if
// hash is empty.
func (s *Service) Visible(ctx context.Context, hash string) iter.Seq2[Stored, error] {
	q := store.Query{Index: "newest", Reverse: true}
	if hash != "" {
		q = store.Query{Index: "blob", Equal: hash}
	}
	return func(yield func(Stored, error) bool) {
		may, err := s.auth.Readable(ctx, auth.From(ctx))
		if err != nil {
			yield(Stored{}, err)
			return
		}
		seen := readableContainers{s: s, may: may, known: map[string]*container{}, private: map[string]bool{}}
		for i, err := range s.images.All(ctx, q) {
			var k *container
			if err == nil && i.Value.there() {
				k, err = seen.get(ctx, i.Value.Container)
			}
			if err != nil {
				yield(Stored{}, err)
				return
			}
			if k != nil && !yield(s.stored(&i.Value, k), nil) {
				return
			}
		}
	}
}

// readableContainers looks each container and collection up once.
type readableContainers struct {
	s       *Service
	may     auth.Readable
	known   map[string]*container // nil for those that are hidden
	private map[string]bool       // collections
}

func (c *readableContainers) get(ctx context.Context, id string) (*container, error) {
	if k, ok := c.known[id]; ok {
		return k, nil
	}
	i, err := c.s.containers.Get(ctx, id)
	if missing(err) || err == nil && !i.Value.DeletedAt.IsZero() {
		c.known[id] = nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k := &i.Value
	private, ok := c.private[k.Collection]
	if !ok {
		of, err := c.s.collections.Get(ctx, k.Collection)
		if err != nil && !missing(err) {
			return nil, err
		}
		private = err != nil || of.Value.Private
		c.private[k.Collection] = private
	}
	if !c.may.May(auth.Object{Entity: k.EntityName, Within: []string{k.Collection, k.ID}, Public: !k.Private && !private}) {
		k = nil
	}
	c.known[id] = k
	return k, nil
}

// CollectionID returns the id of a collection if the caller may do that with it.
func (s *Service) CollectionID(ctx context.Context, a auth.Action, path string) (string, error) {
	c, err := s.collectionFor(ctx, a, path)
	return c.Key, err
}

// Guard has f asked before the bytes of an image are sent; what it returns is the refusal.
func (s *Service) Guard(f func(context.Context, Stored) error) { s.guard = f }

// Serves returns nil if the content, shown through an image of a container, may be sent
// to the caller, who may read it.
func (s *Service) Serves(ctx context.Context, container, hash string) error {
	if s.guard == nil {
		return nil
	}
	i, err := s.images.Find(ctx, "path", container+"/"+hash)
	if missing(err) {
		return nil // no image
	}
	if err != nil {
		return err
	}
	k, err := s.containers.Get(ctx, container)
	if err != nil {
		return hide(ctx, err)
	}
	return s.guard(ctx, s.stored(&i.Value, &k.Value))
}
