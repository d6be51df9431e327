package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/client/transfer"
	"singularity/fetch"
	"singularity/pgp"
	"singularity/sif"
	"singularity/sign"
)

type pullOptions struct {
	fetchOptions
	force, unsigned bool
	dir, name       string
}

// ociFlags are of OCI mode: refused, and not taken for something else.
var ociFlags = []string{"oci", "keep-layers", "with-cosign"}

var pullEnv = []flagEnv{{"dir", "PULLDIR", false}, {"dir", "PULLFOLDER", false}, {"name", "NAME", false}, {"force", "FORCE", false},
	{"arch", "PULL_ARCH", false}, {"arch", "ARCH", false}, {"allow-unsigned", "ALLOW_UNSIGNED", false}}

func newPullCommand(log *action.Log) *cobra.Command {
	var o pullOptions
	c := &cobra.Command{
		Use:   "pull [options] [output file] <URI>",
		Short: "Fetch an image into a file",
		Long: "Fetch an image from a registry, a library or the web into a file. Images of layers (docker://) are converted to SIF; a SIF (oras://, library://, shub://, https://) is kept as it is, " +
			"and its signatures are verified with the keys of this host.\n\nAn existing file is replaced only with --force, and no file is ever seen half written. A download that breaks off is resumed, " +
			"by a later pull too. Images come through the cache; see \"singularity help cache\".",
		Example: "  $ singularity pull docker://debian:12\n" +
			"  $ singularity pull tool.sif oras://registry.example.org/tools/tool:1.0\n" +
			"  $ singularity pull --arch arm64 library://lab/tools/tool",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(o.fromEnv(c), setFromEnv(c, pullEnv)); err != nil {
				return err
			}
			return explainFetch(pull(c, log, &o, args))
		},
	}
	o.addFlags(c)
	f := c.Flags()
	f.BoolVarP(&o.force, "force", "F", false, "replace the file if it exists")
	f.BoolVar(&o.disableCache, "disable-cache", false, "neither use nor make a cache")
	f.StringVar(&o.dir, "dir", "", "put the image into this `directory`")
	f.StringVar(&o.name, "name", "", "`name` of the file")
	f.MarkHidden("name")
	f.StringVar(&o.library, "library", "", "`URL` of the library")
	f.StringVar(&o.arch, "arch", "", "fetch the image for this `architecture`")
	f.StringVar(&o.platform, "platform", "", "fetch the image for this `platform`, such as linux/arm64/v8")
	f.BoolVarP(&o.unsigned, "allow-unsigned", "U", false, "take an image whose signature is bad")
	f.MarkDeprecated("allow-unsigned", "an image without a signature is taken with a warning; only one with a bad signature needs this")
	f.BoolVar(&o.unsigned, "allow-unauthenticated", false, "take an image whose signature is bad")
	f.MarkHidden("allow-unauthenticated")
	f.Bool("no-cleanup", false, "keep temporary files")
	f.MarkHidden("no-cleanup")
	f.Bool("no-oci", false, "make a SIF of images of layers, as is done anyway")
	f.MarkHidden("no-oci")
	for _, name := range ociFlags {
		f.Bool(name, false, "for OCI mode, which this version does not have")
		f.MarkHidden(name)
	}
	return c
}

// telling returns a context whose requests say on log that they wait for a server.
func telling(log *action.Log) context.Context {
	return transfer.Telling(context.Background(), log.Warning)
}

// interrupted returns a context that ends with the first signal to stop.
func interrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}

func pull(c *cobra.Command, log *action.Log, o *pullOptions, args []string) error {
	for _, name := range ociFlags {
		if on, _ := c.Flags().GetBool(name); on {
			return action.Fatal(fmt.Errorf("cannot use --%s: OCI mode is not part of this version", name), "without it, the image becomes a SIF")
		}
	}
	ref, err := fetch.Parse(args[len(args)-1], nil)
	if err != nil {
		return err
	}
	if ref.Kind == fetch.Path || ref.Kind == fetch.Instance {
		return action.Fatal(fmt.Errorf("cannot pull %q: it has no scheme", ref.Text), "a reference begins with library://, docker://, oras://, https:// or the like")
	}
	dst := o.target(ref, args)
	if err := o.free(dst); err != nil {
		return err
	}
	if err := o.ask(c, log, ref); err != nil {
		return err
	}
	if o.verbatim(ref) && (o.platform != "" || o.arch != "") {
		log.Warning("--arch and --platform have no effect on " + string(ref.Kind) + " images")
	}
	ctx, stop := interrupted(c.Context())
	defer stop()
	bar := newTransferBar(log)
	defer bar.clear()
	f, err := o.fetcher(ctx, log, bar)
	if err != nil {
		return err
	}
	umask := unix.Umask(0)
	unix.Umask(umask)
	_, err = f.Pull(ctx, ref, dst, o.force, fs.FileMode(0o755&^umask), func(path string) error {
		bar.clear()
		return o.verify(ctx, log, ref, path)
	})
	switch {
	case errors.Is(err, fs.ErrExist):
		return o.free(dst)
	case ctx.Err() != nil:
		return exitOne(errors.New("pull interrupted"))
	}
	return err
}

