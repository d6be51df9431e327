// Package cli holds every verb of singularity that does not start a container,
// one file each, and the help, completion and manual pages of all of them.
//
// In goes the command line, out comes output on standard output, messages on
// standard error and an exit status. Each verb is a short file: options, one
// call of a package below, output. Nothing here prints an error but Main, by
// action.Report. Text that an image or a server wrote is made printable before
// a terminal sees it.
//
// The action commands (exec, run, shell, test) are here for their help, and for
// starts with limits of resources; their flags come from the table in package
// action, and any other call goes back to the program singularity.
//
// Files besides the verbs: cli.go (the command tree), help.go (the layout of
// help), roff.go (manual pages).
package cli

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"singularity/action"
	"singularity/catalog"
	"singularity/cli/prompt"
	"singularity/cli/unlock"
	"singularity/container"
	containernet "singularity/container/network"
	"singularity/container/shell"
)

// Main runs singularity-cli with argv and returns its exit status.
func Main(argv []string) int {
	if len(argv) > 1 && argv[1] == catalog.Verb {
		return catalog.Main()
	}
	if len(argv) > 1 && argv[1] == container.ShellVerb {
		return shell.Main(argv[2:])
	}
	if len(argv) > 1 && argv[1] == containernet.KeeperName {
		return containernet.KeeperMain(argv[2:])
	}
	if action.IsInstance(argv) {
		return action.BecomeInstance(extensions)
	}
	if status, served := action.Serve(argv, unlock.Again); served {
		return status
	}
	log := action.NewLog()
	var v action.Invocation
	args, err := action.ParseGlobal(&v, argv[min(1, len(argv)):], os.Getenv)
	if err != nil {
		return action.Report(log, err)
	}
	v.SetLog(log)
	root := newRoot(log)
	switch {
	case v.Version:
		args = []string{"--version"}
	case v.Help:
		args = []string{"--help"}
	case v.Options.ConfigFile != "":
		os.Setenv("SINGULARITY_CONFIG_FILE", v.Options.ConfigFile)
	}
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	err = root.ExecuteContext(telling(log))
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	return action.Report(log, err)
}

func newRoot(log *action.Log) *cobra.Command {
	root := &cobra.Command{
		Use:   "singularity",
		Short: "Linux containers for shared machines",
		Long: "Singularity runs programs in containers: one file holds a whole system, a user starts it as themselves, and it reads and writes the user's own files. " +
			"It builds such images, signs and verifies them, and looks inside them.",
		Example: "  $ singularity help <command> [<subcommand>]\n" +
			"  $ singularity help build",
		SilenceErrors:     true,
		SilenceUsage:      true,
		TraverseChildren:  true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	addFlags(root.Flags(), action.GlobalFlags, 0)
	root.SetHelpCommand(newHelpCommand())
	root.SetHelpFunc(writeHelp)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &action.UsageError{Command: commandName(c), Reason: err.Error(), Options: options(c)}
	})
	root.AddCommand(actionCommands(log, action.AnyVerb)...)
	root.AddCommand(commands(log)...)
	settle(root, true)
	root.RunE = func(c *cobra.Command, args []string) error {
		if on, _ := c.Flags().GetBool("version"); on {
			_, err := c.OutOrStdout().Write([]byte(action.VersionLine()))
			return err
		}
		return &action.UsageError{Command: commandName(c), Use: useLine(c) + "\n\n" + strings.TrimSuffix(commandList(c), "\n")}
	}
	return root
}

// commands lists the verbs; each comes from the file of its name.
func commands(log *action.Log) []*cobra.Command {
	return []*cobra.Command{
		newAdvisoriesCommand(log),
		newBundleCommand(log),
		newBuildCommand(log, runInRootfs(log)),
		newBuildcfgCommand(),
		newCacheCommand(log),
		newCapabilityCommand(log),
		newCompletionCommand(),
		newConfigCommand(log),
		newDataCommand(log),
		newDeleteCommand(log),
		newDocsCommand(),
		newDoctorCommand(log),
		newInspectCommand(log),
		newInstanceCommand(log),
		newECLCommand(log), newKeyCommand(log), newKeyserverCommand(log),
		newLibraryCommand(),
		newOverlayCommand(log),
		newPolicyCommand(log),
		newPullCommand(log),
		newPushCommand(log),
		newRegistryCommand(log),
		newRemoteCommand(log),
		newRunHelpCommand(log),
		newRunsCommand(log),
		newSBOMCommand(log),
		newScanCommand(log),
		newSearchCommand(log),
		newSIFCommand(log),
		newSignCommand(log),
		newVerifyCommand(log),
		newVersionCommand(),
	}
}

