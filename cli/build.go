package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/build"
	"singularity/build/deffile"
	"singularity/build/source"
	"singularity/conf"
	"singularity/host"
	"singularity/oci"
	"singularity/pgp"
	"singularity/plan"
)

// buildFlags are the flags of build.
type buildFlags struct {
	sandbox, update, force, noTest, sbom, noSBOM, fixPerms, noCleanup, fakeroot, noSetgroups bool

	json, cacheSteps, nv, nvccli, rocm bool

	sections, binds, mounts, args, argFiles []string

	arch, platform, compression, squashfsArgs, tmpDir, writableTmpfs, stepsSize string

	encrypt, passphrase, strip bool
	pemPath, signKey           string
	asked                      []byte // the passphrase of --passphrase

	filesRoot, filesDir string // where %files are that came from another machine

	remote  fetchOptions
	builder remoteBuild
	refused refusedFlags
}

// buildEnv are the keys of environment variables for flags of build.
var buildEnv = []flagEnv{
	{"sandbox", "SANDBOX", false}, {"section", "SECTION", false}, {"update", "UPDATE", false}, {"force", "FORCE", false},
	{"notest", "NOTEST", false}, {"fakeroot", "FAKEROOT", false}, {"fix-perms", "FIXPERMS", false}, {"no-cleanup", "NO_CLEANUP", false},
	{"bind", "BIND", true}, {"bind", "BINDPATH", true}, {"mount", "MOUNT", true},
	{"json", "JSON", false}, {"cache-steps", "CACHE_STEPS", false}, {"cache-steps-size", "CACHE_STEPS_SIZE", false},
	{"arch", "BUILD_ARCH", false}, {"nv", "NV", false}, {"nvccli", "NVCCLI", false}, {"rocm", "ROCM", false}, {"writable-tmpfs", "WRITABLE_TMPFS", false},
	{"no-setgroups", "NO_SETGROUPS", false}, {"mksquashfs-args", "MKSQUASHFS_ARGS", false}, {"tmpdir", "TMPDIR", false}, {"compression", "COMPRESSION", false},
}

