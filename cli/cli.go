// Package cli holds every verb of singularity that does not start a container,
// one file each.
package cli

import (
	"github.com/spf13/cobra"

	"singularity/action"
)

// Main runs singularity-cli with argv and returns its exit status.
func Main(argv []string) int {
	log := action.NewLog()
	root := newRoot(log)
	root.SetArgs(argv[1:])
	return action.Report(log, root.Execute())
}

func newRoot(log *action.Log) *cobra.Command {
	root := &cobra.Command{
		Use:           "singularity",
		Short:         "Linux containers for shared machines",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(commands(log)...)
	return root
}

// commands lists the verbs; each comes from the file of its name.
func commands(log *action.Log) []*cobra.Command {
	return []*cobra.Command{}
}
