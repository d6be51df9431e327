package cli

import (
	"context"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/build"
	"singularity/fetch"
	"singularity/oci"
)

// secretVariables are those of ours that hold or name credentials.
var secretVariables = []string{"SINGULARITY_DOCKER_USERNAME", "SINGULARITY_DOCKER_PASSWORD", "SINGULARITY_AUTHFILE"}

// fromElsewhere lets a build begin with an image of a registry or a library.
func (f *buildFlags) fromElsewhere(ctx context.Context, log *action.Log, o *build.Options) {
	opts := f.remote
	opts.arch, opts.platform, opts.tmpDir = f.arch, f.platform, f.tmpDir
	asked := false
	ask := func(ref *fetch.Ref) error {
		if asked {
			return nil
		}
		asked = true
		return opts.ask(&cobra.Command{}, log, ref)
	}
	o.OpenImage = func(ctx context.Context, text string, p oci.Platform) (*oci.Image, error) {
		ref, err := fetch.Parse(text, nil)
		if err != nil {
			return nil, err
		}
		if ref.Kind != fetch.Docker {
			return nil, fmt.Errorf("cannot open %q: it is no image of a registry", text)
		}
		if err := ask(ref); err != nil {
			return nil, err
		}
		client, err := opts.registryClient(ctx, log)
		if err != nil {
			return nil, err
		}
		img, err := client.Image(ctx, ref.Repository(), ref.Tag(), ref.Digest, v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
		if err != nil {
			return nil, err
		}
		return oci.NewImage(img), nil
	}
	o.FetchImage = func(ctx context.Context, text string) (string, func(), error) {
		ref, err := fetch.Parse(text, nil)
		if err != nil {
			return "", nil, err
		}
		if err := ask(ref); err != nil {
			return "", nil, err
		}
		fetcher, err := opts.fetcher(ctx, log, newTransferBar(log))
		if err != nil {
			return "", nil, err
		}
		image, err := fetcher.Fetch(ctx, ref)
		if err != nil {
			return "", nil, err
		}
		return image.Path, func() { image.Close() }, nil
	}
}
