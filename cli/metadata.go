package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode/utf16"

	"singularity/action"
	"singularity/image"
)

// Limits of what is read from an image.
const (
	maxScriptSize = 4 << 20
	maxApps       = 1024
	maxScripts    = 1024 // environment scripts in one directory
)

// metadata is what an image says about itself. Its JSON form is that of the
// output of inspect and of the object inspect-metadata.json in a SIF.
type metadata struct {
	Apps map[string]*appMetadata `json:"apps,omitempty"`
	appMetadata
	Deffile string `json:"deffile,omitempty"`
}

// appMetadata is what an image, or an app in it, says about itself.
type appMetadata struct {
	Environment map[string]string `json:"environment,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Runscript   string            `json:"runscript,omitempty"`
	Test        string            `json:"test,omitempty"`
	Helpfile    string            `json:"helpfile,omitempty"`
	Startscript string            `json:"startscript,omitempty"`
}

// metadataDocument is the frame of metadata in JSON.
type metadataDocument struct {
	Data struct {
		Attributes *metadata `json:"attributes"`
	} `json:"data"`
	Type string `json:"type"`
}

// parseMetadata reads the object inspect-metadata.json of a SIF.
func parseMetadata(data []byte) (*metadata, error) {
	var doc metadataDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("inspect-metadata.json: %w", err)
	}
	if doc.Data.Attributes == nil {
		return &metadata{}, nil
	}
	// A null in place of an app would be met as an app without a value.
	for name, app := range doc.Data.Attributes.Apps {
		if app == nil {
			doc.Data.Attributes.Apps[name] = &appMetadata{}
		}
	}
	return doc.Data.Attributes, nil
}

// writeJSON writes m to w, valid and safe for a terminal: what JSON leaves as it
// is but a terminal would obey is escaped too.
func writeJSON(w io.Writer, m *metadata) error {
	var doc metadataDocument
	doc.Data.Attributes, doc.Type = m, "container"
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(doc); err != nil {
		return err
	}
	_, err := io.WriteString(w, escapeJSON(buf.String()))
	return err
}

// escapeJSON escapes control characters in JSON text. They occur in strings
// only, so the text stays valid.
func escapeJSON(s string) string {
	if action.Printable(s) == s {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch c := string(r); {
		case action.Printable(c) == c:
			b.WriteString(c)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, "\\u%04x\\u%04x", hi, lo)
		default:
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// readMetadata reads metadata from the files in an image.
func readMetadata(t image.Tree) (*metadata, error) {
	m := &metadata{}
	const top = "/.singularity.d"
	steps := []struct {
		path string
		to   *string
	}{
		{top + "/Singularity", &m.Deffile},
		{top + "/runscript", &m.Runscript},
		{top + "/startscript", &m.Startscript},
		{top + "/test", &m.Test},
		{top + "/runscript.help", &m.Helpfile},
	}
	for _, s := range steps {
		var err error
		if *s.to, err = readScript(t, s.path); err != nil {
			return nil, err
		}
	}
	var err error
	if m.Labels, err = readLabels(t, top+"/labels.json"); err != nil {
		return nil, err
	}
	if m.Environment, err = readEnvironment(t, top+"/env"); err != nil {
		return nil, err
	}
	m.Apps, err = readApps(t)
	return m, err
}

// readScript returns a file, or "" if there is none.
func readScript(t image.Tree, name string) (string, error) {
	data, err := t.ReadFile(name, maxScriptSize)
	if absent(err) {
		return "", nil
	}
	return string(data), err
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func readLabels(t image.Tree, name string) (map[string]string, error) {
	text, err := readScript(t, name)
	if err != nil || text == "" {
		return nil, err
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(text), &labels); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return labels, nil
}

// readEnvironment returns the environment scripts that a person wrote: those of
// an OCI image, of the definition file and of its %post.
func readEnvironment(t image.Tree, dir string) (map[string]string, error) {
	return readScripts(t, dir, func(name string) bool {
		oci, _ := path.Match("10-docker*.sh", name)
		own, _ := path.Match("9*-environment.sh", name)
		return oci || own
	})
}

func readScripts(t image.Tree, dir string, want func(name string) bool) (map[string]string, error) {
	names, err := t.ReadDir(dir)
	if err != nil {
		if absent(err) {
			return nil, nil
		}
		return nil, err
	}
	scripts := map[string]string{}
	for _, name := range names {
		if !want(name) {
			continue
		}
		if len(scripts) == maxScripts {
			return nil, fmt.Errorf("%s: more than %d scripts", dir, maxScripts)
		}
		data, err := t.ReadFile(dir+"/"+name, maxScriptSize)
		if err != nil {
			return nil, err
		}
		scripts[dir+"/"+name] = string(data)
	}
	return scripts, nil
}

func readApps(t image.Tree) (map[string]*appMetadata, error) {
	const dir = "/scif/apps"
	names, err := t.ReadDir(dir)
	if err != nil {
		if absent(err) {
			return nil, nil
		}
		return nil, err
	}
	if len(names) > maxApps {
		return nil, fmt.Errorf("%s: more than %d apps", dir, maxApps)
	}
	apps := map[string]*appMetadata{}
	for _, name := range names {
		ok, err := isApp(t, dir+"/"+name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if apps[name], err = readApp(t, dir+"/"+name+"/scif"); err != nil {
			return nil, err
		}
	}
	return apps, nil
}

// isApp tells whether dir is a directory with a directory scif in it.
func isApp(t image.Tree, dir string) (bool, error) {
	for _, name := range []string{dir, dir + "/scif"} {
		st, err := t.Stat(name)
		if absent(err) || err == nil && !st.Mode.IsDir() {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

func readApp(t image.Tree, dir string) (*appMetadata, error) {
	app := &appMetadata{}
	steps := []struct {
		name string
		to   *string
	}{{"runscript", &app.Runscript}, {"startscript", &app.Startscript}, {"test", &app.Test}, {"runscript.help", &app.Helpfile}}
	for _, s := range steps {
		var err error
		if *s.to, err = readScript(t, dir+"/"+s.name); err != nil {
			return nil, err
		}
	}
	var err error
	if app.Labels, err = readLabels(t, dir+"/labels.json"); err != nil {
		return nil, err
	}
	app.Environment, err = readScripts(t, dir+"/env", func(name string) bool { return strings.HasSuffix(name, ".sh") })
	return app, err
}