func newBuildCommand(log *action.Log, run build.Runner) *cobra.Command {
	var o buildFlags
	c := &cobra.Command{
		Use:   "build [options] <target> <spec>",
		Short: "Build an image",
		Long: "Build an image from a definition file, or from another image: a SIF, squashfs or ext3 file, a sandbox directory, or a container image of docker save (docker-archive:FILE), of an OCI layout (oci:DIR[:TAG], oci-archive:FILE[:TAG]), of a Docker daemon (docker-daemon:NAME:TAG) or of a registry (docker://NAME:TAG); or a SIF elsewhere (oras://, library://, shub://). The target is a SIF file, or a directory with --sandbox." +
			"\n\nAnybody can build. Who is not root becomes root of a user namespace; with subordinate ids (see /etc/subuid) files keep their owners, without any all files belong to root." +
			"\n\n%pre and %setup of a definition file run on this host, with the rights of who builds. Read a stranger's definition first." +
			"\n\nWith --remote a remote endpoint builds, and sends the image back, or keeps it in its library if the target is library://ENTITY/COLLECTION/CONTAINER[:TAG]. Ctrl-C cancels the build there; with --detached it goes on by itself.",
		Example: "  $ singularity build debian.sif debian.def\n" +
			"  $ singularity build --sandbox work/ debian.sif\n" +
			"  $ singularity build final.sif work/\n" +
			"  $ singularity build --remote library://ada/tools/debian:12 debian.def",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			local := localOnly(c)
			if err := errors.Join(setFromEnv(c, slices.Concat(buildEnv, refusedEnv)), o.remote.fromEnv(c)); err != nil {
				return err
			}
			if o.builder.wanted() {
				return o.buildRemote(log, local, args[0], args[1])
			}
			if !o.json {
				return runBuild(log, run, &o, nil, args[0], args[1])
			}
			e := newEvents(c.OutOrStdout())
			return e.end(args[0], runBuild(log, run, &o, e, args[0], args[1]))
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&o.binds, "bind", "B", nil, "mount a path of the host for %post and %test: `spec` is src[:dest[:opts]]")
	f.StringArrayVar(&o.args, "build-arg", nil, "set a template variable: `NAME=value`")
	f.StringArrayVar(&o.argFiles, "build-arg-file", nil, "read template variables from `file`, one NAME=value a line")
	f.StringVar(&o.arch, "arch", "", "build for an `architecture` such as arm64: on a remote builder, of an image of several, or emulated")
	f.BoolVar(&o.cacheSteps, "cache-steps", false, "keep what each step of a definition gave, and use what an earlier build kept")
	f.StringVar(&o.stepsSize, "cache-steps-size", "20g", "let kept steps take so many `bytes`; the ones used longest ago go first")
	f.StringVar(&o.compression, "compression", "gzip", "compressor of the image: "+strings.Join(build.Compressions(), ", "))
	f.BoolVarP(&o.fakeroot, "fakeroot", "f", false, "build as root of a user namespace; always so for users other than root")
	f.BoolVarP(&o.encrypt, "encrypt", "e", false, "encrypt the root file system, with the key of --passphrase, --pem-path or the environment")
	f.BoolVar(&o.passphrase, "passphrase", false, "encrypt the root file system with a passphrase, and ask for it")
	f.StringVar(&o.pemPath, "pem-path", "", "encrypt the root file system for the RSA public key in `file`")
	f.BoolVar(&o.strip, "strip-metadata", false, "leave out the definition and labels that would be readable beside an encrypted root file system")
	f.BoolVar(&o.fixPerms, "fix-perms", false, "give the owner read and write access to every file of the image")
	f.BoolVarP(&o.force, "force", "F", false, "replace the target if it exists, and labels and help of a base image")
	f.BoolVar(&o.json, "json", false, "write what happens to standard output, as a JSON object a line; output of scripts goes to standard error")
	f.StringVar(&o.squashfsArgs, "mksquashfs-args", "", "choose compressor and block size by `arguments` of mksquashfs")
	f.StringArrayVar(&o.mounts, "mount", nil, "mount for %post and %test: `spec` is type=bind,src=PATH,dst=PATH[,ro]")
	f.BoolVar(&o.noCleanup, "no-cleanup", false, "keep the temporary directory")
	f.BoolVar(&o.noSBOM, "no-sbom", false, "do not list the packages of the image in it")
	f.BoolVarP(&o.noTest, "notest", "T", false, "do not run %test")
	f.StringVar(&o.platform, "platform", "", "the same as --arch for a `platform` such as linux/arm/v7")
	f.BoolVar(&o.nv, "nv", false, "show the NVIDIA driver to %post and %test")
	f.BoolVar(&o.nvccli, "nvccli", false, "as --nv")
	f.BoolVar(&o.rocm, "rocm", false, "show the AMD driver to %post and %test")
	f.BoolVar(&o.sbom, "sbom", false, "list the packages in clear beside an encrypted root, too")
	f.StringVar(&o.signKey, "sign-key", "", "sign the image and its provenance: `key` is a file with a private key, or a fingerprint of the secret keyring")
	f.BoolVarP(&o.sandbox, "sandbox", "s", false, "make a directory instead of a SIF file")
	f.StringSliceVar(&o.sections, "section", nil, "build only the sections of this `list`, such as setup,post,files; all or none")
	f.StringVar(&o.tmpDir, "tmpdir", "", "work in a temporary directory below `dir`")
	o.remote.addCredentialFlags(c)
	f.StringVar(&o.remote.dockerHost, "docker-host", "", "`address` of the Docker daemon")
	f.BoolVar(&o.remote.disableCache, "disable-cache", false, "neither use nor make a cache")
	f.StringVar(&o.remote.library, "library", "", "`URL` of the library")
	f.BoolVarP(&o.update, "update", "u", false, "apply the definition to the sandbox that exists")
	f.StringVar(&o.writableTmpfs, "writable-tmpfs", "", "let %test write, to memory of that `size` (64m)")
	f.Lookup("writable-tmpfs").NoOptDefVal = "true"
	f.BoolVar(&o.noSetgroups, "no-setgroups", false, "accepted; groups are kept in any case")
	f.Lookup("no-setgroups").Hidden = true
	o.builder.add(f)
	f.StringVar(&o.filesRoot, "files-root", "", "take what %files names from below `dir`")
	f.StringVar(&o.filesDir, "files-dir", "", "the `path` below --files-root that names are relative to")
	f.Lookup("files-root").Hidden, f.Lookup("files-dir").Hidden = true, true // for the builder of a server
	o.refused.add(f)
	return c
}

