package library

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// maxUploads bounds the uploads of a user that have not ended.
const maxUploads = 8

// BlobName is the name under which a content is stored.
func BlobName(sha256 string) string { return "sha256/" + sha256 }

// unknownUpload is the answer for an upload that is not there. It is no 404:
// clients take that for "send it in one part", in the middle of the file.
var unknownUpload = route.Errorf(http.StatusGone, "there is no such upload: it has ended or was given up")

// notMissing keeps a 404 from who has begun an upload.
func notMissing(err error) error {
	var e *route.Error
	if errors.As(err, &e) && e.Status == http.StatusNotFound || missing(err) {
		return unknownUpload
	}
	return err
}

// begin starts the upload of an image.
func (s *Service) begin(ctx context.Context, id string, size, partSize int64) (upload, store.Item[image], error) {
	i, _, err := s.imageByID(ctx, auth.Create, id)
	if err != nil {
		return upload{}, i, err
	}
	switch {
	case i.Value.Uploaded:
		return upload{}, i, route.Errorf(http.StatusConflict, "the image is here already")
	case size <= 0:
		return upload{}, i, route.Errorf(http.StatusBadRequest, "an image has more than %d bytes", size)
	case size > s.o.MaxImage:
		return upload{}, i, route.Errorf(http.StatusRequestEntityTooLarge, "an image has at most %d bytes here", s.o.MaxImage)
	}
	if err := s.room(ctx, i.Value.Entity, size); err != nil {
		return upload{}, i, err
	}
	user := auth.From(ctx).ID
	if err := s.makeWay(ctx, user); err != nil {
		return upload{}, i, err
	}
	u := upload{Image: id, User: user, Size: size, PartSize: partSize, Single: partSize == 0, CreatedAt: s.now().UTC(), Expires: s.now().Add(uploadLife).UTC()}
	if u.Single {
		u.PartSize = size
	}
	begun, err := s.blobs.Start(ctx, store.Plan{Size: size, PartSize: u.PartSize})
	if err != nil {
		return u, i, err
	}
	u.ID = begun.ID
	if _, err := s.uploads.Insert(ctx, u.ID, u); err != nil {
		return u, i, errors.Join(err, s.blobs.Abort(context.WithoutCancel(ctx), u.ID))
	}
	return u, i, nil
}

// idleUpload is after how long an upload gives way to a new one.
const idleUpload = time.Hour

// makeWay bounds the uploads of a user: old ones, that a client which broke off
// has left, go for a new one.
func (s *Service) makeWay(ctx context.Context, user string) error {
	items, _, err := s.uploads.List(ctx, store.Query{Index: "user", Equal: user})
	if err != nil {
		return err
	}
	left := len(items)
	for _, u := range items {
		if left < maxUploads {
			break
		}
		if s.now().Sub(u.Value.CreatedAt) > idleUpload {
			if err := s.abort(ctx, u.Key); err != nil {
				return err
			}
			left--
		}
	}
	if left >= maxUploads {
		return route.Errorf(http.StatusTooManyRequests, "%d uploads of yours have not ended: end or abort one first", left)
	}
	return nil
}

func (s *Service) abort(ctx context.Context, id string) error {
	if err := s.blobs.Abort(ctx, id); err != nil && !missing(err) {
		return err
	}
	if err := s.uploads.Delete(ctx, id, 0); err != nil && !missing(err) {
		return err
	}
	return nil
}

func (s *Service) startSingle(w http.ResponseWriter, r *http.Request) error {
	var body api.Upload
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	u, i, err := s.begin(r.Context(), r.PathValue("id"), body.FileSize, 0)
	if err != nil {
		return err
	}
	if body.SHA256Sum != "" && !strings.EqualFold(body.SHA256Sum, i.Value.Hash) {
		return errors.Join(route.Errorf(http.StatusBadRequest, "the image was announced with another hash"), s.abort(r.Context(), u.ID))
	}
	route.Data(w, api.UploadURL{UploadURL: s.partURL(u.ID, 1, i.Value.Hash)})
	return nil
}

func (s *Service) partURL(id string, number int, sum string) string {
	return s.sign(http.MethodPut, "/data/upload/"+id+"/"+strconv.Itoa(number), sum, "", uploadLife)
}

