package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"singularity/api"
)

// services: singularity-server over TLS on the loopback, with 100,000 keys and
// 100,000 images in its storage. The peers have the same file, the same
// certificate and the same client.
func (b *bench) services(ctx context.Context) error {
	if err := b.need("curl"); err != nil {
		return err
	}
	size, count := int64(1<<30), 100_000
	if b.quick {
		size, count = 256<<20, 5_000
	}
	s, err := b.filled(ctx, count)
	if err != nil {
		return fmt.Errorf("cannot fill the storage: %w", err)
	}
	for _, step := range []func(context.Context) error{s.startTime, s.idle, s.lookups} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return s.transfers(ctx, size)
}

// startTime: from the start of the program until it says that it is ready.
func (s *site) startTime(ctx context.Context) error {
	var times []float64
	for range s.b.packRuns() {
		begun := time.Now()
		p, err := s.start(ctx)
		if err != nil {
			return err
		}
		times = append(times, ms(time.Since(begun)))
		p.stop()
	}
	s.b.absolute(row{Name: fmt.Sprintf("singularity-server: start to ready with %d images and keys", s.count), Goal: 1000, Unit: "ms"}, times)
	return nil
}

// idle: what a thousand connections cost that say nothing.
func (s *site) idle(ctx context.Context) error {
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	for range 1000 {
		c, err := s.dial(ctx)
		if err != nil {
			return err
		}
		defer c.conn.Close()
		if _, err := c.get("/version"); err != nil {
			return err
		}
	}
	rss, err := p.memory()
	if err != nil {
		return err
	}
	s.b.absolute(row{Name: "singularity-server: memory with 1,000 idle TLS connections", Goal: 200, Unit: "MB"}, []float64{float64(rss) / 1e6})
	return nil
}

// lookups: keys by their 64-bit id, as a check of a signature asks for them, on
// connections that stay. The client takes its share of the same processors.
func (s *site) lookups(ctx context.Context) error {
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	const clients, each = 16, 2500
	var rates, p99, cpu []float64
	for range s.b.packRuns() {
		before := p.cpu()
		took, slow, err := s.askKeys(ctx, clients, each)
		if err != nil {
			return err
		}
		rates = append(rates, ms(took)*5000/(clients*each))
		p99 = append(p99, ms(slow))
		cpu = append(cpu, ms(p.cpu()-before)*1000/(clients*each))
	}
	s.b.absolute(row{Name: fmt.Sprintf("singularity-server: 5,000 key look-ups, of %d keys, %d connections", s.count, clients), Goal: 1000, Unit: "ms"}, rates)
	s.b.absolute(row{Name: "99th percentile of one", Goal: 20, Unit: "ms"}, p99)
	s.b.absolute(row{Name: "CPU of the server, for one", Unit: "us"}, cpu)
	return nil
}

// transfers: a large image down and up.
func (s *site) transfers(ctx context.Context, size int64) error {
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	file := s.b.path("tmp/services/image.sif")
	if err := makeSIF(file, size); err != nil {
		return err
	}
	defer os.Remove(file)
	u := &uploader{s: s, file: file}
	if err := u.prepare(ctx); err != nil {
		return err
	}
	what := fmt.Sprintf("a %d MB image", size>>20)
	if err := u.upload(ctx); err != nil {
		return err
	}
	if err := s.download(ctx, p, file, what); err != nil {
		return err
	}
	got, err := rounds(ctx, s.b.packRuns(), []side{
		{"upload", func(ctx context.Context) (sample, error) {
			if err := u.forget(ctx); err != nil {
				return sample{}, err
			}
			before, begun := p.cpu(), time.Now()
			err := u.upload(ctx)
			return sample{wall: time.Since(begun), cpu: p.cpu() - before}, err
		}},
		{"write", func(context.Context) (sample, error) { return writeHashing(file, s.b.path("tmp/services/copy")) }},
	})
	if err != nil {
		return err
	}
	s.b.compare(row{Name: "upload of " + what + " in parts over TLS / writing the file with fsync while hashing it", Goal: 1 / 0.7, Unit: "ms"}, walls(got[0]), walls(got[1]))
	s.b.absolute(row{Name: "CPU of the server for that", Unit: "ms"}, cpus(got[0]))
	return nil
}

// download: curl gets the image from us and the file from nginx.
func (s *site) download(ctx context.Context, p *process, file, what string) error {
	name := "download of " + what + " over TLS / the same from nginx"
	if s.b.peers["nginx"] == "" {
		s.b.skip(name, "nginx is not installed")
		return nil
	}
	n, err := s.nginx(ctx, file)
	if err != nil {
		return err
	}
	defer n.stop()
	curl := func(p *process, url string) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			before := p.cpu()
			got, err := s.b.once(s.b.command(ctx, s.b.peers["curl"], "-sSfL", "--cacert", s.path("cert.pem"), "-o", "/dev/null", url), "")
			got.cpu = p.cpu() - before
			return got, err
		}
	}
	got, err := rounds(ctx, s.b.n/3, []side{
		{"ours", curl(p, s.url+"/v1/imagefile/"+container+":latest?arch="+runtime.GOARCH)},
		{"nginx", curl(n, "https://"+n.addr+"/image.sif")},
	})
	if err != nil {
		return err
	}
	s.b.compare(row{Name: name, Goal: 1 / 0.9, Unit: "ms"}, walls(got[0]), walls(got[1]))
	s.b.compare(row{Name: "CPU of the servers for that", Unit: "ms"}, cpus(got[0]), cpus(got[1]))
	return nil
}

