package build

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"unicode/utf8"
)

// attributes are the content of the SIF object inspect-metadata.json, which
// lets inspect answer without reading the file system.
type attributes struct {
	Environment map[string]string `json:"environment,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Runscript   string            `json:"runscript,omitempty"`
	Test        string            `json:"test,omitempty"`
	Helpfile    string            `json:"helpfile,omitempty"`
	Deffile     string            `json:"deffile,omitempty"`
	Startscript string            `json:"startscript,omitempty"`
}

// inspectJSON collects the metadata as it now is in the image.
func (b *builder) inspectJSON(meta *os.File) ([]byte, error) {
	a := attributes{Labels: b.labels, Deffile: string(b.def.Text), Environment: map[string]string{}}
	if err := a.scripts(meta); err != nil {
		return nil, err
	}
	apps, err := b.inspectApps()
	if err != nil {
		return nil, err
	}
	env, err := realDir(meta, "env")
	if err != nil {
		return nil, err
	}
	defer env.Close()
	names, err := env.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		own := strings.HasPrefix(name, "9") && strings.HasSuffix(name, "-environment.sh")
		docker := strings.HasPrefix(name, "10-docker") && strings.HasSuffix(name, ".sh")
		if !own && !docker {
			continue
		}
		data, err := readFile(env, name)
		if err != nil {
			return nil, err
		}
		a.Environment["/"+metaDir+"/env/"+name] = validText(data)
	}
	var doc struct {
		Data struct {
			Attributes struct {
				Apps map[string]*attributes `json:"apps,omitempty"`
				attributes
			} `json:"attributes"`
		} `json:"data"`
		Type string `json:"type"`
	}
	doc.Data.Attributes.Apps, doc.Data.Attributes.attributes, doc.Type = apps, a, "container"
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	err = enc.Encode(doc)
	return out.Bytes(), err
}

// validText makes data fit for JSON.
func validText(data []byte) string {
	if utf8.Valid(data) {
		return string(data)
	}
	return strings.ToValidUTF8(string(data), "\ufffd")
}