// receive takes the bytes of a part, at an address that partURL made.
func (s *Service) receive(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	w.Header().Set("Referrer-Policy", "no-referrer")
	number, err := strconv.Atoi(r.PathValue("part"))
	if err != nil || !s.signed(http.MethodPut, r) {
		return route.Errorf(http.StatusForbidden, "this address is not valid or has ended")
	}
	u, err := s.uploads.Get(ctx, r.PathValue("id"))
	if err != nil {
		return notMissing(err)
	}
	plan := store.Plan{Size: u.Value.Size, PartSize: u.Value.PartSize}
	want := store.Content{Size: plan.Part(number), SHA256: r.URL.Query().Get("sum")}
	if r.ContentLength < 0 {
		return route.Errorf(http.StatusLengthRequired, "the size of the part must come first")
	}
	if r.ContentLength != want.Size {
		return route.Errorf(http.StatusBadRequest, "part %d has %d bytes, and %d come", number, want.Size, r.ContentLength)
	}
	if sum := r.Header.Get("X-Amz-Content-Sha256"); len(sum) == 64 {
		sum = strings.ToLower(sum)
		if want.SHA256 != "" && sum != want.SHA256 {
			return route.Errorf(http.StatusBadRequest, "the part was announced with another hash")
		}
		want.SHA256 = sum
	}
	part, err := s.blobs.PutPart(ctx, u.Key, number, r.Body, want)
	if err != nil {
		return notMissing(err)
	}
	w.Header().Set("ETag", `"`+part.Tag+`"`)
	w.WriteHeader(http.StatusOK)
	return nil
}

// uploadV1 takes an image in one request, with no address of its own.
func (s *Service) uploadV1(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if r.ContentLength < 0 {
		return route.Errorf(http.StatusLengthRequired, "the size of the image must come first")
	}
	u, i, err := s.begin(ctx, r.PathValue("id"), r.ContentLength, 0)
	if err != nil {
		return err
	}
	if _, err := s.blobs.PutPart(ctx, u.ID, 1, r.Body, store.Content{Size: u.Size, SHA256: i.Value.Hash}); err != nil {
		return errors.Join(err, s.abort(context.WithoutCancel(ctx), u.ID))
	}
	return s.answerComplete(w, r, u.ID)
}

// completeSingle ends an upload in one part. The call does not say which: it is
// one of the caller whose bytes have come. Of two such calls at once each ends one.
func (s *Service) completeSingle(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	i, _, err := s.imageByID(ctx, auth.Create, r.PathValue("id"))
	if err != nil {
		return notMissing(err)
	}
	user := auth.From(ctx).ID
	for u, err := range s.uploads.All(ctx, store.Query{Index: "image", Equal: i.Key}) {
		if err != nil {
			return err
		}
		if !u.Value.Single || u.Value.User != user {
			continue
		}
		if got, err := s.blobs.Upload(ctx, u.Key); err != nil || len(got.Parts) != 1 {
			continue
		}
		done, err := s.finish(ctx, i.Key, u.Key)
		if err == nil {
			return s.answerUploaded(w, r, done)
		}
		if !missing(err) { // else another call has ended it
			return err
		}
	}
	if i, err = s.ended(ctx, i.Key, ""); err == nil { // said before, and the answer got lost
		return s.answerUploaded(w, r, i)
	}
	if missing(err) {
		return route.Errorf(http.StatusConflict, "no bytes of the image have come")
	}
	return err
}

func (s *Service) answerComplete(w http.ResponseWriter, r *http.Request, id string) error {
	i, err := s.finish(r.Context(), r.PathValue("id"), id)
	if missing(err) {
		i, err = s.ended(r.Context(), r.PathValue("id"), id)
	}
	if err != nil {
		return notMissing(err)
	}
	return s.answerUploaded(w, r, i)
}

// endTime is how long a call waits for another that ends the same upload.
const endTime = 20 * time.Second

