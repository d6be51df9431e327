// Command sizing measures what doc/admin/sizing.md says: it fills the records of a
// library with images, in steps, and at each step times what clients ask for most,
// and what a build that ends in the library writes. Nothing of it is a real image
// but the bytes that a push sends.
//
//	go run ./bench/sizing -n 200000
//	go run ./bench/sizing -n 20000 -mongodb-uri-file FILE -mongodb-ca-file FILE
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/store"
	"singularity/server/store/embedded"
	"singularity/server/store/mongo"
	"singularity/server/store/storetest"
)

func main() {
	n := flag.Int("n", 100_000, "images in the end")
	have := flag.Int("have", 0, "images that the directory has already")
	dir := flag.String("dir", "", "where to work (default: a new directory)")
	uri := flag.String("mongodb-uri-file", "", "records in this MongoDB")
	ca := flag.String("mongodb-ca-file", "", "authorities for it")
	trial := flag.Bool("trial", false, "take a MongoDB that loses writes")
	flag.Parse()
	if err := run(context.Background(), *have, *n, *dir, *uri, *ca, *trial); err != nil {
		fmt.Fprintln(os.Stderr, "sizing:", err)
		os.Exit(1)
	}
}

// catalog notes how the library indexes what it keeps.
type catalog struct {
	store.Records
	index map[string]func([]byte) (map[string][]string, error)
}

func (c *catalog) Define(ctx context.Context, s store.Schema, index func([]byte) (map[string][]string, error)) error {
	c.index[s.Name] = index
	return c.Records.Define(ctx, s, index)
}

type simulation struct {
	records store.Records
	blobs   store.Blobs
	index   map[string]func([]byte) (map[string][]string, error)
	dir     string
}

