package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/fetch/cache"
)

func newCacheCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "cache",
		Short: "Look at the cache of images and clean it",
		Long: "List and clean the images that were fetched before. They are in ~/.singularity/cache; SINGULARITY_CACHEDIR names another directory for the folder cache. " +
			"The cache holds 20 GiB unless SINGULARITY_CACHE_SIZE says otherwise; when it is full, the images that were not used for longest go.",
		Example: "  $ singularity cache list --verbose\n  $ singularity cache clean --days 30",
	}
	c.AddCommand(newCacheListCommand(log), newCacheCleanCommand(log))
	return c
}

// cacheKinds are the values of --type besides all.
var cacheKinds = slices.Concat(cache.Types, cache.Others)

// cacheTypes checks the value of --type.
func cacheTypes(list []string) ([]string, error) {
	var types []string
	for _, t := range list {
		switch {
		case t == "all":
			return cacheKinds, nil
		case !slices.Contains(cacheKinds, t):
			return nil, fmt.Errorf("cannot use the type %q: there are %s and all", t, strings.Join(cacheKinds, ", "))
		}
		types = append(types, t)
	}
	return types, nil
}

// theCache returns the cache, whether it is there or not.
func theCache() (*cache.Cache, error) {
	root, err := cacheRoot()
	return &cache.Cache{Root: root}, err
}

func newCacheListCommand(log *action.Log) *cobra.Command {
	var types []string
	verbose := false
	c := &cobra.Command{
		Use:     "list [options]",
		Short:   "List what is in the cache",
		Long:    "Show how much space the cache uses, and with --verbose what is in it.",
		Example: "  $ singularity cache list --type oci-tmp,oras --verbose",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			return cacheList(c.OutOrStdout(), log, types, verbose)
		},
	}
	c.Flags().StringSliceVarP(&types, "type", "T", []string{"all"}, "list these `types`: "+strings.Join(cacheKinds, ", "))
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "list each file")
	return c
}

func cacheList(w io.Writer, log *action.Log, names []string, verbose bool) error {
	types, err := cacheTypes(names)
	if err != nil {
		return err
	}
	ch, err := theCache()
	if err != nil {
		return err
	}
	list, err := ch.List(types...)
	if err != nil {
		return err
	}
	var b strings.Builder
	if verbose {
		fmt.Fprintf(&b, "%-24s%-22s%-17s%s\n", "NAME", "DATE CREATED", "SIZE", "TYPE")
	}
	var count, blobs int
	var size, blobSize int64
	for _, e := range list {
		if e.Type == "blob" {
			blobs++
			blobSize += e.Size
		} else {
			count++
			size += e.Size
		}
		if verbose {
			fmt.Fprintf(&b, "%-24s%-22s%-17s%s\n", e.Name[:min(22, len(e.Name))], e.Created.Format("2006-01-02 15:04:05"), byteSizeFine(e.Size), e.Type)
		}
	}
	if verbose {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "There are %d container file(s) using %s and %d oci blob file(s) using %s of space\n", count, byteSizeFine(size), blobs, byteSizeFine(blobSize))
	fmt.Fprintf(&b, "Total space used: %s\n", byteSizeFine(size+blobSize))
	_, err = io.WriteString(w, b.String())
	log.Verbose("The cache is " + ch.Root)
	return err
}

// byteSizeFine writes a size with two digits after the point.
func byteSizeFine(n int64) string {
	unit, f := 0, float64(n)
	for f >= 1024 && unit < 4 {
		f /= 1024
		unit++
	}
	return strconv.FormatFloat(f, 'f', 2, 64) + " " + []string{"B", "KiB", "MiB", "GiB", "TiB"}[unit]
}

type cleanOptions struct {
	types         []string
	days          int
	dryRun, force bool
}

func newCacheCleanCommand(log *action.Log) *cobra.Command {
	var o cleanOptions
	c := &cobra.Command{
		Use:   "clean [options]",
		Short: "Remove what is in the cache",
		Long: "Remove the files that \"cache list\" shows, after a question. Nothing else is touched: not what somebody is fetching, and no file that singularity did not make. " +
			"A container that runs from an image of the cache on this host goes on.",
		Example: "  $ singularity cache clean --dry-run\n  $ singularity cache clean --force --days 30 --type oci-tmp",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			return cacheClean(c, log, &o)
		},
	}
	f := c.Flags()
	f.StringSliceVarP(&o.types, "type", "T", []string{"all"}, "remove these `types`: "+strings.Join(cacheKinds, ", "))
	f.IntVarP(&o.days, "days", "D", 0, "remove what is older than this `number` of days")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "only say what would be removed")
	f.BoolVarP(&o.force, "force", "f", false, "do not ask")
	return c
}

func cacheClean(c *cobra.Command, log *action.Log, o *cleanOptions) error {
	types, err := cacheTypes(o.types)
	if err != nil {
		return err
	}
	if o.days < 0 {
		return fmt.Errorf("cannot use --days %d: it is less than 0", o.days)
	}
	ch, err := theCache()
	if err != nil {
		return err
	}
	if !o.force && !o.dryRun {
		answer, err := newPrompter(c).Line("This will delete everything in your cache (containers from all sources and OCI blobs).\n" +
			"Hint: You can see exactly what would be deleted by canceling and using the --dry-run option.\nDo you want to continue? [y/N] ")
		if err != nil {
			return err
		}
		if answer != "y" {
			log.Info("Cache cleanup canceled")
			return nil
		}
	}
	list, err := ch.List(types...)
	if err != nil {
		return err
	}
	var failed error
	limit := time.Now().Add(-time.Duration(o.days) * 24 * time.Hour)
	for _, e := range list {
		if o.days > 0 && e.Created.After(limit) {
			continue
		}
		if e.Busy() {
			log.Info("Leaving " + e.Type + " cache entry, which is being written: " + e.Name)
			continue
		}
		log.Info("Removing " + e.Type + " cache entry: " + e.Name)
		if !o.dryRun {
			failed = errors.Join(failed, ch.Remove(e))
		}
	}
	if !o.dryRun && o.days == 0 && len(types) == len(cacheKinds) {
		ch.RemoveRefs()
	}
	return failed
}
