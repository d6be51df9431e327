// Package deffile reads definition files: the recipe that an image is built from.
//
// The bytes of a file and the values of its template variables go in; a
// Definition comes out: one or more stages, each with a header of keywords,
// its sections and its apps, in the order of the file.
//
//	Bootstrap: debootstrap          header: "Key: value", "\" continues a line,
//	OSVersion: bookworm             "#" begins a comment
//	MirrorURL: http://deb.debian.org/debian
//
//	%files                          section: a line whose first word begins
//	    tool.py /usr/local/bin/     with "%"; the rest of the line are its
//	%post                           arguments; the text runs to the next one
//	    apt-get -y install python3
//
// A line that begins with "bootstrap:" opens a stage. "{{ name }}" is replaced
// before a stage is parsed, everywhere in it, by the value given by the caller
// or by the stage's %arguments; the replaced text is what Text holds and what
// an image stores.
//
// The writer of the file is the person who builds, so its scripts are trusted;
// its size is not: Parse bounds bytes, stages, sections and keywords, never
// panics, and names file, line and column in errors. The package knows no paths
// and opens nothing. The grammar is that of section 7.1 of the command line
// specification, whole.
package deffile

import (
	"fmt"
	"slices"
	"strings"
)

// Limits of a definition file.
const (
	MaxSize     = 4 << 20 // bytes, before and after the variables are replaced
	maxStages   = 100
	maxSections = 10000 // in one stage
	maxKeywords = 1000  // in one header
	maxWarnings = 100   // about lines that are skipped
	maxNameSize = 255   // bytes in the name of a stage, a section or an app
)

// Definition is a parsed definition file.
type Definition struct {
	Stages   []Stage
	Text     []byte   // the file with its variables replaced and its line ends made "\n"
	Warnings []string // what a person should know, though it stops nothing
}

// Stage is a header and the sections that follow it.
type Stage struct {
	Line     int // of the first line
	Header   []Keyword
	Sections map[string]Section // by lower-case name without "%"; %files is not among them
	Files    []FileSet          // the %files sections, merged by their arguments
	Apps     []App              // in the order of their first mention
}

// Keyword is a line of the header. Name is in lower case.
type Keyword struct {
	Name, Value string
	Line        int
}

// Section is the text below a line like "%post". Text ends in a line feed
// unless it is empty; its lines keep their indentation.
type Section struct {
	Name string // in lower case, without "%"
	Args string // the rest of the section's line; of a repeated section, the last
	Text string
	Line int // of the first text line, for messages

	text *strings.Builder // Text grows in it where a section is repeated
}

// FileSet is a %files section, or several with equal arguments.
type FileSet struct {
	From   string // the stage to copy from; "" is the host
	Copies []Copy
	Line   int
}

// Copy is a line of %files: what to copy where. Dest is "" where the line
// names none.
type Copy struct {
	Source, Dest string
	Line         int
}

// App is what the %app... sections say about one app.
type App struct {
	Name     string
	Line     int                // of its first section
	Sections map[string]Section // by full lower-case name, such as "appinstall"
	Files    []Copy
}

// Value returns the value of the header keyword name, in lower case, or "".
func (s *Stage) Value(name string) string {
	for _, k := range slices.Backward(s.Header) {
		if k.Name == name {
			return k.Value
		}
	}
	return ""
}

// LineOf returns the line of the header keyword name, or of the stage.
func (s *Stage) LineOf(name string) int {
	for _, k := range slices.Backward(s.Header) {
		if k.Name == name {
			return k.Line
		}
	}
	return s.Line
}

// Name returns the name that the Stage keyword gives, or "".
func (s *Stage) Name() string { return s.Value("stage") }

// Agent returns the bootstrap agent, in lower case.
func (s *Stage) Agent() string { return strings.ToLower(s.Value("bootstrap")) }

// Script returns the text of a section and whether the section has any.
func (s *Stage) Script(name string) (Section, bool) {
	sec, ok := s.Sections[name]
	return sec, ok && strings.TrimSpace(sec.Text) != ""
}

// Error is a fault in a definition file. Line counts from 1, and so does
// Column; 0 means unknown. Hint says what to do, or is "".
type Error struct {
	File         string
	Line, Column int
	Msg, Hint    string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:", e.Line)
	}
	if e.Line > 0 && e.Column > 0 {
		fmt.Fprintf(&b, "%d:", e.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	return b.String() + e.Msg
}

// keywords are the valid header keywords; otherurl may carry a number.
var keywords = []string{
	"bootstrap", "from", "includecmd", "mirrorurl", "updateurl", "osversion", "include", "library", "registry", "namespace",
	"stage", "product", "user", "regcode", "productpgp", "registerurl", "modules", "otherurl", "fingerprints", "setopt",
}

var sections = []string{
	"help", "setup", "files", "labels", "environment", "pre", "post", "runscript", "test", "startscript", "arguments",
}

var appSections = []string{
	"appinstall", "applabels", "appfiles", "appenv", "apptest", "apphelp", "apprun", "appstart",
}

// agents are the bootstrap agents with the keywords that each cannot do without.
var agents = map[string][]string{
	"library": {"from"}, "docker": {"from"}, "docker-daemon": {"from"}, "docker-archive": {"from"}, "oci": {"from"},
	"oci-archive": {"from"}, "oras": {"from"}, "shub": {"from"}, "localimage": {"from"}, "debootstrap": {"mirrorurl", "osversion"},
	"yum": {"mirrorurl"}, "dnf": {"mirrorurl"}, "zypper": {}, "arch": {}, "busybox": {"mirrorurl"}, "scratch": {},
	"http": {"from"}, "https": {"from"},
}

// spelling gives the keywords as people write them.
var spelling = map[string]string{"from": "From", "mirrorurl": "MirrorURL", "osversion": "OSVersion"}

func isKeyword(name string) bool {
	if slices.Contains(keywords, name) {
		return true
	}
	n, ok := strings.CutPrefix(name, "otherurl")
	return ok && strings.Trim(n, "0123456789") == ""
}

// nearest returns the word of list closest to s, or "" where none is close.
func nearest(s string, list []string) string {
	best, bestDistance := "", 1+len(s)/2
	for _, w := range list {
		if d := distance(s, w); d < bestDistance {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance counts the letters to add, drop or change to make b of a.
func distance(a, b string) int {
	if len(a) > maxNameSize || len(b) > maxNameSize {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			corner, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, corner+cost)
		}
	}
	return row[len(b)]
}