func run(ctx context.Context, have, n int, dir, uri, ca string, trial bool) error {
	if dir == "" {
		temp, err := os.MkdirTemp("", "singularity-sizing")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		dir = temp
	}
	st, err := embedded.Open(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer st.Close()
	c := &catalog{Records: st.Records, index: map[string]func([]byte) (map[string][]string, error){}}
	if uri != "" {
		text, err := os.ReadFile(uri)
		if err != nil {
			return err
		}
		r, err := mongo.Open(ctx, mongo.Options{URI: strings.TrimSpace(string(text)), CAFile: ca, Database: "sizing_" + store.NewID(), Trial: trial})
		if err != nil {
			return err
		}
		defer r.Close()
		c.Records = r
	}
	a, err := auth.Open(ctx, c, auth.Options{URL: "https://localhost"})
	if err != nil {
		return err
	}
	if _, err := library.Open(ctx, c, st.Blobs, a, library.Options{URL: "https://localhost"}); err != nil {
		return err
	}
	s := &simulation{records: c.Records, blobs: st.Blobs, index: c.index, dir: dir}
	fmt.Println("| images | bytes an image | inserts/s | get ms p50/p99 | by path | images of a container | one write | build's writes, 1 at a time | 8 at a time, builds/s |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	for _, step := range steps(n) {
		if step < have {
			continue
		}
		begun := time.Now()
		if err := s.fill(ctx, have, step); err != nil {
			return err
		}
		rate := float64(step-have) / time.Since(begun).Seconds()
		have = step
		if err := s.report(ctx, have, rate); err != nil {
			return err
		}
	}
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	fmt.Printf("\nmemory of the process at most %d MB\n", u.Maxrss>>10)
	return nil
}

func steps(n int) []int {
	var out []int
	for _, s := range []int{1_000, 10_000, 100_000, 1_000_000} {
		if s < n {
			out = append(out, s)
		}
	}
	return append(out, n)
}

// pick returns a number below n.
func pick(n int) int {
	var b [8]byte
	rand.Read(b[:])
	return int(binary.LittleEndian.Uint64(b[:])>>1) % n
}

const perContainer = 20

func imageKey(i int) string { return fmt.Sprintf("%024x", i+1) }

// image is a record as the library writes it after a push.
func image(i int) []byte {
	path := fmt.Sprintf("lab%03d/project%02d/tool%06d", i/perContainer%200, i/perContainer%37, i/perContainer)
	text, _ := json.Marshal(map[string]any{
		"id": imageKey(i), "hash": fmt.Sprintf("%064x", i+1), "container": fmt.Sprintf("%024x", i/perContainer+1), "entity": fmt.Sprintf("%024x", i/perContainer%200+1),
		"entityName": path[:6], "path": path, "description": "made by the simulation, with as many words as people write", "uploaded": true,
		"content":   map[string]any{"size": 200_000_000 + i, "arch": "amd64", "uuid": fmt.Sprintf("%032x", i), "signed": true},
		"createdBy": fmt.Sprintf("%024x", i%500), "createdAt": time.Unix(1.7e9+int64(i%100_000_000), 0).UTC(), "uploadedAt": time.Unix(1.7e9+int64(i%100_000_000), 0).UTC()})
	return text
}

func (s *simulation) insert(ctx context.Context, collection, key string, data []byte) error {
	index, err := s.index[collection](data)
	if err != nil {
		return err
	}
	_, err = s.records.Insert(ctx, collection, store.Doc{Key: key, Data: data, Index: index})
	return err
}

// fill adds images, by many writers as a server has them.
func (s *simulation) fill(ctx context.Context, from, to int) error {
	const writers = 64
	var group sync.WaitGroup
	failed := make(chan error, writers)
	for w := range writers {
		group.Go(func() {
			for i := from + w; i < to; i += writers {
				if err := s.insert(ctx, "library_images", imageKey(i), image(i)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	return <-failed
}

// times are those of one kind of call.
type times []time.Duration

func (t times) at(part float64) float64 {
	slices.Sort(t)
	return t[min(len(t)-1, int(part*float64(len(t))))].Seconds() * 1000
}

func (t times) String() string { return fmt.Sprintf("%.2f/%.2f", t.at(0.5), t.at(0.99)) }

func measure(n int, f func() error) (times, error) {
	var t times
	for range n {
		begun := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		t = append(t, time.Since(begun))
	}
	return t, nil
}

func (s *simulation) report(ctx context.Context, n int, rate float64) error {
	const calls = 300
	get, err := measure(calls, func() error {
		_, err := s.records.Get(ctx, "library_images", imageKey(pick(n)))
		return err
	})
	if err != nil {
		return err
	}
	list := func(index string, value func(int) string) (times, error) {
		return measure(calls, func() error {
			p, err := s.records.List(ctx, "library_images", store.Query{Index: index, Equal: value(pick(n)), Limit: 100})
			if err == nil && len(p.Docs) == 0 {
				err = store.ErrNotFound
			}
			return err
		})
	}
	path, err := list("path", func(i int) string { return fmt.Sprintf("%024x/%064x", i/perContainer+1, i+1) })
	if err != nil {
		return err
	}
	of, err := list("container", func(i int) string { return fmt.Sprintf("%024x", i/perContainer+1) })
	if err != nil {
		return err
	}
	next := 1<<40 + pick(1<<39)
	one, err := measure(100, func() error {
		next++
		return s.insert(ctx, "library_images", imageKey(next), image(next))
	})
	if err != nil {
		return err
	}
	single, err := measure(30, func() error { return s.build(ctx) })
	if err != nil {
		return err
	}
	begun, builds := time.Now(), 0
	var group sync.WaitGroup
	failed := make(chan error, 8)
	for range 8 {
		builds += 15
		group.Go(func() {
			for range 15 {
				if err := s.build(ctx); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	together := float64(builds) / time.Since(begun).Seconds()
	fmt.Printf("| %d | %d | %.0f | %s | %s | %s | %s | %s | %.1f |\n", n, s.size()/int64(n), rate, get, path, of, one, single, together)
	return nil
}

func (s *simulation) size() (n int64) {
	for _, name := range []string{"records.db", "records.db-wal"} {
		if st, err := os.Stat(filepath.Join(s.dir, "data", name)); err == nil {
			n += st.Size()
		}
	}
	return n
}

// build is what the end of a build writes: an image of 4 MB in one part, its
// records, a tag, and the lines of the audit record.
func (s *simulation) build(ctx context.Context) error {
	i := 1<<41 + pick(1<<40)
	data := image(i)
	if err := s.insert(ctx, "library_images", imageKey(i), data); err != nil {
		return err
	}
	p := storetest.Bytes(i, 4<<20)
	u, err := s.blobs.Start(ctx, store.Plan{Size: int64(len(p)), PartSize: int64(len(p))})
	if err != nil {
		return err
	}
	if err := s.insert(ctx, "library_uploads", u.ID, []byte(`{"id":"`+u.ID+`","image":"`+imageKey(i)+`","user":"u"}`)); err != nil {
		return err
	}
	sum := storetest.Of(p)
	if _, err := s.blobs.PutPart(ctx, u.ID, 1, bytes.NewReader(p), sum); err != nil {
		return err
	}
	name := library.BlobName(sum.SHA256)
	if _, err := s.blobs.Complete(ctx, u.ID, name, sum); err != nil {
		return err
	}
	for range 2 { // published, and its tag
		d, err := s.records.Get(ctx, "library_images", imageKey(i))
		if err != nil {
			return err
		}
		if d.Index, err = s.index["library_images"](d.Data); err != nil {
			return err
		}
		if _, err := s.records.Replace(ctx, "library_images", d); err != nil {
			return err
		}
	}
	if err := s.records.Delete(ctx, "library_uploads", u.ID, 0); err != nil {
		return err
	}
	for range 2 {
		if err := s.insert(ctx, "audit", store.NewID(), []byte(`{"actor":"u","action":"image.push","object":"lab/tool"}`)); err != nil {
			return err
		}
	}
	return s.blobs.Delete(ctx, name)
}
