package gpgagent

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// Limits on what an agent answers, in bytes.
const (
	maxLine = 4096 // the protocol says 1000
	maxData = 64 << 10
)

// conn is a connection to an agent.
type conn struct {
	io.Writer
	r     *bufio.Reader
	close func()
}

func dial(ctx context.Context, path string) (*conn, error) {
	s, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	c := &conn{Writer: s, r: bufio.NewReaderSize(s, maxLine), close: func() { stop(); s.Close() }}
	if _, err := c.answer(); err != nil { // the greeting
		c.close()
		return nil, err
	}
	return c, nil
}

// sign has the agent sign a digest with the key named grip. text tells the user
// what for.
func (c *conn) sign(grip string, digest []byte, text string) ([]byte, error) {
	for _, o := range options(os.Getenv) {
		// An agent may not know one, or not allow it.
		if _, err := c.command("OPTION " + o); err != nil {
			if _, ok := errors.AsType[*refusal](err); !ok {
				return nil, err
			}
		}
	}
	for _, line := range []string{"SIGKEY " + grip, "SETKEYDESC " + strings.ReplaceAll(text, " ", "+"),
		"SETHASH --hash=sha256 " + strings.ToUpper(hex.EncodeToString(digest))} {
		if _, err := c.command(line); err != nil {
			return nil, err
		}
	}
	return c.command("PKSIGN")
}

// options tell the agent where the user can be asked.
func options(getenv func(string) string) []string {
	terminal := getenv("GPG_TTY")
	if terminal == "" {
		if name, err := os.Readlink("/proc/self/fd/0"); err == nil && (strings.HasPrefix(name, "/dev/pts/") || strings.HasPrefix(name, "/dev/tty")) {
			terminal = name
		}
	}
	var list []string
	for _, o := range []struct{ name, value string }{
		{"ttyname", terminal}, {"ttytype", getenv("TERM")}, {"display", getenv("DISPLAY")}, {"xauthority", getenv("XAUTHORITY")},
		{"putenv=WAYLAND_DISPLAY", getenv("WAYLAND_DISPLAY")},
		{"putenv=DBUS_SESSION_BUS_ADDRESS", getenv("DBUS_SESSION_BUS_ADDRESS")},
	} {
		// Security: a line feed in a variable would be a command of its own.
		if o.value != "" && len(o.value) < 500 && !strings.ContainsFunc(o.value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			list = append(list, o.name+"="+o.value)
		}
	}
	return list
}

// refusal is the agent's own error.
type refusal struct{ text string }

func (e *refusal) Error() string { return e.text }

func (c *conn) command(line string) ([]byte, error) {
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return nil, err
	}
	return c.answer()
}

// answer reads up to the line that ends an answer, and returns the data in it.
func (c *conn) answer() ([]byte, error) {
	var data []byte
	for {
		line, err := c.r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, errors.New("its line is too long")
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		word, rest, _ := strings.Cut(strings.TrimRight(string(line), "\n"), " ")
		switch word {
		case "OK":
			return data, nil
		case "ERR":
			_, text, _ := strings.Cut(rest, " ") // after the number
			return nil, &refusal{text}
		case "D":
			part, err := unescape(rest)
			if err != nil {
				return nil, err
			}
			if data = append(data, part...); len(data) > maxData {
				return nil, fmt.Errorf("its answer is longer than %d bytes", maxData)
			}
		case "INQUIRE": // we have nothing more to say
			if _, err := io.WriteString(c, "END\n"); err != nil {
				return nil, err
			}
		case "S", "#":
		default:
			if !strings.HasPrefix(word, "#") {
				return nil, fmt.Errorf("its answer is not understood: %q", word)
			}
		}
	}
}

// unescape undoes %XX.
func unescape(s string) ([]byte, error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+3 > len(s) {
			return nil, errors.New("its data are cut short")
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return nil, errors.New("its data are not understood")
		}
		b = append(b, c...)
		i += 2
	}
	return b, nil
}

// numbers returns the numbers of a signature from its S-expression, as in
// (7:sig-val(5:ecdsa(1:r32:...)(1:s32:...))): r before s, or s alone.
func numbers(raw []byte) ([][]byte, error) {
	bad := errors.New("gpg-agent answers with no signature")
	p := &parser{rest: raw}
	p.token("(")
	if string(p.atom()) != "sig-val" {
		return nil, bad
	}
	p.token("(")
	p.atom() // the algorithm
	var list [][]byte
	for p.err == nil && len(list) < 2 && p.token("(") {
		name := string(p.atom())
		value := p.atom()
		if !p.token(")") || name != "r" && name != "s" || name == "r" && len(list) != 0 {
			return nil, bad
		}
		list = append(list, value)
		if name == "s" {
			break
		}
	}
	if p.err != nil || len(list) == 0 || !p.token("))") {
		return nil, bad
	}
	return list, nil
}

// parser reads a canonical S-expression.
type parser struct {
	rest []byte
	err  error
}

// token takes s if it is next.
func (p *parser) token(s string) bool {
	if p.err != nil || !strings.HasPrefix(string(p.rest[:min(len(s), len(p.rest))]), s) {
		p.err = errors.New("not found: " + s)
		return false
	}
	p.rest = p.rest[len(s):]
	return true
}

// atom takes a length and so many bytes.
func (p *parser) atom() []byte {
	n, i := 0, 0
	for i < len(p.rest) && i < 5 && p.rest[i] >= '0' && p.rest[i] <= '9' {
		n = 10*n + int(p.rest[i]-'0')
		i++
	}
	if p.err != nil || i == 0 || i == len(p.rest) || p.rest[i] != ':' || n > len(p.rest)-i-1 {
		p.err = errors.New("not an atom")
		return nil
	}
	a := p.rest[i+1 : i+1+n]
	p.rest = p.rest[i+1+n:]
	return a
}