// verbatim tells whether a reference names one file for all platforms.
func (o *pullOptions) verbatim(r *fetch.Ref) bool {
	return r.Kind == fetch.HTTP || r.Kind == fetch.HTTPS || r.Kind == fetch.Shub
}

// target returns the path of the file to write.
func (o *pullOptions) target(r *fetch.Ref, args []string) string {
	name := o.name
	if len(args) == 2 {
		name = args[0]
	}
	if name == "" {
		name = r.FileName()
	}
	if o.dir != "" && !filepath.IsAbs(name) {
		name = filepath.Join(o.dir, name)
	}
	return name
}

// free checks that there is nothing at dst that would be lost.
func (o *pullOptions) free(dst string) error {
	fi, err := os.Lstat(dst)
	switch {
	case err == nil && fi.IsDir():
		return fmt.Errorf("cannot write %q: it is a directory", dst)
	case err == nil && !o.force:
		return action.Fatal(fmt.Errorf("Image file already exists: %q - will not overwrite", dst), "--force replaces it")
	}
	if _, err := os.Stat(filepath.Dir(dst)); err != nil {
		return fmt.Errorf("cannot write %q: %w", dst, err)
	}
	return nil
}

// ask asks for credentials if that is wanted.
func (o *fetchOptions) ask(c *cobra.Command, log *action.Log, r *fetch.Ref) error {
	if !o.dockerLogin {
		return nil
	}
	p := newPrompter(c)
	user, err := p.Line("Enter Docker Username: ")
	if err != nil {
		return err
	}
	secret, err := p.Secret("Enter Docker Password: ")
	o.username, o.password = user, string(secret)
	return err
}

// verify says who signed the image at path. One without a signature, or with
// that of a stranger, is taken with a warning; one that is not as it was signed
// is not.
func (o *pullOptions) verify(ctx context.Context, log *action.Log, ref *fetch.Ref, path string) error {
	switch ref.Kind {
	case fetch.Docker, fetch.OCI, fetch.OCIArchive, fetch.DockerArchive, fetch.DockerDaemon:
		return nil // made here a moment ago
	}
	r, size, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := sif.Open(r, size)
	if errors.Is(err, sif.ErrNotSIF) && o.verbatim(ref) {
		log.Warning("Skipping container verification: what came is not a SIF image")
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot use what came from %q: %w", ref.Text, err)
	}
	if have := f.Header().Arch; o.arch != "" && ref.Kind == fetch.ORAS && have != o.arch && have != sif.UnknownArch {
		return fmt.Errorf("cannot use what came from %q: it is for %s, not for %s", ref.Text, have, o.arch)
	}
	result, err := o.signatures(ctx, log, f)
	_, unknown := errors.AsType[*pgp.UnknownKeyError](err)
	switch {
	case err == nil:
		for _, s := range result.Signatures {
			log.Info(fmt.Sprintf("Signed by %s, fingerprint %s [%s]", oneLine(s.Key.UserID()), s.Key.Fingerprint(), s.Origin))
		}
	case errors.Is(err, sign.ErrNoSignature):
		log.Warning("Skipping container verification: the image is not signed")
	case unknown:
		log.Warning("Container signature could not be verified: " + err.Error())
	case o.unsigned:
		log.Warning("Container verification failed, image taken all the same: " + err.Error())
	default:
		return action.Fatal(fmt.Errorf("cannot use what came from %q: its signature is bad: %w", ref.Text, err), "--allow-unsigned takes it all the same")
	}
	return nil
}

func (o *pullOptions) signatures(ctx context.Context, log *action.Log, f *sif.File) (*sign.Result, error) {
	rings, err := verifyKeyrings(log)
	if err != nil {
		return nil, err
	}
	return sign.Verify(ctx, f, sign.Options{Keyrings: rings, Lookup: serversOfEnv().lookUp(ctx, log), Now: time.Now()})
}
