package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/conf"
)

// A configChange is what config global does with a directive.
type configChange int

const (
	setDirective configChange = iota
	unsetDirective
	getDirective
	resetDirective
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
			change, n := setDirective, 0
			for i, on := range []bool{set, unset, get, reset} {
				if on {
					change, n = configChange(i), n+1
				}
			}
			reason := ""
			switch values := args[1:]; {
			case n != 1:
				reason = "give one of --set, --unset, --get and --reset"
			case change == setDirective && len(values) == 0:
				reason = "--set needs a value"
			case len(values) > 0 && (change == getDirective || change == resetDirective):
				reason = "only --set and --unset take values"
			}
			if reason != "" {
				return usageError(c, errors.New(reason))
			}
			return configGlobal(log, c.OutOrStdout(), change, args[0], args[1:], dryRun)
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
	for i := range conf.Directives {
		d := &conf.Directives[i]
		switch {
		case d.Name == "":
		case len(args) == 0:
			out = append(out, d.Name+"\t"+d.Doc)
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

func configGlobal(log *action.Log, out io.Writer, change configChange, name string, values []string, dryRun bool) error {
	d, err := findDirective(name)
	if err != nil {
		return err
	}
	path := siteConfigFile()
	if change == getDirective {
		c, err := action.LoadConfig(os.Getenv("SINGULARITY_CONFIG_FILE"))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, directiveValue(d, c))
		return err
	}
	if dryRun {
		text, err := readSiteFile(path, defaultConfig())
		if err == nil {
			text, err = changeConfig(text, d, change, values)
		}
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text)
		return err
	}
	err = changeSiteFile("config global", path, defaultConfig(), func(old string) (string, error) { return changeConfig(old, d, change, values) })
	if err == nil && d.Inert != "" && change == setDirective {
		log.Warning(strconv.Quote(d.Name) + " has no effect: " + d.Inert)
	}
	return err
}

func findDirective(name string) (*conf.Directive, error) {
	near := ""
	for i := range conf.Directives {
		d := &conf.Directives[i]
		if d.Name == name && name != "" {
			return d, nil
		}
		if strings.EqualFold(strings.Join(strings.Fields(name), " "), d.Name) || name != "" && strings.Contains(d.Name, name) {
			near = "did you mean " + strconv.Quote(d.Name) + "?"
		}
	}
	return nil, action.Fatal(fmt.Errorf("%q is not a valid directive", name), near)
}

// directiveValue returns the value of d in c as it stands in a file.
func directiveValue(d *conf.Directive, c *conf.Config) string {
	switch v := d.Field(c).(type) {
	case *bool:
		if *v {
			return "yes"
		}
		return "no"
	case *int64:
		return strconv.FormatInt(*v, 10)
	case *string:
		return *v
	case *[]string:
		return strings.Join(*v, ",")
	}
	return ""
}

// changeConfig returns the text of a singularity.conf with one change. Every
// other line stays as it is.
func changeConfig(text string, d *conf.Directive, change configChange, values []string) (string, error) {
	for _, v := range values {
		if strings.ContainsAny(v, "\n\r\x00") {
			return "", fmt.Errorf("cannot set %q to %q: a value is one line", d.Name, v)
		}
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	var wanted string
	var err error
	if d.Kind == conf.List {
		var words []string
		for _, v := range values {
			words = append(words, conf.SplitList(v)...)
		}
		lines, err = changeList(lines, d, change, words)
	} else {
		if wanted = strings.Join(values, ","); change != setDirective {
			wanted = d.Default
		}
		lines = assign(lines, d, wanted)
	}
	if err != nil {
		return "", err
	}
	text = strings.Join(lines, "\n") + "\n"
	c, err := conf.Read(strings.NewReader(text))
	if err != nil {
		return "", fmt.Errorf("cannot change %q: the file would be wrong in %w", d.Name, err)
	}
	if d.Kind != conf.List && directiveValue(d, c) != wanted {
		return "", fmt.Errorf("cannot set %q to %q: it would be read as %q", d.Name, wanted, directiveValue(d, c))
	}
	return text, nil
}

// assigns tells whether line assigns to d.
func assigns(line string, d *conf.Directive) bool {
	name, _, ok := conf.Assignment(line)
	return ok && name == d.Name
}

// assign puts one assignment in the place of those that there are, or of the
// comment that stands for it. A comment behind the value stays.
func assign(lines []string, d *conf.Directive, value string) []string {
	line := d.Name + " = " + value
	if value == "" {
		line = "# " + d.Name + " ="
	}
	var out []string
	done := false
	for _, l := range lines {
		switch {
		case !assigns(l, d):
			out = append(out, l)
		case !done:
			done = true
			out = append(out, line+commentOf(l))
		}
	}
	if done {
		return out
	}
	return insert(out, d, []string{line})
}

// commentOf returns the comment behind an assignment, with a blank before it.
func commentOf(line string) string {
	name, value, _ := conf.Assignment(line)
	for i := range line {
		if line[i] != '#' {
			continue
		}
		if n, v, ok := conf.Assignment(line[:i]); ok && n == name && v == value && i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			return " " + strings.TrimRight(line[i:], " \t\r")
		}
	}
	return ""
}

// insert puts lines for d before its first assignment, or where a comment of the
// default file stands for one, or at the end.
func insert(lines []string, d *conf.Directive, add []string) []string {
	at := slices.IndexFunc(lines, func(l string) bool { return assigns(l, d) })
	if at < 0 {
		at = slices.IndexFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "# "+d.Name+" =" })
		if at < 0 {
			return append(lines, add...)
		}
		lines = slices.Delete(lines, at, at+1)
	}
	return slices.Insert(lines, at, add...)
}

