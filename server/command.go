package server

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"singularity/catalog"
	"singularity/conf"
	"singularity/server/worker"
)

// Main runs the program with its arguments and returns the exit status.
func Main(argv []string) int {
	if len(argv) > 1 {
		switch argv[1] {
		case catalog.Verb:
			return catalog.Main()
		case worker.KeeperVerb:
			return worker.Keeper()
		case worker.InsideVerb:
			return worker.Inside()
		}
	}
	// A server makes a lot of garbage and keeps little: at the default a sixth of
	// its time goes to collections of a heap of a few megabytes.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	root := newRoot()
	root.SetArgs(append([]string{}, argv[1:]...))
	if err := root.Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "singularity-server: %v\n", err)
		return 1
	}
	return 0
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:               "singularity-server",
		Short:             "A library of container images, a store of keys, a builder, and their accounts",
		Long:              "singularity-server hosts container images and keys for singularity and other clients, and builds images for them, in one program with storage of its own.",
		Example:           "  $ singularity-server serve --data /srv/singularity --url https://images.example.org:8443",
		Version:           conf.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	AddFlags(root.PersistentFlags())
	root.AddCommand(newServe(), newWorker(), newAdmin(), newConformance())
	return root
}

func newServe() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve until a signal",
		Long: "serve opens the data directory, or makes it at the first start with a certificate and the account of an administrator, and serves. " +
			"SIGTERM lets running transfers end; SIGHUP opens the audit log anew.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := LoadConfig(cmd.Flags())
			if err != nil {
				return err
			}
			return serve(c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}
