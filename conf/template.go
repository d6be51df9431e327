package conf

import "strings"

// Template returns the text of the default singularity.conf: each directive
// with what it does, the values it takes and its default.
func Template() string {
	var b strings.Builder
	b.WriteString("# singularity.conf: what the administrator allows, for every user of this host.\n" +
		"# Lines are \"directive = value\"; a directive that is left out has its default.\n")
	for i := range directives {
		d := &directives[i]
		if d.name == "" {
			b.WriteString("\n## " + d.doc + "\n")
			continue
		}
		b.WriteString("\n# " + strings.Join(wrap(d.doc, 76), "\n# ") + "\n")
		b.WriteString("# Values: " + d.values() + ". Default: " + d.defaultText() + ".\n")
		d.writeLines(&b)
	}
	return b.String()
}

func (d *directive) values() string {
	switch d.kind {
	case yesNo:
		return "yes, no"
	case number:
		return "a number"
	case choice:
		return strings.Join(d.allowed, ", ")
	case absPath:
		return "an absolute path"
	case list:
		return "a list, separated by commas; lines add up"
	}
	return "text"
}

func (d *directive) defaultText() string {
	if d.value == "" {
		return "none"
	}
	return d.value
}

// writeLines writes the assignments of d, as comments where there is nothing to
// set.
func (d *directive) writeLines(b *strings.Builder) {
	values := []string{d.value}
	if d.kind == list && d.value != "" {
		values = splitList(d.value)
	}
	for _, v := range values {
		if v == "" {
			b.WriteString("# " + d.name + " =\n")
		} else {
			b.WriteString(d.name + " = " + v + "\n")
		}
	}
}

// wrap breaks s between words into lines of at most width bytes, if it can.
func wrap(s string, width int) []string {
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
