package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"singularity/server/store"
)

// Bytes returns n bytes that differ with seed.
func Bytes(seed, n int) []byte {
	p := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}

// Of describes bytes as a sender does.
func Of(p []byte) store.Content {
	sum := sha256.Sum256(p)
	return store.Content{Size: int64(len(p)), SHA256: hex.EncodeToString(sum[:])}
}

// Blobs tests a backend; open returns an empty one. partSize is the least that
// it takes for a part that is not the last.
func Blobs(t *testing.T, partSize int, open func(t *testing.T) store.Blobs) {
	for name, test := range map[string]func(*testing.T, store.Blobs, int){
		"put": testPut, "mismatch": testMismatch, "range": testRange, "list": testBlobList, "names": testNames, "parts": testParts,
		"partsBad": testPartsBad, "appended": testAppended, "abort": testAbort, "replace": testReplace, "same": testSame,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t), partSize) })
	}
}

func content(t *testing.T, b store.Blobs, name string) []byte {
	t.Helper()
	f := must(b.Open(t.Context(), name))(t)
	defer f.Close()
	return must(io.ReadAll(f))(t)
}

func absent(t *testing.T, b store.Blobs, name string) {
	t.Helper()
	_, err := b.Stat(t.Context(), name)
	want(t, err, store.ErrNotFound)
	_, err = b.Open(t.Context(), name)
	want(t, err, store.ErrNotFound)
}

func testPut(t *testing.T, b store.Blobs, _ int) {
	ctx := t.Context()
	absent(t, b, "sha256/a")
	for i, n := range []int{0, 1, 4096, 1<<20 + 7} {
		p, name := Bytes(i, n), fmt.Sprint("sha256/", i)
		for _, c := range []store.Content{Of(p), {Size: int64(n)}, store.Unknown} {
			info := must(b.Put(ctx, name, bytes.NewReader(p), c))(t)
			if info.Name != name || info.Size != int64(n) || info.SHA256 != Of(p).SHA256 {
				t.Errorf("%+v", info)
			}
			if !bytes.Equal(content(t, b, name), p) {
				t.Errorf("%s: other bytes came back", name)
			}
		}
	}
	want(t, b.Delete(ctx, "sha256/1"), nil)
	absent(t, b, "sha256/1")
	want(t, b.Delete(ctx, "sha256/1"), store.ErrNotFound)
}

func testMismatch(t *testing.T, b store.Blobs, _ int) {
	ctx, p := t.Context(), Bytes(1, 100_000)
	right := Of(p)
	broken := errors.New("broken off")
	for name, c := range map[string]struct {
		r    io.Reader
		want store.Content
	}{
		"digest": {bytes.NewReader(p), store.Content{Size: right.Size, SHA256: Of(p[1:]).SHA256}},
		"short":  {bytes.NewReader(p), store.Content{Size: right.Size + 1}},
		"long":   {bytes.NewReader(p), store.Content{Size: right.Size - 1}},
		"broken": {io.MultiReader(bytes.NewReader(p[:5000]), iotest.ErrReader(broken)), right},
		"empty":  {strings.NewReader(""), right},
	} {
		_, err := b.Put(ctx, "x/"+name, c.r, c.want)
		want(t, err, store.ErrContent)
		absent(t, b, "x/"+name)
	}
	must(b.Put(ctx, "x/old", bytes.NewReader(p), right))(t)
	_, err := b.Put(ctx, "x/old", bytes.NewReader(p[1:]), right)
	want(t, err, store.ErrContent)
	if !bytes.Equal(content(t, b, "x/old"), p) {
		t.Error("a refused blob has changed the old one")
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Put(stopped, "x/stopped", bytes.NewReader(p), right); err == nil {
		t.Error("a blob was stored for a caller that has gone")
	}
	absent(t, b, "x/stopped")
}

func testRange(t *testing.T, b store.Blobs, _ int) {
	p := Bytes(2, 300_001)
	must(b.Put(t.Context(), "r", bytes.NewReader(p), Of(p)))(t)
	f := must(b.Open(t.Context(), "r"))(t)
	defer f.Close()
	if f.Info().Size != int64(len(p)) {
		t.Errorf("%+v", f.Info())
	}
	for _, r := range [][2]int{{0, 1}, {1, 4096}, {131072, 70000}, {len(p) - 1, 1}} {
		got := make([]byte, r[1])
		if _, err := f.ReadAt(got, int64(r[0])); err != nil && err != io.EOF || !bytes.Equal(got, p[r[0]:r[0]+r[1]]) {
			t.Errorf("bytes %v: %v", r, err)
		}
	}
	if n, err := f.ReadAt(make([]byte, 10), int64(len(p))-3); n != 3 || err != io.EOF {
		t.Errorf("past the end: %d %v", n, err)
	}
	must(f.Seek(-5, io.SeekEnd))(t)
	if rest := must(io.ReadAll(f))(t); !bytes.Equal(rest, p[len(p)-5:]) {
		t.Error("other bytes at the end")
	}
	want(t, b.Delete(t.Context(), "r"), nil)
	got := make([]byte, 100)
	if _, err := f.ReadAt(got, 77); err != nil || !bytes.Equal(got, p[77:177]) {
		t.Errorf("an open blob cannot be read after it was deleted: %v", err)
	}
}

func names(t *testing.T, b store.Blobs, prefix string) string {
	t.Helper()
	var out []string
	for i, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, i.Name)
	}
	return strings.Join(out, " ")
}

