package deffile

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// line is a line of the file without its end, and where it stood. A variable
// whose value holds line feeds makes several lines of one number.
type line struct {
	text string
	num  int
}

// parser holds what the steps of Parse share.
type parser struct {
	file string
	raw  []string // the lines of the file
	def  *Definition
	vars map[string]string
	used map[string]bool
}

// Parse reads a definition file. file names it in errors. vars are the values
// of template variables given by the caller; they win over %arguments. All
// errors are of type *Error.
func Parse(file string, data []byte, vars map[string]string) (*Definition, error) {
	p := &parser{file: file, def: &Definition{}, vars: vars, used: map[string]bool{}}
	if len(data) > MaxSize {
		return nil, p.err(0, fmt.Sprintf("definition file of %d bytes is larger than the %d allowed", len(data), MaxSize), "")
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return nil, p.err(1+bytes.Count(data[:i], []byte("\n")), "not a definition file: it holds a NUL byte", "")
	}
	stages, err := p.split(data)
	if err != nil {
		return nil, err
	}
	for _, lines := range stages {
		if lines, err = p.substitute(lines); err != nil {
			return nil, err
		}
		stage, err := p.stage(lines)
		if err != nil {
			return nil, err
		}
		p.def.Stages = append(p.def.Stages, *stage)
	}
	p.warnUnused()
	return p.def, p.checkStages()
}

// err returns an error that points to the first letter of line num.
func (p *parser) err(num int, msg, hint string) error { return p.at(num, "", msg, hint) }

// at returns an error that points to word in line num.
func (p *parser) at(num int, word, msg, hint string) error {
	e := &Error{File: p.file, Line: num, Msg: msg, Hint: hint}
	if num > 0 && num <= len(p.raw) {
		text := p.raw[num-1]
		i := strings.Index(text, word)
		if i < 0 || word == "" {
			i = len(text) - len(strings.TrimLeft(text, " \t\ufeff"))
		}
		e.Column = i + 1
	}
	return e
}

// split cuts the file into its stages. What stands above the first
// "bootstrap:" belongs to the first stage.
func (p *parser) split(data []byte) ([][]line, error) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	text = strings.TrimSuffix(text, "\n")
	if strings.TrimSpace(text) == "" {
		return nil, p.err(0, "empty definition file", "")
	}
	var stages [][]line
	begun := false
	p.raw = strings.Split(text, "\n")
	for i, s := range p.raw {
		s = strings.TrimRight(s, "\r") // an editor's line ends would break the scripts
		opens := len(s) >= len("bootstrap:") && strings.EqualFold(s[:len("bootstrap:")], "bootstrap:")
		if len(stages) == 0 || opens && begun {
			if len(stages) == maxStages {
				return nil, p.err(i+1, fmt.Sprintf("more than %d stages", maxStages), "")
			}
			stages = append(stages, nil)
		}
		begun = begun || opens
		last := len(stages) - 1
		stages[last] = append(stages[last], line{s, i + 1})
	}
	if !begun {
		return nil, p.err(1, "no bootstrap keyword found in the header", `begin the file with a line such as "Bootstrap: localimage"`)
	}
	return stages, nil
}

// sectionName returns the first word of a section line, as it stands and
// without "%", and what follows it.
func sectionName(s string) (name, args string, ok bool) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "%") {
		return "", "", false
	}
	name, args, _ = strings.Cut(strings.ReplaceAll(s[1:], "\t", " "), " ")
	return name, strings.TrimSpace(stripComment(" " + args)), true
}

// stripComment drops a comment: "#" at the start or behind white space. A "#"
// inside a word, as in a URL, is kept.
func stripComment(s string) string {
	for i := range len(s) {
		if s[i] == '#' && (i == 0 || s[i-1] == ' ' || s[i-1] == '\t') {
			return s[:i]
		}
	}
	return s
}

func (p *parser) stage(lines []line) (*Stage, error) {
	s := &Stage{Line: lines[0].num, Sections: map[string]Section{}}
	i := 0
	for i < len(lines) {
		if _, _, ok := sectionName(lines[i].text); ok {
			break
		}
		i++
	}
	if err := p.header(s, lines[:i]); err != nil {
		return nil, err
	}
	if err := p.sections(s, lines[i:]); err != nil {
		return nil, err
	}
	return s, p.checkAgent(s)
}

