// Package openapi describes what the server answers: one table with a row for
// each call, and from it the document of OpenAPI 3.1 that clients are made of.
//
// The table is data alone. What is registered is somebody else's: Document takes
// the patterns of the routes that are there and leaves out what is not, and a test
// of package server fails on a route without a row and on a row without a route.
// Schemas are made from the Go types that are sent, so that a new field is
// described by being there. Check holds an answer against its schema; package
// conformance uses it on any server.
//
//   - openapi.go: rows and the document; schema.go: types to schemas, and Check
//   - table.go, table_builder.go, table_library.go, table_pages.go, table_watch.go: the rows
package openapi

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Operation is one call: a row of the table.
type Operation struct {
	Pattern string // as it is registered
	As      string // METHOD /path, where one pattern has several calls
	Tag     string
	Summary string
	Scope   string // that a token needs
	Query   []Param
	Headers []Param

	In    any    // the body of the request, as JSON
	Media string // of the request, where it is no JSON

	Status int    // of success; 200 if it is 0
	Data   any    // of the answer, in the envelope
	Paged  bool   // with the place where the next page begins
	Body   any    // of the answer, as it is
	Type   string // media type of the answer, where it is no JSON
	Empty  bool   // success has no body
	Also   []int  // other answers than refusals, such as a redirect
	Refuse []int  // refusals beside those that Scope, parameters and rates imply
	OCI    bool   // refusals are in the form of registries
}

// Param is a parameter of the query or a header.
type Param struct {
	Name, Text string
	Required   bool
}

// Method and Path of the call.
func (o Operation) Method() string { method, _ := o.split(); return method }

// Path is the path with its parameters in braces.
func (o Operation) Path() string {
	_, path := o.split()
	path = strings.ReplaceAll(path, "{$}", "")
	return strings.ReplaceAll(path, "...}", "}")
}

func (o Operation) split() (string, string) {
	text := o.As
	if text == "" {
		text = o.Pattern
	}
	method, path, ok := strings.Cut(text, " ")
	if !ok {
		return http.MethodGet, text
	}
	return method, path
}

// Success is the status of an answer that is no refusal.
func (o Operation) Success() int {
	if o.Status == 0 {
		return http.StatusOK
	}
	return o.Status
}

// Tags are the groups of the calls, in the order to show, and what they are.
var Tags = [][2]string{
	{"discovery", "How clients find the services of a site"},
	{"account", "Tokens, who somebody is, groups and robots"},
	{"library", "Images, their tags, and where they are"},
	{"push", "How an image comes"},
	{"keys", "OpenPGP keys, by HKP and by JSON"},
	{"log", "The transparency log of keys"},
	{"registry", "The distribution API of the OCI on the same content"},
	{"builder", "Images built here from definitions"},
	{"watch", "What is in images, what is wrong with it, and where they run"},
	{"administration", "For administrators of the server"},
	{"internal", "On the internal listener alone"},
	{"pages", "What browsers see"},
}

// Operations returns the table.
func Operations() []Operation {
	return slices.Concat(discovery, account, library, push, keys, translog, registry, builder, watching, administration, internal, pages)
}

// Missing compares the table with the patterns that are registered.
func Missing(patterns []string) (undescribed, absent []string) {
	described := map[string]bool{}
	for _, o := range Operations() {
		described[o.Pattern] = true
		if !slices.Contains(patterns, o.Pattern) && !slices.Contains(absent, o.Pattern) {
			absent = append(absent, o.Pattern)
		}
	}
	for _, p := range patterns {
		if !described[p] {
			undescribed = append(undescribed, p)
		}
	}
	return undescribed, absent
}

type object = map[string]any

// Document returns the description of a server that has these patterns.
func Document(version, url string, patterns []string) map[string]any {
	s := newSchemas()
	paths := object{}
	for _, o := range Operations() {
		if !slices.Contains(patterns, o.Pattern) {
			continue
		}
		item, ok := paths[o.Path()].(object)
		if !ok {
			item = object{}
			paths[o.Path()] = item
		}
		item[strings.ToLower(o.Method())] = o.describe(s)
	}
	var tags []object
	for _, t := range Tags {
		tags = append(tags, object{"name": t[0], "description": t[1]})
	}
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "singularity-server", "version": version, "license": object{"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
			"description": "An answer is {\"data\": ...}, a refusal {\"error\": {\"code\": ..., \"message\": ...}} and has the id of the request in X-Request-Id. A parameter at the end of a path may hold slashes. " +
				"Whatever answers GET answers HEAD. An invalid token on a public read counts as none, and X-Token-Status: invalid says so. What the caller may not see is 404, as what is not there."},
		"servers":  []object{{"url": url}},
		"tags":     tags,
		"security": []object{{}, {"token": []string{}}},
		"paths":    paths,
		"components": object{"schemas": s.named, "securitySchemes": object{
			"token":   object{"type": "http", "scheme": "bearer", "description": "An access token, made on the page of the account or by POST /token/v1/device"},
			"session": object{"type": "apiKey", "in": "cookie", "name": "__Host-session", "description": "A browser that is logged in; forms carry the secret of the session as csrf"},
			"mutual":  object{"type": "mutualTLS", "description": "A certificate of singularity-server admin certificate"}}},
	}
}

