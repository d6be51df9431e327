package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"singularity/action"
)

func newRunHelpCommand(log *action.Log) *cobra.Command {
	var app string
	c := &cobra.Command{
		Use:     "run-help [options] <image>",
		Short:   "Show the help text of an image",
		Long:    "Show the help text that the author of an image wrote for its users (section %help of the definition file).",
		Example: "  $ singularity run-help debian.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runHelp(c.OutOrStdout(), args[0], app, action.IsTerminal(1))
		},
	}
	c.Flags().StringVar(&app, "app", "", "show the help of the `name`d app")
	return c
}

func runHelp(w io.Writer, path, app string, terminal bool) error {
	im, err := openImage(path)
	if err != nil {
		return fmt.Errorf("container not found: %w", err)
	}
	defer im.Close()
	meta, err := imageMetadata(im)
	if err != nil {
		return fmt.Errorf("cannot read the help of %q: %w", path, err)
	}
	text := meta.Helpfile
	if app != "" {
		if meta.Apps[app] == nil {
			return exitOne(fmt.Errorf("cannot read the help of %q: it has no app %q", path, app))
		}
		text = meta.Apps[app].Helpfile
	}
	if strings.TrimSpace(text) == "" {
		text = "No help sections were defined for this image"
	}
	_, err = io.WriteString(w, strings.TrimSuffix(forOutput(text, terminal), "\n")+"\n")
	return err
}