func testBlobList(t *testing.T, b store.Blobs, _ int) {
	for _, name := range []string{"sha256/aa", "sha256/ab", "sha256/b", "tile/0/001", "tile/0/x001/067", "tile/1", "a", "tile-x", "tile.y/1"} {
		must(b.Put(t.Context(), name, strings.NewReader(name), store.Unknown))(t)
	}
	for prefix, all := range map[string]string{
		"": "a sha256/aa sha256/ab sha256/b tile-x tile.y/1 tile/0/001 tile/0/x001/067 tile/1", "sha256/a": "sha256/aa sha256/ab",
		"tile/0": "tile/0/001 tile/0/x001/067", "tile/": "tile/0/001 tile/0/x001/067 tile/1", "nosuch": "", "sha256/aa/": "",
	} {
		if got := names(t, b, prefix); got != all {
			t.Errorf("%q: %s, want %s", prefix, got, all)
		}
	}
	for i, err := range b.List(t.Context(), "") {
		if err != nil || i.Name != "a" || i.Size != 1 {
			t.Fatal(i, err)
		}
		break
	}
}

// testNames: no name leads out of the storage (SC-158).
func testNames(t *testing.T, b store.Blobs, _ int) {
	for _, name := range []string{"", "/", "a/", "/a", "..", "a/../b", "../../etc/passwd", ".hidden", "a/.b", "A", "a b", "a\x00", "a\\b", "%2e%2e", strings.Repeat("a", 200), strings.Repeat("a/", 9) + "a"} {
		_, err := b.Put(t.Context(), name, strings.NewReader("x"), store.Unknown)
		want(t, err, store.ErrInvalid)
		_, err = b.Open(t.Context(), name)
		want(t, err, store.ErrInvalid)
		want(t, b.Delete(t.Context(), name), store.ErrInvalid)
	}
	for _, id := range []string{"", "..", "../../records.db", strings.Repeat("a", 24), "aaaaaaaaaaa/aaaaaaaaaaaa"} {
		_, err := b.Upload(t.Context(), id)
		want(t, err, store.ErrNotFound)
		want(t, b.Abort(t.Context(), id), store.ErrNotFound)
	}
}

