package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/client/library"
	"singularity/fetch"
	"singularity/fetch/recent"
	"singularity/oci"
	"singularity/oci/registry"
	"singularity/sif"
	"singularity/sign"
)

type pushOptions struct {
	fetchOptions
	unsigned    bool
	description string
	layerFormat string
}

func newPushCommand(log *action.Log) *cobra.Command {
	var o pushOptions
	c := &cobra.Command{
		Use:   "push [options] <image> <URI>",
		Short: "Store an image in a registry or library",
		Long: "Store a SIF image in a registry (oras://) or a library (library://), or an image of layers (docker-archive:, oci-archive:, oci:, docker-daemon:) in a registry (docker://). What is there already is not sent again, and an upload that breaks off goes on where it stopped." +
			"\n\nSIF images for several architectures can share a tag of a registry: a push replaces the one for its own architecture and keeps the others, and who pulls gets the one that fits, or the one of --arch." +
			"\n\nA library gets signed images only, unless --allow-unsigned is given; it needs a token, which comes from the active remote endpoint.",
		Example: "  $ singularity push tool.sif oras://registry.example.org/tools/tool:1.0\n" +
			"  $ singularity push oci-archive:tool.tar docker://registry.example.org/tool:1.0\n" +
			"  $ singularity push tool.sif library://lab/tools/tool:1.0,latest",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(o.fromEnv(c), setFromEnv(c, []flagEnv{{"allow-unsigned", "ALLOW_UNSIGNED", false}, {"layer-format", "LAYER_FORMAT", false}})); err != nil {
				return err
			}
			return explainFetch(push(c, log, &o, args[0], args[1]))
		},
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.library, "library", "", "`URL` of the library")
	f.BoolVarP(&o.unsigned, "allow-unsigned", "U", false, "let a library have an image without a good signature")
	f.StringVar(&o.arch, "arch", "", "push the image for this `architecture`, out of several")
	f.StringVar(&o.platform, "platform", "", "push the image for this `platform`, out of several")
	f.StringVar(&o.layerFormat, "layer-format", "tar", "`form` of the layers of an OCI-SIF; others are pushed as they are")
	f.Bool("with-cosign", false, "for OCI-SIF images, which this version does not have")
	f.MarkHidden("layer-format")
	f.MarkHidden("with-cosign")
	f.StringVarP(&o.description, "description", "D", "", "`text` about the image, for a library")
	return c
}

func push(c *cobra.Command, log *action.Log, o *pushOptions, path, uri string) error {
	ref, err := fetch.Parse(uri, nil)
	if err != nil {
		return err
	}
	if err := o.check(c, ref, path); err != nil {
		return err
	}
	if err := o.ask(c, log, ref); err != nil {
		return err
	}
	ctx, stop := interrupted(c.Context())
	defer stop()
	bar := newTransferBar(log)
	defer bar.clear()
	if ref.Kind == fetch.Docker {
		err = o.layers(ctx, log, ref, path, bar)
	} else {
		err = o.sif(ctx, log, ref, path, bar)
	}
	bar.clear()
	if ctx.Err() != nil {
		return exitOne(errors.New("push interrupted"))
	}
	if err != nil {
		return err
	}
	// A start must not take the image that the tag named before.
	if root, err := cacheRoot(); err == nil {
		recent.Forget(root, uri)
	}
	log.Info("Upload complete")
	return nil
}

// check refuses what goes nowhere.
func (o *pushOptions) check(c *cobra.Command, ref *fetch.Ref, path string) error {
	if on, _ := c.Flags().GetBool("with-cosign"); on || o.layerFormat != "tar" {
		return errors.New("cannot use --with-cosign and --layer-format: they are for OCI-SIF images, which are not part of this version")
	}
	from, err := fetch.Parse(path, fetch.Exists)
	switch {
	case err != nil:
		return err
	case ref.Kind != fetch.ORAS && ref.Kind != fetch.Library && ref.Kind != fetch.Docker:
		return fmt.Errorf("cannot push to %q: docker://, oras:// or library:// is wanted", ref.Text)
	case ref.Digest != "":
		return fmt.Errorf("cannot push to %q: a digest cannot be chosen, only a tag", ref.Text)
	case from.Kind != fetch.Path && !from.Here():
		return action.Fatal(fmt.Errorf("cannot push %q: it is not on this host", path), "pull it first")
	case from.Here() && ref.Kind != fetch.Docker:
		return action.Fatal(fmt.Errorf("cannot push %q to %q: it is an image of layers, and only SIF images go there", path, ref.Text), "make a SIF of it with singularity build, or push it to docker://")
	case !from.Here() && ref.Kind == fetch.Docker:
		return action.Fatal(fmt.Errorf("cannot push %q to %q: only images of layers go there", path, ref.Text), "oras:// stores a SIF in the same registry")
	case !from.Here() && (o.arch != "" || o.platform != ""):
		return errors.New("--arch and --platform choose one image out of several, and a SIF is one")
	}
	return nil
}

