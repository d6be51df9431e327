package library

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"singularity/server/auth"
	"singularity/server/store"
)

// direct is up to which size an image comes in the answer itself. Larger ones
// come from an address of their own, in ranges, several at a time.
const direct = 8 << 20

func (s *Service) download(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	ref, err := parseReference(r)
	if err != nil {
		return err
	}
	i, k, err := s.imageFor(ctx, auth.Read, ref)
	if err != nil {
		return err
	}
	if !i.Value.there() {
		return auth.From(ctx).NotFound()
	}
	if s.guard != nil {
		if err := s.guard(ctx, s.stored(&i.Value, &k.Value)); err != nil {
			return err
		}
	}
	if r.Method == http.MethodGet {
		s.countDownload(k.Key)
	}
	private(w)
	if i.Value.Content.Size <= direct {
		return s.send(w, r, &i.Value)
	}
	address, err := s.outside(r, &i.Value)
	if err != nil {
		return err
	}
	if address == "" {
		address = s.sign(http.MethodGet, "/data/image/"+i.Key, "", auth.From(ctx).ID, downloadLife)
	}
	w.Header().Set("Location", address)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// outside is an address at the storage itself, if it has any for clients.
//
// Security: never for a request with a token or a cookie, which some clients send
// along to the other host.
func (s *Service) outside(r *http.Request, i *image) (string, error) {
	if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
		return "", nil
	}
	address, err := s.blobs.Presign(r.Context(), store.Access{Method: http.MethodGet, Name: BlobName(i.Hash), Expires: downloadLife})
	if errors.Is(err, store.ErrUnsupported) {
		return "", nil
	}
	return address, err
}

func private(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "private, no-store")
	h.Set("Referrer-Policy", "no-referrer")
}

// serve sends an image at an address that download made.
//
// Clients that ask for a range write into the image whatever comes, be it the
// text of an error: all they understand is a connection that breaks.
func (s *Service) serve(w http.ResponseWriter, r *http.Request) {
	i, err := s.images.Get(r.Context(), r.PathValue("id"))
	if !s.signed(http.MethodGet, r) || err != nil || !i.Value.Uploaded {
		s.breakOff(w, r)
		return
	}
	private(w)
	if err := s.send(w, r, &i.Value); err != nil {
		s.breakOff(w, r)
	}
}

func (s *Service) breakOff(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Range") != "" {
		panic(http.ErrAbortHandler)
	}
	http.Error(w, `{"error":{"code":403,"message":"this address is not valid or has ended"}}`, http.StatusForbidden)
}

// send answers with the content of an image, or a range of it.
func (s *Service) send(w http.ResponseWriter, r *http.Request, i *image) error {
	b, err := s.blobs.Open(r.Context(), BlobName(i.Hash))
	if err != nil {
		return err
	}
	defer b.Close()
	if strings.Contains(r.Header.Get("Range"), ",") {
		r.Header.Del("Range") // of several ranges an answer would be larger than the image
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("ETag", strconv.Quote("sha256."+i.Hash))
	http.ServeContent(w, r, "", time.Time{}, b)
	return nil
}

func (s *Service) countDownload(container string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.downloads[container]++
}

// withDownloads adds what is not in the record yet.
func (s *Service) withDownloads(k *container) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.Downloads += s.downloads[k.ID]
	return k
}

// Flush writes how often containers were downloaded.
func (s *Service) Flush(ctx context.Context) error {
	s.mu.Lock()
	counts := s.downloads
	s.downloads = map[string]int64{}
	s.mu.Unlock()
	var failed error
	for id, n := range counts {
		_, err := s.containers.Update(ctx, id, func(k *container) error { k.Downloads += n; return nil })
		if err != nil && !missing(err) {
			failed = err
			s.mu.Lock()
			s.downloads[id] += n
			s.mu.Unlock()
		}
	}
	return failed
}
