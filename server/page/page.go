// Package page is the frame that all pages of the server share: head, navigation,
// style sheet and script, and how a page is sent.
//
// Pages are made on the server by html/template, which escapes what they show
// for its place. They load nothing from anybody else and run no script but the one
// of this package; the headers of Write say so to the browser, so that a text that
// slipped through could do nothing (SC-149). All can be read without scripts.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

//go:embed files
var files embed.FS

// Frame is what the frame of a page shows. The data of a page embeds it.
type Frame struct {
	Title   string
	Section string // which entry of the navigation the page belongs to
	Wide    bool
	User    string // who is logged in
	Admin   bool
	CSRF    string
	Search  string
}

// Entry is a place in the navigation of every page.
type Entry struct {
	Path, Text, Section string
	Admin               bool // for administrators alone
}

// navigation is the places, in their order: a new part of the site is a line here.
var navigation = []Entry{
	{Path: "/library", Text: "Library", Section: "library"},
	{Path: "/keystore", Text: "Keys", Section: "keys"},
	{Path: "/builder", Text: "Builder", Section: "builder"},
	{Path: "/security", Text: "Security", Section: "security"},
	{Path: "/docs", Text: "Docs", Section: "docs"},
	{Path: "/admin", Text: "Admin", Section: "admin", Admin: true},
}

// Navigation is the places that whoever looks may go to.
func (f Frame) Navigation() (list []Entry) {
	for _, e := range navigation {
		if !e.Admin || f.Admin {
			list = append(list, e)
		}
	}
	return list
}

// Parse makes the templates of the pages in fsys, beside those of the frame.
func Parse(fsys fs.FS, pattern string, more template.FuncMap) *template.Template {
	t := template.New("").Funcs(template.FuncMap{"day": day, "date": date, "bytes": Bytes, "count": count, "static": static}).Funcs(more)
	return template.Must(template.Must(t.ParseFS(files, "files/*.html")).ParseFS(fsys, pattern))
}

func day(t time.Time) string  { return t.UTC().Format("2006-01-02 15:04 UTC") }
func date(t time.Time) string { return t.UTC().Format("2 January 2006") }

// count writes a number of things: "1 image", "3 images".
func count(number any, one string) string {
	text := fmt.Sprint(number) + " " + one
	if strings.HasPrefix(text, "1 ") {
		return text
	}
	return text + "s"
}

// Bytes writes a number of bytes for people.
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if v /= 1024; v < 1024 {
			break
		}
	}
	if v < 10 {
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

// static is the address of a file of the frame. It changes with the content, so
// that browsers may keep the file.
func static(name string) (string, error) {
	text, err := files.ReadFile("files/" + name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return "/static/" + name + "?v=" + hex.EncodeToString(sum[:6]), nil
}

const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Write sends a page.
func Write(w http.ResponseWriter, t *template.Template, status int, name string, data any) error {
	var text bytes.Buffer
	if err := t.ExecuteTemplate(&text, name, data); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(visible(text.Bytes())) // whoever went away does not need it
	return nil
}

// visible replaces the control characters and marks of direction in a page by
// escapes that can be seen: what is copied from a page into a terminal is what
// the page shows (SC-164).
func visible(text []byte) []byte {
	hidden := func(r rune) bool {
		return unicode.In(r, unicode.Cc, unicode.Bidi_Control) && r != '\t' && r != '\n'
	}
	if !bytes.ContainsFunc(text, hidden) {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for _, r := range string(text) {
		switch {
		case r == '\r': // of a text that was typed into a form
		case hidden(r):
			out = append(out, strings.Trim(strconv.QuoteRuneToASCII(r), "'")...)
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

var types = map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}

// Static answers GET /static/{name}.
func Static(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	_, ext, _ := strings.Cut(name, ".")
	text, err := files.ReadFile("files/" + name)
	if err != nil || types[ext] == "" {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", types[ext])
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Write(text)
}