// layers pushes an image of layers to a registry.
func (o *pushOptions) layers(ctx context.Context, log *action.Log, ref *fetch.Ref, from string, bar *transferBar) error {
	p, err := oci.ParsePlatform(o.arch, o.platform)
	if err != nil {
		return err
	}
	img, err := oci.Open(ctx, from, oci.Options{Platform: &p, DockerHost: o.dockerHost, TempDir: o.temporary(), Getenv: os.Getenv})
	if err != nil {
		return err
	}
	defer img.Close()
	client, err := o.registryClient(ctx, log)
	if err != nil {
		return err
	}
	push, err := client.Push(ctx, ref.Repository(), ref.Tag())
	if err != nil {
		return err
	}
	digest, err := fetch.PushLayers(ctx, push, img, o.temporary(), bar.each)
	if err == nil {
		bar.clear()
		log.Info("Digest of the manifest: " + digest)
	}
	return err
}

// sif pushes a SIF image to a registry or a library.
func (o *pushOptions) sif(ctx context.Context, log *action.Log, ref *fetch.Ref, path string, bar *transferBar) error {
	r, size, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := sif.Open(r, size)
	if err != nil {
		return fmt.Errorf("cannot push %q: %w", path, err)
	}
	if ref.Kind == fetch.ORAS {
		return o.toRegistry(ctx, log, ref, f, r, size, path, bar)
	}
	return o.toLibrary(ctx, log, ref, f, r, size, path, bar)
}

func (o *pushOptions) toRegistry(ctx context.Context, log *action.Log, ref *fetch.Ref, f *sif.File, r io.ReaderAt, size int64, path string, bar *transferBar) error {
	client, err := o.registryClient(ctx, log)
	if err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
		return err
	}
	push, err := client.Push(ctx, ref.Repository(), ref.Tag())
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	i := registry.NewSIF{SIF: registry.SIF{Digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), Size: size}, Arch: f.Header().Arch, Title: name}
	digest, archs, err := push.PushSIF(ctx, r, i, bar.each(name))
	if err != nil {
		return err
	}
	bar.clear()
	log.Info("Digest of the manifest: " + digest)
	if len(archs) > 1 {
		log.Info("The tag holds images for " + strings.Join(archs, ", "))
	}
	return nil
}

func (o *pushOptions) toLibrary(ctx context.Context, log *action.Log, ref *fetch.Ref, f *sif.File, r io.ReaderAt, size int64, path string, bar *transferBar) error {
	if !o.unsigned {
		if err := signed(ctx, log, f, path); err != nil {
			return err
		}
	}
	arch := f.Header().Arch
	config, _, err := registriesConf()
	if err != nil {
		return err
	}
	client, err := o.libraryClient(ctx, config, ref.Host)
	if err != nil {
		return err
	}
	tags := ref.Tags
	if len(tags) == 0 {
		tags = []string{"latest"}
	}
	done, err := client.Push(ctx, r, &library.Push{Name: ref.Name, Tags: tags, Arch: arch, Description: o.description, Size: size, Progress: bar.each(filepath.Base(path))})
	if errors.Is(err, library.ErrNoToken) {
		return action.Fatal(errors.New("Cannot push image to library: no authentication token, log in with singularity remote login"), "a token belongs to a remote endpoint; --library and a host in the reference have none")
	}
	if err != nil {
		return fmt.Errorf("cannot push to %q: %w", ref.Text, err)
	}
	bar.clear()
	if done.ContainerURL != "" {
		log.Info("Container URL: " + done.ContainerURL)
		if q := done.Quota; q.Total > 0 {
			log.Info(fmt.Sprintf("Quota: %s of %s used", byteSize(q.Usage), byteSize(q.Total)))
		}
	}
	return nil
}

// signed checks that the image has good signatures.
func signed(ctx context.Context, log *action.Log, f *sif.File, path string) error {
	rings, err := verifyKeyrings(log)
	if err == nil {
		_, err = sign.Verify(ctx, f, sign.Options{Keyrings: rings, Lookup: serversOfEnv().lookUp(ctx, log), Now: time.Now()})
	}
	if err != nil {
		return action.Fatal(fmt.Errorf("cannot push %q: its signature cannot be verified: %w", path, err), "sign it with singularity sign, or push it with --allow-unsigned")
	}
	return nil
}

// oneTag returns the one tag of a reference.
func oneTag(r *fetch.Ref) (string, error) {
	if len(r.Tags) > 1 {
		return "", fmt.Errorf("cannot use %q: name one tag, not %s", r.Text, strings.Join(r.Tags, ", "))
	}
	return r.Tag(), nil
}
