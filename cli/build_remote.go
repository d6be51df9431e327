package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/api"
	"singularity/build/deffile"
	"singularity/client/builder"
	"singularity/client/endpoint"
	"singularity/client/library"
	"singularity/client/transfer"
	"singularity/conf/registries"
	"singularity/conf/remote"
	"singularity/fetch"
)

// remoteBuild are the flags of a build elsewhere.
type remoteBuild struct {
	remote, detached bool
	builder          string
}

func (r *remoteBuild) add(f *pflag.FlagSet) {
	f.BoolVarP(&r.remote, "remote", "r", false, "let the remote endpoint build")
	f.StringVar(&r.builder, "builder", "", "let the builder at this `URL` build")
	f.BoolVarP(&r.detached, "detached", "d", false, "with --remote: do not wait for the end of the build")
}

func (r *remoteBuild) wanted() bool { return r.remote || r.builder != "" || r.detached }

// localFlags are those that a build elsewhere cannot have.
var localFlags = []string{"encrypt", "passphrase", "pem-path", "sign-key", "strip-metadata", "build-arg", "build-arg-file", "bind", "mount", "nv", "nvccli", "rocm", "authfile", "update", "fix-perms",
	"notest", "section", "writable-tmpfs", "compression", "mksquashfs-args", "cache-steps", "platform", "docker-host", "json", "files-root"}

// localOnly returns the first such flag on the command line.
func localOnly(c *cobra.Command) string {
	for _, name := range localFlags {
		if f := c.Flags().Lookup(name); f != nil && f.Changed {
			return name
		}
	}
	return ""
}

// remoteJob is one build elsewhere.
type remoteJob struct {
	log     *action.Log
	flags   *buildFlags
	client  *builder.Client
	library *library.Client
	front   string // address of the endpoint, for people
	target  string
}

// buildRemote builds on a remote builder.
func (f *buildFlags) buildRemote(log *action.Log, local, target, spec string) error {
	switch {
	case local != "":
		return action.Fatal(fmt.Errorf("cannot build remotely with --%s: the remote builder has no such option", local), "leave out --"+local+", or --remote")
	case f.builder.detached && f.sandbox:
		return errors.New("--detached and --sandbox exclude each other: a sandbox is made of the image that comes back")
	case f.builder.detached && !f.builder.remote && f.builder.builder == "":
		return errors.New("--detached needs --remote")
	}
	if err := f.refused.check(); err != nil {
		return err
	}
	ctx, stop := interrupted(telling(log))
	defer stop()
	j := &remoteJob{log: log, flags: f, target: target}
	if err := j.check(); err != nil {
		return err
	}
	text, patterns, err := readDefinition(spec)
	if err != nil {
		return err
	}
	if err := j.connect(ctx); err != nil {
		return err
	}
	return j.run(ctx, text, patterns)
}

func (j *remoteJob) toLibrary() bool { return strings.HasPrefix(j.target, "library:") }

// check refuses a target that could not be written, before hours of building.
func (j *remoteJob) check() error {
	if j.toLibrary() {
		if j.flags.sandbox {
			return errors.New("a library holds images, not sandboxes: leave out --sandbox")
		}
		_, err := fetch.Parse(j.target, nil)
		return err
	}
	if j.flags.builder.detached {
		return nil // the image stays there
	}
	if _, err := os.Lstat(j.target); err == nil && !j.flags.force {
		return action.Fatal(fmt.Errorf("%q exists already", j.target), "--force replaces it")
	}
	_, err := os.Stat(filepath.Dir(j.target))
	return err
}

// readDefinition returns the definition that spec names, and the patterns of
// files that it wants of this machine. An image elsewhere is a definition of two
// lines.
func readDefinition(spec string) ([]byte, []string, error) {
	agent, from, uri := strings.Cut(spec, ":")
	if _, err := os.Stat(spec); err != nil && uri {
		switch agent {
		case "docker", "library", "oras", "shub":
			return fmt.Appendf(nil, "bootstrap: %s\nfrom: %s\n", agent, strings.TrimPrefix(from, "//")), nil, nil
		}
	}
	info, err := os.Stat(spec)
	if err != nil {
		return nil, nil, err
	}
	notHere := action.Fatal(fmt.Errorf("cannot build %q remotely: it is an image of this machine", spec), "push it to the library, and let the definition begin with bootstrap: library")
	if !info.Mode().IsRegular() || info.Size() > deffile.MaxSize {
		return nil, nil, notHere
	}
	text, err := os.ReadFile(spec)
	if err != nil {
		return nil, nil, err
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, nil, notHere
	}
	d, err := deffile.Parse(spec, text, nil)
	if err != nil {
		return nil, nil, explainBuild(err)
	}
	var patterns []string
	for i := range d.Stages {
		if agent := strings.ToLower(d.Stages[i].Agent()); agent == "localimage" {
			return nil, nil, notHere
		}
		for _, set := range d.Stages[i].Files {
			if set.From == "" {
				patterns = appendSources(patterns, set.Copies)
			}
		}
		for _, a := range d.Stages[i].Apps {
			patterns = appendSources(patterns, a.Files)
		}
	}
	return text, patterns, nil
}

