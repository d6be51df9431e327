package keystore

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"time"
)

// machineReadable writes a list as programs read it. They index into the fields
// without looking, so every field is there.
func (s *Service) machineReadable(list []record, t term) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "info:1:%d\n", len(list))
	for _, k := range list {
		fmt.Fprintf(&b, "pub:%s:%d:%d:%s:%s:%s\n", k.IDs[0], k.Algorithm, k.Bits, seconds(k.Created), seconds(k.Expires), k.flag(s.now()))
		for _, u := range s.listed(k, t) {
			flag := ""
			if u.Revoked {
				flag = "r"
			}
			fmt.Fprintf(&b, "uid:%s:%s::%s\n", escape(u.Text), seconds(u.Created), flag)
		}
	}
	return b.Bytes()
}

// listed are the user ids that a list tells: for a search those alone that it
// may find, and revoked ones only if there are no others.
func (s *Service) listed(k record, t term) []userID {
	var list, revoked []userID
	for _, u := range k.UserIDs {
		switch {
		case len(t.ids) == 0 && !s.shown(u):
		case u.Revoked:
			revoked = append(revoked, u)
		default:
			list = append(list, u)
		}
	}
	if len(list) == 0 {
		return revoked
	}
	return list
}

func seconds(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.Unix(), 10)
}

// escape writes a user id so that clients, which undo the escapes of a query,
// read it as it is.
func escape(text string) string {
	var b bytes.Buffer
	for _, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			b.WriteByte(c)
		case bytes.IndexByte([]byte("-_.~ <>()@,'"), c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

var page = template.Must(template.New("index").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Keys for {{.Search}}</title></head><body>
<h1>Keys for {{.Search}}</h1>
<ul>{{range .Keys}}
<li><a href="/pks/lookup?op=get&amp;search=0x{{.Fingerprint}}"><code>{{.Fingerprint}}</code></a>{{with .State}} ({{.}}){{end}}, {{.Created}}
<ul>{{range .UserIDs}}<li>{{.}}</li>{{end}}</ul></li>{{end}}
</ul></body></html>
`))

type row struct {
	Fingerprint, State, Created string
	UserIDs                     []string
}

// writePage writes a list for people who come with a browser.
func (s *Service) writePage(w http.ResponseWriter, list []record, t term) error {
	var rows []row
	for _, k := range list {
		r := row{Fingerprint: k.IDs[0], Created: k.Created.Format(time.DateOnly), State: map[string]string{"r": "revoked", "e": "expired"}[k.flag(s.now())]}
		for _, u := range s.listed(k, t) {
			r.UserIDs = append(r.UserIDs, u.Text)
		}
		rows = append(rows, r)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, struct {
		Search string
		Keys   []row
	}{t.text, rows}); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	_, err := w.Write(b.Bytes())
	return ignore(err)
}