func (p *parser) header(s *Stage, lines []line) error {
	for i := 0; i < len(lines); i++ {
		num := lines[i].num
		part, more := headerLine(lines[i].text)
		parts := []string{part}
		for more && i+1 < len(lines) {
			i++
			part, more = headerLine(lines[i].text)
			parts = append(parts, part)
		}
		text := strings.TrimSpace(strings.Join(parts, " "))
		if text == "" {
			continue
		}
		name, value, ok := strings.Cut(text, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok:
			return p.err(num, fmt.Sprintf("header line %q is not of the form \"Keyword: value\"", text), "a script belongs below a section such as %post")
		case !isKeyword(name):
			return p.err(num, "invalid header keyword found: "+name, didYouMean("", nearest(name, keywords)))
		case value == "":
			return p.err(num, fmt.Sprintf("header keyword %q has no value", name), "write it as \""+cut(name)+": VALUE\", or leave the line out")
		case len(s.Header) == maxKeywords:
			return p.err(num, fmt.Sprintf("more than %d header keywords", maxKeywords), "")
		}
		s.Header = append(s.Header, Keyword{name, value, num})
	}
	return nil
}

// headerLine returns what of a line of the header counts, and whether the next
// line belongs to it.
func headerLine(s string) (text string, more bool) {
	text, more = strings.CutSuffix(strings.TrimSpace(stripComment(s)), `\`)
	return strings.TrimSpace(text), more
}

func didYouMean(sign, word string) string {
	if word == "" {
		return ""
	}
	return "did you mean " + sign + word + "?"
}

// sections takes lines that begin with a section line.
func (p *parser) sections(s *Stage, lines []line) error {
	var bad []string
	var badLine int
	var badWord string
	for i, count := 0, 0; i < len(lines); count++ {
		name, args, _ := sectionName(lines[i].text)
		first := i
		for i++; i < len(lines); i++ {
			if _, _, ok := sectionName(lines[i].text); ok {
				break
			}
		}
		lower := strings.ToLower(name)
		switch {
		case count == maxSections:
			return p.err(lines[first].num, fmt.Sprintf("more than %d sections", maxSections), "")
		case slices.Contains(sections, lower):
			if err := p.section(s, Section{Name: lower, Args: args, Line: lines[first].num}, lines[first+1:i]); err != nil {
				return err
			}
		case slices.Contains(appSections, lower):
			if err := p.appSection(s, Section{Name: lower, Args: args, Line: lines[first].num}, lines[first+1:i]); err != nil {
				return err
			}
		default:
			if bad == nil {
				badLine = lines[first].num
				badWord = "%" + name
			}
			bad = append(bad, cut(name))
		}
	}
	if bad == nil {
		return nil
	}
	hint := didYouMean("%", nearest(strings.ToLower(bad[0]), append(sections[:len(sections):len(sections)], appSections...)))
	if hint == "" {
		hint = `a line of a script must not begin with "%": put a command or a quote before it`
	}
	return p.at(badLine, badWord, "invalid section(s) specified: "+strings.Join(bad, ", "), hint)
}

func cut(s string) string {
	if len(s) > maxNameSize {
		return s[:maxNameSize] + "..."
	}
	return s
}

func (p *parser) section(s *Stage, sec Section, lines []line) error {
	if sec.Name != "files" {
		s.Sections[sec.Name] = join(s.Sections[sec.Name], sec, lines)
		return nil
	}
	from, err := p.filesFrom(sec)
	if err != nil {
		return err
	}
	copies, err := p.copies(lines)
	if err != nil {
		return err
	}
	for i := range s.Files {
		if s.Files[i].From == from {
			s.Files[i].Copies = append(s.Files[i].Copies, copies...)
			return nil
		}
	}
	s.Files = append(s.Files, FileSet{From: from, Copies: copies, Line: sec.Line})
	return nil
}

// filesFrom reads the arguments of %files: none, or "from STAGE".
func (p *parser) filesFrom(sec Section) (string, error) {
	words := strings.Fields(sec.Args)
	switch {
	case len(words) == 0:
		return "", nil
	case len(words) == 2 && strings.EqualFold(words[0], "from"):
		return words[1], nil
	}
	return "", p.at(sec.Line, sec.Args, fmt.Sprintf("%%files has arguments %q, want none or \"from STAGE\"", sec.Args), "")
}

func (p *parser) appSection(s *Stage, sec Section, lines []line) error {
	words := strings.Fields(sec.Args)
	if len(words) != 1 {
		return p.err(sec.Line, fmt.Sprintf("section %%%s wants the name of one app, has %q", sec.Name, sec.Args), "write for example %"+sec.Name+" NAME")
	}
	// Security: the name becomes a directory below /scif/apps.
	// It is part of scripts, too.
	if n := words[0]; len(n) > maxNameSize || n == "." || n == ".." || strings.Trim(n, appNameBytes) != "" {
		return p.at(sec.Line, n, fmt.Sprintf("%q is not a valid name of an app", cut(n)), "use letters, digits and . + - _")
	}
	i := 0
	for i < len(s.Apps) && s.Apps[i].Name != words[0] {
		i++
	}
	if i == len(s.Apps) {
		s.Apps = append(s.Apps, App{Name: words[0], Line: sec.Line, Sections: map[string]Section{}})
	}
	app := &s.Apps[i]
	if sec.Name != "appfiles" {
		app.Sections[sec.Name] = join(app.Sections[sec.Name], sec, lines)
		return nil
	}
	copies, err := p.copies(lines)
	app.Files = append(app.Files, copies...)
	return err
}

// join appends a section of the same name to what is there already.
func join(old, sec Section, lines []line) Section {
	for len(lines) > 0 && strings.TrimSpace(lines[0].text) == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1].text) == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) > 0 {
		sec.Line = lines[0].num
	}
	sec.text = old.text
	if sec.text == nil {
		sec.text = &strings.Builder{}
	}
	for _, l := range lines {
		sec.text.WriteString(l.text)
		sec.text.WriteByte('\n')
	}
	if old.Text != "" {
		sec.Line = old.Line
	}
	sec.Text = sec.text.String()
	return sec
}

// copies reads lines of %files: a source and perhaps a destination, each with
// or without double quotes.
func (p *parser) copies(lines []line) ([]Copy, error) {
	var list []Copy
	for _, l := range lines {
		text := strings.TrimSpace(l.text)
		if text == "" || text[0] == '#' {
			continue
		}
		words, column := fields(text)
		if column > 0 {
			column += strings.Index(l.text, text)
			return nil, &Error{File: p.file, Line: l.num, Column: column, Msg: "double quote is not closed", Hint: ""}
		}
		c := Copy{Source: words[0], Line: l.num}
		if len(words) > 1 {
			c.Dest = words[1]
		}
		if len(words) > 2 || c.Source == "" {
			return nil, p.at(l.num, text, fmt.Sprintf("%q is not a source and a destination", text), "put names with blanks in double quotes")
		}
		list = append(list, c)
	}
	return list, nil
}

// fields splits s, not empty, at blanks outside double quotes. column is that
// of a quote that is not closed, counted from 1, else 0.
func fields(s string) (words []string, column int) {
	var b strings.Builder
	open, inWord := -1, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' && open < 0:
			open, inWord = i, true
		case c == '"':
			open = -1
		case open < 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, b.String())
				b.Reset()
			}
			inWord = false
		default:
			b.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, b.String())
	}
	return words, open + 1
}

func (p *parser) checkAgent(s *Stage) error {
	agent := s.Agent()
	if agent == "" {
		return p.err(s.Line, "no bootstrap keyword found in the header", `every stage needs a line such as "Bootstrap: localimage"`)
	}
	num := s.LineOf("bootstrap")
	need, ok := agents[agent]
	if !ok {
		names := make([]string, 0, len(agents))
		for n := range agents {
			names = append(names, n)
		}
		hint := didYouMean("", nearest(agent, sorted(names)))
		if hint == "" {
			hint = "agents are " + strings.Join(sorted(names), ", ")
		}
		return p.at(num, s.Value("bootstrap"), fmt.Sprintf("unknown bootstrap agent %q", agent), hint)
	}
	for _, k := range need {
		if s.Value(k) == "" {
			return p.err(num, fmt.Sprintf("bootstrap agent %q needs the header keyword %s", agent, spelling[k]), "")
		}
	}
	return nil
}

// appNameBytes are what the name of an app may hold.
const appNameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-"

// checkStages looks at what holds between stages: names are unique, and files
// come from a stage above.
func (p *parser) checkStages() error {
	seen := map[string]bool{}
	for i := range p.def.Stages {
		s := &p.def.Stages[i]
		for _, f := range s.Files {
			if f.From != "" && !seen[f.From] {
				return p.at(f.Line, f.From, fmt.Sprintf("%%files copies from stage %q, which is not a stage above", f.From), didYouMean("", nearest(f.From, slices.Sorted(maps.Keys(seen)))))
			}
		}
		if n := s.Name(); n != "" {
			if seen[n] {
				return p.err(s.LineOf("stage"), fmt.Sprintf("stage %q exists already", n), "")
			}
			seen[n] = true
		}
	}
	return nil
}