func appendSources(list []string, copies []deffile.Copy) []string {
	for _, c := range copies {
		list = append(list, c.Source)
	}
	return list
}

// connect finds the builder and the library. The token of the endpoint goes to
// its own services, and to no other that a flag names.
func (j *remoteJob) connect(ctx context.Context) error {
	config, _, err := registriesConf()
	if err != nil {
		return err
	}
	dir, err := action.ConfigDir(os.Getenv)
	if err != nil {
		return err
	}
	name, e, err := activeRemote(filepath.Join(dir, "remote.yaml"))
	if err != nil {
		return err
	}
	if e == nil {
		return action.Fatal(errors.New("cannot build remotely: no remote endpoint is in use"), "singularity remote add NAME ADDRESS, and singularity remote use NAME")
	}
	if e.Token == "" {
		return action.Fatal(fmt.Errorf("cannot build remotely: nobody is logged in to the remote %q", name), "singularity remote login "+name)
	}
	web, list, err := services(ctx, e)
	if err != nil {
		return err
	}
	base := list["builder"]
	if own := j.flags.builder.builder; own != "" {
		if !strings.Contains(own, "://") {
			own = "https://" + own
		}
		if !sameService(own, e, list) {
			return action.Fatal(fmt.Errorf("cannot build at %q: the remote %q has no such service, and its token is for its own alone", own, name), "singularity remote add, for the endpoint that this builder belongs to")
		}
		base = strings.TrimRight(own, "/")
	}
	if base == "" {
		return fmt.Errorf("the remote endpoint %q has no builder", name)
	}
	socket, err := socketTransport(config, e.Insecure)
	if err != nil {
		return err
	}
	if j.client, err = builder.New(base, e.Token, web, transfer.NewClient(socket)); err != nil {
		return err
	}
	j.client.TokenSource = fmt.Sprintf("the remote endpoint %q", name)
	j.front = e.URI
	if !strings.Contains(j.front, "://") {
		j.front = "https://" + j.front
	}
	if j.library, err = library.New(list["library"], e.Token, web); err != nil {
		return err
	}
	j.library.TokenSource = j.client.TokenSource
	return nil
}

// sameService tells whether an address is at a host of the endpoint.
func sameService(address string, e *remote.Endpoint, list endpoint.Services) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	for _, s := range []string{list["builder"], list["library"]} {
		if own, err := url.Parse(s); err == nil && s != "" && transfer.Origin(own) == transfer.Origin(u) {
			return true
		}
	}
	return false
}

// socketTransport connects for the log, which is a web socket.
func socketTransport(config *registries.File, plain bool) (http.RoundTripper, error) {
	return transfer.NewTransport(&transfer.Settings{Offline: config.Offline, Proxy: config.Proxy, Plain: plain, UserAgent: userAgent(), NoHTTP2: true, Again: true})
}

// run sends the build, follows it and fetches what it made.
func (j *remoteJob) run(ctx context.Context, text []byte, patterns []string) error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	arch := j.flags.arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	r := &api.BuildRequest{DefinitionRaw: text, BuilderRequirements: map[string]string{"arch": arch}, LibraryURL: j.library.Base, WorkingDir: cwd}
	if j.flags.remote.library != "" {
		r.LibraryURL = j.flags.remote.library
	}
	if j.toLibrary() {
		r.LibraryRef = j.target
	}
	if len(patterns) > 0 {
		if r.ContextDigest, err = j.send(ctx, cwd, patterns); err != nil {
			return err
		}
	}
	info, err := j.client.Submit(ctx, r)
	if err != nil {
		return fmt.Errorf("cannot build remotely: %w", err)
	}
	if j.flags.builder.detached {
		j.detached(info)
		return nil
	}
	j.log.Verbose("Build " + action.Printable(info.ID))
	if info, err = j.follow(ctx, info); err != nil {
		return err
	}
	if info.ImageSize <= 0 {
		return fmt.Errorf("the remote build failed: %s", action.Printable(cmp.Or(info.Reason, "see its log")))
	}
	if r.ContextDigest != "" {
		if err := j.client.Drop(ctx, r.ContextDigest); err != nil {
			j.log.Warning("The files of the build stay at the builder: " + err.Error())
		}
	}
	return j.fetch(ctx, info, arch)
}

