package openapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// schemas makes JSON schemas of Go types. Types with a name are put where others
// refer to them.
type schemas struct {
	named object
}

func newSchemas() *schemas { return &schemas{named: object{}} }

func (s *schemas) of(v any) object { return s.typed(reflect.TypeOf(v)) }

func (s *schemas) typed(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	case t == reflect.TypeFor[any](), t == reflect.TypeFor[json.RawMessage]():
		return object{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.typed(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer"}
	case reflect.Slice:
		return object{"type": "array", "items": s.typed(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.typed(t.Elem())}
	case reflect.Struct:
		return s.structure(t)
	}
	panic("a type that no answer has: " + t.String())
}

func (s *schemas) structure(t reflect.Type) object {
	name := t.Name()
	if name == "" {
		return s.fields(t)
	}
	name = strings.ToUpper(name[:1]) + name[1:]
	if _, ok := s.named[name]; !ok {
		s.named[name] = object{} // for a type that holds itself
		s.named[name] = s.fields(t)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (s *schemas) fields(t reflect.Type) object {
	properties, required := object{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		properties[name] = s.typed(f.Type)
		if !strings.Contains(options, "omit") {
			required = append(required, name)
		}
	}
	slices.Sort(required)
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// Check tells how the JSON text differs from the answer of the call: what is
// missing and what has another type, and with strict what nobody has described.
func (o Operation) Check(text []byte, strict bool) error {
	s := newSchemas()
	schema := o.schema(s)
	if schema == nil {
		return nil
	}
	return s.check(schema, text, strict)
}

// CheckRefusal does the same for a refusal with that status.
func (o Operation) CheckRefusal(text []byte, status int) error {
	s := newSchemas()
	if o.OCI {
		return s.check(s.of(ociErrors{}), text, false)
	}
	if err := s.check(s.of(refusal{}), text, false); err != nil {
		return err
	}
	var e refusal
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	if e.Error.Code != status {
		return fmt.Errorf("error.code is %d, and the status %d", e.Error.Code, status)
	}
	if e.Error.Message == "" {
		return fmt.Errorf("error.message is empty")
	}
	return nil
}

func (s *schemas) check(schema object, text []byte, strict bool) error {
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return fmt.Errorf("the body is no JSON: %.80q", text)
	}
	return s.value(schema, v, "", strict)
}

func (s *schemas) value(schema object, v any, at string, strict bool) error {
	if ref, ok := schema["$ref"].(string); ok {
		schema = s.named[ref[strings.LastIndexByte(ref, '/')+1:]].(object)
	}
	want, ok := schema["type"].(string)
	if !ok {
		return nil
	}
	if got := kindOf(v); got != want {
		return fmt.Errorf("%s is %s, not %s", nameOf(at), got, want)
	}
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			if err := s.value(schema["items"].(object), e, fmt.Sprintf("%s[%d]", at, i), strict); err != nil {
				return err
			}
		}
	case map[string]any:
		return s.members(schema, v, at, strict)
	}
	return nil
}

func (s *schemas) members(schema object, v map[string]any, at string, strict bool) error {
	properties, _ := schema["properties"].(object)
	required, _ := schema["required"].([]string)
	for _, name := range required {
		if _, ok := v[name]; !ok {
			return fmt.Errorf("%s has no %q", nameOf(at), name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		below, ok := properties[name].(object)
		if !ok {
			below, ok = schema["additionalProperties"].(object)
		}
		if !ok && strict {
			return fmt.Errorf("%s has %q, which is not described", nameOf(at), name)
		}
		if !ok {
			continue
		}
		if err := s.value(below, v[name], strings.TrimPrefix(at+"."+name, "."), strict); err != nil {
			return err
		}
	}
	return nil
}

func nameOf(at string) string {
	if at == "" {
		return "the body"
	}
	return at
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	}
	return "object"
}
