package conformance

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"singularity/api"
	"singularity/server/openapi"
	"singularity/sif"
)

// image is one that the checks push.
type image struct {
	bytes []byte
	hash  string // hexadecimal
	id    string
}

const (
	arch      = "amd64"
	container = "image"
	largeSize = 9 << 20 // above what servers send without a redirect
)

var pushChecks = []check{
	{"entity", "the user has an entity, or makes it", "token-status", (*run).entity},
	{"missing", "names that are not there are 404 in the envelope", "entity", (*run).missingNames},
	{"collection", "a collection is made from a client's whole object, and nothing but its wishes is taken", "entity", (*run).makeCollection},
	{"container", "a container is made, and found by its path", "collection", (*run).makeContainer},
	{"again", "making what is there answers with it", "container", (*run).makeAgain},
	{"announce", "an image is announced by its hash, and is not there yet", "container", (*run).announce},
	{"tag-early", "a tag for an image without bytes is refused", "announce", (*run).tagEarly},
	{"single", "an upload in one part gets an address", "announce", (*run).single},
	{"single-wrong", "other bytes than the announced are refused, and never by 404", "single", (*run).wrongBytes},
	{"single-put", "the bytes go there without a token: exactly 200", "single", (*run).putSingle},
	{"single-end", "the upload ends with 200 or 204, once more too", "single-put", (*run).endSingle},
	{"uploaded", "the image is there, with its size and architecture", "single-end", (*run).uploaded},
	{"parts", "an upload in parts has a plan that the size follows", "container", (*run).startParts},
	{"parts-address", "each part gets an address", "parts", (*run).signPart},
	{"parts-put", "a part goes there without a token: exactly 200, with an ETag", "parts-address", (*run).putPart},
	{"parts-unknown", "a part of an upload that is not there is refused, and never by 404", "parts", (*run).unknownPart},
	{"parts-end", "an upload in parts ends with 200 and a body", "parts-put", (*run).endParts},
	{"parts-abort", "an upload in parts can be given up, and is over then", "parts", (*run).abortParts},
	{"tags", "tags are read and set by architecture: exactly 200", "uploaded", (*run).setTags},
	{"tags-flat", "tags are read and set without architecture, as old clients do", "uploaded", (*run).setFlatTags},
	{"tags-arch", "a tag for another architecture than the image's is refused", "uploaded", (*run).wrongArch},
	{"nobody-pushes", "nobody pushes without a token", "container", (*run).nobodyPushes},
}

func (r *run) entity() error {
	var e api.Envelope[api.Entity]
	q := request{method: "GET", url: r.library + "/v1/entities/" + url.PathEscape(r.user), token: true}
	a, err := r.shaped(q, "/v1/entities/{entity}", &e, http.StatusOK, http.StatusNotFound)
	if err != nil || a.status == http.StatusOK {
		r.collectionID = e.Data.ID // of the entity, until there is a collection
		return err
	}
	_, err = r.shaped(request{method: "POST", url: r.library + "/v1/entities", token: true, json: whole("name", r.user, "description", "No description")}, "/v1/entities", &e, http.StatusOK, http.StatusCreated)
	r.collectionID = e.Data.ID
	return err
}

