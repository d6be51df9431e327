package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/api"
	"singularity/client/library"
	"singularity/fetch"
)

func newLibraryCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "library",
		Short: "Look around in a library of images",
		Long:  "Look around in a library of images. \"singularity help search\" finds images by a part of their names; \"pull\", \"push\" and \"delete\" transfer and delete them.",
	}
	c.AddCommand(newLibraryListCommand())
	return c
}

type libraryListOptions struct {
	fetchOptions
	json bool
}

// completeTime bounds what a shell waits for the names of a library.
const completeTime = 2 * time.Second

func newLibraryListCommand() *cobra.Command {
	var o libraryListOptions
	c := &cobra.Command{
		Use:     "ls [options] [reference]",
		Aliases: []string{"list"},
		Short:   "List what an entity, a collection or a container holds",
		Long: "List what a library holds at a name: the collections of an entity, the containers of a collection, the images of a container with their tags; without a name, the entities. " +
			"What is private is listed for those who may read it.",
		Example: "  $ singularity library ls\n  $ singularity library ls lab\n  $ singularity library ls lab/tools\n  $ singularity library ls --json library://lab/tools/samtools",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.fromEnv(c); err != nil {
				return err
			}
			return explainFetch(libraryList(c.Context(), c.OutOrStdout(), &o, strings.Join(args, "")))
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 || o.fromEnv(c) != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return o.complete(begun), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		},
	}
	f := c.Flags()
	f.StringVar(&o.library, "library", "", "`URL` of the library")
	f.BoolVar(&o.noHTTPS, "no-https", false, "use http")
	f.BoolVarP(&o.json, "json", "j", false, "print all that the library says, as JSON")
	return c
}

// libraryPlace splits what the user named into a host, if there is one, and a name.
func libraryPlace(text string) (host, name string, err error) {
	name = strings.Trim(strings.TrimPrefix(strings.TrimPrefix(text, "library:"), "//"), "/")
	if name == "" {
		return "", "", nil
	}
	if parts := strings.Split(name, "/"); len(parts) == 4 {
		host, name = parts[0], strings.Join(parts[1:], "/")
	}
	parts := strings.Split(name, "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return "", "", fmt.Errorf("cannot list %q: entity, entity/collection or entity/collection/container is wanted", text)
	}
	if strings.ContainsAny(name, ":@") {
		return "", "", fmt.Errorf("cannot list %q: a tag is no place; all tags of a container are listed", text)
	}
	if len(parts) == 3 {
		_, err = fetch.Parse("library://"+name, nil)
	}
	return host, name, err
}

func (o *libraryListOptions) open(ctx context.Context, host string) (*library.Client, error) {
	config, _, err := registriesConf()
	if err != nil {
		return nil, err
	}
	return o.libraryClient(ctx, config, host)
}

func libraryList(ctx context.Context, w io.Writer, o *libraryListOptions, text string) error {
	ctx, stop := interrupted(ctx)
	defer stop()
	host, name, err := libraryPlace(text)
	if err != nil {
		return err
	}
	client, err := o.open(ctx, host)
	if err != nil {
		return err
	}
	rows, all, err := libraryRows(ctx, client, name)
	if missing, ok := errors.AsType[*library.NoNameError](err); ok && missing.Name != "" {
		return action.Fatal(err, "names begin with the entity: singularity library ls lists them")
	}
	if err != nil {
		return fmt.Errorf("cannot list %q: %w", text, err)
	}
	if o.json {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "\t")
		if err := e.Encode(all); err != nil {
			return err
		}
		_, err := io.WriteString(w, escapeJSON(b.String()))
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		for i := range r {
			r[i] = oneLine(r[i])
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(r, "\t"), "\t"))
	}
	return t.Flush()
}

// libraryRows returns what a name holds, as lines of a table and as the library
// says it.
func libraryRows(ctx context.Context, c *library.Client, name string) (rows [][]string, all any, err error) {
	switch {
	case name == "":
		list, err := c.Entities(ctx)
		for _, e := range list {
			rows = append(rows, []string{e.Name, described(e.Description)})
		}
		return rows, list, err
	case !strings.Contains(name, "/"):
		list, err := c.Collections(ctx, name)
		for _, k := range list {
			rows = append(rows, []string{name + "/" + k.Name, hidden(k.Private), described(k.Description)})
		}
		return rows, list, err
	case strings.Count(name, "/") == 1:
		list, err := c.Containers(ctx, name)
		for _, k := range list {
			rows = append(rows, []string{name + "/" + k.Name, hidden(k.Private), strings.Join(tagsOf(&k), ","), described(k.Description)})
		}
		return rows, list, err
	}
	list, err := c.Images(ctx, name)
	if len(list) > 0 {
		rows = append(rows, []string{"TAGS", "ARCH", "SIZE", "UPLOADED", "SIGNED", "HASH"})
	}
	for _, i := range list {
		tags := strings.Join(i.Tags, ",")
		if tags == "" {
			tags = "-"
		}
		rows = append(rows, []string{tags, i.Arch, byteSize(i.Size), i.UpdatedAt.UTC().Format("2006-01-02"), signedBy(&i), i.Hash})
	}
	return rows, list, err
}

func described(text string) string {
	if strings.EqualFold(text, "no description") {
		return ""
	}
	return text
}

func hidden(private bool) string {
	if private {
		return "private"
	}
	return "public"
}

// tagsOf lists the tags of a container, each once.
func tagsOf(k *api.Container) []string {
	names := map[string]bool{}
	for tag := range k.ImageTags {
		names[tag] = true
	}
	for tag := range k.OCITags {
		names[tag] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// signedBy tells what the library says about the signatures of an image.
func signedBy(i *api.Image) string {
	switch {
	case len(i.Fingerprints) > 0:
		return strings.Join(i.Fingerprints, ",")
	case i.Signed != nil && *i.Signed:
		return "by unknown"
	}
	return "no"
}

// complete lists the names that begin as what the user has typed.
func (o *libraryListOptions) complete(begun string) []string {
	ctx, stop := context.WithTimeout(context.Background(), completeTime)
	defer stop()
	rest := strings.TrimPrefix(begun, "library://")
	scheme := strings.TrimSuffix(begun, rest)
	above := ""
	if i := strings.LastIndexByte(rest, '/'); i >= 0 {
		above = rest[:i]
	}
	if strings.Count(rest, "/") > 2 {
		return nil
	}
	c, err := o.open(ctx, "")
	if err != nil {
		return nil
	}
	rows, _, err := libraryRows(ctx, c, above)
	if err != nil {
		return nil
	}
	var list []string
	for _, r := range rows {
		if action.Printable(r[0]) == r[0] && strings.HasPrefix(r[0], rest) && !strings.ContainsAny(r[0], " \t'\"\\$`;&|<>()*?[]{}!#~") {
			list = append(list, scheme+r[0])
		}
	}
	return list
}
