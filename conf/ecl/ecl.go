// Package ecl reads the execution control list, ecl.toml: which signers an image
// must have, by the directory that it lies in.
//
// The file is the administrator's. It is checked strictly all the same, and as a
// whole even when the list is not activated, since a rule that is misread in
// silence is one that does not hold.
package ecl

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// MaxSize bounds the file, in bytes.
const MaxSize = 1 << 20

// maxGroups bounds the groups of a list, and maxKeys the keys of a group.
const (
	maxGroups = 1000
	maxKeys   = 1000
)

// Mode says what the keys of a group mean.
type Mode string

// The modes.
const (
	Whitelist   Mode = "whitelist"   // one of the keys has signed every group of objects
	WhiteStrict Mode = "whitestrict" // all of the keys have
	Blacklist   Mode = "blacklist"   // none of the keys has signed any, and the image is signed
)

// Config is the list.
type Config struct {
	Activated bool `toml:"activated"`
	// LegacyInsecure has old signatures checked, and only them.
	LegacyInsecure bool    `toml:"legacyinsecure"`
	Groups         []Group `toml:"execgroup"`
}

// Group is the rule for one directory.
type Group struct {
	Tag  string `toml:"tagname"`
	Mode Mode   `toml:"mode"`
	// Dir is the directory itself, not what is below; empty for all others.
	Dir          string   `toml:"dirpath"`
	Fingerprints []string `toml:"keyfp"` // OpenPGP, 40 upper-case hex digits after Parse
}

// Parse reads a list. It calls resolve for the directories, which returns a path
// without symbolic links.
func Parse(text []byte, resolve func(string) (string, error)) (*Config, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	var c Config
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&c); err != nil {
		return nil, where(err)
	}
	if len(c.Groups) > maxGroups {
		return nil, fmt.Errorf("it has more than %d groups", maxGroups)
	}
	dirs := map[string]bool{}
	for i := range c.Groups {
		g := &c.Groups[i]
		if err := g.check(resolve); err != nil {
			return nil, fmt.Errorf("execgroup %d (%q): %w", i+1, g.Tag, err)
		}
		if dirs[g.Dir] {
			return nil, fmt.Errorf("execgroup %d (%q): another one has the dirpath %q too", i+1, g.Tag, g.Dir)
		}
		dirs[g.Dir] = true
	}
	return &c, nil
}

// where adds the line to an error of the decoder.
func where(err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: unknown key %q", row, strings.Join(strict.Errors[0].Key(), "."))
	}
	if d, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, column := d.Position()
		return fmt.Errorf("line %d, column %d: %w", row, column, err)
	}
	return err
}

func (g *Group) check(resolve func(string) (string, error)) error {
	switch g.Mode {
	case Whitelist, WhiteStrict, Blacklist:
	default:
		return fmt.Errorf("mode %q is none of whitelist, whitestrict and blacklist", g.Mode)
	}
	if g.Dir != "" {
		if !filepath.IsAbs(g.Dir) || filepath.Clean(g.Dir) != g.Dir {
			return fmt.Errorf("dirpath %q is not an absolute path without . and ..", g.Dir)
		}
		real, err := resolve(g.Dir)
		if err != nil {
			return fmt.Errorf("dirpath %q: %w", g.Dir, err)
		}
		if real != g.Dir {
			return fmt.Errorf("dirpath %q leads over symbolic links to %q: name that", g.Dir, real)
		}
	}
	if len(g.Fingerprints) > maxKeys {
		return fmt.Errorf("it has more than %d keys", maxKeys)
	}
	for i, fp := range g.Fingerprints {
		if b, err := hex.DecodeString(fp); err != nil || len(b) != 20 {
			return fmt.Errorf("keyfp %q is not a fingerprint of 40 hexadecimal digits", fp)
		}
		g.Fingerprints[i] = strings.ToUpper(fp)
	}
	return nil
}

// Group returns the rule for images in the directory dir, nil if there is none.
func (c *Config) Group(dir string) *Group {
	var other *Group
	for i := range c.Groups {
		switch c.Groups[i].Dir {
		case dir:
			return &c.Groups[i]
		case "":
			other = &c.Groups[i]
		}
	}
	return other
}

// Errors of Allows.
var (
	ErrRequired  = errors.New("image not signed by required entities")
	ErrForbidden = errors.New("image signed by a forbidden entity")
)

// Allows judges an image by its signers: those of all its groups of objects, and
// those of any. A signer is named as in Fingerprints.
func (g *Group) Allows(all, any map[string]bool) error {
	keys := g.Fingerprints
	switch g.Mode {
	case Whitelist:
		for _, k := range keys {
			if all[k] {
				return nil
			}
		}
		return ErrRequired
	case WhiteStrict:
		for _, k := range keys {
			if !all[k] {
				return ErrRequired
			}
		}
		return nil
	case Blacklist:
		for _, k := range keys {
			if any[k] {
				return ErrForbidden
			}
		}
		return nil
	}
	return fmt.Errorf("mode %q is not known", g.Mode)
}
