// Package cni attaches network namespaces to networks by the plug-ins of the
// Container Network Interface: programs that a configuration names, one after
// another, each of which gets the configuration and the result of the one before
// on its standard input and says on its standard output what it did.
//
// In: names of networks, and what a user asks of them (Args). Out: a network
// namespace that is attached to them (Network), kept by a mount below
// Site.State, with a record of what must be undone. Detach undoes it; what a
// process left that was killed, the next Attach undoes first (recover).
//
// Trusted is what root alone can have written: configurations and programs, which
// Site.Open checks. A program is opened once and executed by that descriptor, with
// a fixed environment, in the root directory; the programs that it calls for
// addresses are in the same directories. Not trusted is what the user asks for:
// of that only port numbers and an address reach a program (SC-048). What programs
// print is bounded and read strictly.
//
// Root's own starts and the setuid helper link this package, so it imports the
// standard library, x/sys and our reader of JSON only. It follows versions 0.3.0
// to 1.0.0 of https://github.com/containernetworking/cni/blob/main/SPEC.md.
//
// Files: cni.go (configurations), args.go (what users ask), plugin.go (programs
// and results), network.go (Attach, Detach, records).
package cni

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"singularity/conf/jsonread"
)

// Bounds on what is read.
const (
	maxText    = 256 << 10 // bytes of a configuration, a result and a record
	maxPlugins = 16        // programs of a network
	maxEntries = 64        // addresses, interfaces and name servers of a result
	maxName    = 64        // bytes
)

// Site says where the administrator's files are.
type Site struct {
	Lists   string   // the directory of the configurations, *.conflist
	Plugins []string // the directories of the programs; the first that has one is asked
	State   string   // a directory of root's for records, lost when the machine stops
	// Open opens a file that root alone can have written.
	Open func(path string) (*os.File, error)
}

// list is a configuration.
type list struct {
	text          string
	name, version string
	plugins       []plugin
}

// plugin is a program of a configuration.
type plugin struct {
	program string
	ipam    string   // the program that it calls for addresses, if any
	able    []string // capabilities: what it takes from runtimeConfig
	runtime string   // its runtimeConfig, unless it gets one of ours
	members []string // its configuration, as it stands
}

// parse reads a configuration.
func parse(text string) (*list, error) {
	l, r := &list{text: text}, jsonread.New(text)
	r.Object(func(name string) {
		switch name {
		case "cniVersion":
			l.version = r.Text()
		case "name":
			l.name = r.Text()
		case "plugins":
			r.Array(func() {
				if len(l.plugins) == maxPlugins {
					r.Fail("too many plug-ins")
				}
				l.plugins = append(l.plugins, readPlugin(r))
			})
		default:
			r.Skip()
		}
	})
	err := r.End()
	switch {
	case err != nil:
		return nil, err
	case !validName(l.name):
		return nil, errors.New("the network has no name of letters, digits, dots, dashes and underscores")
	case len(l.plugins) == 0:
		return nil, errors.New("the network has no plug-ins")
	case !slices.Contains([]string{"0.3.0", "0.3.1", "0.4.0", "1.0.0"}, l.version):
		return nil, errors.New("cniVersion " + strconv.Quote(l.version) + " is none from 0.3.0 to 1.0.0")
	}
	for _, p := range l.plugins {
		// Security (SC-048): the name becomes a path that root executes.
		if !validName(p.program) || p.ipam != "" && !validName(p.ipam) {
			return nil, errors.New("a plug-in has no type that is the name of a file")
		}
	}
	return l, nil
}

func readPlugin(r *jsonread.Reader) (p plugin) {
	r.Object(func(name string) {
		raw := r.Raw()
		in := jsonread.New(raw)
		switch name {
		case "cniVersion", "name", "prevResult":
			return // ours to say
		case "runtimeConfig":
			p.runtime = raw
			return
		case "type":
			p.program = in.Text()
		case "ipam":
			in.Object(func(member string) {
				if member == "type" {
					p.ipam = in.Text()
				} else {
					in.Skip()
				}
			})
		case "capabilities":
			in.Object(func(member string) {
				if in.Raw() == "true" {
					p.able = append(p.able, member)
				}
			})
		}
		if err := in.Err(); err != nil && r.Err() == nil {
			r.Fail("member " + strconv.Quote(name) + " is wrong: " + err.Error())
		}
		p.members = append(p.members, quote(name)+":"+raw)
	})
	return p
}

// config is what the program p of l reads.
func (l *list) config(p *plugin, a *Args, prev string) string {
	members := append([]string{`"cniVersion":` + quote(l.version), `"name":` + quote(l.name)}, p.members...)
	if prev != "" {
		members = append(members, `"prevResult":`+prev)
	}
	if slices.Contains(p.able, "portMappings") && len(a.Ports) > 0 {
		members = append(members, `"runtimeConfig":{"portMappings":`+a.portMappings()+`}`)
	} else if p.runtime != "" {
		members = append(members, `"runtimeConfig":`+p.runtime)
	}
	return "{" + strings.Join(members, ",") + "}"
}

// mapsPorts tells whether a program of l publishes ports.
func (l *list) mapsPorts() bool {
	return slices.ContainsFunc(l.plugins, func(p plugin) bool { return slices.Contains(p.able, "portMappings") })
}

// find reads the configurations of the networks called names.
func (s *Site) find(names []string) ([]*list, error) {
	entries, err := os.ReadDir(s.Lists)
	if err != nil {
		return nil, err
	}
	found, there := make([]*list, len(names)), []string{}
	var broken error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".conflist") {
			continue
		}
		l, err := s.read(s.Lists + "/" + e.Name())
		if err != nil {
			broken = errors.Join(broken, err)
			continue
		}
		there = append(there, l.name)
		for i, name := range names {
			if name == l.name && found[i] == nil {
				found[i] = l
			}
		}
	}
	for i, l := range found {
		if l == nil {
			err := errors.New("no network is called " + strconv.Quote(names[i]) + " in " + s.Lists + " (there are: " + strings.Join(there, ", ") + ")")
			return nil, errors.Join(err, broken)
		}
	}
	return found, nil
}

func (s *Site) read(path string) (*list, error) {
	f, err := s.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readAll(f)
	if err != nil {
		return nil, errors.New(path + ": " + err.Error())
	}
	l, err := parse(text)
	if err != nil {
		return nil, errors.New(path + ": " + err.Error())
	}
	return l, nil
}

func readAll(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err == nil && len(text) > maxText {
		err = errors.New("more than " + strconv.Itoa(maxText) + " bytes")
	}
	return string(text), err
}

// validName tells whether s is a name as the specification wants it, which is the
// name of a file as well.
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// quote returns s as JSON.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < 0x20:
			b.WriteString(`\u00` + string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15]))
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
