package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"singularity/api"
	"singularity/server/store/embedded"
)

// The base of the builds is a shell alone: what is measured is the service.
const buildBase = "bench/base/busybox"

const buildDefinition = "Bootstrap: library\nFrom: " + buildBase + ":latest\n%post\n    "

// builder: the remote builder with two workers in the server's process, each build
// in a sandbox of its own.
func (b *bench) builder(ctx context.Context) error {
	if err := b.need("busybox"); err != nil {
		return err
	}
	s, err := b.builderSite(ctx)
	if err != nil {
		return err
	}
	p, err := s.start(ctx, "--workers", "2", "--worker-dir", s.path("jobs"), "--build-parallel", "50", "--build-queued", "100")
	if err != nil {
		return err
	}
	defer p.stop()
	if err := s.pushBase(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.firstLine, s.manyBuilds, s.watchers} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) builderSite(ctx context.Context) (*site, error) {
	s := &site{b: b, dir: b.path("builder")}
	if err := os.RemoveAll(s.dir); err != nil {
		return nil, err
	}
	if err := b.makeDir(s.dir); err != nil {
		return nil, err
	}
	st, err := embedded.Open(s.path("data"))
	if err != nil {
		return nil, err
	}
	_, _, err = s.enroll(ctx, st.Records)
	if err = errors.Join(err, st.Close()); err != nil {
		return nil, err
	}
	return s, s.certificate()
}

// pushBase makes the base and stores it.
func (s *site) pushBase(ctx context.Context) error {
	definition, file := s.path("base.def"), s.path("jobs/base.sif")
	if err := os.WriteFile(definition, []byte("Bootstrap: scratch\n%files\n    "+s.b.peers["busybox"]+" /bin/busybox\n    "+s.b.peers["busybox"]+" /bin/sh\n"), 0o644); err != nil {
		return err
	}
	if _, err := s.b.output(ctx, s.b.program("singularity"), "build", "--force", file, definition); err != nil {
		return err
	}
	image, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	id := ""
	for i, kind := range []string{"entities", "collections", "containers"} {
		var e api.Envelope[struct{ ID string }]
		if err := s.call(ctx, "POST", "/v1/"+kind, map[string]any{"name": strings.Split(buildBase, "/")[i], "entity": id, "collection": id}, &e); err != nil {
			return err
		}
		id = e.Data.ID
	}
	sum := sha256.Sum256(image)
	var i api.Envelope[api.Image]
	if err := s.call(ctx, "POST", "/v1/images", map[string]any{"hash": "sha256." + hex.EncodeToString(sum[:]), "container": id}, &i); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/imagefile/"+i.Data.ID, strings.NewReader(string(image)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("cannot store the base of the builds: %s", res.Status)
	}
	return s.call(ctx, "POST", "/v2/tags/"+id, api.Tag{Arch: runtime.GOARCH, Tag: "latest", ImageID: i.Data.ID}, nil)
}

func (s *site) submit(ctx context.Context, post, ref string) (api.BuildInfo, error) {
	var e api.Envelope[api.BuildInfo]
	err := s.call(ctx, "POST", "/v1/build", api.BuildRequest{DefinitionRaw: []byte(buildDefinition + post + "\n"), LibraryRef: ref, BuilderRequirements: map[string]string{"arch": runtime.GOARCH}}, &e)
	return e.Data, err
}

// follow calls line for each line of a log, until the build is over.
func (s *site) follow(ctx context.Context, id string, line func(string)) error {
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+"/v1/build/"+id+"/log?follow=true", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		line(lines.Text())
	}
	return lines.Err()
}

// ended asks what came of a build, which must have gone well.
func (s *site) ended(ctx context.Context, id string) (api.BuildInfo, error) {
	var e api.Envelope[api.BuildInfo]
	err := s.call(ctx, "GET", "/v1/build/"+id, nil, &e)
	if err == nil && e.Data.State != "succeeded" {
		err = fmt.Errorf("the build %s is %s: %s", id, e.Data.State, e.Data.Reason)
	}
	return e.Data, err
}

