package source

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
)

// splitWords splits a list of the header: at blanks and commas.
func splitWords(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' })
}

// packageWords returns the packages of the header and of the caller.
//
// Security: "--" in front of one would be an option, such as one that runs a
// command of the definition's choice on the host.
func packageWords(s *deffile.Stage, c Config) ([]string, error) {
	list := slices.Concat(splitWords(s.Value("include")), c.Include)
	for _, w := range list {
		if err := checkWord(s, "include", "a package", w); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// checkWord refuses a value that a program would take for something else.
func checkWord(s *deffile.Stage, keyword, what, w string) error {
	if w == "" || strings.HasPrefix(w, "-") || strings.ContainsAny(w, "\n\r \t\"'") {
		return fmt.Errorf("line %d: cannot use %q as %s", s.LineOf(keyword), w, what)
	}
	return nil
}

// mirrorURL checks an address of the header, in which %{OSVERSION} stands for
// OSVersion.
//
// Security: a program would take other forms for a command ("ext::") or for a
// file with settings.
func mirrorURL(s *deffile.Stage, keyword string, schemes ...string) (string, error) {
	url := s.Value(keyword)
	version := s.Value("osversion")
	for _, mark := range []string{"%{OSVERSION}", "%{osversion}"} {
		if strings.Contains(url, mark) {
			if version == "" {
				return "", fmt.Errorf("line %d: %s has %s in it, and there is no OSVersion", s.LineOf(keyword), keyword, mark)
			}
			url = strings.ReplaceAll(url, mark, version)
		}
	}
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok || !slices.Contains(schemes, strings.ToLower(scheme)) || !strings.HasPrefix(rest, "/") || strings.ContainsAny(url, "\n\r \t\"'\\") {
		return "", fmt.Errorf("line %d: cannot use %q as %s: want an address that begins with %s", s.LineOf(keyword), url, keyword, strings.Join(schemes, ":, ")+":")
	}
	return url, nil
}

// settings reads the keyword SetOpt: words KEY=VALUE for the configuration of a
// package tool.
func settings(s *deffile.Stage) ([]string, error) {
	var list []string
	for _, k := range s.Header {
		if k.Name != "setopt" {
			continue
		}
		for _, w := range strings.Fields(k.Value) {
			name, _, ok := strings.Cut(w, "=")
			if !ok || name == "" || strings.HasPrefix(w, "-") || strings.ContainsAny(name, "[]#;") {
				return nil, fmt.Errorf("line %d: cannot use %q as SetOpt: want KEY=VALUE", k.Line, w)
			}
			list = append(list, w)
		}
	}
	return list, nil
}

// value returns the last variable of that name in an environment.
func value(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// withEnv returns env with other values of some variables.
func withEnv(env []string, set ...string) []string {
	out := slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.ContainsFunc(set, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	})
	return append(out, set...)
}

// devices are the nodes that packages' scripts may use.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// bindDevices gives rootfs the host's harmless devices, and plain files where
// a tool would make nodes. undo takes the mounts away again; it may be called
// twice.
func bindDevices(rootfs string) (undo func(), err error) {
	dev := filepath.Join(rootfs, "dev")
	var bound []string
	undo = func() {
		for _, p := range bound {
			// A failure shows when the tree is removed or packed.
			_ = unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		bound = nil
	}
	if err := os.Mkdir(dev, 0o755); err != nil {
		return undo, err
	}
	for _, name := range append(devices, "console", "ptmx") {
		if err := os.WriteFile(filepath.Join(dev, name), nil, 0o666); err != nil {
			return undo, err
		}
	}
	for _, name := range devices {
		p := filepath.Join(dev, name)
		if err := unix.Mount("/dev/"+name, p, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			return undo, fmt.Errorf("cannot bind \"/dev/%s\" into the image: %w", name, err)
		}
		bound = append(bound, p)
	}
	return undo, nil
}

// tidyDevices removes what bindDevices made, and further paths. The packages of
// a mirror may have made any of them a link: that is removed, not followed.
func tidyDevices(rootfs string, more ...string) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	names, err := devNames(root)
	if err != nil {
		return err
	}
	for _, name := range append(names, more...) {
		if err := root.RemoveAll(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot tidy the bootstrapped system: %w", err)
		}
	}
	return nil
}

func devNames(root *os.Root) ([]string, error) {
	dev, err := root.Open("dev")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	names, err := dev.Readdirnames(-1)
	for i := range names {
		names[i] = "dev/" + names[i]
	}
	return names, err
}
