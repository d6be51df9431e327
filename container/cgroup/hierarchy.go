package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"singularity/linux/cgroupfs"
)

// v2Name stands for the unified hierarchy where others are named by controller.
const v2Name = ""

// A mount is a place where a hierarchy is mounted.
type mount struct {
	point string
	root  string // the group that is seen there
}

// parseMounts reads /proc/self/mountinfo: the mount of each controller of cgroup
// v1, and that of the unified hierarchy. The first of several mounts counts.
func parseMounts(text string) map[string]mount {
	m := make(map[string]mount)
	for l := range strings.Lines(text) {
		left, right, ok := strings.Cut(l, " - ")
		a, b := strings.Fields(left), strings.Fields(right)
		if !ok || len(a) < 6 || len(b) < 3 {
			continue
		}
		at := mount{point: unescape(a[4]), root: unescape(a[3])}
		var names []string
		switch b[0] {
		case "cgroup2":
			names = []string{v2Name}
		case "cgroup":
			names = strings.Split(b[2], ",")
		}
		for _, n := range names {
			if _, have := m[n]; !have {
				m[n] = at
			}
		}
	}
	return m
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// parseGroups reads /proc/PID/cgroup: the path of the process's group for each
// controller of cgroup v1, and in the unified hierarchy.
func parseGroups(text string) map[string]string {
	m := make(map[string]string)
	for l := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(l, "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			continue
		}
		for _, n := range strings.Split(parts[1], ",") {
			m[n] = parts[2]
		}
	}
	return m
}

// A host is what this host offers.
type host struct {
	mounts map[string]mount
	v2     bool // the unified hierarchy has the controllers
}

func findHost() (*host, error) {
	text, err := cgroupfs.ReadProc("self/mountinfo")
	if err != nil {
		return nil, err
	}
	h := &host{mounts: parseMounts(text)}
	_, h.v2 = h.mounts[v2Name]
	for _, c := range usualV1 {
		// A controller is in one tree only; what is left to the unified one of
		// a hybrid host is of no use here.
		if _, ok := h.mounts[c]; ok {
			h.v2 = false
		}
	}
	if len(h.mounts) == 0 {
		return nil, errors.New("no cgroup file system is mounted")
	}
	return h, nil
}

// open opens the group at place, a path in the tree that is mounted.
func (h *host) open(controller, place string) (*cgroupfs.Dir, error) {
	m, ok := h.mounts[controller]
	if !ok {
		return nil, fmt.Errorf("the controller %q is not mounted", controller)
	}
	root, err := cgroupfs.OpenMount(m.point)
	if err != nil || place == "/" {
		return root, err
	}
	defer root.Close()
	return root.Open(place)
}

// own returns the place of a process's group below the mount of controller.
func (h *host) own(pid, controller string) (string, error) {
	text, err := cgroupfs.ReadProc(pid + "/cgroup")
	if err != nil {
		return "", err
	}
	at, ok := parseGroups(text)[controller]
	if !ok {
		return "", fmt.Errorf("process %s has no group of %q", pid, controller)
	}
	return h.place(controller, at)
}

// place makes a path as /proc shows it one below the mount of controller.
func (h *host) place(controller, at string) (string, error) {
	root := h.mounts[controller].root
	if strings.HasPrefix(at, "/..") || strings.HasPrefix(root, "/..") {
		return "", fmt.Errorf("the group %s lies outside of what is mounted", at)
	}
	if root == "/" || at == root {
		return path.Clean("/" + strings.TrimPrefix(at, root)), nil
	}
	rest, ok := strings.CutPrefix(at, root+"/")
	if !ok {
		return "", fmt.Errorf("the group %s lies outside of what is mounted", at)
	}
	return path.Clean("/" + rest), nil
}

// missing returns those of want that are not in have, a list of words.
func missing(have string, want []string) []string {
	var out []string
	words := strings.Fields(have)
	for _, w := range want {
		if !slices.Contains(words, w) {
			out = append(out, w)
		}
	}
	return out
}
