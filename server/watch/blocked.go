package watch

import (
	"cmp"
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"singularity/advisory"
	"singularity/api"
	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/route"
	"singularity/sif"
)

// maxBlocked bounds the images of an answer: their lines fit into the list of a host.
const maxBlocked = 20_000

// idReaders bounds the images that are opened at a time.
const idReaders = 16

// imageIDs are the ids in the headers of images, by hash: a content keeps its own.
type imageIDs struct {
	mu sync.Mutex
	by map[string]sif.ID
}

// imageID is the id of an image, all zeros for one without.
func (s *Service) imageID(ctx context.Context, hash string) (sif.ID, error) {
	s.ids.mu.Lock()
	id, ok := s.ids.by[hash]
	s.ids.mu.Unlock()
	if ok {
		return id, nil
	}
	b, err := s.blobs.Open(ctx, library.BlobName(hash))
	if err != nil {
		return id, err
	}
	defer b.Close()
	var head [sif.HeaderSize]byte
	if _, err := b.ReadAt(head[:], 0); err != nil && err != io.EOF {
		return id, err
	}
	id = sif.IDOf(head[:])
	s.ids.mu.Lock()
	defer s.ids.mu.Unlock()
	s.ids.by[hash] = id
	return id, nil
}

// learnIDs returns the ids of images; those that were deleted meanwhile have none.
func (s *Service) learnIDs(ctx context.Context, hashes []string) (map[string]sif.ID, error) {
	var mu sync.Mutex
	var failed error
	out := map[string]sif.ID{}
	var workers sync.WaitGroup
	for part := range slices.Chunk(hashes, max(len(hashes)/idReaders+1, 1)) {
		workers.Go(func() {
			for _, hash := range part {
				id, err := s.imageID(ctx, hash)
				mu.Lock()
				if err == nil {
					out[hash] = id
				} else if !missing(err) {
					failed = cmp.Or(failed, err)
				}
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	workers.Wait()
	return out, failed
}

func (i *imageIDs) forget(hash string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.by, hash)
}

// blockedImages answers with the images that the rule of the site blocks, or will block
// when the grace is over, for hosts that do not run them.
func (s *Service) blockedImages(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if c := auth.From(ctx); !all(c) {
		by, err := s.speaker(ctx)
		if err != nil {
			return err
		}
		if by.host == "" {
			return route.Errorf(http.StatusForbidden, "the list of blocked images is for administrators and for hosts")
		}
	}
	data := s.state()
	if !data.Loaded || data.Loading {
		// An empty list would set all images free.
		return route.Errorf(http.StatusServiceUnavailable, "the images are not compared with advisories yet: keep the list that you have")
	}
	s.ruling.mu.RLock()
	rule := s.ruling.by[site]
	s.ruling.mu.RUnlock()
	out := api.BlockedImages{Made: s.now().UTC().Truncate(time.Second), Records: data.Records, Newest: data.Newest, Images: []api.BlockedImage{}}
	if rule.Block > advisory.Unknown {
		shown := rule.shown()
		out.Block, out.Grace = shown.Block, shown.Grace
		list, err := s.blockedBy(ctx, rule)
		if err != nil {
			return err
		}
		out.Images = list[:min(len(list), maxBlocked)]
		out.More = len(list) - len(out.Images)
	}
	route.Data(w, out)
	return nil
}

// blockedBy lists the images that a rule blocks or will block, the first ones first.
//
// Security: an image says itself which id it has. So that nobody has the image of
// another blocked by a push of their own with its id, an id is in the list only if all
// contents that are stored with it are blocked, and from the day on when the last is.
func (s *Service) blockedBy(ctx context.Context, rule rules) ([]api.BlockedImage, error) {
	everything := auth.With(ctx, auth.Caller{ID: "watch", Admin: true, Scopes: []auth.Scope{auth.LibraryRead}})
	by := map[string]*api.BlockedImage{} // contents
	free := map[string]bool{}
	for i, err := range s.lib.Visible(everything, "") {
		if err != nil {
			return nil, err
		}
		b := s.blocks(rule, i)
		if old := by[i.Hash]; b == nil {
			free[i.Hash] = true
		} else if old == nil || b.From.Before(old.From) {
			by[i.Hash] = b
		}
	}
	if len(by) == 0 {
		return []api.BlockedImage{}, nil
	}
	known, err := s.learnIDs(ctx, slices.Concat(slices.Collect(maps.Keys(by)), slices.Collect(maps.Keys(free))))
	if err != nil {
		return nil, err
	}
	never := map[sif.ID]bool{{}: true}
	for hash := range free {
		never[known[hash]] = true
	}
	ids := map[sif.ID]*api.BlockedImage{}
	for hash, b := range by {
		id := known[hash]
		b.ID = id.String()
		if old := ids[id]; !never[id] && (old == nil || b.From.After(old.From) || b.From.Equal(old.From) && b.Hash < old.Hash) {
			ids[id] = b
		}
	}
	list := make([]api.BlockedImage, 0, len(ids))
	for _, b := range ids {
		list = append(list, *b)
	}
	slices.SortFunc(list, func(a, b api.BlockedImage) int { return cmp.Or(a.From.Compare(b.From), strings.Compare(a.ID, b.ID)) })
	return list, nil
}

// blocks is what a rule says of an image: the fault whose grace is over first, of those
// the worst; nil if nothing blocks it.
func (s *Service) blocks(rule rules, i library.Stored) *api.BlockedImage {
	if v := s.judge(i.Hash, ""); v == nil || v.worst < rule.Block {
		return nil
	}
	k, ok := s.corpus.image(i.Hash)
	if !ok {
		return nil
	}
	s.suppress(k.findings, i.Hash, "")
	var out *api.BlockedImage
	now := s.now()
	for n := range k.findings { // the worst first
		f := &k.findings[n]
		if f.Level < rule.Block {
			break
		}
		from := s.since(f.ID, i.Image.UpdatedAt, now).Add(rule.Grace).UTC().Truncate(time.Second)
		if f.Ignored != "" || out != nil && !from.Before(out.From) {
			continue
		}
		out = &api.BlockedImage{Hash: i.Hash, From: from, Severity: f.Level.String(), Advisory: f.ID, Text: f.Brief()}
	}
	return out
}
