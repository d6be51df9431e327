package cli

import (
	"strings"

	"singularity/action"
	"singularity/conf"
	"singularity/conf/directive"
	"singularity/conf/edit"
)

// defaultConfig returns the text of the default singularity.conf: each directive
// with what it does, the values it takes and its default.
func defaultConfig() string {
	var b strings.Builder
	b.WriteString("# singularity.conf: what the administrator allows, for every user of this host.\n" +
		"# Lines are \"directive = value\"; a directive that is left out has its default.\n")
	rows := conf.Directives
	for _, text := range directive.Texts {
		if text.Name == "" {
			b.WriteString("\n## " + text.Doc + "\n")
			continue
		}
		d := &rows[0]
		rows = rows[1:] // of the same order
		b.WriteString("\n# " + strings.Join(action.WrapWords(text.Doc, 76), "\n# ") + "\n")
		if text.Inert != "" {
			b.WriteString("# " + strings.Join(action.WrapWords("No effect: "+text.Inert+".", 76), "\n# ") + "\n")
		}
		b.WriteString("# Values: " + directiveValues(d) + ". Default: " + defaultText(d) + ".\n")
		b.WriteString(strings.Join(edit.Defaults(d), "\n") + "\n")
	}
	return b.String()
}

// directiveValues says which values d takes.
func directiveValues(d *conf.Directive) string {
	switch d.Kind {
	case conf.YesNo:
		return "yes, no"
	case conf.Number:
		return "a number"
	case conf.Choice:
		return strings.Join(d.Allowed, ", ")
	case conf.AbsPath:
		return "an absolute path"
	case conf.Size:
		return "a size"
	case conf.List:
		return "a list, separated by commas; lines add up"
	}
	return "text"
}

func defaultText(d *conf.Directive) string {
	if d.Default == "" {
		return "none"
	}
	return d.Default
}
