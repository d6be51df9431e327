// Package librarytest is a container library in memory for tests: the calls that
// clients make, the answers and status codes that they are promised, and a data
// plane at an address of its own.
//
// It keeps to what is written about the API: tags and hashes, architectures,
// uploads in one and in several parts, presigned addresses that must see no
// token, redirects to data, search and deletion.
package librarytest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"

	"singularity/api"
)

// Server is a library.
type Server struct {
	URL   string // of the library
	Token string // that writing wants
	// PartSize is that of uploads in parts; 0: such uploads are not supported.
	PartSize int64
	// Redirect sends downloads to the data plane.
	Redirect bool
	// Break cuts the first answers with data off after so many bytes; 0: never.
	Break int64

	mu      sync.Mutex
	api     *httptest.Server
	data    *httptest.Server
	images  []*api.Image
	tags    map[string]map[string]string // container id: "arch tag": image id
	objects map[string]string            // path: id
	blobs   map[string][]byte            // image id
	parts   map[string][][]byte
	// Seen are the requests, for tests to look at, and Leaked those with a token
	// that came to the data plane.
	Seen, Leaked []string
	broken       int
}

// New starts a library, with TLS or without.
func New(token string, tls bool) *Server {
	s := &Server{Token: token, tags: map[string]map[string]string{}, objects: map[string]string{}, blobs: map[string][]byte{}, parts: map[string][][]byte{}}
	start := httptest.NewServer
	if tls {
		start = httptest.NewTLSServer
	}
	s.api, s.data = start(s.routes()), start(http.HandlerFunc(s.serveData))
	s.URL = s.api.URL
	return s
}

// Certificate returns the server's, which has signed itself.
func (s *Server) Certificate() []byte { return s.api.Certificate().Raw }

// Client returns a client that trusts it.
func (s *Server) Client() *http.Client { return s.api.Client() }

// Close stops it.
func (s *Server) Close() {
	s.api.Close()
	s.data.Close()
}

// Downloads counts the answers with data.
func (s *Server) Downloads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.Seen {
		if strings.HasPrefix(r, "GET /v1/imagefile/") {
			n++
		}
	}
	return n
}

func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /assets/config/config.prod.json", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"libraryAPI":{"uri":%q}}`, s.URL)
	})
	m.HandleFunc("GET /version", func(w http.ResponseWriter, r *http.Request) {
		answer(w, api.Version{Version: "1", APIVersion: "2.0.0"})
	})
	for _, kind := range []string{"entities", "collections", "containers"} {
		m.HandleFunc("GET /v1/"+kind+"/{name...}", func(w http.ResponseWriter, r *http.Request) { s.object(w, r.PathValue("name")) })
		m.HandleFunc("POST /v1/"+kind, s.writing(s.newObject))
	}
	m.HandleFunc("GET /v1/images/{ref...}", s.image)
	m.HandleFunc("DELETE /v1/images/{ref...}", s.writing(s.remove))
	m.HandleFunc("POST /v1/images", s.writing(s.newImage))
	m.HandleFunc("GET /v1/imagefile/{ref...}", s.file)
	m.HandleFunc("POST /v2/imagefile/{id}", s.writing(s.announce))
	m.HandleFunc("PUT /v2/imagefile/{id}/_complete", s.writing(s.complete))
	m.HandleFunc("POST /v2/imagefile/{id}/_multipart", s.writing(s.announceParts))
	m.HandleFunc("PUT /v2/imagefile/{id}/_multipart", s.writing(s.part))
	m.HandleFunc("PUT /v2/imagefile/{id}/_multipart_complete", s.writing(s.complete))
	m.HandleFunc("PUT /v2/imagefile/{id}/_multipart_abort", s.writing(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	m.HandleFunc("POST /v2/tags/{container}", s.writing(s.tag))
	m.HandleFunc("GET /v1/search", s.search)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.Seen = append(s.Seen, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		m.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"data": v})
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"error": api.Error{Code: code, Message: message}})
}

// writing lets only the owner of the token by, and holds the lock.
func (s *Server) writing(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+s.Token {
			refuse(w, http.StatusUnauthorized, "a token is needed")
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		h(w, r)
	}
}

func (s *Server) object(w http.ResponseWriter, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.objects[path]
	if !ok {
		refuse(w, http.StatusNotFound, "not found")
		return
	}
	answer(w, api.Entity{ID: id, Name: path[strings.LastIndexByte(path, '/')+1:]})
}

func (s *Server) newObject(w http.ResponseWriter, r *http.Request) {
	var o struct{ Name, Entity, Collection string }
	if json.NewDecoder(r.Body).Decode(&o) != nil || o.Name == "" {
		refuse(w, http.StatusBadRequest, "no name")
		return
	}
	path := o.Name
	for above, id := range s.objects {
		if id == o.Entity+o.Collection {
			path = above + "/" + o.Name
		}
	}
	id := fmt.Sprintf("%024x", len(s.objects)+1)
	s.objects[path] = id
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(map[string]any{"data": api.Entity{ID: id, Name: o.Name}})
}

// find looks an image up by NAME:TAG or NAME:sha256.HASH.
func (s *Server) find(ref, arch string) *api.Image {
	name, tag, _ := strings.Cut(ref, ":")
	container := s.objects[name]
	id := s.tags[container][arch+" "+tag]
	for _, i := range s.images {
		if container != "" && i.Container == container && (i.Hash == tag || i.ID == id) {
			return i
		}
	}
	return nil
}

func (s *Server) image(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(r.PathValue("ref"), r.URL.Query().Get("arch"))
	if i == nil {
		refuse(w, http.StatusNotFound, "no such image")
		return
	}
	answer(w, i)
}

