// Package remote reads and changes remote.yaml: which remote endpoint is in use,
// and the token for it.
//
// In go the user's file and that of the installation, out comes the endpoint
// that is active. An unknown key is an error; so is a name that both files have.
// A system endpoint that is exclusive is the active one, whatever else is said.
// A change replaces the file whole, with the mode that it should have. The file
// of the installation is root's, so its writer needs root's rights.
//
// Files: remote.go reads, edit.go changes.
package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
)

const maxSize = 1 << 20

// File is the content of a remote.yaml.
type File struct {
	Active      string               `yaml:"Active,omitempty"`
	Remotes     map[string]*Endpoint `yaml:"Remotes,omitempty"`
	Credentials []Credential         `yaml:"Credentials,omitempty"`
}

// Endpoint is a host with services.
type Endpoint struct {
	URI        string      `yaml:"URI"`
	Token      string      `yaml:"Token,omitempty"`
	System     bool        `yaml:"System,omitempty"`
	Exclusive  bool        `yaml:"Exclusive,omitempty"`
	Insecure   bool        `yaml:"Insecure,omitempty"`
	Keyservers []Keyserver `yaml:"Keyservers,omitempty"`
}

// Keyserver is where keys are looked up.
type Keyserver struct {
	URI      string `yaml:"URI"`
	Skip     bool   `yaml:"Skip,omitempty"`
	External bool   `yaml:"External,omitempty"`
	Insecure bool   `yaml:"Insecure,omitempty"`
}

// Credential is a stored log-in of another service.
type Credential struct {
	URI      string `yaml:"URI"`
	Auth     string `yaml:"Auth"`
	Insecure bool   `yaml:"Insecure,omitempty"`
}

// Parse reads the text of a file.
func Parse(text []byte) (*File, error) {
	f := &File{}
	if len(text) > maxSize {
		return nil, fmt.Errorf("it is larger than %d bytes", maxSize)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for name, e := range f.Remotes {
		if e == nil || e.URI == "" {
			return nil, fmt.Errorf("the remote %q has no URI", name)
		}
	}
	return f, nil
}

func read(path string) (*File, error) {
	r, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return &File{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, err
	}
	f, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", path, err)
	}
	return f, nil
}

// Load returns what the user's file and that of the installation say together.
func Load(user, system string) (*File, error) {
	u, err := read(user)
	if err != nil {
		return nil, err
	}
	s, err := read(system)
	if err != nil {
		return nil, err
	}
	if err := u.Join(s); err != nil {
		return nil, fmt.Errorf("cannot use %q and %q: %w", user, system, err)
	}
	return u, nil
}

// Active returns the active endpoint and its name; nil if there is none.
func Active(user, system string) (string, *Endpoint, error) {
	f, err := Load(user, system)
	if err != nil {
		return "", nil, err
	}
	return f.Active, f.Remotes[f.Active], nil
}

// Credentials returns the log-ins that the user's file keeps.
func Credentials(user string) ([]Credential, error) {
	f, err := read(user)
	if err != nil {
		return nil, err
	}
	return f.Credentials, nil
}
