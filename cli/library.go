package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/api"
	"singularity/fetch"
	"singularity/fetch/recent"
)

type deleteOptions struct {
	fetchOptions
	force   bool
	timeout int
}

func newDeleteCommand(log *action.Log) *cobra.Command {
	var o deleteOptions
	c := &cobra.Command{
		Use:     "delete [options] <URI>",
		Short:   "Delete an image from a library",
		Long:    "Delete the image that a reference names, for one architecture, from a library. It asks before.",
		Example: "  $ singularity delete --arch amd64 library://lab/tools/tool:1.0",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(o.fromEnv(c), setFromEnv(c, []flagEnv{{"arch", "ARCH", false}, {"force", "FORCE", false}})); err != nil {
				return err
			}
			return explainFetch(deleteImage(c, log, &o, args[0]))
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.force, "force", "F", false, "do not ask")
	f.StringVarP(&o.arch, "arch", "A", runtime.GOARCH, "`architecture` of the image")
	f.IntVarP(&o.timeout, "timeout", "T", 15, "`seconds` to wait for the library")
	f.MarkHidden("timeout")
	f.StringVar(&o.library, "library", "", "`URL` of the library")
	f.BoolVar(&o.noHTTPS, "no-https", false, "use http")
	return c
}

func deleteImage(c *cobra.Command, log *action.Log, o *deleteOptions, uri string) error {
	ref, err := fetch.Parse(uri, nil)
	if err != nil {
		return err
	}
	if ref.Kind != fetch.Library {
		return fmt.Errorf("cannot delete %q: only images of a library (library://) can be deleted", uri)
	}
	tag, err := oneTag(ref)
	if err != nil {
		return err
	}
	if !o.force {
		answer, err := newPrompter(c).Line(fmt.Sprintf("Are you sure you want to delete %s (%s)? [y/N] ", ref.Text, o.arch))
		if err != nil {
			return err
		}
		if !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes") {
			log.Info("Image deletion aborted")
			return nil
		}
	}
	ctx, stop := interrupted(c.Context())
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(o.timeout, 1))*time.Second)
	defer cancel()
	config, _, err := registriesConf()
	if err != nil {
		return err
	}
	client, err := o.libraryClient(ctx, config, ref.Host)
	if err != nil {
		return err
	}
	if err := client.Delete(ctx, ref.Name, tag, o.arch); err != nil {
		return fmt.Errorf("cannot delete %q: %w", uri, err)
	}
	if root, err := cacheRoot(); err == nil {
		recent.Forget(root, uri)
	}
	log.Info("Image " + ref.Text + " (" + o.arch + ") deleted")
	return nil
}

type searchOptions struct {
	fetchOptions
	signed bool
}

func newSearchCommand(log *action.Log) *cobra.Command {
	var o searchOptions
	c := &cobra.Command{
		Use:     "search [options] <text>",
		Short:   "Search a library for images",
		Long:    "Search a library for images whose names hold a text, of three characters at least.",
		Example: "  $ singularity search samtools\n  $ singularity search --signed --arch arm64 samtools",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(o.fromEnv(c), setFromEnv(c, []flagEnv{{"arch", "SEARCH_ARCH", false}, {"signed", "SEARCH_SIGNED", false}})); err != nil {
				return err
			}
			return explainFetch(search(c.Context(), c.OutOrStdout(), &o, args[0]))
		},
	}
	f := c.Flags()
	f.StringVar(&o.library, "library", "", "`URL` of the library")
	f.StringVar(&o.arch, "arch", runtime.GOARCH, "find images for this `architecture`")
	f.BoolVar(&o.signed, "signed", false, "find signed images only")
	f.BoolVar(&o.noHTTPS, "no-https", false, "use http")
	return c
}

func search(ctx context.Context, w io.Writer, o *searchOptions, text string) error {
	ctx, stop := interrupted(ctx)
	defer stop()
	config, _, err := registriesConf()
	if err != nil {
		return err
	}
	client, err := o.libraryClient(ctx, config, "")
	if err != nil {
		return err
	}
	found, err := client.Search(ctx, text, o.arch, o.signed)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		_, err := fmt.Fprintf(w, "No container images found for %s matching %q.\n", o.arch, text)
		return err
	}
	if _, err := fmt.Fprintf(w, "Found %d container images for %s matching %q:\n\n", len(found), o.arch, text); err != nil {
		return err
	}
	for _, i := range found {
		if err := writeFound(w, &i); err != nil {
			return err
		}
	}
	return nil
}

func writeFound(w io.Writer, i *api.Image) error {
	tags := strings.Join(i.Tags, ",")
	if tags == "" {
		tags = i.Hash
	}
	text := fmt.Sprintf("\tlibrary://%s/%s/%s:%s\n", i.EntityName, i.CollectionName, i.ContainerName, tags)
	if i.Description != "" && !strings.EqualFold(i.Description, "no description") {
		text += "\t\t" + i.Description + "\n"
	}
	if len(i.Fingerprints) > 0 {
		text += "\t\tSigned by: " + strings.Join(i.Fingerprints, ",") + "\n"
	}
	_, err := io.WriteString(w, action.Printable(text)+"\n")
	return err
}
