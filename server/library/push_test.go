package library

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	client "singularity/client/library"
)

// TestOurClient: our own client pushes in one part and in several, finds,
// downloads, searches and deletes.
func TestOurClient(t *testing.T) {
	v := newSite(t, Options{PartSize: 40 << 20})
	token := v.user("alice")
	c, err := client.New(v.http.URL, token, v.http.Client())
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{100_000, 9 << 20, 65 << 20} {
		b := newSIF(t, "amd64", size, "content of the image", true)
		done, err := c.Push(t.Context(), bytes.NewReader(b), &client.Push{Name: "alice/tools/samtools", Tags: []string{"latest", "v1"}, Arch: "amd64", Description: "counts reads", Size: int64(len(b))})
		if err != nil {
			t.Fatalf("push of %d bytes: %v", size, err)
		}
		if done.ContainerURL != "/library/alice/tools/samtools" || done.Quota.Usage < int64(size) {
			t.Errorf("the completion says %+v", done)
		}
		i, err := c.Find(t.Context(), "alice/tools/samtools", "latest", "amd64")
		if err != nil {
			t.Fatal(err)
		}
		if i.Size != int64(len(b)) || i.Hash != "sha256."+hexOf(b) || i.Signed == nil || !*i.Signed || i.Fingerprints != nil || strings.Join(i.Tags, ",") != "latest,v1" {
			t.Errorf("found %+v", i)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "pulled"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := c.Download(t.Context(), "alice/tools/samtools", "latest", "amd64", i, f, nil); err != nil {
			t.Fatalf("download of %d bytes: %v", size, err)
		}
		if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, b) {
			t.Errorf("the downloaded image of %d bytes differs: %v", size, err)
		}
	}
	found, err := c.Search(t.Context(), "SAMtools", "amd64", true)
	if err != nil || len(found) != 3 || found[0].EntityName != "alice" || found[0].CollectionName != "tools" || found[0].ContainerName != "samtools" {
		t.Errorf("search: %+v, %v", found, err)
	}
	if err := c.Delete(t.Context(), "alice/tools/samtools", "v1", "amd64"); err != nil {
		t.Error(err)
	}
	if _, err := c.Find(t.Context(), "alice/tools/samtools", "latest", "amd64"); err == nil {
		t.Error("the tags of a deleted image are there")
	}
	if n := v.lib.downloads; len(n) != 1 {
		t.Errorf("downloads counted: %v", n)
	}
}

