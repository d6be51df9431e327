package cli

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"singularity/action"
)

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command...]",
		Short: "Print help about a command",
		Long:  "Print help about a command, as its option --help does.",
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			cmd, _, err := c.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range visible(cmd) {
				names = append(names, sub.Name()+"\t"+sub.Short)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			cmd := c.Root()
			for _, name := range args {
				sub := lookup(cmd, name)
				if sub == nil {
					return unknownCommand(cmd, []string{name})
				}
				cmd = sub
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

func lookup(c *cobra.Command, name string) *cobra.Command {
	for _, sub := range c.Commands() {
		if sub.Name() == name || sub.HasAlias(name) {
			return sub
		}
	}
	return nil
}

// writeHelp writes the help of c to standard output.
func writeHelp(c *cobra.Command, _ []string) {
	io.WriteString(c.OutOrStdout(), helpText(c))
}

// helpText returns the help of c, wrapped at action.Width.
func helpText(c *cobra.Command) string {
	var b strings.Builder
	b.WriteString(c.Short + "\n\nUsage:\n  " + useLine(c) + "\n")
	b.WriteString("\nDescription:\n" + paragraphs(description(c), "  "))
	if list := options(c); len(list) > 0 {
		heading := "Options"
		if !c.HasParent() {
			heading = "Global Options"
		}
		b.WriteString("\n" + heading + ":\n" + action.FormatOptions(list))
	}
	if list := commandList(c); list != "" {
		b.WriteString("\n" + list)
	}
	if c.Example != "" {
		b.WriteString("\nExamples:\n" + strings.Trim(c.Example, "\n") + "\n")
	}
	if c.HasSubCommands() {
		b.WriteString("\nRun '" + c.CommandPath() + " <command> --help' for help about a command.\n")
	}
	return b.String()
}

func description(c *cobra.Command) string {
	if c.Long != "" {
		return c.Long
	}
	return c.Short + "."
}

// useLine returns the usage of c in one line.
func useLine(c *cobra.Command) string {
	if !c.HasParent() {
		return c.Name() + " [global options] <command>"
	}
	line := c.Use
	if c.HasSubCommands() && line == c.Name() {
		line += " <command>"
	}
	for p := c.Parent(); p.HasParent(); p = p.Parent() {
		line = p.Name() + " " + line
	}
	return c.Root().Name() + " [global options] " + line
}

// paragraphs wraps text, whose paragraphs are separated by empty lines. Lines
// that begin with a blank stay as they are.
func paragraphs(text, indent string) string {
	var b strings.Builder
	for i, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString("\n")
		}
		lines := strings.Split(p, "\n")
		if !strings.HasPrefix(p, " ") {
			lines = action.WrapWords(p, action.Width-len(indent))
		}
		for _, l := range lines {
			b.WriteString(indent + l + "\n")
		}
	}
	return b.String()
}

// visible returns the commands below c that help lists.
func visible(c *cobra.Command) []*cobra.Command {
	var list []*cobra.Command
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Deprecated == "" {
			list = append(list, sub)
		}
	}
	return list
}

// commandList returns the commands below c with their short lines, or "".
func commandList(c *cobra.Command) string {
	list := visible(c)
	if len(list) == 0 {
		return ""
	}
	width := 0
	for _, sub := range list {
		width = max(width, len(sub.Name()))
	}
	text := "Available Commands:\n"
	for _, sub := range list {
		text += "  " + sub.Name() + strings.Repeat(" ", width-len(sub.Name())+2) + sub.Short + "\n"
	}
	return text
}

// options returns what help tells of the options of c.
func options(c *cobra.Command) []action.OptionHelp {
	var list []action.OptionHelp
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, help := pflag.UnquoteUsage(f)
		switch f.DefValue {
		case "", "0", "0s", "[]", "false":
		default:
			help += " (default " + f.DefValue + ")"
		}
		list = append(list, action.OptionHelp{Name: f.Name, Short: f.Shorthand, Value: value, Help: help})
	})
	return list
}