// testParts sends parts in order, in disorder, twice, and all at once.
func testParts(t *testing.T, b store.Blobs, size int) {
	ctx, p := t.Context(), Bytes(3, 3*size+size/2)
	for round, order := range [][]int{{1, 2, 3, 4}, {4, 2, 1, 3}, {1, 2, 1, 3, 4, 4}, nil} {
		u := must(b.Start(ctx, store.Plan{Size: int64(len(p)), PartSize: int64(size)}))(t)
		if u.Plan.Parts() != 4 {
			t.Fatal(u.Plan.Parts())
		}
		put := func(n int) {
			part := p[(n-1)*size : min(n*size, len(p))]
			got, err := b.PutPart(ctx, u.ID, n, bytes.NewReader(part), Of(part))
			if err != nil || got.Number != n || got.Tag == "" {
				t.Errorf("part %d: %+v %v", n, got, err)
			}
		}
		for _, n := range order {
			put(n)
		}
		if order == nil {
			var group sync.WaitGroup
			for n := range 4 {
				group.Go(func() { put(n + 1) })
			}
			group.Wait()
		}
		state := must(b.Upload(ctx, u.ID))(t)
		if len(state.Parts) != 4 || state.Size != int64(len(p)) || state.Parts[3].Number != 4 {
			t.Errorf("%+v", state)
		}
		name := fmt.Sprint("whole/", round)
		absent(t, b, name)
		info := must(b.Complete(ctx, u.ID, name, Of(p)))(t)
		if info.Size != int64(len(p)) || info.SHA256 != Of(p).SHA256 || !bytes.Equal(content(t, b, name), p) {
			t.Errorf("order %v: %+v", order, info)
		}
		_, err := b.Complete(ctx, u.ID, name, Of(p))
		want(t, err, store.ErrNotFound)
	}
	for u, err := range b.Uploads(ctx) {
		t.Errorf("left: %+v %v", u, err)
	}
}

func testPartsBad(t *testing.T, b store.Blobs, size int) {
	ctx, p := t.Context(), Bytes(4, 2*size)
	for _, plan := range []store.Plan{{Size: 0, PartSize: 5}, {Size: -1, PartSize: 5}, {Size: -2}, {Size: 1, PartSize: -1}, {Size: 1 << 60, PartSize: 1}} {
		_, err := b.Start(ctx, plan)
		want(t, err, store.ErrInvalid)
	}
	u := must(b.Start(ctx, store.Plan{Size: int64(len(p)), PartSize: int64(size)}))(t)
	for _, n := range []int{-1, 0, 3, 1 << 30} {
		_, err := b.PutPart(ctx, u.ID, n, bytes.NewReader(p[:size]), store.Unknown)
		want(t, err, store.ErrInvalid)
	}
	for _, bad := range [][]byte{p[:size-1], p[:size+1], nil} {
		_, err := b.PutPart(ctx, u.ID, 1, bytes.NewReader(bad), store.Unknown)
		want(t, err, store.ErrContent)
	}
	must(b.PutPart(ctx, u.ID, 1, bytes.NewReader(p[:size]), store.Unknown))(t)
	_, err := b.Complete(ctx, u.ID, "bad", store.Unknown)
	want(t, err, store.ErrContent)
	must(b.PutPart(ctx, u.ID, 2, bytes.NewReader(p[size:]), store.Unknown))(t)
	_, err = b.Complete(ctx, u.ID, "bad", store.Content{Size: -1, SHA256: Of(p[1:]).SHA256})
	want(t, err, store.ErrContent)
	// A part that breaks off takes the older one with it: its bytes are gone.
	_, err = b.PutPart(ctx, u.ID, 1, io.MultiReader(bytes.NewReader(p[size:size+9]), iotest.ErrReader(errors.New("broken off"))), store.Unknown)
	want(t, err, store.ErrContent)
	_, err = b.Complete(ctx, u.ID, "bad", store.Unknown)
	want(t, err, store.ErrContent)
	absent(t, b, "bad")
	must(b.PutPart(ctx, u.ID, 1, bytes.NewReader(p[:size]), store.Unknown))(t)
	must(b.Complete(ctx, u.ID, "good", Of(p)))(t)
	if !bytes.Equal(content(t, b, "good"), p) {
		t.Error("other bytes came back")
	}
}

