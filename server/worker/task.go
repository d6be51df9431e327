package worker

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"singularity/api"
)

// Places in a sandbox.
const (
	insideDir  = "/build"
	insideHome = insideDir + "/home"
	imageName  = "image.sif"

	registriesFile = insideHome + "/.singularity/docker-config.json"
)

// do builds one task and tells the server what came of it.
func (w *Worker) do(ctx context.Context, t *api.BuildTask, slot int) {
	log := w.o.Log.With("build", t.ID, "fence", t.Fence)
	log.Info("build", "arch", t.Arch)
	begun := time.Now()
	building, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var outage atomic.Bool
	go w.keepAlive(building, cancel, t, &outage)
	dir := filepath.Join(w.o.Dir, "job-"+t.ID+"-"+fmt.Sprint(t.Fence))
	end := w.build(building, t, slot, dir)
	if end.State == "failed" {
		// An outage may have come with the failure, and gone, between two ticks.
		if up, err := w.alive(building, t); err != nil || up < time.Since(begun) {
			outage.Store(true)
		}
	}
	// The files first: a build that is over has left nothing.
	if err := w.remove(dir, slot); err != nil {
		log.Error("the files of a build stay", "error", err.Error())
	}
	switch {
	case ctx.Err() != nil:
		end = api.WorkerDone{State: "queued"}
		giveBack, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer stop()
		ctx = giveBack
	case errors.Is(context.Cause(building), errGone):
		log.Info("the build is not this worker's any more")
		return
	case end.State == "failed" && outage.Load():
		// The library was away as well, so that may be why: it gets another try.
		end.State = "queued"
	}
	end.Fence = t.Fence
	err := persist(ctx, func() error { return w.post(ctx, "/internal/v1/builds/"+t.ID+"/done", end, nil) })
	if err != nil {
		log.Warn("the end of a build is not told", "state", end.State, "error", err.Error())
		return
	}
	log.Info("built", "state", end.State, "reason", end.Reason, "took", time.Since(begun).Round(time.Millisecond).String())
}