// ended is for an upload that another call has ended, or is about to: a client that
// lost the answer asks again. It returns the image if it is here then.
func (s *Service) ended(ctx context.Context, imageID, id string) (store.Item[image], error) {
	for end := time.Now().Add(endTime); ; {
		_, busy := s.uploads.Get(ctx, id)
		i, _, err := s.imageByID(ctx, auth.Create, imageID)
		switch {
		case err != nil || i.Value.Uploaded:
			return i, err
		case busy != nil || time.Now().After(end):
			return i, store.ErrNotFound
		}
		select {
		case <-ctx.Done():
			return i, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Service) answerUploaded(w http.ResponseWriter, r *http.Request, i store.Item[image]) error {
	q, err := s.quotaOf(r.Context(), i.Value.Entity)
	if err != nil {
		return err
	}
	route.Data(w, api.UploadComplete{Quota: q, ContainerURL: "/library/" + i.Value.Path})
	return nil
}

// finish makes what has come the content of the image, if it is what was
// announced and an image at all.
func (s *Service) finish(ctx context.Context, imageID, id string) (store.Item[image], error) {
	i, _, err := s.imageByID(ctx, auth.Create, imageID)
	if err != nil {
		return i, err
	}
	u, err := s.uploads.Get(ctx, id)
	if err == nil && (u.Value.Image != imageID || u.Value.User != auth.From(ctx).ID) {
		err = store.ErrNotFound
	}
	if err != nil {
		if missing(err) && i.Value.Uploaded {
			return i, nil
		}
		return i, err
	}
	hash := i.Value.Hash
	_, err = s.blobs.Complete(ctx, id, BlobName(hash), store.Content{Size: u.Value.Size, SHA256: hash})
	switch {
	case errors.Is(err, store.ErrContent):
		s.auth.Audit(ctx, "image.push", i.Value.Path, err, map[string]string{"image": "sha256." + hash})
		return i, errors.Join(&route.Error{Status: http.StatusUnprocessableEntity, Message: "the content is not what was announced: push again", Cause: err}, s.abort(ctx, id))
	case err != nil:
		return i, err
	}
	c, j, err := s.examine(ctx, hash)
	if err == nil {
		i, err = s.publish(ctx, imageID, c, j)
	}
	s.auth.Audit(ctx, "image.push", i.Value.Path, err, map[string]string{"image": "sha256." + hash, "size": strconv.FormatInt(u.Value.Size, 10)})
	if err != nil {
		// The bytes are not kept for who may not have them here.
		_, gone := s.free(context.WithoutCancel(ctx), hash)
		err = errors.Join(err, gone)
	}
	if e := s.uploads.Delete(ctx, id, 0); e != nil && !missing(e) && err == nil {
		err = e
	}
	return i, err
}

// examine reads what an image says of itself, and who has signed it.
func (s *Service) examine(ctx context.Context, hash string) (content, judgement, error) {
	j := judgement{after: s.keyChanges()}

	b, err := s.blobs.Open(ctx, BlobName(hash))
	if err != nil {
		return content{}, j, err
	}
	defer b.Close()
	c, err := inspect(b, b.Info().Size)
	if err != nil {
		return c, j, &route.Error{Status: http.StatusBadRequest, Message: "this is no sound SIF image: " + quoted(err), Cause: err}
	}
	if !c.Signed || s.o.Fingerprints == nil {
		return c, j, nil
	}
	j.prints, err = s.o.Fingerprints(ctx, io.NewSectionReader(b, 0, c.Size), c.Size)
	if err != nil {
		return c, j, fmt.Errorf("cannot check the signatures: %w", err)
	}
	return c, j, nil
}

// quoted is the text of an error about an image, which may hold words of it.
func quoted(err error) string {
	text, _ := clean(strings.ToValidUTF8(err.Error(), "?"), 1<<20, false)
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "..."
	}
	return text
}

// publish makes an image visible whose content is here.
func (s *Service) publish(ctx context.Context, id string, c content, j judgement) (store.Item[image], error) {
	i, err := s.images.Get(ctx, id)
	if err != nil || i.Value.Uploaded {
		return i, err
	}
	err = s.charge(ctx, i.Value.Entity, c.Size, func() error {
		i, err = s.images.Update(ctx, id, func(i *image) error {
			switch {
			case !i.DeletedAt.IsZero():
				return route.Errorf(http.StatusConflict, "the image was deleted meanwhile")
			case i.Uploaded:
				return errUploaded // and counted
			}
			i.Uploaded, i.Content, i.Fingerprints, i.UploadedAt = true, c, j.prints, s.now().UTC()
			return nil
		})
		return err
	})
	if errors.Is(err, errUploaded) {
		return s.images.Get(ctx, id)
	}
	if err != nil {
		return i, err
	}
	if err := s.secure(ctx, i); err != nil {
		return i, err
	}
	for _, f := range s.published {
		f(ctx, i.Value.Hash)
	}
	if c.Signed && j.after != s.keyChanges() {
		// A key changed while nobody could find this image by it.
		err = s.reverify(ctx, i)
	}
	return i, err
}

var errUploaded = errors.New("uploaded already")

func (s *Service) startParts(w http.ResponseWriter, r *http.Request) error {
	var body api.MultipartStart
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	u, _, err := s.begin(r.Context(), r.PathValue("id"), body.FileSize, s.o.PartSize)
	if err != nil {
		return err
	}
	plan := store.Plan{Size: u.Size, PartSize: u.PartSize}
	route.Data(w, api.Multipart{UploadID: u.ID, TotalParts: plan.Parts(), PartSize: u.PartSize, Options: map[string]string{"s3compliant": "true"}})
	return nil
}

// uploadFor returns an upload in parts of the caller to the image of the path.
func (s *Service) uploadFor(r *http.Request, id string) (store.Item[upload], store.Item[image], error) {
	ctx := r.Context()
	i, _, err := s.imageByID(ctx, auth.Create, r.PathValue("id"))
	if err != nil {
		return store.Item[upload]{}, i, notMissing(err)
	}
	if !idName.MatchString(id) {
		return store.Item[upload]{}, i, unknownUpload
	}
	u, err := s.uploads.Get(ctx, id)
	if err == nil && (u.Value.Image != i.Key || u.Value.User != auth.From(ctx).ID || u.Value.Single) {
		err = unknownUpload
	}
	return u, i, notMissing(err)
}

func (s *Service) signPart(w http.ResponseWriter, r *http.Request) error {
	var body api.Part
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	u, _, err := s.uploadFor(r, body.UploadID)
	if err != nil {
		return err
	}
	plan := store.Plan{Size: u.Value.Size, PartSize: u.Value.PartSize}
	if body.PartNumber < 1 || body.PartNumber > plan.Parts() || body.PartSize != plan.Part(body.PartNumber) {
		return route.Errorf(http.StatusBadRequest, "a part %d of %d bytes is not of the plan: %d parts of %d", body.PartNumber, body.PartSize, plan.Parts(), plan.PartSize)
	}
	sum := strings.ToLower(body.SHA256Sum)
	if sum != "" && !hashName.MatchString("sha256."+sum) {
		return route.Errorf(http.StatusBadRequest, "%.80q is no SHA-256", sum)
	}
	route.Data(w, api.PartURL{PresignedURL: s.partURL(u.Key, body.PartNumber, sum)})
	return nil
}

func (s *Service) completeParts(w http.ResponseWriter, r *http.Request) error {
	var body api.MultipartComplete
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	u, i, err := s.uploadFor(r, body.UploadID)
	if err != nil {
		if i.Value.Uploaded && errors.Is(err, unknownUpload) {
			return s.answerUploaded(w, r, i) // said before, and the answer got lost
		}
		return err
	}
	got, err := s.blobs.Upload(ctx, u.Key)
	if missing(err) {
		return s.answerComplete(w, r, u.Key) // another call ends it
	}
	if err != nil {
		return err
	}
	if len(got.Parts) != got.Plan.Parts() {
		return route.Errorf(http.StatusConflict, "%d of %d parts have come", len(got.Parts), got.Plan.Parts())
	}
	tokens := map[int]string{}
	for _, p := range body.CompletedParts {
		tokens[p.PartNumber] = strings.Trim(p.Token, `"`)
	}
	for _, p := range got.Parts {
		if tokens[p.Number] != p.Tag {
			return route.Errorf(http.StatusBadRequest, "part %d is not the one that was sent: its token differs", p.Number)
		}
	}
	return s.answerComplete(w, r, u.Key)
}

func (s *Service) abortParts(w http.ResponseWriter, r *http.Request) error {
	var body api.MultipartAbort
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	u, _, err := s.uploadFor(r, body.UploadID)
	if err != nil {
		return err
	}
	if err := s.abort(r.Context(), u.Key); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
