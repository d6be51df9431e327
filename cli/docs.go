package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func newDocsCommand() *cobra.Command {
	docs := &cobra.Command{
		Use:    "docs",
		Short:  "Write the files that an installation needs",
		Long:   "Write the manual pages and the default configuration file, for make install and packagers.",
		Hidden: true,
	}
	docs.AddCommand(&cobra.Command{
		Use:   "man <directory>",
		Short: "Write a manual page for each command",
		Long:  "Write a manual page for each command to an existing directory.",
		Args:  cobra.ExactArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return writeManuals(c.Root(), args[0]) },
	}, &cobra.Command{
		Use:   "conf",
		Short: "Print the default singularity.conf",
		Long:  "Print the default singularity.conf, with a comment on each directive.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			_, err := io.WriteString(c.OutOrStdout(), defaultConfig())
			return err
		},
	})
	return docs
}

// writeManuals writes a page for c and each visible command below it to dir.
func writeManuals(c *cobra.Command, dir string) error {
	c.InitDefaultHelpCmd()
	c.InitDefaultHelpFlag()
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(manual(c)), 0o644); err != nil {
		return fmt.Errorf("cannot write a manual page: %w", err)
	}
	for _, sub := range visible(c) {
		if err := writeManuals(sub, dir); err != nil {
			return err
		}
	}
	return nil
}
