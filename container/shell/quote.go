package shell

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// quote writes a script so that the interpreter takes it as other shells do.
// Where a word is not split into fields (assignments, redirections, defaults of
// variables, the word of a case) it keeps backslashes outside of quotes, and
// knows the home directory only at the beginning: what a backslash escapes is
// put in quotes instead, and "~" behind a colon becomes "$HOME". Lines stay
// where they are. Text that cannot be parsed is returned as it is.
func quote(text string) string {
	if !strings.ContainsAny(text, "\\~") {
		return text
	}
	f, err := syntax.NewParser().Parse(strings.NewReader(text), "")
	if err != nil {
		return text
	}
	q := quoter{text: text}
	syntax.Walk(f, q.visit)
	return q.result()
}

// quoter collects the places of a script that are to be replaced.
type quoter struct {
	text string
	out  strings.Builder
	done int           // how much of text is in out
	path []syntax.Node // from the script down to the node
}

func (q *quoter) visit(n syntax.Node) bool {
	if n == nil {
		q.path = q.path[:len(q.path)-1]
		return true
	}
	q.path = append(q.path, n)
	if lit, ok := n.(*syntax.Lit); ok && len(q.path) > 2 {
		if word, ok := q.path[len(q.path)-2].(*syntax.Word); ok {
			q.literal(lit, word)
		}
	}
	return true
}

// literal replaces what is in a literal that stands in word itself, not in
// quotes.
func (q *quoter) literal(lit *syntax.Lit, word *syntax.Word) {
	assigns := false
	switch parent := q.path[len(q.path)-3].(type) {
	case *syntax.Assign:
		assigns = true
	case *syntax.Redirect:
		if parent.Word != word || parent.Hdoc != nil {
			return
		}
	case *syntax.CaseClause:
		if parent.Word != word {
			return
		}
	case *syntax.ParamExp:
		if parent.Exp == nil || parent.Exp.Word != word || parent.Exp.Op > syntax.AssignUnsetOrNull {
			return
		}
	default:
		return
	}
	for _, n := range q.path {
		switch n := n.(type) {
		case *syntax.DblQuoted:
			return // other rules hold there
		case *syntax.CmdSubst:
			if n.Backquotes {
				return // where backslashes count twice
			}
		}
	}
	from, to := int(lit.Pos().Offset()), int(lit.End().Offset())
	if from < q.done || to > len(q.text) || from > to {
		return
	}
	s := q.text[from:to]
	if s != lit.Value && strings.ReplaceAll(s, "\\\n", "") != lit.Value {
		return // other text than was parsed
	}
	q.out.WriteString(q.text[q.done:from])
	q.done = to
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case strings.HasPrefix(s[i:], "\\\n"):
			q.out.WriteString("\\\n")
			i++
		case c == '\\' && i+1 < len(s) && s[i+1] == '\'':
			q.out.WriteString(`"'"`)
			i++
		case c == '\\' && i+1 < len(s):
			n := 1
			for i+1+n < len(s) && s[i+1+n]&0xc0 == 0x80 {
				n++ // the rest of a character
			}
			q.out.WriteString("'" + s[i+1:i+1+n] + "'")
			i += n
		case c == '~' && assigns && i > 0 && s[i-1] == ':' && (i+1 == len(s) || s[i+1] == '/' || s[i+1] == ':') && (i+1 < len(s) || lit == word.Parts[len(word.Parts)-1]):
			q.out.WriteString(`"${HOME}"`)
		default:
			q.out.WriteByte(c)
		}
	}
}

func (q *quoter) result() string {
	q.out.WriteString(q.text[q.done:])
	return q.out.String()
}
