package instance

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// encode returns r as a JSON object.
func encode(r *Record) []byte {
	b := []byte("{\n")
	text := func(key, value string) { b = append(appendString(append(b, "\t\""+key+"\": "...), value), ",\n"...) }
	b = append(b, "\t\"pid\": "+strconv.Itoa(r.PID)+",\n\t\"ppid\": "+strconv.Itoa(r.PPID)+",\n"...)
	text("name", r.Name)
	text("user", r.User)
	text("image", r.Image)
	text("config", base64.StdEncoding.EncodeToString([]byte(r.Config.encode())))
	b = append(b, "\t\"userns\": "+strconv.FormatBool(r.UserNS)+",\n"...)
	text("cgroup", r.Cgroup)
	text("ip", r.IP)
	text("logErrPath", r.LogErrPath)
	b = append(appendString(append(b, "\t\"logOutPath\": "...), r.LogOutPath), "\n}\n"...)
	return b
}

func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, c := range strings.ToValidUTF8(s, "\ufffd") {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}

var errJSON = errors.New("it is not a JSON object of texts, numbers and booleans")

// decode reads an object whose values are texts, numbers and booleans.
func decode(b []byte) (*Record, error) {
	if len(b) > maxRecord {
		return nil, errors.New("it is too large")
	}
	r := new(Record)
	p := &scanner{rest: string(b)}
	if !p.take('{') {
		return nil, errJSON
	}
	for first := true; !p.take('}'); first = false {
		if !first && !p.take(',') {
			return nil, errJSON
		}
		key, ok := p.text()
		if !ok || !p.take(':') {
			return nil, errJSON
		}
		value, ok := p.value()
		if !ok {
			return nil, errJSON
		}
		if err := r.set(key, value); err != nil {
			return nil, err
		}
	}
	if p.space(); p.rest != "" {
		return nil, errJSON
	}
	return r, nil
}

func (r *Record) set(key, value string) (err error) {
	switch key {
	case "pid":
		r.PID, err = strconv.Atoi(value)
	case "ppid":
		r.PPID, err = strconv.Atoi(value)
	case "name":
		r.Name = value
	case "user":
		r.User = value
	case "image":
		r.Image = value
	case "config":
		var text []byte
		if text, err = base64.StdEncoding.DecodeString(value); err == nil {
			r.Config, err = decodeConfig(string(text))
		}
	case "userns":
		r.UserNS, err = strconv.ParseBool(value)
	case "cgroup":
		r.Cgroup = value
	case "ip":
		r.IP = value
	case "logErrPath":
		r.LogErrPath = value
	case "logOutPath":
		r.LogOutPath = value
	}
	if err != nil {
		err = errors.New("its field " + strconv.Quote(key) + " is wrong: " + err.Error())
	}
	return err
}

// scanner takes JSON tokens from the beginning of a text.
type scanner struct{ rest string }

func (p *scanner) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *scanner) take(c byte) bool {
	p.space()
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// value takes a text, a number or a boolean.
func (p *scanner) value() (string, bool) {
	p.space()
	if p.rest != "" && p.rest[0] == '"' {
		return p.text()
	}
	i := strings.IndexAny(p.rest, ",} \t\r\n")
	if i <= 0 {
		return "", false
	}
	v := p.rest[:i]
	p.rest = p.rest[i:]
	if _, err := strconv.ParseInt(v, 10, 64); err != nil && v != "true" && v != "false" {
		return "", false
	}
	return v, true
}

func (p *scanner) text() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c < 0x20:
			return "", false
		case c != '\\':
			b.WriteByte(c)
			continue
		}
		n := escape(p.rest[i:], &b)
		if n == 0 {
			return "", false
		}
		i += n - 1
	}
	return "", false
}

// escape adds what the escape at the beginning of s stands for, and returns its
// length; 0 if it is none.
func escape(s string, b *strings.Builder) int {
	if len(s) < 2 {
		return 0
	}
	if i := strings.IndexByte(`"\/bfnrt`, s[1]); i >= 0 {
		b.WriteByte("\"\\/\b\f\n\r\t"[i])
		return 2
	}
	if s[1] != 'u' || len(s) < 6 {
		return 0
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	if err != nil {
		return 0
	}
	b.WriteRune(rune(n))
	return 6
}

// encode returns c as lines of name=value.
func (c *Config) encode() string {
	text := "start=" + strconv.FormatUint(c.Start, 10) + "\nhome=" + line(c.Home) + "\nfakeroot=" + strconv.FormatBool(c.Fakeroot) +
		"\nranges=" + strconv.FormatBool(c.Ranges) + "\nfakeowners=" + strconv.FormatBool(c.FakeOwners) + "\nkeepgroups=" + strconv.FormatBool(c.KeepGroups) + "\ninit=" + strconv.FormatBool(c.Init) +
		"\ncaps=" + strconv.FormatUint(c.Caps, 16) + "\nlsm=" + line(c.LSM) + "\nlabel=" + line(c.Label) + "\nseccomp=" + line(c.Seccomp) +
		"\nlandlock=" + strconv.FormatBool(c.Landlock) + "\n"
	for _, w := range c.Write {
		text += "write=" + strconv.Quote(w) + "\n"
	}
	return text
}

// line makes s fit in one line.
func line(s string) string { return strings.ReplaceAll(s, "\n", "") }

func decodeConfig(s string) (c Config, err error) {
	for l := range strings.Lines(s) {
		key, value, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "=")
		switch key {
		case "start":
			c.Start, err = strconv.ParseUint(value, 10, 64)
		case "home":
			c.Home = value
		case "fakeroot":
			c.Fakeroot, err = strconv.ParseBool(value)
		case "ranges":
			c.Ranges, err = strconv.ParseBool(value)
		case "fakeowners":
			c.FakeOwners, err = strconv.ParseBool(value)
		case "keepgroups":
			c.KeepGroups, err = strconv.ParseBool(value)
		case "init":
			c.Init, err = strconv.ParseBool(value)
		case "caps":
			c.Caps, err = strconv.ParseUint(value, 16, 64)
		case "lsm":
			c.LSM = value
		case "label":
			c.Label = value
		case "seccomp":
			c.Seccomp = value
		case "landlock":
			c.Landlock, err = strconv.ParseBool(value)
		case "write":
			value, err = strconv.Unquote(value)
			c.Write = append(c.Write, value)
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}
