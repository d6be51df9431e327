package sbom

import (
	"bufio"
	"bytes"
	"io"
	"path/filepath"
	"strings"

	"singularity/image"
)

// maxLine bounds a line that is kept; the rest of a longer one is passed over.
const maxLine = 64 << 10

// stream reads a file from its start.
func (r *reader) stream(e image.Entry, read func(string, io.Reader) error) {
	c, done, err := content(e, maxDatabase)
	if err == nil {
		defer done()
		err = read(e.Path, c)
	}
	if err != nil {
		r.gap("%s: %v", e.Path, err)
	}
}

// eachLine calls fn with the lines of in, without their ends.
func (r *reader) eachLine(in io.Reader, fn func(line []byte)) error {
	b := bufio.NewReaderSize(in, maxLine)
	for n := 0; ; n++ {
		if n%4096 == 0 && r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		line, err := b.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			fn(line)
			for err == bufio.ErrBufferFull {
				_, err = b.ReadSlice('\n')
			}
		} else if len(line) > 0 {
			fn(bytes.TrimRight(line, "\r\n"))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readDpkg reads the status file of dpkg (deb-control(5), dpkg(1)); distroless
// images have one file for each package, of the same form.
func (r *reader) readDpkg(path string, in io.Reader) error {
	p := Package{Type: "deb", Path: path}
	installed := true // status.d has no Status field
	end := func() {
		if p.Name != "" && installed {
			r.add(p)
		}
		p, installed = Package{Type: "deb", Path: path}, true
	}
	err := r.eachLine(in, func(line []byte) {
		if len(line) == 0 {
			end()
			return
		}
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || line[0] == ' ' || line[0] == '\t' {
			return
		}
		v := strings.TrimSpace(string(value[:min(len(value), 4*maxField)]))
		switch string(key) {
		case "Package":
			p.Name = v
		case "Version":
			p.Version = v
		case "Architecture":
			p.Arch = v
		case "Status":
			f := strings.Fields(v)
			installed = len(f) == 3 && f[2] != "not-installed" && f[2] != "config-files"
		case "Source":
			name, version, ok := strings.Cut(v, " ")
			p.Source = name
			if ok {
				p.SourceVersion = strings.Trim(version, "() ")
			}
		}
	})
	end()
	return err
}

// readApk reads the database of apk: stanzas of one-letter fields. F and R name
// the files of the package.
func (r *reader) readApk(path string, in io.Reader) error {
	p := Package{Type: "apk", Path: path}
	dir := ""
	end := func() {
		if p.Name != "" {
			r.add(p)
		}
		p, dir = Package{Type: "apk", Path: path}, ""
	}
	err := r.eachLine(in, func(line []byte) {
		if len(line) == 0 {
			end()
			return
		}
		if len(line) < 2 || line[1] != ':' {
			return
		}
		v := string(line[2:min(len(line), 2+4096)])
		switch line[0] {
		case 'P':
			p.Name = v
		case 'V':
			p.Version = v
		case 'A':
			p.Arch = v
		case 'L':
			p.License = v
		case 'o':
			if v != p.Name {
				p.Source = v
			}
		case 'F':
			dir = v
		case 'R':
			r.claim(strings.TrimPrefix(dir+"/"+v, "/"), p.Name)
		}
	})
	end()
	return err
}

// isSystem tells whether path is a database of a system's package manager.
func isSystem(path string) bool {
	switch path {
	case "var/lib/dpkg/status", "lib/apk/db/installed", "usr/lib/apk/db/installed":
		return true
	}
	dir, name := filepath.Split(path)
	return dir == "var/lib/dpkg/status.d/" && !strings.HasSuffix(name, ".md5sums") || isRPM(path)
}

// readSystem reads the databases that the walk has come to. They come last: only
// then is it known of which files the owner is asked for.
func (r *reader) readSystem() {
	for _, e := range r.databases {
		switch {
		case strings.HasPrefix(e.Path, "var/lib/dpkg/"):
			r.stream(e, r.readDpkg)
		case strings.HasSuffix(e.Path, "apk/db/installed"):
			r.stream(e, r.readApk)
		default:
			r.readRPM(e)
		}
	}
}
