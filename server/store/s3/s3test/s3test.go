// Package s3test is a small server of the S3 protocol for tests: in this
// process, in memory, with TLS, signatures that are checked, and faults on
// demand. It knows what package s3 asks of a storage and refuses everything
// else; the same tests run on versitygw where there is one.
package s3test

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Who may use it.
const (
	AccessKey = "AKIATESTS"
	SecretKey = "a-secret-of-the-tests"
	Bucket    = "images"
)

// Fault is what happens to one request.
type Fault struct {
	Before bool // the connection breaks and nothing is done
	After  bool // it is done and the connection breaks
	Half   bool // of the answer's body half comes
	Status int  // it is refused
}

// Server is a running server.
type Server struct {
	Endpoint string
	CAFile   string

	http    *httptest.Server
	mu      sync.Mutex
	objects map[string]object
	uploads map[string]*upload
	next    int
	fault   func(method, path string) Fault
}

type object struct {
	data []byte
	etag string
	at   time.Time
}

type upload struct {
	key   string
	parts map[int][]byte
}

// New starts a server with an empty bucket. The certificate is made by who calls.
func New(dir string, cert tls.Certificate, ca []byte) (*Server, error) {
	s := &Server{CAFile: filepath.Join(dir, "s3-ca.pem"), objects: map[string]object{}, uploads: map[string]*upload{}}
	if err := os.WriteFile(s.CAFile, ca, 0o600); err != nil {
		return nil, err
	}
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.http.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.http.StartTLS()
	s.Endpoint = s.http.URL
	return s, nil
}

// Close ends the server.
func (s *Server) Close() { s.http.CloseClientConnections(); s.http.Close() }

