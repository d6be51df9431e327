package cni

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/conf/jsonread"
)

// patience is how long a program may take; one that asks a DHCP server waits.
const patience = 2 * time.Minute

// path is what programs find others by (iptables).
const path = "/usr/sbin:/usr/bin:/sbin:/bin"

// Result is what the programs of a network said.
type Result struct {
	IPs                      []string // addresses of the container
	Servers, Search, Options []string // for its resolv.conf
	outside                  []string // the host's interfaces that were made
}

// open opens a program.
func (s *Site) open(name string) (*os.File, error) {
	for _, dir := range s.Plugins {
		f, err := s.Open(dir + "/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		return f, err
	}
	return nil, errors.New("no plug-in is called " + strconv.Quote(name) + " in " + strings.Join(s.Plugins, ", "))
}

// check looks at all programs of l, those that they call too, which they find by
// name in the same directories.
func (s *Site) check(l *list) error {
	for _, p := range l.plugins {
		for _, name := range []string{p.program, p.ipam} {
			if name == "" {
				continue
			}
			f, err := s.open(name)
			if err != nil {
				return err
			}
			f.Close()
		}
	}
	return nil
}

// call runs the program p with config and returns what it prints. The namespace
// at netns is that of the container id; in it the interface is called device.
func (s *Site) call(p *plugin, command, id, netns, device, args, config string) (string, error) {
	f, err := s.open(p.program)
	if err != nil {
		return "", err
	}
	defer f.Close()
	in, err := memory(config)
	if err != nil {
		return "", err
	}
	defer in.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	// Security (R1, R7): the program that was looked at is the one that runs, and
	// nothing of the caller reaches it: no variable, no directory, no descriptor.
	proc, err := os.StartProcess("/proc/self/fd/3", []string{p.program}, &os.ProcAttr{
		Dir: "/", Files: []*os.File{in, w, null, f},
		Env: []string{"PATH=" + path, "CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=" + device,
			"CNI_ARGS=" + args, "CNI_PATH=" + strings.Join(s.Plugins, ":")},
	})
	w.Close()
	if err != nil {
		return "", errors.New("cannot run the plug-in " + f.Name() + ": " + err.Error())
	}
	late := time.AfterFunc(patience, func() { proc.Kill() })
	defer late.Stop()
	out, err := readAll(r)
	if err != nil {
		proc.Kill()
	}
	st, waitErr := proc.Wait()
	if err = errors.Join(err, waitErr); err != nil {
		return "", err
	}
	if !st.Success() {
		return "", errors.New("the plug-in " + p.program + " says: " + complaint(out, st.String()))
	}
	return out, nil
}

// memory returns a file with text.
func memory(text string) (*os.File, error) {
	fd, err := unix.MemfdCreate("cni", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "cni")
	if _, err = f.WriteString(text); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// complaint returns the text of an error that a program printed, or what is said
// otherwise.
func complaint(out, otherwise string) string {
	var msg, details string
	r := jsonread.New(out)
	r.Object(func(name string) {
		switch name {
		case "msg":
			msg = r.Text()
		case "details":
			details = r.Text()
		default:
			r.Skip()
		}
	})
	if r.End() != nil || msg+details == "" {
		return otherwise
	}
	return strings.TrimSpace(msg + " " + details)
}

// parseResult reads the result of a program.
func parseResult(text string) (*Result, error) {
	res, r := new(Result), jsonread.New(text)
	// objects reads an array of objects, of which it hands on two members.
	objects := func(first, second string, add func(first, second string)) {
		n := 0
		r.Array(func() {
			if n++; n > maxEntries {
				r.Fail("too many elements")
			}
			var a, b string
			r.Object(func(name string) {
				switch name {
				case first:
					a = r.Text()
				case second:
					b = r.Text()
				default:
					r.Skip()
				}
			})
			add(a, b)
		})
	}
	r.Object(func(name string) {
		switch name {
		case "ips":
			objects("address", "", func(address, _ string) {
				ip, _, _ := strings.Cut(address, "/")
				res.IPs = append(res.IPs, ip)
			})
		case "interfaces":
			objects("name", "sandbox", func(name, sandbox string) {
				if sandbox == "" {
					res.outside = append(res.outside, name)
				}
			})
		case "dns":
			r.Object(func(name string) {
				switch name {
				case "nameservers":
					res.Servers = r.Strings(maxEntries)
				case "search":
					res.Search = r.Strings(maxEntries)
				case "options":
					res.Options = r.Strings(maxEntries)
				default:
					r.Skip()
				}
			})
		default:
			r.Skip()
		}
	})
	return res, r.End()
}
