package main

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maxLines bounds the lines of ours that the helper links, without blank ones and
// comments: what a person reads in one sitting.
const maxLines = 2500

func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// TestDependencies: every package that runs as root is known. A new line in
// deps.txt needs a reason in its commit.
func TestDependencies(t *testing.T) {
	text, err := os.ReadFile("deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, got := strings.Fields(string(text)), list(t, "-tags=starter", "-deps", ".")
	slices.Sort(got)
	for _, p := range got {
		if !slices.Contains(want, p) {
			t.Errorf("the helper links %s, which deps.txt lacks", p)
		}
		switch p {
		case "net", "os/exec", "encoding/json", "net/http", "plugin", "os/user":
			t.Errorf("the helper must not link %s", p)
		}
	}
	for _, p := range want {
		if !slices.Contains(got, p) {
			t.Errorf("deps.txt has %s, which the helper does not link", p)
		}
	}
}

// TestLines counts what of ours the helper links: the lines of declarations, and
// of the functions that are in the program.
func TestLines(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "helper")
	// Without inlining, so that every function that is used has a symbol.
	if out, err := exec.Command("go", "build", "-tags=starter", "-gcflags=singularity/...=-l", "-ldflags=-E starter_entry", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command("go", "tool", "nm", bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 {
			name, _, _ := strings.Cut(f[2], "[") // of a generic function
			linked[strings.TrimSuffix(strings.TrimSuffix(name, ".abi0"), "-fm")] = true
		}
	}
	total := 0
	for _, pkg := range list(t, "-tags=starter", "-deps", "-f", `{{if not .Standard}}{{if eq .Module.Path "singularity"}}{{.ImportPath}}={{.Dir}}{{end}}{{end}}`, ".") {
		path, dir, _ := strings.Cut(pkg, "=")
		n := countPackage(t, path, dir, linked)
		t.Logf("%5d lines of %s", n, path)
		total += n
	}
	t.Logf("%5d lines, without blank ones and comments", total)
	if total > maxLines {
		t.Errorf("the helper links %d lines of ours, and %d are allowed", total, maxLines)
	}
}

func countPackage(t *testing.T, path, dir string, linked map[string]bool) int {
	if strings.HasPrefix(path, "singularity/cmd/") {
		path = "main"
	}
	n := 0
	for _, pattern := range []string{"*.go", "*_amd64.s"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case strings.HasSuffix(f, "_test.go"), strings.HasSuffix(f, "_other.go"), helperLacks(string(text)):
			case strings.HasSuffix(f, ".s"):
				n += assemblerLines(string(text), linked)
			default:
				n += codeLines(t, path, f, text, linked)
			}
		}
	}
	return n
}

// helperLacks tells whether a file is built without the tag starter alone.
func helperLacks(text string) bool {
	line, _, _ := strings.Cut(text, "\n")
	return strings.HasPrefix(line, "//go:build ") && strings.Contains(line, "!starter")
}

// assemblerLines counts the lines of the functions that are linked.
func assemblerLines(text string, linked map[string]bool) int {
	n, on := 0, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "TEXT "); ok {
			name, _, _ = strings.Cut(name, "(")
			on = linked[strings.TrimSuffix(strings.ReplaceAll(name, "\u00b7", ""), "<>")]
		}
		if on && line != "" && !strings.HasPrefix(line, "//") {
			n++
		}
	}
	return n
}

// codeLines counts the lines that hold something else than a comment, outside of
// functions that are not linked.
func codeLines(t *testing.T, path, name string, text []byte, linked map[string]bool) int {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int]bool{}
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && !linked[symbol(path, f)] {
			for l := fset.Position(f.Pos()).Line; l <= fset.Position(f.End()).Line; l++ {
				left[l] = true
			}
		}
	}
	n := 0
	var s scanner.Scanner
	file := fset.AddFile(name, fset.Base(), len(text))
	s.Init(file, text, nil, 0)
	for last := 0; ; {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return n
		}
		for k := range strings.Count(lit, "\n") + 1 {
			if l := file.Line(pos) + k; (tok != token.SEMICOLON || lit != "\n") && l > last {
				last = l
				if !left[l] {
					n++
				}
			}
		}
	}
}

// symbol is the name of a function in the program.
func symbol(path string, f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return path + "." + f.Name.Name
	}
	switch r := f.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		return path + ".(*" + r.X.(*ast.Ident).Name + ")." + f.Name.Name
	case *ast.Ident:
		return path + "." + r.Name + "." + f.Name.Name
	}
	return ""
}