// whole is a client's object: all fields, most of them zero.
func whole(pairs ...any) map[string]any {
	m := map[string]any{"deleted": false, "createdBy": "", "createdAt": "0001-01-01T00:00:00Z", "updatedAt": "0001-01-01T00:00:00Z", "deletedAt": "0001-01-01T00:00:00Z", "id": "", "size": 0, "quota": 0, "customData": ""}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

func (r *run) missingNames() error {
	name := randomName()
	for path, row := range map[string]string{"/v1/collections/" + r.user + "/" + name: "/v1/collections/{entity}/{collection}", "/v1/containers/" + r.user + "/" + name + "/x": "/v1/containers/{entity}/{collection}/{container}",
		"/v1/images/" + r.user + "/" + name + "/x:latest?arch=amd64": "/v1/images/{ref}", "/v1/imagefile/" + r.user + "/" + name + "/x:latest?arch=amd64": "/v1/imagefile/{ref}"} {
		if err := r.refused(request{method: "GET", url: r.library + path, token: true}, row, http.StatusNotFound); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) makeCollection() error {
	r.collection = randomName()
	var c api.Envelope[api.Collection]
	body := whole("name", r.collection, "description", "Made by a check of conformance", "entity", r.collectionID, "private", false, "createdBy", "mallory", "owner", "mallory")
	if _, err := r.shaped(request{method: "POST", url: r.library + "/v1/collections", token: true, json: body}, "/v1/collections", &c, http.StatusOK, http.StatusCreated); err != nil {
		return err
	}
	r.begun = append(r.begun, cleanup{"DELETE", r.library + "/v1/collections/" + r.user + "/" + r.collection})
	if c.Data.CreatedBy == "mallory" {
		return wrong("the server believes createdBy of whoever makes a collection")
	}
	r.collectionID = c.Data.ID
	_, err := r.shaped(request{method: "GET", url: r.library + "/v1/collections/" + r.user + "/" + r.collection, token: true}, "/v1/collections/{entity}/{collection}", &c, http.StatusOK)
	if err == nil && c.Data.ID != r.collectionID {
		err = wrong("it has another id when it is read: %q, and was %q", c.Data.ID, r.collectionID)
	}
	return err
}

func (r *run) containerPath() string { return r.user + "/" + r.collection + "/" + container }

func (r *run) makeContainer() error {
	var k api.Envelope[api.Container]
	body := whole("name", container, "description", "A container of a check", "collection", r.collectionID, "private", false, "fullDescription", "")
	if _, err := r.shaped(request{method: "POST", url: r.library + "/v1/containers", token: true, json: body}, "/v1/containers", &k, http.StatusOK, http.StatusCreated); err != nil {
		return err
	}
	r.begun = append(r.begun, cleanup{"DELETE", r.library + "/v1/containers/" + r.containerPath()})
	r.containerID = k.Data.ID
	_, err := r.shaped(request{method: "GET", url: r.library + "/v1/containers/" + r.containerPath(), token: true}, "/v1/containers/{entity}/{collection}/{container}", &k, http.StatusOK)
	if err == nil && k.Data.ID != r.containerID {
		err = wrong("it has another id when it is read: %q, and was %q", k.Data.ID, r.containerID)
	}
	return err
}

func (r *run) makeAgain() error {
	var k api.Envelope[api.Container]
	body := whole("name", container, "collection", r.collectionID)
	if _, err := r.shaped(request{method: "POST", url: r.library + "/v1/containers", token: true, json: body}, "/v1/containers", &k, http.StatusOK, http.StatusCreated); err != nil {
		return err
	}
	if k.Data.ID != r.containerID {
		return wrong("a second container has the same name: %q and %q", k.Data.ID, r.containerID)
	}
	return nil
}

// newImage makes an image of some size, which nobody has pushed before.
func newImage(size int) (image, error) {
	noise := make([]byte, size)
	rand.Read(noise)
	f, err := os.CreateTemp("", "conformance-*.sif")
	if err != nil {
		return image{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	definition := sif.Input{Type: sif.DataDefFile, Group: 1, Name: "definition", Data: strings.NewReader("Bootstrap: scratch\n")}
	system := sif.Input{Type: sif.DataPartition, Group: 1, Name: "rootfs", Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: arch}.Extra(), Data: bytes.NewReader(noise)}
	if _, err := sif.Create(f, sif.CreateOptions{}, definition, system); err != nil {
		return image{}, err
	}
	b, err := os.ReadFile(f.Name())
	sum := sha256.Sum256(b)
	return image{bytes: b, hash: hex.EncodeToString(sum[:])}, err
}

// register announces an image.
func (r *run) register(i *image) error {
	var got api.Envelope[api.Image]
	if err := r.refused(request{method: "GET", url: r.library + "/v1/images/" + r.containerPath() + ":sha256." + i.hash + "?arch=" + arch, token: true}, "/v1/images/{ref}", http.StatusNotFound); err != nil {
		return err
	}
	body := whole("hash", "sha256."+i.hash, "description", "An image of a check", "container", r.containerID, "uploaded", false)
	for range 2 {
		if _, err := r.shaped(request{method: "POST", url: r.library + "/v1/images", token: true, json: body}, "/v1/images", &got, http.StatusOK, http.StatusCreated); err != nil {
			return err
		}
		if i.id != "" && got.Data.ID != i.id {
			return wrong("announced twice, it has two ids: %q and %q", i.id, got.Data.ID)
		}
		i.id = got.Data.ID
	}
	if got.Data.Uploaded {
		return wrong("the image is said to be uploaded, and no byte was sent")
	}
	return nil
}

func (r *run) announce() (err error) {
	if r.small, err = newImage(100_000); err != nil {
		return err
	}
	return r.register(&r.small)
}

func (r *run) tagEarly() error {
	body := api.Tag{Arch: arch, Tag: "early", ImageID: r.small.id}
	return r.refused(request{method: "POST", url: r.library + "/v2/tags/" + r.containerID, token: true, json: body}, "/v2/tags/{id}", http.StatusConflict)
}

func (r *run) single() error {
	sum := md5.Sum(r.small.bytes)
	var u api.Envelope[api.UploadURL]
	body := api.Upload{FileSize: int64(len(r.small.bytes)), MD5Sum: hex.EncodeToString(sum[:]), SHA256Sum: r.small.hash}
	if _, err := r.shaped(request{method: "POST", url: r.library + "/v2/imagefile/" + r.small.id, token: true, json: body}, "/v2/imagefile/{id}", &u, http.StatusOK, http.StatusCreated); err != nil {
		return err
	}
	r.uploadURL = u.Data.UploadURL
	return absolute(r.uploadURL)
}

func absolute(address string) error {
	if u, err := url.Parse(address); err != nil || u.Host == "" {
		return wrong("%q is no whole address", shown(address))
	}
	return nil
}

// put sends bytes to an address as a client does: with their hash only if the
// address asks for it.
func (r *run) put(address string, b []byte) (answer, error) {
	header := map[string]string{"Content-Type": "application/octet-stream"}
	if u, err := url.Parse(address); err == nil && strings.Contains(u.Query().Get("X-Amz-SignedHeaders"), "x-amz-content-sha256") {
		sum := sha256.Sum256(b)
		header["x-amz-content-sha256"] = hex.EncodeToString(sum[:])
	}
	return r.do(request{method: "PUT", url: address, body: b, header: header})
}

func (r *run) complete(i image) (answer, error) {
	return r.do(request{method: "PUT", url: r.library + "/v2/imagefile/" + i.id + "/_complete", token: true, json: struct{}{}})
}

func (r *run) wrongBytes() error {
	bad := slices.Clone(r.small.bytes)
	bad[len(bad)-1]++
	a, err := r.put(r.uploadURL, bad)
	if err != nil {
		return err
	}
	if a.status == http.StatusNotFound {
		return wrong("%s: 404, which clients take for a server without uploads", a.call)
	}
	if a.status == http.StatusOK {
		if a, err = r.complete(r.small); err != nil {
			return err
		}
	}
	if a.status < 400 || a.status == http.StatusNotFound || a.status >= 500 {
		return wrong("%s: status %d for bytes that were not announced", a.call, a.status)
	}
	var got api.Envelope[api.Image]
	if _, err := r.shaped(request{method: "GET", url: r.library + "/v1/images/" + r.containerPath() + ":sha256." + r.small.hash, token: true}, "/v1/images/{ref}", &got, http.StatusOK, http.StatusNotFound); err != nil {
		return err
	}
	if got.Data.Uploaded {
		return wrong("the image is said to be uploaded after that")
	}
	return nil
}

func (r *run) putSingle() error {
	a, err := r.put(r.uploadURL, r.small.bytes)
	if err == nil && a.status >= 400 { // wrong bytes may have ended the address
		if err := r.single(); err != nil {
			return err
		}
		a, err = r.put(r.uploadURL, r.small.bytes)
	}
	if err != nil {
		return err
	}
	return a.is(http.StatusOK)
}

func (r *run) endSingle() error {
	row, err := openapi.Find("PUT", "/v2/imagefile/{id}/_complete")
	if err != nil {
		return err
	}
	for range 2 {
		a, err := r.complete(r.small)
		if err != nil {
			return err
		}
		if err := a.is(http.StatusOK, http.StatusNoContent); err != nil {
			return err
		}
		if len(bytes.TrimSpace(a.body)) > 0 {
			if err := row.Check(a.body, false); err != nil {
				return wrong("%s: %v", a.call, err)
			}
		}
	}
	return nil
}

func (r *run) uploaded() error {
	var got api.Envelope[api.Image]
	if _, err := r.shaped(request{method: "GET", url: r.library + "/v1/images/" + r.containerPath() + ":sha256." + r.small.hash + "?arch=" + arch, token: true}, "/v1/images/{ref}", &got, http.StatusOK); err != nil {
		return err
	}
	i := got.Data
	if !i.Uploaded || i.Size != int64(len(r.small.bytes)) || i.Hash != "sha256."+r.small.hash {
		return wrong("uploaded %v, size %d, hash %s; want true, %d, sha256.%s", i.Uploaded, i.Size, i.Hash, len(r.small.bytes), r.small.hash)
	}
	if i.Arch != "" && i.Arch != arch {
		return wrong("arch is %q, want %q", i.Arch, arch)
	}
	return nil
}

func (r *run) startParts() (err error) {
	if r.large, err = newImage(largeSize); err != nil {
		return err
	}
	if err := r.register(&r.large); err != nil {
		return err
	}
	var m api.Multipart
	if m, err = r.plan(r.large); err != nil {
		return err
	}
	r.upload = m.UploadID
	size := int64(len(r.large.bytes))
	if want := (size + m.PartSize - 1) / max(m.PartSize, 1); m.PartSize <= 0 || int64(m.TotalParts) != want {
		return wrong("%d parts of %d for %d bytes: clients send that many", m.TotalParts, m.PartSize, size)
	}
	if m.TotalParts != 1 {
		return wrong("%d parts for %d bytes: a part has 64 MiB at least, or a client sends very many", m.TotalParts, size)
	}
	if m.UploadID == "" || !slices.Contains([]string{"", "true", "false"}, m.Options["s3compliant"]) {
		return wrong("uploadID %q, options %v", m.UploadID, m.Options)
	}
	return nil
}

func (r *run) plan(i image) (api.Multipart, error) {
	var m api.Envelope[api.Multipart]
	a, err := r.do(request{method: "POST", url: r.library + "/v2/imagefile/" + i.id + "/_multipart", token: true, json: api.MultipartStart{FileSize: int64(len(i.bytes))}})
	if err == nil && a.status == http.StatusNotFound {
		return m.Data, skipped{"the server takes no uploads in parts: clients send one part"}
	}
	if err != nil {
		return m.Data, err
	}
	if err := a.is(http.StatusOK, http.StatusCreated); err != nil {
		return m.Data, err
	}
	row, err := openapi.Find("POST", "/v2/imagefile/{id}/_multipart")
	if err != nil {
		return m.Data, err
	}
	if err := row.Check(a.body, false); err != nil {
		return m.Data, wrong("%s: %v", a.call, err)
	}
	return m.Data, json.Unmarshal(a.body, &m)
}

func (r *run) partRequest(upload string) request {
	body := api.Part{PartSize: int64(len(r.large.bytes)), UploadID: upload, PartNumber: 1, SHA256Sum: r.large.hash}
	return request{method: "PUT", url: r.library + "/v2/imagefile/" + r.large.id + "/_multipart", token: true, json: body}
}

func (r *run) signPart() error {
	var p api.Envelope[api.PartURL]
	if _, err := r.shaped(r.partRequest(r.upload), "/v2/imagefile/{id}/_multipart", &p, http.StatusOK); err != nil {
		return err
	}
	r.partURL = p.Data.PresignedURL
	return absolute(r.partURL)
}

func (r *run) putPart() error {
	a, err := r.do(request{method: "PUT", url: r.partURL, body: r.large.bytes, header: map[string]string{"x-amz-content-sha256": r.large.hash}})
	if err != nil {
		return err
	}
	if err := a.is(http.StatusOK); err != nil {
		return err
	}
	if r.partToken = a.header.Get("ETag"); len(r.partToken) < 3 || r.partToken[0] != '"' {
		return wrong("%s: ETag is %q, and wants quotes", a.call, r.partToken)
	}
	return nil
}

func (r *run) unknownPart() error {
	for _, q := range []request{r.partRequest(strings.Repeat("0", 24)), {method: "PUT", url: r.library + "/v2/imagefile/" + r.large.id + "/_multipart_complete", token: true, json: api.MultipartComplete{UploadID: strings.Repeat("0", 24)}}} {
		a, err := r.do(q)
		if err != nil {
			return err
		}
		if a.status < 400 || a.status == http.StatusNotFound || a.status >= 500 {
			return wrong("%s: status %d; at 404 clients begin again in one part, in the middle of the file", a.call, a.status)
		}
	}
	return nil
}

func (r *run) endParts() error {
	body := api.MultipartComplete{UploadID: r.upload, CompletedParts: []api.CompletedPart{{PartNumber: 1, Token: r.partToken}}}
	for range 2 {
		if _, err := r.shaped(request{method: "PUT", url: r.library + "/v2/imagefile/" + r.large.id + "/_multipart_complete", token: true, json: body}, "/v2/imagefile/{id}/_multipart_complete", nil, http.StatusOK); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) abortParts() error {
	i, err := newImage(100_000)
	if err != nil {
		return err
	}
	if err := r.register(&i); err != nil {
		return err
	}
	m, err := r.plan(i)
	if err != nil {
		return err
	}
	a, err := r.do(request{method: "PUT", url: r.library + "/v2/imagefile/" + i.id + "/_multipart_abort", token: true, json: api.MultipartAbort{UploadID: m.UploadID}})
	if err != nil {
		return err
	}
	if err := a.is(http.StatusOK, http.StatusNoContent); err != nil {
		return err
	}
	a, err = r.do(request{method: "PUT", url: r.library + "/v2/imagefile/" + i.id + "/_multipart_complete", token: true, json: api.MultipartComplete{UploadID: m.UploadID}})
	if err != nil {
		return err
	}
	if a.status < 400 || a.status == http.StatusNotFound || a.status >= 500 {
		return wrong("%s: status %d after the upload was given up", a.call, a.status)
	}
	return nil
}

func (r *run) setTags() error {
	for _, tag := range []string{"latest", "v1"} {
		var tags api.Envelope[map[string]map[string]string]
		if _, err := r.shaped(request{method: "GET", url: r.library + "/v2/tags/" + r.containerID, token: true}, "/v2/tags/{id}", &tags, http.StatusOK); err != nil {
			return err
		}
		body := map[string]string{"Arch": arch, "Tag": tag, "ImageID": r.small.id}
		if _, err := r.shaped(request{method: "POST", url: r.library + "/v2/tags/" + r.containerID, token: true, json: body}, "/v2/tags/{id}", &tags, http.StatusOK); err != nil {
			return err
		}
		if _, err := r.shaped(request{method: "GET", url: r.library + "/v2/tags/" + r.containerID, token: true}, "/v2/tags/{id}", &tags, http.StatusOK); err != nil {
			return err
		}
		if got := tags.Data[arch][tag]; got != r.small.id {
			return wrong("the tag %s names %q, and was set to %q", tag, got, r.small.id)
		}
	}
	return nil
}

func (r *run) setFlatTags() error {
	var tags api.Envelope[map[string]string]
	if _, err := r.shaped(request{method: "POST", url: r.library + "/v1/tags/" + r.containerID, token: true, json: map[string]string{"Tag": "old", "ImageID": r.small.id}}, "/v1/tags/{id}", nil, http.StatusOK); err != nil {
		return err
	}
	if _, err := r.shaped(request{method: "GET", url: r.library + "/v1/tags/" + r.containerID, token: true}, "/v1/tags/{id}", &tags, http.StatusOK); err != nil {
		return err
	}
	if tags.Data["old"] != r.small.id {
		return wrong("the tag names %q, and was set to %q", tags.Data["old"], r.small.id)
	}
	return nil
}

func (r *run) wrongArch() error {
	body := api.Tag{Arch: "s390x", Tag: "wrong", ImageID: r.small.id}
	return r.refused(request{method: "POST", url: r.library + "/v2/tags/" + r.containerID, token: true, json: body}, "/v2/tags/{id}", http.StatusBadRequest)
}

func (r *run) nobodyPushes() error {
	body := whole("hash", "sha256."+strings.Repeat("0", 64), "container", r.containerID)
	if err := r.refused(request{method: "POST", url: r.library + "/v1/images", json: body}, "/v1/images", http.StatusUnauthorized, http.StatusNotFound); err != nil {
		return err
	}
	return r.refused(request{method: "POST", url: r.library + "/v1/collections", json: whole("name", "x", "entity", r.collectionID)}, "/v1/collections", http.StatusUnauthorized, http.StatusNotFound)
}