// writeHashing copies a file, hashes it meanwhile, and syncs it.
func writeHashing(from, to string) (sample, error) {
	in, err := os.Open(from)
	if err != nil {
		return sample{}, err
	}
	defer in.Close()
	defer os.Remove(to)
	begun := time.Now()
	out, err := os.Create(to)
	if err != nil {
		return sample{}, err
	}
	h := sha256.New()
	// Without the short cut from file to file, which would hash nothing.
	_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(out, h)}, struct{ io.Reader }{in}, make([]byte, 1<<20))
	err = errors.Join(err, out.Sync(), out.Close())
	return sample{wall: time.Since(begun)}, err
}

const container = "bench/large/image"

// uploader sends an image as clients do, but hashes it before.
type uploader struct {
	s    *site
	file string
	size int64
	sum  string
	sums []string // of its parts
	id   string   // of the image
	tags string   // of the container: its id
}

const partSize = 64 << 20

func (u *uploader) prepare(ctx context.Context) error {
	f, err := os.Open(u.file)
	if err != nil {
		return err
	}
	defer f.Close()
	whole := sha256.New()
	for {
		h := sha256.New()
		n, err := io.Copy(io.MultiWriter(whole, h), io.LimitReader(f, partSize))
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		u.size += n
		u.sums = append(u.sums, hex.EncodeToString(h.Sum(nil)))
	}
	u.sum = hex.EncodeToString(whole.Sum(nil))
	id := ""
	for i, kind := range []string{"entities", "collections", "containers"} {
		var e api.Envelope[struct{ ID string }]
		body := map[string]any{"name": strings.Split(container, "/")[i], "entity": id, "collection": id}
		if err := u.s.call(ctx, "POST", "/v1/"+kind, body, &e); err != nil {
			return err
		}
		id = e.Data.ID
	}
	u.tags = id
	return nil
}

func (u *uploader) upload(ctx context.Context) error {
	var image api.Envelope[api.Image]
	if err := u.s.call(ctx, "POST", "/v1/images", map[string]any{"hash": "sha256." + u.sum, "container": u.tags}, &image); err != nil {
		return err
	}
	if image.Data.Uploaded {
		return errors.New("the image is there already")
	}
	u.id = image.Data.ID
	path := "/v2/imagefile/" + u.id
	var m api.Envelope[api.Multipart]
	if err := u.s.call(ctx, "POST", path+"/_multipart", api.MultipartStart{FileSize: u.size}, &m); err != nil {
		return err
	}
	f, err := os.Open(u.file)
	if err != nil {
		return err
	}
	defer f.Close()
	end := api.MultipartComplete{UploadID: m.Data.UploadID}
	for n := range m.Data.TotalParts {
		off := int64(n) * m.Data.PartSize
		size := min(m.Data.PartSize, u.size-off)
		var to api.Envelope[api.PartURL]
		if err := u.s.call(ctx, "PUT", path+"/_multipart", api.Part{PartSize: size, UploadID: m.Data.UploadID, PartNumber: n + 1, SHA256Sum: u.sums[n]}, &to); err != nil {
			return err
		}
		tag, err := u.s.put(ctx, to.Data.PresignedURL, io.NewSectionReader(f, off, size), size)
		if err != nil {
			return err
		}
		end.CompletedParts = append(end.CompletedParts, api.CompletedPart{PartNumber: n + 1, Token: tag})
	}
	if err := u.s.call(ctx, "PUT", path+"/_multipart_complete", end, nil); err != nil {
		return err
	}
	return u.s.call(ctx, "POST", "/v2/tags/"+u.tags, api.Tag{Arch: runtime.GOARCH, Tag: "latest", ImageID: u.id}, nil)
}

// forget deletes the image, so that it has to be sent again.
func (u *uploader) forget(ctx context.Context) error {
	return u.s.call(ctx, "DELETE", "/v1/images/"+container+":sha256."+u.sum, nil, nil)
}

// nginx serves the directory of a file, with the server's certificate.
func (s *site) nginx(ctx context.Context, file string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir := s.b.path("tmp/services")
	var paths strings.Builder
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&paths, "%s_temp_path %s/%s;", name, dir, name)
	}
	text := fmt.Sprintf(`daemon off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log; worker_processes 2; events {}
http { access_log off; sendfile on; tcp_nopush on; %[2]s
server { listen %[3]s ssl; ssl_certificate %[4]s; ssl_certificate_key %[5]s; ssl_protocols TLSv1.2 TLSv1.3; root %[1]s; } }
`, dir, paths.String(), addr, s.path("cert.pem"), s.path("key.pem"))
	if err := os.WriteFile(dir+"/nginx.conf", []byte(text), 0o644); err != nil {
		return nil, err
	}
	c := s.b.command(ctx, s.b.peers["nginx"], "-p", dir, "-e", dir+"/nginx.log", "-c", dir+"/nginx.conf")
	return s.launch(ctx, c, addr, "/nginx.conf")
}

// launch starts a server and waits until it answers at path.
func (s *site) launch(ctx context.Context, c *exec.Cmd, addr, path string) (*process, error) {
	var said bytes.Buffer
	if c.Stderr == s.b.stderr {
		c.Stderr = &said
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: c, addr: addr, ended: make(chan struct{})}
	go func() { c.Wait(); close(p.ended) }()
	for {
		if k, err := s.dialAddr(ctx, addr); err == nil {
			status, err := k.get(path)
			k.conn.Close()
			if err == nil && status == 200 {
				return p, nil
			}
		}
		select {
		case <-p.ended:
			return nil, fmt.Errorf("%s ended: %s", c.Path, &said)
		case <-ctx.Done():
			p.stop()
			return nil, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}