// follow shows the log and returns what came of the build, which its status alone
// tells: a log that breaks off is no build that failed.
func (j *remoteJob) follow(ctx context.Context, info *api.BuildInfo) (*api.BuildInfo, error) {
	err := j.client.Follow(ctx, info.ID, logWriter())
	_, mine := errors.AsType[*builder.WriteError](err)
	if err != nil && ctx.Err() == nil && !mine {
		j.log.Warning("The build " + action.Printable(info.ID) + " goes on without its log: " + err.Error())
		err = nil
	}
	if err == nil {
		var end *api.BuildInfo
		if end, err = j.client.Wait(ctx, info.ID); err == nil {
			return end, nil
		}
	}
	return nil, j.broken(ctx, info, err)
}

// logWriter is where the log goes: as it is into a file or to another program.
func logWriter() io.Writer {
	if action.IsTerminal(int(os.Stdout.Fd())) {
		return &terminalLog{w: os.Stdout}
	}
	return os.Stdout
}

// send packs and sends the files of the definition.
func (j *remoteJob) send(ctx context.Context, cwd string, patterns []string) (string, error) {
	files, err := builder.Pack(ctx, tempDir(j.flags.tmpDir), cwd, patterns)
	if err != nil {
		return "", err
	}
	defer files.Close()
	j.log.Verbose(fmt.Sprintf("Sending %s of files", byteSize(files.Size)))
	if err := j.client.Send(ctx, files); err != nil {
		return "", fmt.Errorf("cannot send the files of the build: %w", err)
	}
	return files.Digest, nil
}

// detached says where the image will be.
func (j *remoteJob) detached(info *api.BuildInfo) {
	ref := action.Printable(info.LibraryRef)
	fmt.Printf("Build submitted! Once it is complete, the image can be retrieved by running:\n\tsingularity pull --library %s %s\n\n", action.Printable(info.LibraryURL), ref)
	fmt.Printf("Alternatively, you can access it from a browser at:\n\t%s/library/%s\n", strings.TrimRight(j.front, "/"), strings.TrimPrefix(ref, "library://"))
	j.log.Info("Build " + action.Printable(info.ID) + " goes on")
}

// broken is for a build that is not followed to its end: after Ctrl-C it is
// cancelled, else it goes on.
func (j *remoteJob) broken(ctx context.Context, info *api.BuildInfo, err error) error {
	id := info.ID
	if ctx.Err() == nil {
		return action.Fatal(fmt.Errorf("cannot follow the build %s, which goes on: %w", action.Printable(id), err), "when it is complete: singularity pull "+action.Printable(info.LibraryRef))
	}
	stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := j.client.Cancel(stop, id); err != nil {
		return fmt.Errorf("cannot cancel the build %s: %w", action.Printable(id), err)
	}
	return exitOne(errors.New("remote build cancelled"))
}

// fetch gets the image, unless it stays in the library.
func (j *remoteJob) fetch(ctx context.Context, info *api.BuildInfo, arch string) error {
	if j.toLibrary() {
		j.log.Info("Build complete: " + action.Printable(info.LibraryRef))
		return nil
	}
	ref, err := fetch.Parse(info.LibraryRef, nil)
	if err != nil || ref.Kind != fetch.Library {
		return fmt.Errorf("the builder names no image of a library: %q", info.LibraryRef)
	}
	if strings.TrimRight(info.LibraryURL, "/") != j.library.Base {
		// Security: the token is not for a library that an answer names.
		return fmt.Errorf("the image is in the library %q, which is not that of the remote endpoint: fetch it yourself", info.LibraryURL)
	}
	to := j.target
	if j.flags.sandbox {
		f, err := os.CreateTemp(tempDir(j.flags.tmpDir), "remote-*.sif")
		if err != nil {
			return err
		}
		f.Close()
		defer os.Remove(f.Name())
		to = f.Name()
	}
	opts := j.flags.remote
	opts.arch, opts.library = arch, ""
	bar := newTransferBar(j.log)
	fetcher, err := opts.fetcher(ctx, j.log, bar)
	if err != nil {
		return err
	}
	fetcher.Library = func(context.Context, string) (*library.Client, error) { return j.library, nil }
	umask := unix.Umask(0)
	unix.Umask(umask)
	_, err = fetcher.Pull(ctx, ref, to, j.flags.force || j.flags.sandbox, fs.FileMode(0o755&^umask), func(string) error { bar.clear(); return nil })
	if err != nil {
		return fmt.Errorf("the build is complete, and its image cannot be fetched: %w", err)
	}
	if j.flags.sandbox {
		return j.unpack(to)
	}
	j.log.Info("Build complete: " + j.target)
	return nil
}

// unpack makes a sandbox of the image, as a build on this host.
func (j *remoteJob) unpack(image string) error {
	argv := []string{os.Args[0], "build", "--sandbox", j.target, image}
	if j.flags.force {
		argv = append(argv[:3:3], "--force", j.target, image)
	}
	for _, name := range []string{"REMOTE", "BUILDER", "DETACHED"} {
		os.Unsetenv("SINGULARITY_" + name)
	}
	status, err := asRoot(j.log, argv)
	if err != nil {
		return err
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}