// runBuild builds, in a process of its own that is root. Options are looked at
// before, for errors to appear at once.
func runBuild(log *action.Log, run build.Runner, f *buildFlags, e *events, target, spec string) error {
	o, err := f.options(log, target, spec)
	if err != nil {
		return err
	}
	var inside bool
	if o.Owners, o.Umask, inside = rootKind(); !inside {
		mask := syscall.Umask(0o022)
		syscall.Umask(mask)
		status, err := asRoot(log, os.Args)
		if err == nil {
			return exitStatus(status)
		}
		if os.Getuid() == 0 || !o.NeedsNoRoot() {
			return err
		}
		log.Verbose("Building as an ordinary user: " + err.Error())
		o.Owners, o.Umask = build.SingleID, uint32(mask)
	}
	if path := os.Getenv(removeVariable); path != "" {
		return build.RemoveAbandoned(path)
	}
	if err := errors.Join(f.seal(log, o), f.sign(log, o)); err != nil {
		return err
	}
	debug.SetGCPercent(50) // most of the memory is the tree of the image, which stays
	parent := openLink()
	bar := newProgress(log, action.IsTerminal(2))
	ctx, stop := buildContext(telling(log), parent)
	defer stop()
	f.fromElsewhere(ctx, log, o)
	bar.events = e
	o.Run, o.Log, o.Progress, o.Confirm = run, bar, bar.show, confirm
	o.Stdin, o.Stdout, o.Stderr = os.Stdin, os.Stdout, os.Stderr
	if e != nil {
		o.Stdout = os.Stderr
	}
	o.Verify = verifyBase(log)
	if o.Drivers, err = f.drivers(log); err != nil {
		return err
	}
	// Variables of our own are nobody else's business.
	o.Env, o.Temporary = without(os.Environ(), slices.Concat(secretVariables, action.KeyVariables(), ownVariables)...), report(parent)
	err = build.Build(ctx, *o)
	bar.clear()
	return explainBuild(err)
}

// options turns flags into what package build takes.
func (f *buildFlags) options(log *action.Log, target, spec string) (*build.Options, error) {
	if _, _, layers := oci.Split(spec); f.arch != "" && f.arch != runtime.GOARCH && !layers && !strings.HasPrefix(spec, "docker:") && !emulated(f.arch) {
		return nil, fmt.Errorf("cannot build for %q: programs of the image run during the build, and this host is %s", f.arch, runtime.GOARCH)
	}
	if f.update && !f.sandbox {
		return nil, errors.New("--update needs --sandbox: only a sandbox can be changed")
	}
	if err := f.refused.check(); err != nil {
		return nil, err
	}
	o := &build.Options{
		Target: target, Spec: spec, Sandbox: f.sandbox, Force: f.force, Update: f.update, NoTest: f.noTest, FixPerms: f.fixPerms,
		Keep: f.noCleanup, Sections: f.sections, Compression: f.compression, TempDir: f.tmpDir, Version: conf.Version,
		Arch: f.arch, Platform: f.platform, DockerHost: f.remote.dockerHost, FilesRoot: f.filesRoot, FilesDir: f.filesDir,
	}
	if f.sbom && (f.noSBOM || f.strip) {
		return nil, errors.New("--sbom excludes --no-sbom and --strip-metadata")
	}
	// Security: the list tells what the encryption hides, down to versions with known
	// faults. So it needs to be asked for.
	if !f.noSBOM && (!f.encrypts() || f.sbom) {
		o.Catalog = catalogSelf
	}
	if err := errors.Join(f.checkEncryption(), f.checkSigning()); err != nil {
		return nil, err
	}
	var err error
	if o.Args, err = f.variables(log); err != nil {
		return nil, err
	}
	if o.Binds, err = f.bindSpecs(); err != nil {
		return nil, err
	}
	if err := f.steps(o); err != nil {
		return nil, err
	}
	if f.squashfsArgs != "" {
		compression, squashfs, notes, err := build.MksquashfsArgs(f.squashfsArgs)
		if err != nil {
			return nil, err
		}
		if o.Squashfs = squashfs; compression != "" {
			o.Compression = compression
		}
		for _, n := range notes {
			log.Verbose(n)
		}
	}
	if err := siteSquashfs(&o.Squashfs); err != nil {
		return nil, err
	}
	on, size, err := plan.ParseTmpfs(f.writableTmpfs)
	if on && size == 0 {
		size = testTmpfsSize
	}
	o.TestTmpfs = size
	return o, err
}

// testTmpfsSize is how much %test may write with --writable-tmpfs alone.
const testTmpfsSize = 64 << 20