// TestRecordedPush replays the push of a signed image with the shapes that
// clients send (no Content-Type, whole zero-filled objects) and the status that
// each of them insists on.
func TestRecordedPush(t *testing.T) {
	v := newSite(t, Options{PartSize: 64 << 20})
	token := v.user("alice")
	b := newSIF(t, "amd64", 100_000, "recorded", true)
	h := hexOf(b)
	zero := `"deleted":false,"createdBy":"","createdAt":"0001-01-01T00:00:00Z","updatedAt":"0001-01-01T00:00:00Z","deletedAt":"0001-01-01T00:00:00Z","owner":"","customData":"",`
	v.want(404, token, "GET", "/v1/oci-redirect?accessTypes=pull%2Cpush&mapped=1&namespace=alice%2Ftools%2Fsamtools", nil)
	v.want(404, token, "GET", "/v1/entities/alice", nil)
	e := field(t, v.want(200, token, "POST", "/v1/entities", `{`+zero+`"id":"","name":"alice","description":"No description","collections":null,"size":0,"quota":0,"defaultPrivate":false}`), "id")
	v.want(404, token, "GET", "/v1/collections/alice/tools", nil)
	c := field(t, v.want(200, token, "POST", "/v1/collections", `{`+zero+`"id":"","name":"tools","description":"No description","entity":"`+e+`","containers":null,"size":0,"private":false,"entityName":""}`), "id")
	v.want(404, token, "GET", "/v1/containers/alice/tools/samtools", nil)
	k := field(t, v.want(200, token, "POST", "/v1/containers", `{`+zero+`"id":"","name":"samtools","description":"No description","fullDescription":"","collection":"`+c+`","images":null,"imageTags":null,"archTags":null,"size":0,"downloadCount":0,"stars":0,"private":false,"readOnly":false}`), "id")
	v.want(404, token, "GET", "/v1/images/alice/tools/samtools:sha256."+h+"?arch=amd64", nil)
	text := v.want(200, token, "POST", "/v1/images", `{`+zero+`"id":"","hash":"sha256.`+h+`","description":"d","container":"`+k+`","blob":"","size":0,"uploaded":false,"signed":null,"arch":null,"fingerprints":null}`)
	id := field(t, text, "id")
	if field(t, text, "uploaded") != "false" {
		t.Errorf("new image: %s", text)
	}
	// A tag for an image that has not come is refused.
	v.want(409, token, "POST", "/v2/tags/"+k, `{"Arch":"amd64","Tag":"early","ImageID":"`+id+`"}`)
	up := field(t, v.want(200, token, "POST", "/v2/imagefile/"+id, map[string]any{"filesize": len(b), "md5sum": "0", "sha256sum": h}), "uploadURL")
	if !strings.Contains(up, "X-Amz-SignedHeaders=host%3Bx-amz-content-sha256") {
		t.Errorf("clients will not send the hash to %s", up)
	}
	res := v.do("", "PUT", up, b, "Content-Type", "application/octet-stream", "x-amz-content-sha256", h)
	res.Body.Close()
	if res.StatusCode != 200 || len(res.Header.Get("ETag")) < 10 {
		t.Errorf("PUT: %d %q", res.StatusCode, res.Header.Get("ETag"))
	}
	for range 2 { // the second as after an answer that got lost
		text = v.want(200, token, "PUT", "/v2/imagefile/"+id+"/_complete", `{}`)
		if field(t, text, "containerUrl") != "/library/alice/tools/samtools" || field(t, text, "quota", "quotaTotal") != "0" {
			t.Errorf("complete: %s", text)
		}
	}
	if got := v.want(200, token, "GET", "/v2/tags/"+k, nil); field(t, got) != "map[]" {
		t.Errorf("tags: %s", got)
	}
	text = v.want(200, token, "POST", "/v2/tags/"+k, `{"Arch":"amd64","Tag":"latest","ImageID":"`+id+`"}`)
	if field(t, text, "amd64", "latest") != id {
		t.Errorf("tag: %s", text)
	}
	v.want(200, token, "POST", "/v1/tags/"+k, `{"Tag":"V2","ImageID":"`+id+`"}`)
	if got := v.want(200, token, "GET", "/v1/tags/"+k, nil); field(t, got, "V2") != id || field(t, got, "latest") != id {
		t.Errorf("flat tags: %s", got)
	}
	v.want(400, token, "POST", "/v2/tags/"+k, `{"Arch":"arm64","Tag":"latest","ImageID":"`+id+`"}`)
	v.want(404, token, "POST", "/v2/tags/"+k, `{"Arch":"amd64","Tag":"latest","ImageID":"0123456789abcdef01234567"}`)
	v.want(400, token, "POST", "/v2/tags/"+k, `{"Arch":"amd64","Tag":"sha256.`+h+`","ImageID":"`+id+`"}`)
	// Pull: the image comes whole, as it is small; by hash the architecture does not count.
	for _, ref := range []string{"latest?arch=amd64", "V2?arch=amd64", "latest", "sha256." + h + "?arch=arm64"} {
		if got := v.want(200, "", "GET", "/v1/imagefile/alice/tools/samtools:"+ref, nil); got != string(b) {
			t.Errorf("the image at %s differs", ref)
		}
	}
	v.want(404, "", "GET", "/v1/images/alice/tools/samtools:latest?arch=arm64", nil)
	v.want(404, "", "GET", "/v1/imagefile/alice/tools/samtools:nothing?arch=amd64", nil)
	v.want(401, "", "DELETE", "/v1/images/alice/tools/samtools:latest?arch=amd64", nil)
	v.want(400, token, "DELETE", "/v1/images/alice/tools/samtools:latest", nil)
	if got := v.want(200, token, "DELETE", "/v1/images/alice/tools/samtools:latest?arch=amd64", nil); strings.TrimSpace(got) != `{"data":{}}` {
		t.Errorf("delete: %s", got)
	}
	v.want(404, token, "DELETE", "/v1/images/alice/tools/samtools:latest?arch=amd64", nil)
}

// TestVersion1Upload is what clients do that know of no presigned addresses.
func TestVersion1Upload(t *testing.T) {
	v := newSite(t, Options{})
	token := v.user("alice")
	b := newSIF(t, "arm64", 50_000, "old", false)
	k := v.container(token, "alice/old/image")
	id := field(t, v.want(200, token, "POST", "/v1/images", map[string]any{"hash": "sha256." + hexOf(b), "container": k}), "id")
	v.want(422, token, "POST", "/v1/imagefile/"+id, append([]byte("x"), b[1:]...))
	v.want(200, token, "POST", "/v1/imagefile/"+id, b)
	v.want(200, token, "POST", "/v1/tags/"+k, map[string]any{"Tag": "latest", "ImageID": id})
	if got := v.want(200, "", "GET", "/v1/imagefile/alice/old/image?arch=arm64", nil); got != string(b) {
		t.Error("the image differs")
	}
}

