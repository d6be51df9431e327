package cgroupfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Unified stands for the unified hierarchy where others are named by controller.
const Unified = ""

// controllersV1 are of one tree only; what is left to the unified one of a hybrid
// host is of little use.
var controllersV1 = [...]string{"cpu", "cpuacct", "blkio", "memory", "pids"}

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
			names = []string{Unified}
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

// A Host is what this host offers: its hierarchies by the names of controllers.
type Host struct {
	mounts map[string]mount
	// V2 tells that the unified hierarchy has the controllers.
	V2 bool
}

// FindHost reads what is mounted.
func FindHost() (*Host, error) {
	text, err := ReadProc("self/mountinfo")
	if err != nil {
		return nil, err
	}
	h := &Host{mounts: parseMounts(text)}
	_, h.V2 = h.mounts[Unified]
	for _, c := range controllersV1 {
		if _, ok := h.mounts[c]; ok {
			h.V2 = false
		}
	}
	if len(h.mounts) == 0 {
		return nil, errors.New("no cgroup file system is mounted")
	}
	return h, nil
}

// Open opens the group at place, a path in the tree that is mounted.
func (h *Host) Open(controller, place string) (*Dir, error) {
	m, ok := h.mounts[controller]
	if !ok {
		return nil, fmt.Errorf("the controller %q is not mounted", controller)
	}
	root, err := OpenMount(m.point)
	if err != nil || place == "/" {
		return root, err
	}
	defer root.Close()
	return root.Open(place)
}

// Own returns the place of a process's group below the mount of controller.
func (h *Host) Own(pid, controller string) (string, error) {
	text, err := ReadProc(pid + "/cgroup")
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
func (h *Host) place(controller, at string) (string, error) {
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

// Mounted tells whether the hierarchy of controller is mounted.
func (h *Host) Mounted(controller string) bool {
	_, ok := h.mounts[controller]
	return ok
}

// Point returns where the hierarchy of controller is mounted.
func (h *Host) Point(controller string) string { return h.mounts[controller].point }

// A Place is the group of a process in one hierarchy.
type Place struct {
	Controller string // one of those of the hierarchy
	Path       string // below the mount
}

// Places returns the groups of a process, one for each hierarchy that is mounted.
// A group outside of what is mounted is left out.
func (h *Host) Places(pid string) ([]Place, error) {
	text, err := ReadProc(pid + "/cgroup")
	if err != nil {
		return nil, err
	}
	var out []Place
	seen := map[string]bool{}
	groups := parseGroups(text)
	for _, c := range sortedKeys(groups) {
		m, ok := h.mounts[c]
		if !ok || seen[m.point] {
			continue
		}
		if at, err := h.place(c, groups[c]); err == nil {
			seen[m.point] = true
			out = append(out, Place{c, at})
		}
	}
	return out, nil
}

// MayMove tells why the caller may not move processes of its own from the group
// at from to the one at to, or nil. In the unified hierarchy the group around
// both must be the caller's.
func (h *Host) MayMove(controller, from, to string) error {
	places := []string{to}
	if controller == Unified {
		places = append(places, common(from, to))
	}
	for _, at := range places {
		d, err := h.Open(controller, at)
		if err != nil {
			return err
		}
		err = unix.Faccessat(int(d.f.Fd()), "cgroup.procs", unix.W_OK, unix.AT_EACCESS)
		d.Close()
		if err != nil {
			return &os.PathError{Op: "move to", Path: d.f.Name(), Err: err}
		}
	}
	return nil
}

// common is the group around both.
func common(a, b string) string {
	for a != "/" && b != a && !strings.HasPrefix(b, a+"/") {
		a = path.Dir(a)
	}
	return a
}

// Enter opens what puts a process into the groups of the process pid: whoever
// writes "0" to each of the files is in them. Where this process is already,
// nothing is opened.
func (h *Host) Enter(pid int) ([]*os.File, error) {
	own, err := h.Places("self")
	if err != nil {
		return nil, err
	}
	theirs, err := h.Places(strconv.Itoa(pid))
	if err != nil {
		return nil, err
	}
	at := map[string]string{}
	for _, p := range own {
		at[p.Controller] = p.Path
	}
	var out []*os.File
	for _, p := range theirs {
		from, ok := at[p.Controller]
		if !ok || from == p.Path {
			continue
		}
		f, err := h.openProcs(p, from)
		if err != nil {
			for _, f := range out {
				f.Close()
			}
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (h *Host) openProcs(p Place, from string) (*os.File, error) {
	if err := h.MayMove(p.Controller, from, p.Path); err != nil {
		return nil, err
	}
	d, err := h.Open(p.Controller, p.Path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.OpenWrite("cgroup.procs")
}

func sortedKeys(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
