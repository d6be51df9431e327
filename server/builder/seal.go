package builder

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"singularity/api"
	"singularity/provenance"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/sif"
	"singularity/sign"
)

// Seal is how the service signs what was built.
//
// Security: the key is this process's alone. A sandbox never has it, and a worker
// cannot ask for a signature: what is signed is what the library holds under the
// digest that the worker announced, as the result of a build that this service
// gave out, with the service's own word for when and for whom it was built. What
// the statement says of sources is what was seen in the sandbox.
type Seal struct {
	Signer func(at time.Time) sign.Signer // of the image
	Attest crypto.Signer                  // of the statement by itself; nil for none
	Name   string                         // of the key, for people
	Public string                         // the key, to check by
	Dir    string                         // for an image while it is signed
	Blob   func(hash string) string       // where the library has a content
}

// stage is where a worker puts an image that is still to be signed: nobody takes
// it from there but this service, and the reference that was asked for has signed
// images alone.
func (s *Service) stage(j *job) (path, tag string) {
	if s.o.Seal == nil {
		return j.Path, j.Tag
	}
	return j.UserName + "/remote-builds/rb-" + j.ID + "-unsigned", "unsigned"
}

// succeed ends a build whose image is in the library, after it has signed that.
func (s *Service) succeed(ctx context.Context, j *job, size int64) error {
	hash := j.ImageHash
	if j.Stage != "" {
		// One at a time: an image is read and written whole. Whoever asks again
		// meanwhile finds the build over.
		s.sealing.Lock()
		defer s.sealing.Unlock()
		now, err := s.held(ctx, j.ID, j.Fence)
		if err != nil {
			return err
		}
		hash, size, err = s.seal(ctx, now)
		var no *route.Error
		if errors.As(err, &no) && no.Status < 500 {
			return s.end(ctx, j.ID, j.Fence, Failed, "the image cannot be signed: "+no.Message, nil)
		}
		if err != nil {
			return err
		}
	}
	return s.end(ctx, j.ID, j.Fence, Succeeded, "", func(j *job) { j.ImageHash, j.ImageSize = hash, size })
}

// seal signs the image of a build and stores it where it was asked for.
func (s *Service) seal(ctx context.Context, j *job) (string, int64, error) {
	if s.o.Seal == nil {
		return "", 0, route.Errorf(http.StatusConflict, "the service has no key any more")
	}
	f, err := os.CreateTemp(s.o.Seal.Dir, ".seal-")
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return "", 0, err
	}
	size, err := s.fetch(ctx, j, f)
	if err != nil {
		return "", 0, err
	}
	if err := s.sign(ctx, j, f, size); err != nil {
		return "", 0, err
	}
	return s.store(ctx, j, f)
}

// fetch copies the image and makes sure that it is the one that was announced.
func (s *Service) fetch(ctx context.Context, j *job, to io.Writer) (int64, error) {
	b, err := s.blobs.Open(ctx, s.o.Seal.Blob(j.ImageHash))
	if err != nil {
		return 0, err
	}
	defer b.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(to, h), b)
	if got := hex.EncodeToString(h.Sum(nil)); err == nil && got != j.ImageHash {
		err = route.Errorf(http.StatusConflict, "its bytes are not those that were built")
	}
	return n, err
}

// sign puts the statement of the service into the image, and signs all of it.
func (s *Service) sign(ctx context.Context, j *job, f *os.File, size int64) error {
	bad := func(err error) error { return route.Errorf(http.StatusConflict, "%.200s", err.Error()) }
	e, err := sif.Edit(f, size)
	if err != nil {
		return bad(err)
	}
	o, ok := e.File().Named(sif.DataJSON, provenance.Object)
	if !ok || o.Size > provenance.MaxSize {
		return bad(errors.New("it has no provenance"))
	}
	text, err := e.File().ReadAll(o)
	if err != nil {
		return bad(err)
	}
	v, err := provenance.Parse(text)
	if err == nil {
		err = v.Check(e.File())
	}
	if err != nil {
		return bad(err)
	}
	sum := sha256.Sum256(j.Definition)
	text, err = v.Issue(provenance.Run{Builder: s.o.URL, Invocation: s.o.URL + "/v1/build/" + j.ID, Started: j.Started, Finished: j.Built, Submitted: hex.EncodeToString(sum[:])})
	if err != nil {
		return bad(err)
	}
	in := []sif.Input{{Type: sif.DataJSON, Group: sif.DefaultGroup, Name: provenance.Object, Data: bytes.NewReader(text)}}
	if key := s.o.Seal.Attest; key != nil {
		envelope, err := sign.Attest(key, provenance.PayloadType, text)
		if err != nil {
			return err
		}
		in = append(in, sif.Input{Type: sif.DataJSON, Group: sif.DefaultGroup, Name: provenance.Envelope, Data: bytes.NewReader(envelope)})
	}
	e.Time = j.Built
	if _, err := e.Replace([]uint32{o.ID}, in...); err != nil {
		return bad(err)
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := sign.Sign(ctx, f, st.Size(), sign.Request{Signer: s.o.Seal.Signer(j.Built), Now: j.Built}); err != nil {
		return bad(err)
	}
	return nil
}

// store gives the signed image to the library, in the name of whom it is for.
func (s *Service) store(ctx context.Context, j *job, f *os.File) (string, int64, error) {
	h := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", 0, err
	}
	size, err := io.Copy(h, f)
	if err != nil {
		return "", 0, err
	}
	hash := hex.EncodeToString(h.Sum(nil))
	c, err := s.auth.OnBehalf(ctx, j.User, auth.LibraryRead, auth.LibraryCreate, auth.LibraryWrite)
	if err != nil {
		return "", 0, err
	}
	if c.Invalid {
		return "", 0, route.Errorf(http.StatusForbidden, "the account is closed")
	}
	k, err := s.container(ctx, c, j)
	if err != nil {
		return "", 0, err
	}
	var i api.Image
	if err := s.ask(ctx, c, http.MethodPost, "/v1/images", map[string]string{"hash": "sha256." + hash, "container": k.ID}, &i); err != nil {
		return "", 0, err
	}
	if !i.Uploaded {
		if _, err := route.Ask(auth.With(ctx, c), s.api, http.MethodPost, "/v1/imagefile/"+i.ID, "", io.NewSectionReader(f, 0, size)); err != nil {
			return "", 0, err
		}
	}
	return hash, size, s.ask(ctx, c, http.MethodPost, "/v2/tags/"+k.ID, map[string]string{"Arch": j.Arch, "Tag": j.Tag, "ImageID": i.ID}, nil)
}

// unstage deletes the place of the image that was not signed yet.
func (s *Service) unstage(ctx context.Context, j *job) error {
	if j.Stage == "" {
		return nil
	}
	path, _, _ := strings.Cut(j.Stage, ":")
	c, err := s.auth.OnBehalf(ctx, j.User, auth.LibraryRead, auth.LibraryDelete, auth.LibraryManage)
	if err != nil || c.Invalid {
		return err
	}
	if err := s.ask(ctx, c, http.MethodDelete, "/v1/containers/"+path, nil, nil); err != nil && !isMissing(err) {
		return fmt.Errorf("the image that was not signed stays: %w", err)
	}
	return nil
}