// TestParts replays an upload in parts, with the mistakes that clients act upon.
func TestParts(t *testing.T) {
	v := newSite(t, Options{PartSize: 1 << 20})
	token := v.user("alice")
	b := newSIF(t, "amd64", 2<<20+12345, "parts", false)
	k := v.container(token, "alice/c/k")
	id := field(t, v.want(200, token, "POST", "/v1/images", map[string]any{"hash": "sha256." + hexOf(b), "container": k}), "id")
	path := "/v2/imagefile/" + id
	text := v.want(200, token, "POST", path+"/_multipart", map[string]any{"filesize": len(b)})
	up := field(t, text, "uploadID")
	if field(t, text, "totalParts") != "3" || field(t, text, "options", "s3compliant") != "true" {
		t.Fatalf("the plan is %s", text)
	}
	parts := [][]byte{b[:1<<20], b[1<<20 : 2<<20], b[2<<20:]}
	address := func(n int, sum string) string {
		return field(t, v.want(200, token, "PUT", path+"/_multipart", map[string]any{"partSize": len(parts[n-1]), "uploadID": up, "partNumber": n, "sha256sum": sum}), "presignedURL")
	}
	var list []map[string]any
	for n := 1; n <= 3; n++ {
		to := address(n, hexOf(parts[n-1]))
		// Too short, too long, other bytes, another hash: refused, and never a 404.
		v.want(400, "", "PUT", to, parts[n-1][1:])
		v.want(400, "", "PUT", to, append([]byte("x"), parts[n-1]...))
		v.want(422, "", "PUT", to, append([]byte("x"), parts[n-1][1:]...))
		v.want(400, "", "PUT", to, parts[n-1], "x-amz-content-sha256", hexOf([]byte("x")))
		v.want(403, "", "PUT", strings.Replace(to, "/"+id, "/x", 1)+"0", parts[n-1])
		v.want(409, token, "PUT", path+"/_multipart_complete", map[string]any{"uploadID": up})
		res := v.do("", "PUT", to, parts[n-1], "x-amz-content-sha256", hexOf(parts[n-1]))
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("part %d: %d", n, res.StatusCode)
		}
		list = append(list, map[string]any{"partNumber": n, "token": res.Header.Get("ETag")})
	}
	for _, bad := range []map[string]any{{"partSize": 5, "uploadID": up, "partNumber": 1}, {"partSize": 1 << 20, "uploadID": up, "partNumber": 4}, {"partSize": 1 << 20, "uploadID": up, "partNumber": 0}} {
		v.want(400, token, "PUT", path+"/_multipart", bad)
	}
	v.want(410, token, "PUT", path+"/_multipart", map[string]any{"partSize": 1 << 20, "uploadID": "nothing", "partNumber": 1})
	v.want(400, token, "PUT", path+"/_multipart_complete", map[string]any{"uploadID": up, "completedParts": list[:2]})
	// Several at once and one later, as of a client that lost the answer.
	var all sync.WaitGroup
	complete := func() {
		status, text := v.call(token, "PUT", path+"/_multipart_complete", map[string]any{"uploadID": up, "completedParts": list})
		if status != 200 || field(t, text, "containerUrl") == "" {
			t.Errorf("complete: %d %s", status, text)
		}
	}
	for range 4 {
		all.Go(complete)
	}
	all.Wait()
	complete()
	v.want(410, "", "PUT", abortedPart(v, token, k, t), []byte("0123456789"))
	if got := v.want(200, "", "GET", "/v1/imagefile/alice/c/k:sha256."+hexOf(b), nil); got != string(b) {
		t.Error("the image differs")
	}
}

// abortedPart returns the address of a part of an upload that was given up.
func abortedPart(v *site, token, container string, t *testing.T) string {
	id := field(t, v.want(200, token, "POST", "/v1/images", map[string]any{"hash": "sha256." + hexOf([]byte("0123456789")), "container": container}), "id")
	path := "/v2/imagefile/" + id
	up := field(t, v.want(200, token, "POST", path+"/_multipart", map[string]any{"filesize": 10}), "uploadID")
	to := field(t, v.want(200, token, "PUT", path+"/_multipart", map[string]any{"partSize": 10, "uploadID": up, "partNumber": 1, "sha256sum": ""}), "presignedURL")
	v.want(204, token, "PUT", path+"/_multipart_abort", map[string]any{"uploadID": up})
	v.want(410, token, "PUT", path+"/_multipart_complete", map[string]any{"uploadID": up})
	return to
}