// keepAlive says again and again that the build goes on. If nobody hears it for
// the time of a lease, the build is another's by now.
func (w *Worker) keepAlive(ctx context.Context, cancel func(error), t *api.BuildTask, outage *atomic.Bool) {
	heard := time.Now()
	tick := time.NewTicker(min(t.Every, 500*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := w.alive(ctx, t)
		switch {
		case err == nil:
			heard = time.Now()
		case errors.Is(err, errGone):
			cancel(errGone)
			return
		case time.Since(heard) > 15*t.Every: // nearly four leases: a restart takes less
			cancel(errGone)
			return
		default:
			outage.Store(true)
		}
	}
}

// alive tells the server once that the build goes on, and returns how long that
// has been running.
func (w *Worker) alive(ctx context.Context, t *api.BuildTask) (time.Duration, error) {
	ctx, stop := context.WithTimeout(ctx, t.Every)
	defer stop()
	var a api.WorkerAlive
	err := w.post(ctx, fmt.Sprintf("/internal/v1/builds/%s/alive?fence=%d", t.ID, t.Fence), struct{}{}, &a)
	return a.Up, err
}

func failed(format string, args ...any) api.WorkerDone {
	return api.WorkerDone{State: "failed", Reason: fmt.Sprintf(format, args...)}
}

// build makes the image and pushes it.
func (w *Worker) build(ctx context.Context, t *api.BuildTask, slot int, dir string) api.WorkerDone {
	out := newOutput(ctx, w, t)
	defer out.close()
	s, err := w.prepare(ctx, t, slot, dir)
	if err != nil {
		w.o.Log.Error("cannot prepare a build", "build", t.ID, "error", err.Error())
		return failed("the worker cannot prepare it")
	}
	s.Args = buildArgs(w.o.Program, t)
	s.Unpack, s.UnpackLimit = t.Context, t.Limits.Context
	r, err := w.keep(ctx, s, out)
	if err != nil {
		w.o.Log.Error("a sandbox failed", "build", t.ID, "error", err.Error())
		return failed("the worker cannot make a sandbox for it")
	}
	if end := r.end(&t.Limits); end != nil {
		return *end
	}
	image := filepath.Join(dir, "work", imageName)
	sum, size, err := hashImage(ctx, image)
	if err != nil {
		return failed("it made no image")
	}
	var target api.WorkerTarget
	err = persist(ctx, func() error {
		return w.post(ctx, "/internal/v1/builds/"+t.ID+"/upload", api.WorkerUpload{Fence: t.Fence, SHA256: sum, Size: size}, &target)
	})
	if err != nil {
		return failed("the image cannot be stored: %s", err)
	}
	out.hide(target.Token)
	return w.push(ctx, t, s, target, out)
}

// push stores the image, from a sandbox again, since it is the work of a
// stranger. Nothing of the build runs any more.
func (w *Worker) push(ctx context.Context, t *api.BuildTask, s *spec, target api.WorkerTarget, out *output) api.WorkerDone {
	if err := w.login(s, t.LibraryURL, target.Token); err != nil {
		return failed("the worker cannot push it")
	}
	s.Unpack, s.Emulate, s.Registries = false, false, nil
	s.Args = []string{w.o.Program, "--quiet", "push", "--allow-unsigned", insideDir + "/" + imageName, target.Ref}
	s.Time = 30 * time.Minute
	r, err := w.keep(ctx, s, out)
	if err != nil {
		return failed("the worker cannot push it")
	}
	if end := r.end(&t.Limits); end != nil {
		end.Reason = "the image cannot be pushed: " + end.Reason
		return *end
	}
	return api.WorkerDone{State: "succeeded"}
}

// buildArgs is the command of a build.
func buildArgs(program string, t *api.BuildTask) []string {
	args := []string{program, "build", "--files-root", insideDir + "/context"}
	if t.WorkingDir != "" {
		args = append(args, "--files-dir", t.WorkingDir)
	}
	if t.Arch != runtime.GOARCH {
		args = append(args, "--arch", t.Arch)
	}
	return append(args, insideDir+"/"+imageName, insideDir+"/definition")
}

// prepare makes the private directory of a build.
func (w *Worker) prepare(ctx context.Context, t *api.BuildTask, slot int, dir string) (*spec, error) {
	for _, d := range []string{"", "root", "work", "work/tmp", "work/context"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	if t.Context {
		err := persist(ctx, func() error { return w.download(ctx, t, filepath.Join(dir, "work/context.tar.gz")) })
		if err != nil {
			return nil, err
		}
	}
	s := &spec{Dir: dir, Library: t.LibraryURL, Limits: t.Limits, Time: t.Limits.Time, Program: w.o.Program, Allow: w.o.Allow, Emulate: t.Arch != runtime.GOARCH, Arch: t.Arch, Definition: t.Definition, CA: w.authorities()}
	var err error
	if s.IDs, err = w.ids(slot); err != nil {
		return nil, err
	}
	if err := give(dir, s.IDs); err != nil {
		return nil, err
	}
	if s.Registries, err = registries(t); err != nil {
		return nil, err
	}
	return s, w.login(s, t.LibraryURL, t.Token)
}

// registries is the file of credentials that singularity reads in the sandbox.
func registries(t *api.BuildTask) ([]byte, error) {
	if len(t.Registries) == 0 {
		return nil, nil
	}
	auths := map[string]map[string]string{}
	for _, r := range t.Registries {
		host := r.Registry
		if host == "docker.io" {
			host = "https://index.docker.io/v1/" // as the file calls Docker Hub
		}
		auths[host] = map[string]string{"auth": basic(r)}
	}
	return json.Marshal(map[string]any{"auths": auths})
}

// basic is a name with its password as HTTP has them.
func basic(r api.RegistrySecret) string {
	return base64.StdEncoding.EncodeToString([]byte(r.Username + ":" + r.Password))
}

// login lets singularity in the sandbox be who the token says. The file is written
// in there, and never by this process below a directory that a build could change.
func (w *Worker) login(s *spec, library, token string) error {
	u, err := url.Parse(library)
	if err != nil {
		return err
	}
	e := map[string]any{"URI": u.Host, "Insecure": u.Scheme == "http"}
	if token != "" {
		e["Token"] = token
	}
	// JSON is YAML.
	s.Login, err = json.Marshal(map[string]any{"Active": "site", "Remotes": map[string]any{"site": e}})
	return err
}

// authorities are those of the system and of the site.
func (w *Worker) authorities() []byte {
	var text []byte
	for _, name := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"} {
		if b, err := os.ReadFile(name); err == nil {
			text = append(append(text, b...), '\n')
			break
		}
	}
	return append(text, w.o.CA...)
}

// hashImage reads the image that a build made. It may be anything.
func hashImage(ctx context.Context, name string) (string, int64, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", 0, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return "", 0, errors.New("it is no file")
	}
	h := sha256.New()
	n, err := io.Copy(h, &cancelled{ctx, f})
	return hex.EncodeToString(h.Sum(nil)), n, err
}

type cancelled struct {
	ctx context.Context
	io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// passwords are what a definition has in addresses.
var passwords = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:]*:([^\s/@]{4,})@`)

func secretsOf(t *api.BuildTask) []string {
	list := []string{t.Token}
	for _, r := range t.Registries {
		list = append(list, basic(r), r.Password)
	}
	for _, m := range passwords.FindAllSubmatch(t.Definition, 100) {
		list = append(list, string(m[1]))
	}
	return list
}

// removing keeps two removals of one directory apart.
var removing sync.Mutex

// remove removes the directory of a build, whoever owns what is in it.
func (w *Worker) remove(dir string, slot int) error {
	removing.Lock()
	defer removing.Unlock()
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	ids, err := w.ids(slot)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	r, err := w.keep(ctx, &spec{Dir: dir, IDs: ids, Remove: true, Time: 10 * time.Minute}, io.Discard)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
