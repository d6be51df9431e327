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
	"singularity/oci/registry"
	"singularity/sif"
	"singularity/sign"
)

type pushOptions struct {
	fetchOptions
	unsigned    bool
	description string
}

func newPushCommand(log *action.Log) *cobra.Command {
	var o pushOptions
	c := &cobra.Command{
		Use:   "push [options] <image> <URI>",
		Short: "Store an image in a registry or library",
		Long: "Store a SIF image in a registry (oras://) or a library (library://). What is there already is not sent again, and an upload that breaks off goes on where it stopped." +
			"\n\nA library gets signed images only, unless --allow-unsigned is given; it needs a token, which comes from the active remote endpoint.",
		Example: "  $ singularity push tool.sif oras://registry.example.org/tools/tool:1.0\n" +
			"  $ singularity push tool.sif library://lab/tools/tool:1.0,latest",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(o.fromEnv(c), setFromEnv(c, []flagEnv{{"allow-unsigned", "ALLOW_UNSIGNED", false}})); err != nil {
				return err
			}
			return explainFetch(push(c, log, &o, args[0], args[1]))
		},
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.library, "library", "", "`URL` of the library")
	f.BoolVarP(&o.unsigned, "allow-unsigned", "U", false, "let a library have an image without a good signature")
	f.StringVarP(&o.description, "description", "D", "", "`text` about the image, for a library")
	return c
}

func push(c *cobra.Command, log *action.Log, o *pushOptions, path, uri string) error {
	ref, err := fetch.Parse(uri, nil)
	if err != nil {
		return err
	}
	if ref.Kind == fetch.Docker {
		return action.Fatal(fmt.Errorf("cannot push %q to %q: only OCI-SIF images go there", path, uri), "oras:// stores a SIF in the same registry")
	}
	if ref.Kind != fetch.ORAS && ref.Kind != fetch.Library {
		return fmt.Errorf("cannot push to %q: oras:// or library:// is wanted", uri)
	}
	if ref.Digest != "" {
		return fmt.Errorf("cannot push to %q: a digest cannot be chosen, only a tag", uri)
	}
	r, size, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := sif.Open(r, size)
	if err != nil {
		return fmt.Errorf("cannot push %q: %w", path, err)
	}
	if err := o.ask(c, log, ref); err != nil {
		return err
	}
	ctx, stop := interrupted()
	defer stop()
	bar := newTransferBar(log)
	defer bar.clear()
	if ref.Kind == fetch.ORAS {
		err = o.toRegistry(ctx, log, ref, r, size, path, bar)
	} else {
		err = o.toLibrary(ctx, log, ref, f, r, size, path, bar)
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

func (o *pushOptions) toRegistry(ctx context.Context, log *action.Log, ref *fetch.Ref, r io.ReaderAt, size int64, path string, bar *transferBar) error {
	client, err := o.registryClient(ctx, log)
	if err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
		return err
	}
	d := registry.SIF{Digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), Size: size}
	digest, err := client.PushSIF(ctx, ref.Repository(), ref.Tag(), r, d, filepath.Base(path), bar.each(filepath.Base(path)))
	if err == nil {
		log.Info("Digest of the manifest: " + digest)
	}
	return err
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
