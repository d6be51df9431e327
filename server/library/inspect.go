package library

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/sif"
)

// The bounds of what an answer shows of an image.
const (
	maxText    = 256 << 10 // bytes of each text
	maxObjects = 500
)

// inspectImage answers with what an image says of itself.
func (s *Service) inspectImage(w http.ResponseWriter, r *http.Request) error {
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
	out, err := s.inspection(ctx, &i.Value)
	if err != nil {
		return err
	}
	out.Image = s.shown(&i.Value, s.withDownloads(&k.Value))
	route.Data(w, out)
	return nil
}

// maxObject bounds what is read of one object. A list of packages is smaller.
const maxObject = 64 << 20

// readObject answers with a data object of an image, as it is: a list of its
// packages, or the record of how it was built. File systems come with the image.
func (s *Service) readObject(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	ref, err := parseReference(r)
	if err != nil {
		return err
	}
	i, _, err := s.imageFor(ctx, auth.Read, ref)
	if err != nil {
		return err
	}
	id, err := strconv.ParseUint(r.URL.Query().Get("id"), 10, 32)
	if err != nil || !i.Value.there() {
		return auth.From(ctx).NotFound()
	}
	b, err := s.blobs.Open(ctx, BlobName(i.Value.Hash))
	if err != nil {
		return err
	}
	defer b.Close()
	f, err := sif.Open(b, i.Value.Content.Size)
	if err != nil {
		return err
	}
	n := slices.IndexFunc(f.Objects(), func(o sif.Object) bool { return uint64(o.ID) == id })
	if n < 0 || f.Objects()[n].Type == sif.DataPartition {
		return auth.From(ctx).NotFound()
	}
	o := f.Objects()[n]
	if o.Size > maxObject {
		return route.Errorf(http.StatusRequestEntityTooLarge, "the object has more than %d bytes: pull the image", maxObject)
	}
	// Security: no browser takes what strangers wrote for a page of this site.
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", "attachment")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Content-Length", strconv.FormatInt(o.Size, 10))
	io.Copy(w, f.Reader(o)) // whoever went away does not need it
	return nil
}

func (s *Service) inspection(ctx context.Context, i *image) (api.Inspection, error) {
	b, err := s.blobs.Open(ctx, BlobName(i.Hash))
	if err != nil {
		return api.Inspection{}, err
	}
	defer b.Close()
	f, err := sif.Open(b, i.Content.Size)
	if err != nil {
		return api.Inspection{}, err
	}
	h := f.Header()
	out := api.Inspection{ID: h.ID.String(), Launch: h.LaunchScript, Objects: []api.SIFObject{}}
	if h.Created > 0 {
		out.Created = time.Unix(h.Created, 0).UTC()
	}
	objects := f.Objects()
	objects = objects[:min(len(objects), maxObjects)]
	for _, o := range objects {
		out.Objects = append(out.Objects, describeObject(o, objects))
		if o.Type == sif.DataDefFile && out.Definition == "" && o.Size <= maxText {
			if text, err := f.ReadAll(o); err == nil {
				out.Definition = strings.ToValidUTF8(string(text), "\uFFFD")
			}
		}
	}
	addMetadata(f, &out)
	return out, nil
}

func describeObject(o sif.Object, all []sif.Object) api.SIFObject {
	v := api.SIFObject{ID: o.ID, Type: o.Type.String(), Name: strings.ToValidUTF8(o.Name, "\uFFFD"), Group: o.Group, Offset: o.Off, Size: o.Size}
	if p, ok := o.Partition(); ok {
		v.FileSystem = p.FS.String()
		v.Encrypted = p.FS == sif.FSEncryptedSquashfs || p.FS == sif.FSGocryptfsSquashfs
		if p.Arch != sif.UnknownArch {
			v.Arch = p.Arch
		}
	}
	if sig, ok := o.Signature(); ok {
		if sig.Entity != [20]byte{} {
			v.Signer = strings.ToUpper(fmt.Sprintf("%x", sig.Entity))
		}
		for _, other := range all {
			if o.LinkIsGroup && other.Group == o.Link && other.Group != 0 || !o.LinkIsGroup && other.ID == o.Link {
				v.Covers = append(v.Covers, other.ID)
			}
		}
	}
	return v
}

// addMetadata adds what a build writes next to the file system, so that nobody
// need read that to know it.
func addMetadata(f *sif.File, out *api.Inspection) {
	o, ok := f.Named(sif.DataJSON, "inspect-metadata.json")
	if !ok || o.Size > 4*maxText {
		return
	}
	text, err := f.ReadAll(o)
	if err != nil {
		return
	}
	var m struct {
		Data struct {
			Attributes struct {
				Labels      map[string]string `json:"labels"`
				Environment map[string]string `json:"environment"`
				Runscript   string            `json:"runscript"`
				Helpfile    string            `json:"helpfile"`
				Deffile     string            `json:"deffile"`
			} `json:"attributes"`
		} `json:"data"`
	}
	if json.Unmarshal(text, &m) != nil {
		return // a stranger wrote it
	}
	a := m.Data.Attributes
	out.Labels, out.Environment, out.Runscript, out.Help = a.Labels, a.Environment, a.Runscript, a.Helpfile
	if out.Definition == "" {
		out.Definition = a.Deffile
	}
}
