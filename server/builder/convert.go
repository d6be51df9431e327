package builder

import (
	"io"
	"net/http"
	"strings"

	"singularity/api"
	"singularity/build/deffile"
	"singularity/server/auth"
	"singularity/server/route"
)

// convert tells the parts of a definition: which files a client has to send, or
// what is wrong with it. Nothing of it is run.
func (s *Service) convert(w http.ResponseWriter, r *http.Request) error {
	if err := auth.From(r.Context()).Require(auth.Build); err != nil {
		return err
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	d, err := deffile.Parse("definition", text, nil)
	if err != nil {
		return route.Errorf(http.StatusBadRequest, "%.500s", err.Error())
	}
	if len(d.Stages) == 0 {
		return route.Errorf(http.StatusBadRequest, "the definition has no header")
	}
	route.Data(w, convertDefinition(d, text))
	return nil
}

// convertDefinition describes the last stage, which is what the image is, with the
// files of all.
func convertDefinition(d *deffile.Definition, text []byte) api.Definition {
	last := &d.Stages[len(d.Stages)-1]
	out := api.Definition{Header: map[string]string{}, CustomData: map[string]string{}, Raw: d.Text, FullRaw: text, AppOrder: []string{}, Warnings: d.Warnings}
	for _, k := range last.Header {
		out.Header[k.Name] = k.Value
	}
	script := func(name string) api.Script {
		sec, _ := last.Script(name)
		return api.Script{Args: sec.Args, Script: sec.Text}
	}
	out.ImageData = api.DefinitionImage{Metadata: []byte{}, Labels: map[string]string{}, ImageScripts: api.ImageScripts{Help: script("help"), Environment: script("environment"),
		RunScript: script("runscript"), Test: script("test"), StartScript: script("startscript")}}
	labels, _ := last.Script("labels")
	for _, l := range deffile.Labels(labels.Text) {
		out.ImageData.Labels[l.Key] = l.Value
	}
	out.BuildData = api.DefinitionBuild{Files: []api.DefinitionFiles{}, BuildScripts: api.BuildScripts{Pre: script("pre"), Setup: script("setup"), Post: script("post"),
		Test: script("test"), Arguments: script("arguments")}}
	for i := range d.Stages {
		for _, set := range d.Stages[i].Files {
			f := api.DefinitionFiles{Files: []api.FileCopy{}}
			if set.From != "" {
				f.Args = "from " + set.From
			}
			for _, c := range set.Copies {
				f.Files = append(f.Files, api.FileCopy{Source: c.Source, Destination: c.Dest})
			}
			out.BuildData.Files = append(out.BuildData.Files, f)
		}
		for _, a := range d.Stages[i].Apps {
			f := api.DefinitionFiles{Files: []api.FileCopy{}}
			for _, c := range a.Files {
				f.Files = append(f.Files, api.FileCopy{Source: c.Source, Destination: c.Dest})
			}
			if len(f.Files) > 0 {
				out.BuildData.Files = append(out.BuildData.Files, f)
			}
		}
	}
	for _, a := range last.Apps {
		out.AppOrder = append(out.AppOrder, strings.TrimSpace(a.Name))
	}
	return out
}