// helpGroups are the groups of commands that print their help when called
// without a command. The others take that for a mistake.
var helpGroups = map[string]bool{
	"remote": true, "registry": true, "keyserver": true, "oci": true, "config": true, "sif": true,
}

// settle gives c and the commands below it what all of them share: options end
// at the first argument, a wrong count of arguments is a usage error, and a
// group without a command says which there are.
func settle(c *cobra.Command, optionsFirst bool) {
	// The commands below sif and policy take options after arguments.
	optionsFirst = optionsFirst && c.Name() != "sif" && c.Name() != "policy"
	c.Flags().SetInterspersed(!optionsFirst)
	c.DisableFlagsInUseLine = true
	if c.HasSubCommands() && !c.Runnable() {
		c.Args = unknownCommand
		c.RunE = runGroup
	} else if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError(c, err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		settle(sub, optionsFirst)
	}
}

// usageError turns an error about arguments into one that Report writes with
// the line of usage.
func usageError(c *cobra.Command, err error) error {
	if u, ok := errors.AsType[*action.UsageError](err); ok {
		return u
	}
	return &action.UsageError{Command: commandName(c), Reason: err.Error(), Use: useLine(c)}
}

func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	reason := "unknown command \"" + args[0] + "\" for \"" + c.CommandPath() + "\""
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		reason += ", did you mean \"" + strings.Join(near, "\" or \"") + "\"?"
	}
	return &action.UsageError{Command: commandName(c), Reason: reason, Use: useLine(c)}
}

func runGroup(c *cobra.Command, args []string) error {
	if helpGroups[c.Name()] {
		return c.Help()
	}
	return &action.UsageError{Command: commandName(c), Use: useLine(c) + "\n\n" + strings.TrimSuffix(commandList(c), "\n")}
}

// commandName returns the words that call c, without that of the program.
func commandName(c *cobra.Command) string {
	if !c.HasParent() {
		return c.Name()
	}
	return strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
}

// actionCommands returns those of the action commands that are in set, for help
// and completion.
func actionCommands(log *action.Log, set action.Verbs) []*cobra.Command {
	var list []*cobra.Command
	for i := range action.VerbTable {
		v := &action.VerbTable[i]
		if v.Set&set == 0 {
			continue
		}
		c := &cobra.Command{
			Use: strings.TrimPrefix(v.Use, "instance "), Short: v.Short, Long: v.Long, Example: v.Example,
			Args: cobra.MinimumNArgs(v.MinArgs),
			RunE: func(c *cobra.Command, args []string) error { return startElsewhere(c, log, args[0]) },
		}
		addFlags(c.Flags(), action.Flags, v.Set)
		list = append(list, c)
	}
	return list
}

// addFlags adds the flags of table that belong to verbs, all if that is 0, to
// set.
func addFlags(set *pflag.FlagSet, table []action.Flag, verbs action.Verbs) {
	for i := range table {
		f := &table[i]
		if verbs != 0 && f.Verbs&verbs == 0 {
			continue
		}
		value := &tableValue{flag: f}
		if f.Kind == action.Bool {
			value.value = "false"
		}
		pf := set.VarPF(value, f.Name, f.Short, f.Help)
		pf.Hidden, pf.Deprecated = f.Hidden, f.Deprecated
		if f.Kind.Alone() {
			pf.NoOptDefVal = "true"
		}
	}
}

// A tableValue is a flag of package action as pflag sees it. What it is set to
// matters to nobody but a boolean of the root command.
type tableValue struct {
	flag  *action.Flag
	value string
}

func (v *tableValue) String() string     { return v.value }
func (v *tableValue) Set(s string) error { v.value = s; return nil }

func (v *tableValue) Type() string {
	if v.flag != nil && v.flag.Kind != action.Bool {
		return v.flag.ValueName()
	}
	return "bool"
}

// newPrompter returns a prompter for the streams of c.
func newPrompter(c *cobra.Command) *prompt.Prompter {
	return prompt.New(c.InOrStdin(), c.ErrOrStderr())
}

// exitOne returns err as a failure of exit status 1: the command did its work,
// and the answer is no.
func exitOne(err error) error { return &action.Failure{Err: err, Code: 1} }