var parameters = regexp.MustCompile(`\{([a-z_]+)(?:\.\.\.)?\}`)

// parameterTexts are the parts of paths.
var parameterTexts = map[string]string{
	"entity": "a user, group or another owner", "collection": "a collection", "container": "a container; on pages with :TAG or :sha256.HEX", "fingerprint": "40 hexadecimal digits", "id": "an id that an answer gave",
	"ref": "ENTITY/COLLECTION/CONTAINER:TAG, or :sha256.HEX, or an id", "name": "a name", "group": "the name of a group", "part": "the number of a part, from 1", "path": "the rest of the path", "address": "a mail address",
	"provider": "the name of a log-in provider", "digest": "sha256:HEX", "reference": "a tag or a digest", "upload": "an id that an answer gave", "robot": "the name of a robot",
}

func (o Operation) describe(s *schemas) object {
	var params []object
	for _, m := range parameters.FindAllStringSubmatch(o.Path(), -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "description": parameterTexts[m[1]], "schema": object{"type": "string"}})
	}
	add := func(where string, list []Param) {
		for _, p := range list {
			params = append(params, object{"name": p.Name, "in": where, "required": p.Required, "description": p.Text, "schema": object{"type": "string"}})
		}
	}
	add("query", o.Query)
	add("header", o.Headers)
	d := object{"operationId": o.id(), "tags": []string{o.Tag}, "summary": o.Summary, "responses": o.responses(s)}
	if params != nil {
		d["parameters"] = params
	}
	switch {
	case o.In != nil:
		d["requestBody"] = object{"content": object{"application/json": object{"schema": s.of(o.In)}}}
	case o.Media != "":
		d["requestBody"] = object{"required": true, "content": object{o.Media: object{}}}
	}
	switch {
	case o.Tag == "internal" && o.Scope != "":
		d["security"] = []object{{"mutual": []string{}}}
	case o.Tag == "pages":
		d["security"] = []object{{}, {"session": []string{}}}
	case o.Scope != "":
		d["description"] = "Needs the scope " + o.Scope + "."
		d["security"] = []object{{"token": []string{o.Scope}}}
	}
	return d
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

func (o Operation) id() string {
	return strings.Trim(notName.ReplaceAllString(strings.ToLower(o.Method()+" "+o.Path()), "_"), "_")
}

func (o Operation) responses(s *schemas) object {
	out := object{strconv.Itoa(o.Success()): o.success(s)}
	for _, status := range o.Also {
		out[strconv.Itoa(status)] = object{"description": http.StatusText(status)}
	}
	for _, status := range o.Refusals() {
		r := object{"description": http.StatusText(status)}
		switch {
		case o.OCI:
			r["content"] = object{"application/json": object{"schema": s.of(ociErrors{})}}
		case o.Tag != "pages":
			r["content"] = object{"application/json": object{"schema": s.of(refusal{})}}
		}
		out[strconv.Itoa(status)] = r
	}
	return out
}

// Refusals are the statuses of refusals.
func (o Operation) Refusals() []int {
	set := map[int]bool{http.StatusTooManyRequests: true}
	if o.Scope != "" {
		set[http.StatusUnauthorized], set[http.StatusForbidden] = true, true
	}
	if strings.Contains(o.Path(), "{") {
		set[http.StatusNotFound] = true
	}
	if o.In != nil || o.Query != nil {
		set[http.StatusBadRequest] = true
	}
	for _, status := range o.Refuse {
		set[status] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func (o Operation) success(s *schemas) object {
	r := object{"description": http.StatusText(o.Success())}
	if schema := o.schema(s); schema != nil {
		r["content"] = object{"application/json": object{"schema": schema}}
	} else if !o.Empty {
		kind := o.Type
		if kind == "" {
			kind = "text/html"
		}
		r["content"] = object{kind: object{}}
	}
	return r
}

// schema is that of the answer, if it is JSON.
func (o Operation) schema(s *schemas) object {
	switch {
	case o.Body != nil:
		return s.of(o.Body)
	case o.Data != nil:
		properties := object{"data": s.of(o.Data)}
		if o.Paged {
			properties["page"] = s.of(nextPage{})
		}
		return object{"type": "object", "properties": properties, "required": []string{"data"}}
	}
	return nil
}

// Find returns the row of a call.
func Find(method, path string) (Operation, error) {
	for _, o := range Operations() {
		if o.Method() == method && o.Path() == path {
			return o, nil
		}
	}
	return Operation{}, fmt.Errorf("cannot find %s %s in the description", method, path)
}
