package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/conf"
)

// manual returns the manual page of c in the man macros of roff. It names no
// date, so that the same source gives the same page.
func manual(c *cobra.Command) string {
	page := strings.ReplaceAll(c.CommandPath(), " ", "-")
	var b strings.Builder
	b.WriteString(".TH \"" + roff(strings.ToUpper(page)) + "\" \"1\" \"\" \"singularity " + roff(conf.Version) + "\" \"Singularity\"\n")
	b.WriteString(".SH NAME\n" + roff(page) + " \\- " + roff(c.Short) + "\n")
	b.WriteString(".SH SYNOPSIS\n.B " + roff(useLine(c)) + "\n")
	b.WriteString(".SH DESCRIPTION\n" + roffText(description(c)))
	if list := options(c); len(list) > 0 {
		b.WriteString(".SH OPTIONS\n")
		for _, o := range list {
			b.WriteString(roffOption(o))
		}
	}
	if list := visible(c); len(list) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range list {
			b.WriteString(".TP\n.B " + roff(sub.Name()) + "\n" + roff(sub.Short) + "\n")
		}
	}
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n.nf\n" + roffLines(strings.Trim(c.Example, "\n")) + ".fi\n")
	}
	b.WriteString(roffSeeAlso(c))
	return b.String()
}

func roffOption(o action.OptionHelp) string {
	left := "\\fB\\-\\-" + roff(o.Name) + "\\fR"
	if o.Short != "" {
		left = "\\fB\\-" + o.Short + "\\fR, " + left
	}
	if o.Value != "" {
		left += o.Separator() + "\\fI" + roff(o.Value) + "\\fR"
	}
	return ".TP\n" + left + "\n" + roffLines(o.Help)
}

// roffText returns paragraphs separated by empty lines.
func roffText(text string) string {
	return strings.ReplaceAll(roffLines(strings.TrimSpace(text)), "\n\n", "\n.PP\n")
}

// roffLines returns text line by line. A line that begins with a dot or a quote
// would be a request; it begins with an empty character then.
func roffLines(text string) string {
	var b strings.Builder
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			b.WriteString("\\&")
		}
		b.WriteString(roff(line) + "\n")
	}
	return b.String()
}

// roff escapes what roff would take for its own.
func roff(s string) string {
	return strings.NewReplacer("\\", "\\e", "-", "\\-", "\"", "\\(dq").Replace(s)
}

func roffSeeAlso(c *cobra.Command) string {
	var pages []string
	if c.HasParent() {
		pages = append(pages, c.Parent().CommandPath())
	}
	for _, sub := range visible(c) {
		pages = append(pages, sub.CommandPath())
	}
	if len(pages) == 0 {
		return ""
	}
	for i, p := range pages {
		pages[i] = "\\fB" + roff(strings.ReplaceAll(p, " ", "-")) + "\\fR(1)"
	}
	return ".SH \"SEE ALSO\"\n" + strings.Join(pages, ",\n") + "\n"
}