// bindSpecs reads --bind and --mount.
func (f *buildFlags) bindSpecs() ([]build.Bind, error) {
	var list []build.Bind
	add := func(specs []string, parse func(string) ([]plan.Bind, error)) error {
		for _, spec := range specs {
			binds, err := parse(spec)
			if err != nil {
				return err
			}
			for _, b := range binds {
				if b.ImageSource != "" || b.ID != 0 {
					return fmt.Errorf("cannot use bind %q: a build mounts files and directories only", spec)
				}
				list = append(list, build.Bind{Source: b.Source, Dest: b.Dest, ReadOnly: b.ReadOnly})
			}
		}
		return nil
	}
	err := add(f.binds, plan.ParseBinds)
	if err == nil {
		err = add(f.mounts, plan.ParseMounts)
	}
	return list, err
}

// steps says where the results of steps are kept.
func (f *buildFlags) steps(o *build.Options) error {
	if !f.cacheSteps || f.remote.disableCache {
		return nil
	}
	_, size, err := plan.ParseTmpfs(f.stepsSize)
	if err != nil || size == 0 {
		return fmt.Errorf("cannot use --cache-steps-size %q: want a size such as 512m or 20g", f.stepsSize)
	}
	dir := os.Getenv("SINGULARITY_CACHEDIR")
	if dir == "" {
		if dir, err = action.ConfigDir(os.Getenv); err != nil {
			return err
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	o.StepCache, o.StepLimit = filepath.Join(dir, "cache", "step"), size
	return nil
}

// variables collects the template variables: those of the command line win
// over those of files, later ones over earlier ones.
func (f *buildFlags) variables(log *action.Log) (map[string]string, error) {
	vars := map[string]string{}
	for _, name := range f.argFiles {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read build variables: %w", err)
		}
		data, err := io.ReadAll(io.LimitReader(file, deffile.MaxSize+1))
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot read build variables: %w", err)
		}
		values, warnings, err := deffile.ParseArguments(name, data)
		if err != nil {
			return nil, err
		}
		if _, _, inside := rootKind(); inside { // once is enough
			for _, w := range warnings {
				log.Warning(w)
			}
		}
		for k, v := range values {
			vars[k] = v
		}
	}
	for _, s := range f.args {
		k, v, err := deffile.ParseArgument(s)
		if err != nil {
			return nil, err
		}
		vars[k] = v
	}
	return vars, nil
}

// confirm asks the person at the terminal; no terminal means no.
func confirm(question string) bool {
	if !action.IsTerminal(0) || !action.IsTerminal(2) {
		return false
	}
	io.WriteString(os.Stderr, action.Printable(question)+" [y/N] ")
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err == nil && strings.EqualFold(strings.TrimSpace(line), "y")
}

// explainBuild adds to an error of package build what to do about it.
func explainBuild(err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	if e, ok := errors.AsType[*pgp.UnknownKeyError](err); ok {
		hint = fmt.Sprintf("get the public key with id %016X from its owner, then: singularity key import FILE", e.ID)
	}
	if e, ok := errors.AsType[*deffile.Error](err); ok {
		hint = e.Hint
	}
	if e, ok := errors.AsType[*source.MissingToolError](err); ok {
		hint = "install it, on Debian and Ubuntu with: apt-get install " + e.Package
	}
	_, ran := errors.AsType[*build.ExitError](err)
	if e, ok := errors.AsType[*build.ScriptError](err); ok && ran && e.Section != "test" {
		hint = "the last command that the script shows above is the one that failed"
	}
	if errors.Is(err, fs.ErrPermission) {
		return err // the general hint fits
	}
	if e, ok := errors.AsType[*host.SpaceError](err); ok {
		hint = spaceCure(e)
	}
	if errors.Is(err, context.Canceled) {
		return exitOne(errors.New("build interrupted"))
	}
	if hint == "" {
		return explainFetch(err)
	}
	return action.Fatal(err, hint)
}

// spaceCure says where to get the space that is missing.
func spaceCure(e *host.SpaceError) string {
	if root, err := cacheRoot(); err == nil && strings.HasPrefix(e.Dir+"/", root+"/") {
		e.Use = host.Cached // the target of a build that converts
	}
	switch {
	case e.Limit:
		return "ulimit -f shows the limit and sets it"
	case e.Use == host.Temporary:
		return "choose a directory with more space by --tmpdir or SINGULARITY_TMPDIR"
	case e.Use == host.Cached:
		return "make space with singularity cache clean, let SINGULARITY_CACHEDIR name another place, or go without by --disable-cache"
	}
	return "free some space there"
}

// exitStatus is the status of a process that has told the user everything.
type exitStatus int

func (s exitStatus) Error() string { return "exit status " + strconv.Itoa(int(s)) }
