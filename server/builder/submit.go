package builder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"singularity/api"
	"singularity/build/deffile"
	"singularity/server/auth"
	"singularity/server/queue"
	"singularity/server/route"
	"singularity/server/store"
)

const (
	maxDefinition = 2 << 20
	maxSubmit     = 4 << 20 // in base64, with the rest
)

var (
	namePart  = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)
	tagName   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	archName  = regexp.MustCompile(`^[a-z0-9]{2,16}$`)
	hexDigest = regexp.MustCompile(`^sha256\.[0-9a-f]{64}$`)
)

// submit takes a build. What cannot be built is refused now, not after hours.
func (s *Service) submit(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := auth.From(ctx)
	if err := c.Require(auth.Build); err != nil {
		return err
	}
	var in api.BuildRequest
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	j, err := s.newJob(ctx, c, &in)
	if err == nil {
		err = s.enqueue(ctx, j)
	}
	id := ""
	if j != nil {
		id = j.ID
	}
	s.auth.Audit(ctx, "build.submit", id, err, map[string]string{"target": in.LibraryRef, "arch": in.BuilderRequirements["arch"]})
	if err != nil {
		return err
	}
	route.JSON(w, http.StatusCreated, api.Envelope[api.BuildInfo]{Data: s.info(j)})
	return nil
}

