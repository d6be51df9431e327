package plan

import (
	"errors"
	"path"
	"strconv"
	"strings"
)

// FuseMount is a FUSE file system that a program serves to the container. The
// program gets the descriptor of the file system as its last argument, as
// /dev/fd/N.
type FuseMount struct {
	// Host tells that the program is one of the host, and runs there with the
	// rights of the caller; else it is in the container, confined as the
	// container's own program is.
	Host bool
	// Daemon tells that the program goes to the background by itself; else it is
	// asked to stay in the foreground.
	Daemon      bool
	Args        []string // the program and its arguments
	Destination string   // absolute, inside
}

// Argv returns the command line for the descriptor fd.
func (f *FuseMount) Argv(fd int) []string {
	argv := append([]string(nil), f.Args...)
	if !f.Daemon {
		argv = append(argv, "-f")
	}
	return append(argv, "/dev/fd/"+strconv.Itoa(fd))
}

var fuseKinds = [...]struct {
	name         string
	host, daemon bool
}{{"container", false, false}, {"host", true, false}, {"container-daemon", false, true}, {"host-daemon", true, true}}

// ParseFuseMounts reads values of --fusemount: "<kind>:<command> <mount point>",
// several after commas. A comma that no kind follows belongs to the command,
// whose words are split as a shell does, with quotes.
func ParseFuseMounts(s string) ([]FuseMount, error) {
	var all []FuseMount
	for s != "" {
		f, rest, ok := fuseKind(s)
		if !ok {
			return nil, errors.New("fusemount " + strconv.Quote(s) + " is not of the form KIND:COMMAND MOUNTPOINT, where KIND is container, host, container-daemon or host-daemon")
		}
		end := len(rest)
		for i := range len(rest) {
			if rest[i] != ',' {
				continue
			}
			if _, _, next := fuseKind(strings.TrimSpace(rest[i+1:])); next {
				end = i
				break
			}
		}
		words, err := splitWords(rest[:end])
		if err != nil {
			return nil, errors.New("fusemount " + strconv.Quote(s) + ": " + err.Error())
		}
		n := len(words) - 1
		if n < 1 || !strings.HasPrefix(words[n], "/") || path.Clean(words[n]) == "/" {
			return nil, errors.New("fusemount " + strconv.Quote(s) + ": a command and an absolute mount point in the container are wanted")
		}
		f.Args, f.Destination = words[:n], path.Clean(words[n])
		all = append(all, f)
		s = ""
		if end < len(rest) {
			s = strings.TrimSpace(rest[end+1:])
		}
	}
	return all, nil
}

func fuseKind(s string) (f FuseMount, rest string, ok bool) {
	name, rest, _ := strings.Cut(s, ":")
	for _, k := range fuseKinds {
		if k.name == name {
			return FuseMount{Host: k.host, Daemon: k.daemon}, rest, true
		}
	}
	return f, "", false
}

// splitWords splits s at blanks. Quotes and backslashes keep blanks in a word.
func splitWords(s string) ([]string, error) {
	var words []string
	var word []byte
	var quote byte
	open := false // a word has begun
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			word, open = append(word, s[i]), true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, open = c, true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if open {
				words = append(words, string(word))
			}
			word, open = nil, false
		default:
			word, open = append(word, c), true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if open {
		words = append(words, string(word))
	}
	return words, nil
}

// fuse plans the FUSE file systems that a person asked for.
func (m *maker) fuse() error {
	for _, spec := range m.o.FuseMount {
		list, err := ParseFuseMounts(spec)
		if err != nil {
			return err
		}
		for _, f := range list {
			switch {
			case !m.f.Conf.Fusemount:
				return errors.New("fusemount disabled by configuration 'enable fusemount = no'")
			case !f.Host && !m.p.Namespaces.PID:
				return errors.New("cannot mount " + f.Destination + ": the program " + strconv.Quote(f.Args[0]) + " would outlive a container without a PID namespace")
			}
			n := len(m.p.Mounts)
			m.bind(Mount{Kind: FuseFS, Source: f.Args[0], Image: len(m.p.Fuse), Destination: f.Destination, Dir: true, Tag: "fusemount"})
			if len(m.p.Mounts) == n {
				return errors.New("cannot mount " + f.Destination + ": something else is mounted there, or it cannot be mounted over")
			}
			m.p.Fuse = append(m.p.Fuse, f)
		}
	}
	return nil
}