// firstLine: from the submission, with a free worker, until a client sees the first
// line of the log, that a worker has it, and what the build itself says first.
func (s *site) firstLine(ctx context.Context) error {
	var first, started, spoke []float64
	for range 2 * s.b.packRuns() {
		begun := time.Now()
		i, err := s.submit(ctx, "true", "")
		if err != nil {
			return err
		}
		seen := 0
		err = s.follow(ctx, i.ID, func(l string) {
			at := ms(time.Since(begun))
			switch {
			case seen == 0:
				first, seen = append(first, at), 1
			case seen == 1 && strings.HasPrefix(l, "Started"):
				started, seen = append(started, at), 2
			case seen == 2:
				spoke, seen = append(spoke, at), 3
			}
		})
		if err != nil {
			return err
		}
		if _, err := s.ended(ctx, i.ID); err != nil {
			return err
		}
	}
	s.b.absolute(row{Name: "remote builder: submission to the first line of the log", Goal: 300, Unit: "ms"}, first)
	s.b.absolute(row{Name: "to the line that a worker has it", Goal: 300, Unit: "ms"}, started)
	s.b.absolute(row{Name: "to the first line that the build itself prints, from its sandbox", Goal: 300, Unit: "ms"}, spoke)
	return nil
}

// manyBuilds: fifty at once on two workers. What is more than their builds, one
// after another, is the queue's.
func (s *site) manyBuilds(ctx context.Context) error {
	count := 50
	if s.b.quick {
		count = 8
	}
	var ids []string
	for n := range count {
		i, err := s.submit(ctx, fmt.Sprintf("echo %d >/number", n), fmt.Sprintf("library://bench/many/b%d:v1", n))
		if err != nil {
			return err
		}
		ids = append(ids, i.ID)
	}
	var builds []api.BuildInfo
	var busy time.Duration
	for _, id := range ids {
		if err := s.follow(ctx, id, func(string) {}); err != nil {
			return err
		}
		i, err := s.ended(ctx, id)
		if err != nil {
			return err
		}
		builds = append(builds, i)
		busy += i.Ended.Sub(i.Started)
	}
	s.b.absolute(row{Name: fmt.Sprintf("%d builds at once on two workers: time of the workers without a build while some waited, of that with one", count), Goal: 3, Unit: "%"}, []float64{idleTime(builds)})
	s.b.absolute(row{Name: "a build among them, on the average", Unit: "ms"}, []float64{ms(busy) / float64(count)})
	return nil
}

// idleTime is how long two workers had nothing to do before the last build began,
// in percent of what they built until then.
func idleTime(builds []api.BuildInfo) float64 {
	slices.SortFunc(builds, func(a, b api.BuildInfo) int { return a.Started.Compare(b.Started) })
	first, last := builds[0].Started, builds[len(builds)-1].Started
	var busy time.Duration
	for _, i := range builds {
		end := i.Ended
		if end.After(last) {
			end = last
		}
		busy += end.Sub(i.Started)
	}
	return 100 * (float64(2*last.Sub(first))/float64(busy) - 1)
}

// watchers: many web sockets on one build. Each must get every byte.
func (s *site) watchers(ctx context.Context) error {
	count := 500
	if s.b.quick {
		count = 50
	}
	i, err := s.submit(ctx, `n=0; while [ $n -lt 3000 ]; do echo "line $n of a build that many people watch"; n=$((n+1)); [ $((n%100)) -ne 0 ] || busybox sleep 0.1; done`, "")
	if err != nil {
		return err
	}
	logs, errs := make([][32]byte, count), make([]error, count)
	ends := make([]time.Time, count)
	var all sync.WaitGroup
	for n := range count {
		all.Go(func() { logs[n], ends[n], errs[n] = s.watch(ctx, i.ID) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	done, err := s.ended(ctx, i.ID)
	if err != nil {
		return err
	}
	want := sha256.New()
	if err := s.follow(ctx, i.ID, func(l string) { io.WriteString(want, l+"\n") }); err != nil {
		return err
	}
	var late time.Time
	for n, got := range logs {
		if string(got[:]) != string(want.Sum(nil)) {
			return fmt.Errorf("watcher %d of %d has not the whole log", n, count)
		}
		if ends[n].After(late) {
			late = ends[n]
		}
	}
	s.b.absolute(row{Name: fmt.Sprintf("%d watchers of one build, each with every byte of its log: from its end to the last of them", count), Goal: 1000, Unit: "ms"}, []float64{ms(late.Sub(done.Ended))})
	return nil
}

func (s *site) watch(ctx context.Context, id string) (sum [32]byte, at time.Time, err error) {
	c, _, err := websocket.Dial(ctx, "wss"+strings.TrimPrefix(s.url, "https")+"/v1/build-ws/"+id, &websocket.DialOptions{HTTPClient: s.http, HTTPHeader: http.Header{"Authorization": {"BEARER " + s.token}}})
	if err != nil {
		return sum, at, err
	}
	defer c.CloseNow()
	h := sha256.New()
	for {
		_, text, err := c.Read(ctx)
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			return [32]byte(h.Sum(nil)), time.Now(), nil
		}
		if err != nil {
			return sum, at, err
		}
		h.Write(text)
	}
}
