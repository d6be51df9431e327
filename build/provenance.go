package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"singularity/build/source"
)

// ProvenanceName is the object of a SIF that tells what the image was made of.
const ProvenanceName = "provenance.json"

// provenance is what that object holds. It tells nothing of when and where the
// image was built, so that the same input gives the same bytes.
type provenance struct {
	Version    int           `json:"version"`
	Builder    string        `json:"builder"`
	Arch       string        `json:"arch"`
	Definition string        `json:"definition"` // digest of the text with its variables replaced
	Stages     []stageOrigin `json:"stages"`
}

// stageOrigin tells what a stage was made of.
type stageOrigin struct {
	Name   string        `json:"name,omitempty"`
	Source source.Origin `json:"source"`
	Files  []fileOrigin  `json:"files,omitempty"`
}

// fileOrigin is something that %files or %appfiles copied.
type fileOrigin struct {
	Stage       string `json:"stage,omitempty"` // "" is the host
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Digest      string `json:"digest"` // sha256: of a file, tree-sha256: of a directory

	key string // modes and, from a stage, owners too
}

// provenanceJSON tells what the image is made of.
func (b *builder) provenanceJSON() ([]byte, error) {
	p := provenance{
		Version: 1, Builder: "singularity " + b.o.Version, Arch: b.arch,
		Definition: fmt.Sprintf("sha256:%x", sha256.Sum256(b.def.Text)),
	}
	for _, s := range b.stages {
		p.Stages = append(p.Stages, s.origin)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	err := enc.Encode(p)
	return out.Bytes(), err
}

// verify checks the signatures of an image that a stage begins with.
func (b *builder) verify(ctx context.Context, path string, require []string) ([]string, error) {
	if b.o.Verify == nil {
		return nil, source.ErrNoKeys
	}
	return b.o.Verify(ctx, path, require)
}

// digestOf returns the digest of a file, or of a directory's files.
func digestOf(ctx context.Context, path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		digest, err := treeDigest(ctx, f)
		return "tree-sha256:" + digest, err
	}
	h := sha256.New()
	_, err = io.Copy(h, readerUntil{ctx, f})
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), err
}