// changeList changes the lines of a list.
func changeList(lines []string, d *conf.Directive, change configChange, words []string) ([]string, error) {
	have := map[string]bool{}
	for _, l := range lines {
		if assigns(l, d) {
			_, value, _ := conf.Assignment(l)
			for _, w := range conf.SplitList(value) {
				have[w] = true
			}
		}
	}
	switch change {
	case setDirective:
		words = slices.DeleteFunc(words, func(w string) bool { return have[w] })
		for _, w := range words {
			if _, value, _ := conf.Assignment(d.Name + " = " + w); value != w {
				return nil, fmt.Errorf("cannot add %q to %q: it would be read as %q", w, d.Name, value)
			}
		}
		if len(words) == 0 {
			return lines, nil
		}
		return insert(lines, d, assignments(d, words)), nil
	case unsetDirective:
		for _, w := range words {
			if !have[w] {
				return nil, fmt.Errorf("cannot take %q out of %q: it is not there", w, d.Name)
			}
		}
		return dropWords(lines, d, words), nil
	}
	first := slices.IndexFunc(lines, func(l string) bool { return assigns(l, d) })
	if first < 0 {
		return insert(lines, d, defaultLines(d)), nil
	}
	rest := dropWords(lines[first:], d, nil)
	return slices.Concat(lines[:first], defaultLines(d), slices.DeleteFunc(rest, func(l string) bool { return l == "# "+d.Name+" =" })), nil
}

// dropWords takes words out of the lines of a list, all if there are none. Where
// nothing is left a comment of the default file takes the place.
func dropWords(lines []string, d *conf.Directive, words []string) []string {
	var out []string
	first, kept := -1, false
	for _, l := range lines {
		if !assigns(l, d) {
			out = append(out, l)
			continue
		}
		if first < 0 {
			first = len(out)
		}
		_, value, _ := conf.Assignment(l)
		all := conf.SplitList(value)
		left := slices.DeleteFunc(slices.Clone(all), func(w string) bool { return len(words) == 0 || slices.Contains(words, w) })
		switch {
		case len(left) == 0:
			continue
		case len(left) < len(all):
			l = d.Name + " = " + strings.Join(left, ", ") + commentOf(l)
		}
		kept = true
		out = append(out, l)
	}
	if first >= 0 && !kept {
		out = slices.Insert(out, first, "# "+d.Name+" =")
	}
	return out
}
