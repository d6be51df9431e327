package cli

import (
	"github.com/spf13/cobra"

	"singularity/conf"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long:  "Print the version of singularity, and nothing else.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			_, err := c.OutOrStdout().Write([]byte(conf.Version + "\n"))
			return err
		},
	}
}
