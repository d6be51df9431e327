// Package remote reads remote.yaml: which remote endpoint is in use, and the
// token for it.
//
// In go the user's file and that of the installation, out comes the endpoint
// that is active. An unknown key is an error; so is a name that both files have.
// A system endpoint that is exclusive is the active one, whatever else is said.
// The package reads only.
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
	Active      string               `yaml:"Active"`
	Remotes     map[string]*Endpoint `yaml:"Remotes"`
	Credentials []Credential         `yaml:"Credentials"`
}

// Endpoint is a host with services.
type Endpoint struct {
	URI        string      `yaml:"URI"`
	Token      string      `yaml:"Token"`
	System     bool        `yaml:"System"`
	Exclusive  bool        `yaml:"Exclusive"`
	Insecure   bool        `yaml:"Insecure"`
	Keyservers []Keyserver `yaml:"Keyservers"`
}

// Keyserver is where keys are looked up.
type Keyserver struct {
	URI      string `yaml:"URI"`
	Skip     bool   `yaml:"Skip"`
	External bool   `yaml:"External"`
	Insecure bool   `yaml:"Insecure"`
}

// Credential is a stored log-in of another service.
type Credential struct {
	URI      string `yaml:"URI"`
	Auth     string `yaml:"Auth"`
	Insecure bool   `yaml:"Insecure"`
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

// Active returns the active endpoint and its name; nil if there is none.
func Active(user, system string) (string, *Endpoint, error) {
	u, err := read(user)
	if err != nil {
		return "", nil, err
	}
	s, err := read(system)
	if err != nil {
		return "", nil, err
	}
	for name, e := range s.Remotes {
		mine := u.Remotes[name]
		if mine != nil && !mine.System {
			return "", nil, fmt.Errorf("both %q and %q have a remote %q", user, system, name)
		}
		if mine != nil {
			e.Token = mine.Token // where a log-in to a system remote is kept
		}
		if e.Exclusive {
			return name, e, nil
		}
	}
	for _, name := range []string{u.Active, s.Active} {
		if e := s.Remotes[name]; e != nil {
			return name, e, nil
		}
		if e := u.Remotes[name]; e != nil {
			return name, e, nil
		}
	}
	return "", nil, nil
}

// Credentials returns the log-ins that the user's file keeps.
func Credentials(user string) ([]Credential, error) {
	f, err := read(user)
	if err != nil {
		return nil, err
	}
	return f.Credentials, nil
}
