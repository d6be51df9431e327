package server

import (
	"encoding/json"
	"strings"
	"testing"

	"singularity/server/openapi"
)

// TestDescription: each route is described, and nothing that is not there.
func TestDescription(t *testing.T) {
	r := start(t, nil)
	undescribed, absent := openapi.Missing(r.patterns())
	if len(undescribed)+len(absent) > 0 {
		t.Errorf("package openapi has no row for the routes %q, and rows for %q, which are none", undescribed, absent)
	}
	res, text := r.get(t, "/openapi.json")
	var d struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]any
			Parameters  []struct{ Name, In string }
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil || res.StatusCode != 200 {
		t.Fatal(res.StatusCode, err)
	}
	ids := map[string]bool{}
	for path, item := range d.Paths {
		for method, o := range item {
			if ids[o.OperationID] || o.OperationID == "" {
				t.Errorf("%s %s: the id %q is not its own", method, path, o.OperationID)
			}
			ids[o.OperationID] = true
			in := 0
			for _, p := range o.Parameters {
				if p.In == "path" {
					in++
				}
			}
			if in != strings.Count(path, "{") || len(o.Responses) < 2 {
				t.Errorf("%s %s: %d parameters, %d answers", method, path, in, len(o.Responses))
			}
		}
	}
	if d.OpenAPI != "3.1.0" || len(ids) != len(openapi.Operations()) {
		t.Errorf("version %q, %d calls of %d", d.OpenAPI, len(ids), len(openapi.Operations()))
	}
	references := 0
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for key, e := range v {
				if name, ok := e.(string); ok && key == "$ref" {
					references++
					if d.Components.Schemas[strings.TrimPrefix(name, "#/components/schemas/")] == nil {
						t.Errorf("%s leads nowhere", name)
					}
				}
				walk(e)
			}
		}
	}
	var all any
	json.Unmarshal([]byte(text), &all)
	walk(all)
	if references < 60 {
		t.Errorf("only %d references", references)
	}
}
