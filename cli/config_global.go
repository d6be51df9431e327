package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/conf"
	"singularity/conf/directive"
	"singularity/conf/edit"
)

func newConfigGlobalCommand(log *action.Log) *cobra.Command {
	var set, unset, get, reset, dryRun bool
	c := &cobra.Command{
		Use:   "global [options] <directive> [value...]",
		Short: "Show or change a directive of singularity.conf",
		Long: "Show a directive of singularity.conf, or change it: the file is replaced as a whole, at once, and only by one that can be read; comments stay. " +
			"Changing is for root, or for the owner of an installation of their own." +
			"\n\nTo a list, such as \"bind path\", --set adds values in front, and --unset takes the values that are given away, or all. Of any other directive " +
			"--unset and --reset bring the default back; --reset does so for lists too. The option --config of singularity names another file.",
		Example: "  $ singularity config global --get \"bind path\"\n" +
			"  $ sudo singularity config global --set \"bind path\" /etc/hosts /scratch:/data\n" +
			"  $ sudo singularity config global --set --dry-run \"allow container dir\" no",
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeDirective(args), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			change, n := edit.Set, 0
			for i, on := range []bool{set, unset, reset} {
				if on {
					change, n = edit.Change(i), n+1
				}
			}
			if get {
				n++
			}
			reason := ""
			switch values := args[1:]; {
			case n != 1:
				reason = "give one of --set, --unset, --get and --reset"
			case set && len(values) == 0:
				reason = "--set needs a value"
			case len(values) > 0 && (get || reset):
				reason = "only --set and --unset take values"
			}
			if reason != "" {
				return usageError(c, errors.New(reason))
			}
			d, err := findDirective(args[0])
			if err != nil {
				return err
			}
			if get {
				return printDirective(c.OutOrStdout(), d)
			}
			return configGlobal(log, c.OutOrStdout(), change, d, args[1:], dryRun)
		},
	}
	f := c.Flags()
	f.BoolVarP(&dryRun, "dry-run", "d", false, "print the file that would be written, and write nothing")
	f.BoolVarP(&get, "get", "g", false, "print the value that holds; commas separate those of a list")
	f.BoolVarP(&reset, "reset", "r", false, "bring the default back")
	f.BoolVarP(&set, "set", "s", false, "set the directive")
	f.BoolVarP(&unset, "unset", "u", false, "take values out of a list, or bring the default back")
	return c
}

// completeDirective completes the name of a directive and the values of one.
func completeDirective(args []string) []string {
	var out []string
	for _, d := range conf.Directives() {
		switch {
		case len(args) == 0:
			out = append(out, d.Name+"\t"+directive.Of(d.Name).Doc)
		case len(args) == 1 && d.Name == args[0] && d.Kind == conf.YesNo:
			out = []string{"yes", "no"}
		case len(args) == 1 && d.Name == args[0]:
			out = d.Allowed
		}
	}
	return out
}

// siteConfigFile is the configuration file that this call is about.
func siteConfigFile() string {
	if file := os.Getenv("SINGULARITY_CONFIG_FILE"); file != "" {
		return file
	}
	return conf.Path()
}

func printDirective(out io.Writer, d *conf.Directive) error {
	c, err := action.LoadConfig(os.Getenv("SINGULARITY_CONFIG_FILE"))
	if err == nil {
		_, err = fmt.Fprintln(out, edit.Value(d, c))
	}
	return err
}

func configGlobal(log *action.Log, out io.Writer, change edit.Change, d *conf.Directive, values []string, dryRun bool) error {
	path := siteConfigFile()
	if dryRun {
		text, err := readSiteFile(path, defaultConfig())
		if err == nil {
			text, err = edit.Text(text, d, change, values)
		}
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text)
		return err
	}
	err := changeSiteFile("config global", path, defaultConfig(), func(old string) (string, error) { return edit.Text(old, d, change, values) })
	if inert := directive.Of(d.Name).Inert; err == nil && inert != "" && change == edit.Set {
		log.Warning(strconv.Quote(d.Name) + " has no effect: " + inert)
	}
	return err
}

func findDirective(name string) (*conf.Directive, error) {
	near := ""
	for _, d := range conf.Directives() {
		if d.Name == name {
			return &d, nil
		}
		if strings.EqualFold(strings.Join(strings.Fields(name), " "), d.Name) || name != "" && strings.Contains(d.Name, name) {
			near = "did you mean " + strconv.Quote(d.Name) + "?"
		}
	}
	return nil, action.Fatal(fmt.Errorf("%q is not a valid directive", name), near)
}