func (s *Service) newJob(ctx context.Context, c auth.Caller, in *api.BuildRequest) (*job, error) {
	if err := s.mayBuild(ctx, c); err != nil {
		return nil, err
	}
	if err := checkDefinition(in.DefinitionRaw); err != nil {
		return nil, err
	}
	j := &job{ID: store.NewID(), User: c.ID, UserName: c.Name, Origin: c.TokenID, Reads: c.Has(auth.LibraryRead), Definition: in.DefinitionRaw, Arch: in.BuilderRequirements["arch"],
		Priority: "normal", State: Queued, Submitted: s.now().UTC()}
	if j.Arch == "" {
		j.Arch = "amd64"
	}
	if err := s.checkArch(ctx, j.Arch); err != nil {
		return nil, err
	}
	var err error
	if j.Path, j.Tag, err = s.reference(in.LibraryRef); err != nil {
		return nil, err
	}
	if j.Path == "" {
		j.Path, j.Tag, j.Temporary = c.Name+"/remote-builds/rb-"+j.ID, "latest", true
	} else if err := s.mayWrite(ctx, c, j.Path); err != nil {
		return nil, err
	}
	if err := s.hasRoom(ctx, c, j.Path); err != nil {
		return nil, err
	}
	if in.WorkingDir != "" && (!path.IsAbs(in.WorkingDir) || len(in.WorkingDir) > 4096 || strings.ContainsRune(in.WorkingDir, 0) || !utf8.ValidString(in.WorkingDir)) {
		return nil, route.Errorf(http.StatusBadRequest, "workingDir is no absolute path")
	}
	j.WorkingDir = in.WorkingDir
	if in.ContextDigest != "" {
		if j.Context, err = s.useContext(ctx, c, in.ContextDigest); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// mayBuild refuses who is banned, or has enough builds.
func (s *Service) mayBuild(ctx context.Context, c auth.Caller) error {
	set, err := s.read(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(set.Banned, c.ID) {
		return route.Errorf(http.StatusForbidden, "an administrator does not let you build here")
	}
	n, err := s.jobs.Count(ctx, store.Query{Index: "active", Equal: c.ID})
	if err != nil {
		return err
	}
	if n >= int64(s.o.Queued) {
		return route.Errorf(http.StatusTooManyRequests, "%d builds of yours are not over yet: wait for one, or cancel one", n)
	}
	return nil
}

// checkDefinition parses a definition and refuses what no worker can build.
func checkDefinition(text []byte) error {
	switch {
	case len(text) == 0:
		return route.Errorf(http.StatusBadRequest, "there is no definition")
	case len(text) > maxDefinition:
		return route.Errorf(http.StatusRequestEntityTooLarge, "a definition has at most %d bytes", maxDefinition)
	}
	d, err := deffile.Parse("definition", text, nil)
	if err != nil {
		return route.Errorf(http.StatusBadRequest, "the definition cannot be used: %.300s", err.Error())
	}
	for i := range d.Stages {
		switch agent := strings.ToLower(d.Stages[i].Agent()); agent {
		case "localimage", "oci", "oci-archive", "docker-archive", "docker-daemon":
			return route.Errorf(http.StatusBadRequest, "the bootstrap agent %q takes an image of your machine, which is not here: push it to the library first", agent)
		}
	}
	return nil
}

// archs are the architectures that there are workers for.
func (s *Service) archs(ctx context.Context) ([]string, error) {
	archs := []string{}
	for w, err := range s.workers.All(ctx, store.Query{}) {
		if err != nil {
			return nil, err
		}
		archs = append(archs, w.Value.Archs...)
	}
	slices.Sort(archs)
	return slices.Compact(archs), nil
}

// checkArch says which architectures there are workers for.
func (s *Service) checkArch(ctx context.Context, arch string) error {
	archs, err := s.archs(ctx)
	if err != nil {
		return err
	}
	if len(archs) == 0 {
		return route.Errorf(http.StatusServiceUnavailable, "no worker builds images here")
	}
	if !archName.MatchString(arch) || !slices.Contains(archs, arch) {
		return route.Errorf(http.StatusBadRequest, "nothing is built for %.40q here, only for %s", arch, strings.Join(archs, ", "))
	}
	return nil
}

// reference reads where the image goes: a path of three names and a tag, both
// empty for none. Clients write one to three slashes, or none.
func (s *Service) reference(text string) (string, string, error) {
	if text == "" {
		return "", "", nil
	}
	bad := route.Errorf(http.StatusBadRequest, "%.200q names no container: library://entity/collection/container:tag is wanted", text)
	rest, ok := strings.CutPrefix(text, "library:")
	if !ok {
		return "", "", bad
	}
	rest = strings.TrimLeft(rest, "/")
	rest = strings.TrimPrefix(rest, s.host+"/")
	name, tag, found := strings.Cut(rest, ":")
	if !found {
		tag = "latest"
	}
	parts := strings.Split(name, "/")
	switch len(parts) {
	case 1:
		parts = []string{"library", "default", parts[0]}
	case 2:
		parts = []string{"library", parts[0], parts[1]}
	}
	if len(parts) != 3 || !tagName.MatchString(tag) || hexDigest.MatchString(tag) {
		return "", "", bad
	}
	for _, p := range parts {
		if len(p) > 64 || !namePart.MatchString(p) {
			return "", "", bad
		}
	}
	return strings.Join(parts, "/"), tag, nil
}

// mayWrite asks whether the caller may write to a container that is there, or
// make it.
func (s *Service) mayWrite(ctx context.Context, c auth.Caller, name string) error {
	entity, _, _ := strings.Cut(name, "/")
	o := auth.Object{Entity: entity}
	dir, _ := path.Split(name)
	var k api.Container
	var col api.Collection
	err := s.ask(ctx, c, http.MethodGet, "/v1/containers/"+name, nil, &k)
	switch {
	case err == nil:
		o.Within, o.Public = []string{k.Collection, k.ID}, !k.Private
	case !isMissing(err):
		return err
	default:
		err := s.ask(ctx, c, http.MethodGet, "/v1/collections/"+strings.TrimSuffix(dir, "/"), nil, &col)
		if err == nil {
			o.Within, o.Public = []string{col.ID}, !col.Private
		} else if !isMissing(err) {
			return err
		}
	}
	err = s.auth.Allow(ctx, c, auth.Write, o)
	if isMissing(err) { // the same for every name that is not theirs
		err = route.Errorf(http.StatusForbidden, "not allowed")
	}
	return err
}

// hasRoom refuses a build whose image cannot be stored: who is to store it has
// used up the quota already.
func (s *Service) hasRoom(ctx context.Context, c auth.Caller, name string) error {
	entity, _, _ := strings.Cut(name, "/")
	var e api.Entity
	err := s.ask(ctx, c, http.MethodGet, "/v1/entities/"+entity, nil, &e)
	switch {
	case isMissing(err):
		return nil
	case err != nil:
		return err
	case e.Quota > 0 && e.Size >= e.Quota:
		return route.Errorf(http.StatusInsufficientStorage, "the image of this build could not be stored: %d of %d bytes of the quota of %s are in use", e.Size, e.Quota, entity)
	}
	return nil
}

// enqueue writes the record, which is the promise that it will be built, and
// then puts a ticket into the queue. Without one, requeue makes it.
func (s *Service) enqueue(ctx context.Context, j *job) error {
	waiting, err := s.count(ctx, Queued)
	if err != nil {
		return err
	}
	if _, err := s.jobs.Insert(ctx, j.ID, *j); err != nil {
		return err
	}
	l := s.o.Limits
	s.say(ctx, j.ID, fmt.Sprintf("Build %s for %s: at most %s, %s of memory, %s of disk, %d processes\n", j.ID, j.Arch, l.Time, size(l.Memory), size(l.Disk), l.PIDs))
	s.say(ctx, j.ID, fmt.Sprintf("Queued: %d builds wait before this one\n", waiting))
	if err := s.ticket(ctx, j); err != nil {
		s.log.Warn("a build waits for the queue", "build", j.ID, "error", err.Error())
	}
	return nil
}

// ticket puts a ticket for a job into the queue, in place of the one that the
// record names.
func (s *Service) ticket(ctx context.Context, j *job) error {
	seq, err := s.queue.Push(ctx, queue.Ticket{ID: j.ID, User: j.User, Arch: j.Arch, Priority: j.Priority})
	if err != nil {
		return err
	}
	before := j.Ticket
	_, err = s.alter(ctx, j.ID, 0, func(now *job) error {
		if now.Ticket == seq {
			return nil // a worker has it already
		}
		if now.Ticket != before {
			return errOver
		}
		now.Ticket = seq
		return nil
	})
	if errors.Is(err, errOver) {
		return s.queue.Drop(ctx, seq) // another was faster
	}
	return err
}

// say adds a line of the service to the log. A log that lacks it stops no build.
func (s *Service) say(ctx context.Context, id, line string) {
	if _, err := s.queue.Append(ctx, id, -1, []byte(line)); err != nil {
		s.log.Warn("a line of a build's log is lost", "build", id, "error", err.Error())
	}
}

func size(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}

// escape makes a path of names that were checked.
func escape(name string) string { return (&url.URL{Path: name}).EscapedPath() }
