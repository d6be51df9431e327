package conformance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"singularity/api"
)

var pullChecks = []check{
	{"pull-tag", "an image is found by tag and architecture", "tags", (*run).byTag},
	{"pull-hash", "an image is found by hash, whatever the architecture", "uploaded", (*run).byHash},
	{"pull-arch", "a tag of another architecture is not found", "tags", (*run).otherArch},
	{"pull-small", "the bytes of an image come whole, with their length", "tags", (*run).pullSmall},
	{"pull-large", "the bytes of a larger image come whole, from wherever they are", "parts-end", (*run).pullLarge},
	{"ranges", "ranges are answered with 206 and exactly those bytes", "pull-large", (*run).ranges},
	{"ranges-beyond", "a range beyond the end gives no bytes", "pull-large", (*run).beyond},
	{"ranges-forged", "an address that was changed gives no bytes, and no error text to who asks for a range", "pull-large", (*run).forged},
	{"pull-nobody", "a public image needs no token, and a bad one does no harm", "tags", (*run).pullNobody},
	{"search", "a search finds the image by name, with what clients show", "tags", (*run).search},
	{"search-arch", "a search for another architecture does not find it", "tags", (*run).searchArch},
	{"search-short", "a search for two characters is 400", "discovery", (*run).searchShort},
	{"delete-nobody", "nobody deletes without a token", "tags", (*run).deleteNobody},
	{"delete-arch", "a tag is deleted for an architecture alone", "tags", (*run).deleteWithout},
	{"delete", "an image is deleted: exactly 200, and 404 from then on", "tags", (*run).delete},
}

func (r *run) imageURL(kind, ref, arch string) string {
	address := r.library + "/v1/" + kind + "/" + r.containerPath() + ":" + ref
	if arch != "" {
		address += "?arch=" + arch
	}
	return address
}

func (r *run) byTag() error {
	var got api.Envelope[api.Image]
	if _, err := r.shaped(request{method: "GET", url: r.imageURL("images", "latest", arch), token: true}, "/v1/images/{ref}", &got, http.StatusOK); err != nil {
		return err
	}
	if got.Data.Hash != "sha256."+r.small.hash || got.Data.Size != int64(len(r.small.bytes)) {
		return wrong("hash %s and size %d; clients cut ranges by it", got.Data.Hash, got.Data.Size)
	}
	return nil
}