func (s *Server) newImage(w http.ResponseWriter, r *http.Request) {
	var i api.Image
	if json.NewDecoder(r.Body).Decode(&i) != nil {
		refuse(w, http.StatusBadRequest, "no image")
		return
	}
	i = api.Image{ID: fmt.Sprintf("%024x", 1000+len(s.images)), Hash: i.Hash, Description: i.Description, Container: i.Container}
	s.images = append(s.images, &i)
	answer(w, i)
}

func (s *Server) byID(id string) *api.Image {
	for _, i := range s.images {
		if i.ID == id {
			return i
		}
	}
	return &api.Image{}
}

func (s *Server) announce(w http.ResponseWriter, r *http.Request) {
	answer(w, api.UploadURL{UploadURL: s.data.URL + "/put/" + r.PathValue("id") + "/0?X-Amz-SignedHeaders=host;x-amz-content-sha256&sig=secret"})
}

func (s *Server) announceParts(w http.ResponseWriter, r *http.Request) {
	var m api.MultipartStart
	json.NewDecoder(r.Body).Decode(&m)
	if s.PartSize == 0 {
		refuse(w, http.StatusNotFound, "no uploads in parts")
		return
	}
	answer(w, api.Multipart{UploadID: "up", TotalParts: int((m.FileSize + s.PartSize - 1) / s.PartSize), PartSize: s.PartSize, Options: map[string]string{"s3compliant": "true"}})
}

func (s *Server) part(w http.ResponseWriter, r *http.Request) {
	var p api.Part
	json.NewDecoder(r.Body).Decode(&p)
	answer(w, api.PartURL{PresignedURL: s.data.URL + "/put/" + r.PathValue("id") + "/" + strconv.Itoa(p.PartNumber-1)})
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var all []byte
	for _, p := range s.parts[id] {
		all = append(all, p...)
	}
	i := s.byID(id)
	sum := sha256.Sum256(all)
	if "sha256."+hex.EncodeToString(sum[:]) != i.Hash {
		delete(s.parts, id)
		refuse(w, http.StatusUnprocessableEntity, "the hash differs")
		return
	}
	s.blobs[id] = all
	i.Uploaded, i.Size = true, int64(len(all))
	answer(w, api.UploadComplete{Quota: api.Quota{Total: 1 << 30, Usage: i.Size}, ContainerURL: "/library/x"})
}

func (s *Server) tag(w http.ResponseWriter, r *http.Request) {
	var t api.Tag
	json.NewDecoder(r.Body).Decode(&t)
	i := s.byID(t.ImageID)
	if !i.Uploaded {
		refuse(w, http.StatusConflict, "the image is not uploaded")
		return
	}
	c := r.PathValue("container")
	if s.tags[c] == nil {
		s.tags[c] = map[string]string{}
	}
	i.Arch = t.Arch
	s.tags[c][t.Arch+" "+t.Tag] = t.ImageID
	answer(w, map[string]any{})
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	i := s.find(r.PathValue("ref"), r.URL.Query().Get("arch"))
	if i == nil {
		refuse(w, http.StatusNotFound, "no such image")
		return
	}
	for _, tags := range s.tags {
		for t, id := range tags {
			if id == i.ID {
				delete(tags, t)
			}
		}
	}
	i.Container = ""
	answer(w, map[string]any{})
}

func (s *Server) search(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := api.Search{Images: []api.Image{}}
	for path, id := range s.objects {
		for _, i := range s.images {
			if p := strings.Split(path, "/"); i.Container == id && len(p) == 3 && strings.Contains(path, r.URL.Query().Get("value")) && i.Arch == r.URL.Query().Get("arch") {
				f := *i
				f.EntityName, f.CollectionName, f.ContainerName = p[0], p[1], p[2]
				for t, image := range s.tags[id] {
					if image == i.ID {
						f.Tags = append(f.Tags, strings.TrimPrefix(t, i.Arch+" "))
					}
				}
				found.Images = append(found.Images, f)
			}
		}
	}
	answer(w, found)
}

func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	i := s.find(r.PathValue("ref"), r.URL.Query().Get("arch"))
	s.mu.Unlock()
	switch {
	case i == nil:
		refuse(w, http.StatusNotFound, "no such image")
	case s.Redirect:
		http.Redirect(w, r, s.data.URL+"/get/"+i.ID+"?sig=secret", http.StatusSeeOther)
	default:
		s.send(w, r, i.ID)
	}
}

// send serves data, with ranges, and cuts some answers off.
func (s *Server) send(w http.ResponseWriter, r *http.Request, id string) {
	s.mu.Lock()
	data := s.blobs[id]
	s.broken++
	cut := s.Break > 0 && s.broken < 3
	s.mu.Unlock()
	w.Header().Set("ETag", `"`+id+`"`)
	if cut {
		http.ServeContent(&cutter{ResponseWriter: w, left: s.Break}, r, "", zero, strings.NewReader(string(data)))
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, "", zero, strings.NewReader(string(data)))
}

func (s *Server) serveData(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		s.mu.Lock()
		s.Leaked = append(s.Leaked, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
	}
	p := strings.Split(r.URL.Path, "/")
	switch {
	case len(p) == 3 && p[1] == "get":
		s.send(w, r, p[2])
	case len(p) == 4 && p[1] == "put" && r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		sum := sha256.Sum256(body)
		if err != nil || r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) {
			http.Error(w, "bad checksum", http.StatusBadRequest)
			return
		}
		n, _ := strconv.Atoi(p[3])
		s.mu.Lock()
		defer s.mu.Unlock()
		for len(s.parts[p[2]]) <= n {
			s.parts[p[2]] = append(s.parts[p[2]], nil)
		}
		s.parts[p[2]][n] = body
		w.Header().Set("ETag", `"`+p[3]+`"`)
	default:
		http.NotFound(w, r)
	}
}
