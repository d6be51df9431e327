package plan

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
)

// Bind is one mount that a person asked for.
type Bind struct {
	Source string // path on the host, as typed: it may be relative
	Dest   string // absolute path in the container; empty means that of Source

	ReadOnly bool
	// Write is set if writing was asked for in so many words; an image is
	// written to only then.
	Write bool
	// ImageSource is a directory inside the image file that Source names; empty
	// means that Source is mounted itself (or, with ID, the root of the image).
	ImageSource string
	// ID is the number of a data object in the SIF that Source names; 0 means
	// its primary partition.
	ID uint32
}

// SplitList splits s at commas. A comma after a backslash does not split; the
// backslash stays, for ParseBinds to remove.
func SplitList(s string) []string { return splitEscaped(s, ',') }

// ParseBinds reads "src[:dest[:opts]][,...]". The options are ro, rw,
// image-src=PATH and id=N; several are separated by commas, as specs are: a
// word that is an option belongs to the spec before it if that one has options
// already. A colon or a comma in a path stands after a backslash.
func ParseBinds(s string) ([]Bind, error) {
	var out []Bind
	hasOptions := false // whether the last spec has a third part
	for _, word := range SplitList(s) {
		if hasOptions && isBindOption(word) {
			if err := out[len(out)-1].option(word); err != nil {
				return nil, fmt.Errorf("cannot use bind %q: %w", s, err)
			}
			continue
		}
		b, third, err := parseBind(word)
		if err != nil {
			return nil, fmt.Errorf("cannot use bind %q: %w", word, err)
		}
		hasOptions = third
		out = append(out, b)
	}
	return out, nil
}

func parseBind(word string) (b Bind, hasOptions bool, err error) {
	parts := splitEscaped(word, ':')
	if len(parts) > 3 {
		return b, false, fmt.Errorf("%d parts found, at most source:destination:options wanted (write \\: for a colon in a path)", len(parts))
	}
	b.Source = unescape(parts[0])
	if b.Source == "" {
		return b, false, fmt.Errorf("the source is empty")
	}
	if len(parts) > 1 {
		if err := b.setDest(unescape(parts[1])); err != nil {
			return b, false, err
		}
	}
	if len(parts) > 2 {
		return b, true, b.option(parts[2])
	}
	return b, false, nil
}

func (b *Bind) setDest(dest string) error {
	if !strings.HasPrefix(dest, "/") {
		return fmt.Errorf("destination %q is not an absolute path", dest)
	}
	b.Dest = dest
	return nil
}

func isBindOption(word string) bool {
	return word == "ro" || word == "rw" || strings.HasPrefix(word, "image-src=") || strings.HasPrefix(word, "id=")
}

func (b *Bind) option(word string) error {
	name, value, _ := strings.Cut(word, "=")
	switch {
	case word == "ro":
		b.ReadOnly, b.Write = true, false
	case word == "rw":
		b.ReadOnly, b.Write = false, true
	case name == "image-src" && value != "":
		b.ImageSource = unescape(value)
	case name == "id":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("id %q is not the number of a data object", value)
		}
		b.ID = uint32(n)
	default:
		return fmt.Errorf("option %q is not one of ro, rw, image-src=PATH, id=N", word)
	}
	return nil
}

// ParseMounts reads lines of comma-separated key=value fields, quoted as in
// CSV: type=bind, source (or src), destination (or dst, target), ro (or
// readonly), image-src, id. Nothing else may be mounted this way.
func ParseMounts(s string) ([]Bind, error) {
	r := csv.NewReader(strings.NewReader(s))
	r.FieldsPerRecord = -1
	lines, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("cannot use mount %q: %w", s, err)
	}
	var out []Bind
	for _, fields := range lines {
		b, err := parseMount(fields)
		if err != nil {
			return nil, fmt.Errorf("cannot use mount %q: %w", strings.Join(fields, ","), err)
		}
		out = append(out, b)
	}
	return out, nil
}

func parseMount(fields []string) (Bind, error) {
	var b Bind
	for _, f := range fields {
		if err := b.mountField(f); err != nil {
			return b, err
		}
	}
	switch {
	case b.Source == "":
		return b, fmt.Errorf("no source given")
	case b.Dest == "":
		return b, fmt.Errorf("no destination given")
	}
	return b, nil
}

func (b *Bind) mountField(f string) error {
	key, value, hasValue := strings.Cut(f, "=")
	switch key {
	case "type":
		if value != "bind" {
			return fmt.Errorf("type %q is not supported, only bind is", value)
		}
	case "source", "src":
		if value == "" {
			return fmt.Errorf("the source is empty")
		}
		b.Source = value
	case "destination", "dst", "target":
		return b.setDest(value)
	case "ro", "readonly":
		b.ReadOnly = true
		if hasValue {
			on, err := strconv.ParseBool(value)
			if err != nil {
				return fmt.Errorf("%s=%q is neither true nor false", key, value)
			}
			b.ReadOnly, b.Write = on, !on
		}
	case "image-src":
		if value == "" {
			return fmt.Errorf("image-src is empty")
		}
		b.ImageSource = value
	case "id":
		return b.option(f)
	case "bind-propagation":
		return fmt.Errorf("bind-propagation cannot be chosen")
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	return nil
}

// splitEscaped splits s at each sep that no backslash precedes.
func splitEscaped(s string, sep byte) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i+1 < len(s) && (s[i+1] == ':' || s[i+1] == ',') {
				i++
			}
		case sep:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// unescape removes the backslash before each colon and comma; any other
// backslash is part of the path.
func unescape(s string) string {
	return strings.NewReplacer(`\:`, `:`, `\,`, `,`).Replace(s)
}