// Fail has f asked about each request; nil for no faults.
func (s *Server) Fail(f func(method, path string) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Keys are the names of all objects, and of the unfinished ones.
func (s *Server) Keys() (objects, unfinished []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.objects {
		objects = append(objects, k)
	}
	for _, u := range s.uploads {
		unfinished = append(unfinished, u.key)
	}
	slices.Sort(objects)
	return objects, unfinished
}

type failure struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	xml.NewEncoder(w).Encode(failure{Code: code, Message: "of the tests"})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	var f Fault
	if s.fault != nil {
		f = s.fault(r.Method, r.URL.Path)
	}
	s.mu.Unlock()
	if f.Before {
		panic(http.ErrAbortHandler)
	}
	if f.Status != 0 {
		refuse(w, f.Status, "SlowDown")
		return
	}
	rec := httptest.NewRecorder()
	s.answer(rec, r)
	if f.After {
		panic(http.ErrAbortHandler)
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	body := rec.Body.Bytes()
	if r.Method != http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(rec.Code)
	if f.Half {
		w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	}
	w.Write(body)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, 400, "IncompleteBody")
		return
	}
	if code := s.signed(r); code != "" {
		refuse(w, 403, code)
		return
	}
	sum := sha256.Sum256(body)
	if h := r.Header.Get("X-Amz-Content-Sha256"); len(h) == 64 && h != hex.EncodeToString(sum[:]) {
		refuse(w, 400, "XAmzContentSHA256Mismatch")
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket != Bucket {
		refuse(w, 404, "NoSuchBucket")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.URL.Query()
	switch {
	case key == "" && r.Method == http.MethodHead:
	case key == "" && q.Has("location"):
		fmt.Fprint(w, `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></LocationConstraint>`)
	case key == "" && q.Get("list-type") == "2":
		s.list(w, q)
	case r.Method == http.MethodPost && q.Has("uploads"):
		s.next++
		id := fmt.Sprint("upload", s.next)
		s.uploads[id] = &upload{key, map[int][]byte{}}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>", Bucket, key, id)
	case q.Has("uploadId"):
		s.multipart(w, r, key, q, body)
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") == "":
		s.objects[key] = newObject(body)
		w.Header().Set("ETag", s.objects[key].etag)
	case r.Method == http.MethodDelete:
		delete(s.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		o, ok := s.objects[key]
		if !ok {
			refuse(w, 404, "NoSuchKey")
			return
		}
		w.Header().Set("ETag", o.etag)
		http.ServeContent(w, r, "", o.at, bytes.NewReader(o.data))
	default:
		refuse(w, 501, "NotImplemented")
	}
}

func newObject(data []byte) object {
	sum := md5.Sum(data)
	return object{data, strconv.Quote(hex.EncodeToString(sum[:])), time.Now()}
}

func (s *Server) multipart(w http.ResponseWriter, r *http.Request, key string, q url.Values, body []byte) {
	u := s.uploads[q.Get("uploadId")]
	if u == nil || u.key != key {
		refuse(w, 404, "NoSuchUpload")
		return
	}
	number, _ := strconv.Atoi(q.Get("partNumber"))
	switch r.Method {
	case http.MethodPut:
		source := r.Header.Get("X-Amz-Copy-Source")
		if source != "" {
			name, _ := url.PathUnescape(source)
			o, ok := s.objects[strings.TrimPrefix(strings.TrimPrefix(name, "/"), Bucket+"/")]
			if !ok {
				refuse(w, 404, "NoSuchKey")
				return
			}
			body = o.data
			var from, to int
			if n, _ := fmt.Sscanf(r.Header.Get("X-Amz-Copy-Source-Range"), "bytes=%d-%d", &from, &to); n == 2 && from <= to && to < len(o.data) {
				body = o.data[from : to+1]
			}
		}
		u.parts[number] = body
		o := newObject(body)
		w.Header().Set("ETag", o.etag)
		if source != "" {
			fmt.Fprintf(w, "<CopyPartResult><ETag>%s</ETag><LastModified>%s</LastModified></CopyPartResult>", o.etag, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
		}
	case http.MethodDelete:
		delete(s.uploads, q.Get("uploadId"))
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPost:
		s.complete(w, key, q.Get("uploadId"), u, body)
	default:
		refuse(w, 501, "NotImplemented")
	}
}

func (s *Server) complete(w http.ResponseWriter, key, id string, u *upload, body []byte) {
	var want struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	if xml.Unmarshal(body, &want) != nil || len(want.Part) == 0 {
		refuse(w, 400, "MalformedXML")
		return
	}
	var data []byte
	for i, p := range want.Part {
		part, ok := u.parts[p.PartNumber]
		if !ok || strings.Trim(newObject(part).etag, `"`) != strings.Trim(p.ETag, `"`) {
			refuse(w, 400, "InvalidPart")
			return
		}
		if len(part) < 5<<20 && i < len(want.Part)-1 {
			refuse(w, 400, "EntityTooSmall")
			return
		}
		data = append(data, part...)
	}
	s.objects[key] = newObject(data)
	delete(s.uploads, id)
	fmt.Fprintf(w, "<CompleteMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><ETag>%s</ETag></CompleteMultipartUploadResult>", Bucket, key, s.objects[key].etag)
}

func (s *Server) list(w http.ResponseWriter, q url.Values) {
	var keys []string
	for k := range s.objects {
		if strings.HasPrefix(k, q.Get("prefix")) {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	fmt.Fprintf(w, "<ListBucketResult><Name>%s</Name><IsTruncated>false</IsTruncated><KeyCount>%d</KeyCount>", Bucket, len(keys))
	for _, k := range keys {
		o := s.objects[k]
		fmt.Fprintf(w, "<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>%s</ETag><Size>%d</Size></Contents>", k, o.at.UTC().Format("2006-01-02T15:04:05.000Z"), o.etag, len(o.data))
	}
	fmt.Fprint(w, "</ListBucketResult>")
}

// signed checks the signature of a request, version 4, and returns the code of a
// refusal.
func (s *Server) signed(r *http.Request) string {
	q := r.URL.Query()
	var credential, headers, signature, date string
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if q.Has("X-Amz-Signature") {
		credential, headers, signature, date = q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"), q.Get("X-Amz-Date")
		q.Del("X-Amz-Signature")
		payload = "UNSIGNED-PAYLOAD"
		begun, err := time.Parse("20060102T150405Z", date)
		life, _ := strconv.Atoi(q.Get("X-Amz-Expires"))
		if err != nil || time.Since(begun) > time.Duration(life)*time.Second {
			return "AccessDenied"
		}
	} else {
		for _, part := range strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
			k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch k {
			case "Credential":
				credential = v
			case "SignedHeaders":
				headers = v
			case "Signature":
				signature = v
			}
		}
		date = r.Header.Get("X-Amz-Date")
	}
	scope := strings.SplitN(credential, "/", 2)
	if len(scope) != 2 || scope[0] != AccessKey {
		return "InvalidAccessKeyId"
	}
	canonical := r.Method + "\n" + r.URL.EscapedPath() + "\n" + strings.ReplaceAll(q.Encode(), "+", "%20") + "\n"
	for _, h := range strings.Split(headers, ";") {
		v := strings.TrimSpace(strings.Join(r.Header.Values(h), ","))
		if h == "host" {
			v = r.Host
		} else if h == "content-length" {
			v = strconv.FormatInt(r.ContentLength, 10)
		}
		canonical += h + ":" + v + "\n"
	}
	canonical += "\n" + headers + "\n" + payload
	sum := sha256.Sum256([]byte(canonical))
	key := []byte("AWS4" + SecretKey)
	for _, word := range strings.Split(scope[1], "/") {
		key = mac(key, word)
	}
	want := hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+date+"\n"+scope[1]+"\n"+hex.EncodeToString(sum[:])))
	if want != signature {
		return "SignatureDoesNotMatch"
	}
	return ""
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, text)
	return h.Sum(nil)
}

// Port returns one that is free, for servers that want to be told.
func Port() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