func (r *run) byHash() error {
	for _, a := range []string{"", arch, "arm64"} {
		var got api.Envelope[api.Image]
		if _, err := r.shaped(request{method: "GET", url: r.imageURL("images", "sha256."+r.small.hash, a), token: true}, "/v1/images/{ref}", &got, http.StatusOK); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) otherArch() error {
	return r.refused(request{method: "GET", url: r.imageURL("images", "latest", "s390x"), token: true}, "/v1/images/{ref}", http.StatusNotFound)
}

// whole reads an image from where it is, and returns that address.
func (r *run) whole(ref, a string, want image) (string, error) {
	address := r.imageURL("imagefile", ref, a)
	got, err := r.do(request{method: "GET", url: address, token: true})
	if err != nil {
		return "", err
	}
	if err := got.is(http.StatusOK, http.StatusSeeOther); err != nil {
		return "", err
	}
	if got.status == http.StatusSeeOther {
		if address = got.header.Get("Location"); absolute(address) != nil {
			return "", wrong("%s: Location is %q, no whole address", got.call, shown(address))
		}
		// What is presigned needs no token.
		if got, err = r.do(request{method: "GET", url: address}); err != nil {
			return "", err
		}
		if err := got.is(http.StatusOK); err != nil {
			return "", err
		}
	}
	if got.header.Get("Content-Encoding") != "" {
		return "", wrong("%s: the bytes are compressed: ranges would be of something else", got.call)
	}
	if n := got.header.Get("Content-Length"); n != strconv.Itoa(len(want.bytes)) {
		return "", wrong("%s: Content-Length is %q, want %d", got.call, n, len(want.bytes))
	}
	if sum := sha256.Sum256(got.body); hex.EncodeToString(sum[:]) != want.hash {
		return "", wrong("%s: %d bytes with another hash", got.call, len(got.body))
	}
	return address, nil
}

func (r *run) pullSmall() error {
	_, err := r.whole("latest", arch, r.small)
	return err
}

func (r *run) pullLarge() (err error) {
	r.partURL, err = r.whole("sha256."+r.large.hash, arch, r.large)
	return err
}

func (r *run) rangeOf(address, value string) (answer, error) {
	return r.do(request{method: "GET", url: address, token: strings.HasPrefix(address, r.library+"/v1/"), header: map[string]string{"Range": "bytes=" + value}})
}

func (r *run) ranges() error {
	size := len(r.large.bytes)
	for _, part := range [][2]int{{0, 9}, {5 << 20, 5<<20 + 999}, {size - 10, size - 1}} {
		a, err := r.rangeOf(r.partURL, fmt.Sprintf("%d-%d", part[0], part[1]))
		if err != nil {
			return err
		}
		if a.status == http.StatusOK && strings.HasPrefix(r.partURL, r.library+"/v1/imagefile/") {
			return skipped{"the image is sent without a redirect: clients read it as one stream"}
		}
		if err := a.is(http.StatusPartialContent); err != nil {
			return err
		}
		want := fmt.Sprintf("bytes %d-%d/%d", part[0], part[1], size)
		if got := a.header.Get("Content-Range"); got != want {
			return wrong("%s: Content-Range is %q, want %q", a.call, got, want)
		}
		if !bytes.Equal(a.body, r.large.bytes[part[0]:part[1]+1]) {
			return wrong("%s: other bytes than those of %s", a.call, want)
		}
	}
	return nil
}

func (r *run) beyond() error {
	a, err := r.rangeOf(r.partURL, fmt.Sprintf("%d-", len(r.large.bytes)+100))
	if err != nil {
		return nil // the connection was cut, which clients notice
	}
	return a.is(http.StatusRequestedRangeNotSatisfiable)
}

func (r *run) forged() error {
	u, err := url.Parse(r.partURL)
	if err != nil {
		return err
	}
	if !u.Query().Has("sig") && !u.Query().Has("X-Amz-Signature") {
		return skipped{"the address has no signature that is known"}
	}
	q := u.Query()
	for _, name := range []string{"sig", "X-Amz-Signature"} {
		if v := q.Get(name); v != "" {
			q.Set(name, strings.Repeat("0", len(v)))
		}
	}
	u.RawQuery = q.Encode()
	a, err := r.do(request{method: "GET", url: u.String()})
	if err == nil && a.status < 400 {
		return wrong("%s: status %d with another signature", a.call, a.status)
	}
	if a, err := r.rangeOf(u.String(), "0-9"); err == nil {
		return wrong("%s: status %d with another signature: clients write whatever comes into the image, so the connection must be cut", a.call, a.status)
	}
	return nil
}

func (r *run) pullNobody() error {
	var c api.Envelope[api.Collection]
	if _, err := r.shaped(request{method: "GET", url: r.library + "/v1/collections/" + r.user + "/" + r.collection, token: true}, "/v1/collections/{entity}/{collection}", &c, http.StatusOK); err != nil {
		return err
	}
	if c.Data.Private {
		return skipped{"new collections of this user are private"}
	}
	for _, bearer := range []string{"", "Bearer ", "Bearer " + strings.Repeat("x", 220)} {
		if _, err := r.shaped(request{method: "GET", url: r.imageURL("images", "latest", arch), bearer: bearer}, "/v1/images/{ref}", nil, http.StatusOK); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) find(arch string) (api.Search, error) {
	var s api.Envelope[api.Search]
	_, err := r.shaped(request{method: "GET", url: r.library + "/v1/search?" + url.Values{"value": {r.collection}, "arch": {arch}}.Encode(), token: true}, "/v1/search", &s, http.StatusOK)
	return s.Data, err
}

func (r *run) search() error {
	found, err := r.find(arch)
	if err != nil {
		return err
	}
	for _, i := range found.Images {
		if i.Hash != "sha256."+r.small.hash {
			continue
		}
		if i.EntityName != r.user || i.CollectionName != r.collection || i.ContainerName != container || !slices.Contains(i.Tags, "latest") {
			return wrong("it is found as %s/%s/%s with the tags %q", i.EntityName, i.CollectionName, i.ContainerName, i.Tags)
		}
		return nil
	}
	return wrong("%d images are found for the name of the collection, and not this one", len(found.Images))
}

func (r *run) searchArch() error {
	found, err := r.find("s390x")
	if err == nil && len(found.Images) > 0 {
		return wrong("%d images are found for s390x", len(found.Images))
	}
	return err
}

func (r *run) searchShort() error {
	return r.refused(request{method: "GET", url: r.library + "/v1/search?value=ab&arch=amd64", token: true}, "/v1/search", http.StatusBadRequest)
}

func (r *run) deleteNobody() error {
	return r.refused(request{method: "DELETE", url: r.imageURL("images", "latest", arch)}, "/v1/images/{ref}", http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed)
}

func (r *run) deleteWithout() error {
	return r.refused(request{method: "DELETE", url: r.imageURL("images", "latest", ""), token: true}, "/v1/images/{ref}", http.StatusBadRequest, http.StatusMethodNotAllowed)
}

func (r *run) delete() error {
	q := request{method: "DELETE", url: r.imageURL("images", "v1", arch), token: true}
	if a, err := r.do(request{method: "DELETE", url: r.imageURL("images", "no-such-tag", arch), token: true}); err == nil && a.status == http.StatusMethodNotAllowed {
		return skipped{"the server lets nobody delete"}
	}
	if _, err := r.shaped(q, "/v1/images/{ref}", nil, http.StatusOK); err != nil {
		return err
	}
	if err := r.refused(q, "/v1/images/{ref}", http.StatusNotFound); err != nil {
		return err
	}
	return r.refused(request{method: "GET", url: r.imageURL("imagefile", "v1", arch), token: true}, "/v1/imagefile/{ref}", http.StatusNotFound)
}
