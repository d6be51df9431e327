package action

import (
	"io"
	"strings"
)

// Width is the number of columns that help is wrapped to.
const Width = 80

// OptionHelp is what help tells of one option.
type OptionHelp struct {
	Name, Short string // without dashes
	Value       string // what the value is called; empty for a boolean
	Help        string
}

// Separator is what stands between name and value.
func (o *OptionHelp) Separator() string {
	if o.Value == "" || o.Value[0] == '[' {
		return ""
	}
	return " "
}

// UsageError is a command line that cannot be understood. Report writes it in
// full: the reason, then the options or the usage of the command.
type UsageError struct {
	Command string
	Reason  string // empty where the usage says it all
	// Options are those of the command; they are shown if Use is empty.
	Options []OptionHelp
	// Use is the line of usage, shown where the arguments are wrong.
	Use string
}

func (e *UsageError) Error() string { return "Error for command \"" + e.Command + "\": " + e.Reason }

// write tells people about e.
func (e *UsageError) write(w io.Writer) {
	var b strings.Builder
	if e.Reason != "" {
		b.WriteString(Printable(e.Error()) + "\n\n")
	}
	if e.Use != "" {
		b.WriteString("Usage:\n  " + e.Use + "\n")
	} else {
		b.WriteString("Options for " + e.Command + " command:\n\n" + FormatOptions(e.Options))
	}
	b.WriteString("\nRun '" + helpCommand(e.Command) + "' for more detailed usage information.\n")
	io.WriteString(w, b.String())
}

func helpCommand(command string) string {
	if command == "singularity" {
		return "singularity --help"
	}
	return "singularity " + command + " --help"
}

// Options returns what help tells of the flags of table that belong to verbs
// and are neither hidden nor deprecated.
func Options(table []Flag, verbs Verbs) []OptionHelp {
	var list []OptionHelp
	for i := range table {
		f := &table[i]
		if f.Hidden || f.Deprecated != "" || f.Verbs&verbs != verbs {
			continue
		}
		list = append(list, OptionHelp{Name: f.Name, Short: f.Short, Value: f.ValueName(), Help: f.Help})
	}
	return list
}

// maxOptionWidth is the width of the first column of options, beyond which the
// text begins on a line of its own.
const maxOptionWidth = 30

// FormatOptions returns a list of options in two columns.
func FormatOptions(list []OptionHelp) string {
	left := make([]string, len(list))
	width := 0
	for i, o := range list {
		left[i] = "      --" + o.Name
		if o.Short != "" {
			left[i] = "  -" + o.Short + ", --" + o.Name
		}
		left[i] += o.Separator() + o.Value
		if n := len(left[i]); n > width && n <= maxOptionWidth {
			width = n
		}
	}
	indent := strings.Repeat(" ", width+3)
	var b strings.Builder
	for i, o := range list {
		b.WriteString(left[i])
		if n := len(left[i]); n <= width {
			b.WriteString(indent[n:])
		} else {
			b.WriteString("\n" + indent)
		}
		b.WriteString(strings.Join(WrapWords(o.Help, Width-len(indent)), "\n"+indent) + "\n")
	}
	return b.String()
}

// WrapWords breaks s between words into lines of at most width bytes; a longer
// word has a line of its own.
func WrapWords(s string, width int) []string {
	var lines []string
	line := ""
	for _, w := range strings.Fields(s) {
		if line != "" && len(line)+1+len(w) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(lines, line)
}
