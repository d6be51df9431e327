package singularity

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singularity/action"
)

// unread are flags whose value nothing reads, each with the reason.
var unread = map[string]string{
	"proot":    "the program proot is not used; the flag is accepted for old scripts",
	"sif-fuse": "images are always mounted by FUSE, and the flag says so",
}

// TestFlagsAreRead: the field that a flag writes to is read somewhere, so that no
// flag is taken and then forgotten.
func TestFlagsAreRead(t *testing.T) {
	m := &module{fset: token.NewFileSet(), packages: map[string]*types.Package{}, reads: map[types.Object]string{}, t: t}
	m.walk()
	if want := len(action.Flags) + len(action.GlobalFlags); len(m.fields) != want {
		t.Fatalf("%d of %d flags found in action/flags.go", len(m.fields), want)
	}
	for name, field := range m.fields {
		reason, excepted := unread[name]
		switch place := m.reads[field]; {
		case place == "" && !excepted:
			t.Errorf("--%s: nothing reads %s, so the flag has no effect", name, field.Name())
		case place != "" && excepted:
			t.Errorf("--%s: %s reads %s; take the flag off the list of those that are not read (%s)", name, place, field.Name(), reason)
		}
	}
	for name := range unread {
		if m.fields[name] == nil {
			t.Errorf("--%s is on the list of flags that are not read, and not in the tables", name)
		}
	}
}

// module is our own source with the types of our own packages. Those of other
// modules are left unknown: a field of plan.Options is one of ours.
type module struct {
	t        *testing.T
	fset     *token.FileSet
	packages map[string]*types.Package
	reads    map[types.Object]string // a place that reads each field
	fields   map[string]types.Object // of each flag
}

func (m *module) walk() {
	dirs := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && source(d.Name()) && !strings.HasPrefix(path, "e2e") && !strings.HasPrefix(path, "bench") {
			dirs[filepath.Dir(path)] = true
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	for dir := range dirs {
		if _, err := m.Import("singularity/" + dir); err != nil {
			m.t.Fatal(err)
		}
	}
}

func source(name string) bool {
	return strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
}

// Import is that of types.Importer.
func (m *module) Import(path string) (*types.Package, error) {
	if p := m.packages[path]; p != nil {
		return p, nil
	}
	dir, ours := strings.CutPrefix(path, "singularity/")
	if !ours {
		p := types.NewPackage(path, path[strings.LastIndexByte(path, '/')+1:])
		p.MarkComplete()
		m.packages[path] = p
		return p, nil
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, e := range list {
		if !source(e.Name()) {
			continue
		}
		f, err := parser.ParseFile(m.fset, filepath.Join(dir, e.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	c := types.Config{Importer: m, Error: func(error) {}}
	p, _ := c.Check(path, m.fset, files, info)
	m.packages[path] = p
	for _, f := range files {
		if m.fset.Position(f.Pos()).Filename == filepath.Join("action", "flags.go") {
			m.tables(f, info)
			continue
		}
		switch m.fset.Position(f.Pos()).Filename {
		case filepath.Join("conf", "config.go"), filepath.Join("conf", "others.go"): // whose tables point at all fields
		default:
			m.note(f, info)
		}
	}
	return p, nil
}

// note notes what f reads: every use of a field but as what is assigned to.
func (m *module) note(f *ast.File, info *types.Info) {
	written := map[*ast.Ident]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok && a.Tok == token.ASSIGN {
			for _, left := range a.Lhs {
				if s, ok := left.(*ast.SelectorExpr); ok {
					written[s.Sel] = true
				}
			}
		}
		return true
	})
	ast.Inspect(f, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok || written[id] {
			return true
		}
		if v, ok := info.Uses[id].(*types.Var); ok && v.IsField() {
			m.reads[v] = m.fset.Position(id.Pos()).String()
		}
		return true
	})
}

// tables finds the field of each flag: the last word of the selector that its
// row takes the address of.
func (m *module) tables(f *ast.File, info *types.Info) {
	m.fields = map[string]types.Object{}
	ast.Inspect(f, func(n ast.Node) bool {
		row, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		var name string
		var field types.Object
		for _, e := range row.Elts {
			pair, ok := e.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			switch pair.Key.(*ast.Ident).Name {
			case "Name":
				name = strings.Trim(pair.Value.(*ast.BasicLit).Value, `"`)
			case "Field":
				ast.Inspect(pair.Value, func(n ast.Node) bool {
					if u, ok := n.(*ast.UnaryExpr); ok && u.Op == token.AND {
						field = info.Uses[u.X.(*ast.SelectorExpr).Sel]
					}
					return true
				})
			}
		}
		if field != nil {
			m.fields[name] = field
		}
		return true
	})
}

// TestFlagsHaveRows: doc/flags.md has a row for each flag, with its variables, and
// the script that the row names uses the flag.
func TestFlagsHaveRows(t *testing.T) {
	text, err := os.ReadFile("doc/flags.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if name, ok := strings.CutPrefix(cells[0], "| `--"); ok && len(cells) == 4 {
			rows[strings.TrimSuffix(name, "`")] = []string{cells[1], strings.TrimSuffix(cells[3], " |")}
		}
	}
	for _, table := range [][]action.Flag{action.Flags, action.GlobalFlags} {
		for _, f := range table {
			row := rows[f.Name]
			delete(rows, f.Name)
			variables := strings.Join(f.Env, ", ")
			if variables == "" {
				variables = "-"
			}
			switch {
			case row == nil:
				t.Errorf("--%s has no row in doc/flags.md", f.Name)
			case row[0] != variables:
				t.Errorf("--%s has the variables %s; doc/flags.md says %s", f.Name, variables, row[0])
			case row[1] == "-" && unread[f.Name] == "":
				t.Errorf("--%s: doc/flags.md names no script", f.Name)
			case row[1] != "-" && !uses(t, row[1], &f):
				t.Errorf("--%s: the script %s of doc/flags.md does not use it", f.Name, row[1])
			}
		}
	}
	for name := range rows {
		t.Errorf("doc/flags.md has a row for --%s, which is not there", name)
	}
}

// uses tells whether a word of a line of the script that starts a container is
// the flag.
func uses(t *testing.T, script string, f *action.Flag) bool {
	text, err := os.ReadFile(filepath.Join("e2e", "testdata", script+".txtar"))
	if err != nil {
		t.Error(err)
		return false
	}
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "singularity") {
			continue
		}
		for _, word := range strings.Fields(line) {
			name, _, _ := strings.Cut(word, "=")
			short := f.Short != "" && len(word) > 1 && word[0] == '-' && word[1] != '-' && strings.Contains(word, f.Short)
			if name == "--"+f.Name || short {
				return true
			}
		}
	}
	return false
}
