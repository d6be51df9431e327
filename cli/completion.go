package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newCompletionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion <bash|zsh|fish|powershell>",
		Short: "Print a completion script for a shell",
		Long:  "Print a script that lets a shell complete commands and options of singularity. Load it where the shell keeps its settings.",
		Example: "  $ source <(singularity completion bash)\n" +
			"  $ singularity completion zsh > \"${fpath[1]}/_singularity\"\n" +
			"  $ singularity completion fish > ~/.config/fish/completions/singularity.fish",
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(c *cobra.Command, args []string) error {
			root, out := c.Root(), c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return usageError(c, fmt.Errorf("no completion for %q, only for bash, zsh, fish and powershell", args[0]))
		},
	}
}