// testAppended sends pieces of any size, as the registry protocol has them.
func testAppended(t *testing.T, b store.Blobs, size int) {
	ctx, p := t.Context(), Bytes(5, 2*size+1000)
	u := must(b.Start(ctx, store.Plan{Size: -1}))(t)
	sent := 0
	for i, n := range []int{10, size, 0, size - 10, 1000} {
		_, err := b.PutPart(ctx, u.ID, i+1, io.MultiReader(bytes.NewReader(p[sent:sent+n/2]), iotest.ErrReader(errors.New("broken off"))), store.Unknown)
		want(t, err, store.ErrContent)
		must(b.PutPart(ctx, u.ID, i+1, bytes.NewReader(p[sent:sent+n]), store.Unknown))(t)
		sent += n
		if state := must(b.Upload(ctx, u.ID))(t); state.Size != int64(sent) {
			t.Fatalf("%+v, want %d bytes", state, sent)
		}
	}
	_, err := b.PutPart(ctx, u.ID, 9, strings.NewReader("x"), store.Unknown)
	want(t, err, store.ErrInvalid)
	_, err = b.PutPart(ctx, u.ID, 6, strings.NewReader("too long, and then refused"), store.Content{Size: 3})
	want(t, err, store.ErrContent)
	must(b.Complete(ctx, u.ID, "appended", Of(p)))(t)
	if !bytes.Equal(content(t, b, "appended"), p) {
		t.Error("other bytes came back")
	}
}

func testAbort(t *testing.T, b store.Blobs, size int) {
	ctx := t.Context()
	u := must(b.Start(ctx, store.Plan{Size: int64(size)}))(t)
	var seen int
	for up, err := range b.Uploads(ctx) {
		if err != nil || up.ID != u.ID || up.Started.IsZero() {
			t.Fatalf("%+v %v", up, err)
		}
		seen++
	}
	if seen != 1 {
		t.Fatalf("%d uploads", seen)
	}
	// An abort while a part arrives.
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := b.PutPart(ctx, u.ID, 1, r, store.Unknown)
		done <- err
	}()
	must(w.Write(Bytes(1, 100)))(t)
	want(t, b.Abort(ctx, u.ID), nil)
	w.Close()
	if err := <-done; err == nil {
		t.Error("a part of an aborted upload was taken")
	}
	want(t, b.Abort(ctx, u.ID), store.ErrNotFound)
	_, err := b.PutPart(ctx, u.ID, 1, strings.NewReader("x"), store.Unknown)
	want(t, err, store.ErrNotFound)
	_, err = b.Complete(ctx, u.ID, "aborted", store.Unknown)
	want(t, err, store.ErrNotFound)
	absent(t, b, "aborted")
	for u, err := range b.Uploads(ctx) {
		t.Errorf("left: %+v %v", u, err)
	}
}

// testReplace: a reader sees the old blob or the new one, never a mixture.
func testReplace(t *testing.T, b store.Blobs, _ int) {
	ctx, stop := context.WithCancel(t.Context())
	old, next := bytes.Repeat([]byte{1}, 200_000), bytes.Repeat([]byte{2}, 200_000)
	must(b.Put(ctx, "v", bytes.NewReader(old), Of(old)))(t)
	var group sync.WaitGroup
	group.Go(func() {
		defer stop()
		for i := range 20 {
			p := [][]byte{old, next}[i%2]
			if _, err := b.Put(t.Context(), "v", bytes.NewReader(p), Of(p)); err != nil {
				t.Error(err)
			}
		}
	})
	for ctx.Err() == nil {
		p := content(t, b, "v")
		if !bytes.Equal(p, old) && !bytes.Equal(p, next) {
			t.Fatal("a mixture of two blobs")
		}
	}
	group.Wait()
}

// testSame lets many store the same blob.
func testSame(t *testing.T, b store.Blobs, _ int) {
	p := Bytes(6, 100_000)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := b.Put(t.Context(), "same/one", bytes.NewReader(p), Of(p)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if !bytes.Equal(content(t, b, "same/one"), p) || names(t, b, "") != "same/one" {
		t.Error("the blob is not there once and whole")
	}
}
