package library

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"singularity/server/store"
	"singularity/server/store/embedded"
)

// fuse stands before every change of the storage, and kills the process, or
// fails, at one of them.
type fuse struct {
	left atomic.Int64
	fail error // in place of the kill
}

func (f *fuse) burn() error {
	if f.left.Add(-1) != 0 {
		return nil
	}
	if f.fail != nil {
		return f.fail
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

type fusedRecords struct {
	store.Records
	*fuse
}

func (f fusedRecords) Insert(ctx context.Context, c string, d store.Doc) (int64, error) {
	if err := f.burn(); err != nil {
		return 0, err
	}
	return f.Records.Insert(ctx, c, d)
}

func (f fusedRecords) Replace(ctx context.Context, c string, d store.Doc) (int64, error) {
	if err := f.burn(); err != nil {
		return 0, err
	}
	return f.Records.Replace(ctx, c, d)
}

func (f fusedRecords) Delete(ctx context.Context, c, key string, rev int64) error {
	if err := f.burn(); err != nil {
		return err
	}
	return f.Records.Delete(ctx, c, key, rev)
}

type fusedBlobs struct {
	store.Blobs
	*fuse
}

func (f fusedBlobs) Start(ctx context.Context, p store.Plan) (store.Upload, error) {
	if err := f.burn(); err != nil {
		return store.Upload{}, err
	}
	return f.Blobs.Start(ctx, p)
}

// PutPart is cut in the middle of the bytes.
func (f fusedBlobs) PutPart(ctx context.Context, id string, n int, r io.Reader, want store.Content) (store.Part, error) {
	if f.fail != nil {
		if err := f.burn(); err != nil {
			return store.Part{}, err
		}
		return f.Blobs.PutPart(ctx, id, n, r, want)
	}
	half := io.LimitReader(r, want.Size/2)
	return f.Blobs.PutPart(ctx, id, n, io.MultiReader(half, burning{f.fuse}, r), want)
}

type burning struct{ *fuse }

func (b burning) Read([]byte) (int, error) {
	if err := b.burn(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

func (f fusedBlobs) Complete(ctx context.Context, id, name string, want store.Content) (store.Info, error) {
	if err := f.burn(); err != nil {
		return store.Info{}, err
	}
	return f.Blobs.Complete(ctx, id, name, want)
}

func (f fusedBlobs) Abort(ctx context.Context, id string) error {
	if err := f.burn(); err != nil {
		return err
	}
	return f.Blobs.Abort(ctx, id)
}

func (f fusedBlobs) Delete(ctx context.Context, name string) error {
	if err := f.burn(); err != nil {
		return err
	}
	return f.Blobs.Delete(ctx, name)
}

const crashPath = "alice/c/k"

// steps is what is done until the fuse burns: a tag moves from an old image to a
// new one that is sent in parts, and a third image, sent in one part, goes.
func steps(v *site, token string, status func(int, string)) {
	k := v.container(token, crashPath)
	call := func(method, path string, body any) string {
		s, text := v.call(token, method, path, body)
		status(s, text)
		return text
	}
	b := newSIF(v.t, "amd64", 300_000, "new", false)
	id := field(v.t, call("POST", "/v1/images", map[string]any{"hash": "sha256." + hexOf(b), "container": k}), "id")
	path := "/v2/imagefile/" + id
	if text := call("POST", path+"/_multipart", map[string]any{"filesize": len(b)}); strings.Contains(text, "uploadID") {
		up := field(v.t, text, "uploadID")
		var parts []map[string]any
		for n := 1; (n-1)<<17 < len(b); n++ {
			p := b[(n-1)<<17 : min(n<<17, len(b))]
			to := field(v.t, call("PUT", path+"/_multipart", map[string]any{"partSize": len(p), "uploadID": up, "partNumber": n}), "presignedURL")
			res := v.do("", "PUT", to, p)
			res.Body.Close()
			status(res.StatusCode, "part")
			parts = append(parts, map[string]any{"partNumber": n, "token": res.Header.Get("ETag")})
		}
		call("PUT", path+"/_multipart_complete", map[string]any{"uploadID": up, "completedParts": parts})
	}
	call("POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "latest", "ImageID": id})
	v.push(token, crashPath, newSIF(v.t, "amd64", 50_000, "third", false), "amd64", "third")
	call("DELETE", "/v1/images/"+crashPath+":third?arch=amd64", nil)
}

// TestCrashChild is no test of its own: TestSC160Crash runs it, to have it killed.
func TestCrashChild(t *testing.T) {
	dir, at := os.Getenv("LIBRARY_CRASH_DIR"), os.Getenv("LIBRARY_CRASH_AT")
	if dir == "" {
		t.Skip("TestSC160Crash runs this")
	}
	n, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	st, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fuse{}
	v := openSite(t, st, fusedRecords{st.Records, f}, fusedBlobs{st.Blobs, f}, Options{PartSize: 1 << 17})
	f.left.Store(n)
	steps(v, os.Getenv("LIBRARY_CRASH_TOKEN"), func(s int, text string) {
		if s >= 300 {
			t.Fatalf("%d %s", s, text)
		}
	})
	st.Close()
}

// TestSC160Crash kills a server at every step of pushes and deletions: what was
// there is whole, the new image is whole or absent, a second try succeeds, and
// nothing is left that nobody names.
func TestSC160Crash(t *testing.T) {
	old, first := newSIF(t, "amd64", 40_000, "old", false), filepath.Join(t.TempDir(), "data")
	token := prepare(t, first, old)
	for at := 1; ; at++ {
		if at > 200 {
			t.Fatal("the steps do not end")
		}
		dir := filepath.Join(t.TempDir(), "data")
		if text, err := exec.Command("cp", "-a", first, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
		cmd.Env = append(os.Environ(), "LIBRARY_CRASH_DIR="+dir, fmt.Sprint("LIBRARY_CRASH_AT=", at), "LIBRARY_CRASH_TOKEN="+token)
		text, err := cmd.CombinedOutput()
		killed := false
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			killed = exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		}
		if err != nil && !killed {
			t.Fatalf("at step %d: %v\n%s", at, err, text)
		}
		afterCrash(t, dir, token, at, old)
		if !killed {
			if at < 15 {
				t.Errorf("only %d steps", at)
			}
			t.Logf("killed at each of %d steps", at-1)
			return
		}
	}
}

func prepare(t *testing.T, dir string, old []byte) string {
	st, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	v := openSite(t, st, st.Records, st.Blobs, Options{})
	token := v.user("alice")
	v.push(token, crashPath, old, "amd64", "latest", "old")
	return token
}

func afterCrash(t *testing.T, dir, token string, at int, old []byte) {
	t.Helper()
	st, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	v := openSite(t, st, st.Records, st.Blobs, Options{PartSize: 1 << 17})
	if got := v.want(200, "", "GET", "/v1/imagefile/"+crashPath+":old?arch=amd64", nil); got != string(old) {
		t.Fatalf("at step %d: the old image is damaged", at)
	}
	fresh := string(newSIF(t, "amd64", 300_000, "new", false))
	if got := v.want(200, "", "GET", "/v1/imagefile/"+crashPath+":latest?arch=amd64", nil); got != string(old) && got != fresh {
		t.Fatalf("at step %d: the tag leads to neither image", at)
	}
	for i, err := range v.lib.images.All(t.Context(), store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if b, err := st.Blobs.Stat(t.Context(), BlobName(i.Value.Hash)); i.Value.Uploaded && (err != nil || b.Size != i.Value.Content.Size) {
			t.Errorf("at step %d: an image without its content: %+v, %v", at, i.Value, err)
		}
	}
	steps(v, token, func(s int, text string) {
		if s >= 300 && s != 409 { // the image is here already
			t.Fatalf("at step %d, again: %d %s", at, s, text)
		}
	})
	if got := v.want(200, "", "GET", "/v1/imagefile/"+crashPath+":latest?arch=amd64", nil); got != fresh {
		t.Fatalf("at step %d: a second try does not succeed", at)
	}
	// Days later what nobody names has gone.
	v.skew = 20 * 24 * time.Hour
	if err := v.lib.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.skew = 0
	left := 0
	for _, err := range st.Blobs.List(t.Context(), "") {
		if left++; err != nil {
			t.Fatal(err)
		}
	}
	report, err := st.Check(t.Context(), true)
	if err != nil || len(report.Faults) > 0 || left != 2 {
		t.Errorf("at step %d: %d contents are left, want 2; %v %v", at, left, report.Faults, err)
	}
	if q := field(t, v.want(200, token, "GET", "/v1/entities/alice", nil), "size"); q != fmt.Sprint(float64(len(old)+len(fresh))) {
		t.Errorf("at step %d: %s bytes are in use, want %d", at, q, len(old)+len(fresh))
	}
}

// TestSC160Full fails each change of the storage once, as a full disk does: the
// caller hears of it and everything is as after a crash.
func TestSC160Full(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	old := newSIF(t, "amd64", 40_000, "old", false)
	token := prepare(t, dir, old)
	st, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fuse{fail: store.ErrFull}
	v := openSite(t, st, fusedRecords{st.Records, f}, fusedBlobs{st.Blobs, f}, Options{PartSize: 1 << 17})
	b := newSIF(t, "amd64", 300_000, "new", false)
	for at := int64(1); ; at++ {
		f.left.Store(at)
		status, text := v.tryPush(token, b)
		if f.left.Load() > 0 {
			break
		}
		if status != 0 && status != http507 {
			t.Errorf("at step %d: %d %s", at, status, text)
		}
		f.left.Store(0)
		if got := v.want(200, "", "GET", "/v1/imagefile/"+crashPath+":latest?arch=amd64", nil); got != string(old) && got != string(b) {
			t.Fatalf("at step %d: the tag leads to neither image", at)
		}
		v.skew += 2 * time.Hour // uploads that nobody could abort make way
	}
	st.Close()
	afterCrash(t, dir, token, 0, old)
}

const http507 = 507

// tryPush pushes until something is refused.
func (v *site) tryPush(token string, b []byte) (int, string) {
	k := v.container(token, crashPath)
	status, text := v.call(token, "POST", "/v1/images", map[string]any{"hash": "sha256." + hexOf(b), "container": k})
	if status != 200 {
		return status, text
	}
	id := field(v.t, text, "id")
	if field(v.t, text, "uploaded") == "false" {
		if status, text = v.call(token, "POST", "/v2/imagefile/"+id, map[string]any{"filesize": len(b)}); status != 200 {
			return status, text
		}
		if status, text = v.call("", "PUT", field(v.t, text, "uploadURL"), b); status != 200 {
			return status, text
		}
		if status, text = v.call(token, "PUT", "/v2/imagefile/"+id+"/_complete", "{}"); status != 200 {
			return status, text
		}
	}
	status, text = v.call(token, "POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "latest", "ImageID": id})
	return status, strings.TrimSpace(text)
}
