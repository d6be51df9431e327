package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"singularity/build/deffile"
)

// arch makes an Arch Linux by pacman itself: pacstrap would mount file systems
// that a user namespace may not.
type arch struct {
	mirror  string // "" means the one of the distribution
	include []string
	setopt  []string
	c       Config
}

const (
	archMirror = "https://geo.mirror.pkgbuild.com/$repo/os/$arch"
	archKeys   = "/etc/pacman.d/gnupg" // where pacman-key keeps the keys of this host
)

func newArch(s *deffile.Stage, c Config) (Source, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("line %d: bootstrap agent \"arch\" is for amd64 only", s.Line)
	}
	a := &arch{mirror: archMirror, c: c}
	var err error
	if s.Value("mirrorurl") != "" {
		if a.mirror, err = mirrorURL(s, "mirrorurl", "http", "https", "file", "ftp"); err != nil {
			return nil, err
		}
	}
	if a.include, err = packageWords(s, c); err != nil {
		return nil, err
	}
	a.setopt, err = settings(s)
	return a, err
}

// Fetch implements Source.
func (a *arch) Fetch(ctx context.Context, rootfs string) error {
	program, ok := findTool("pacman")
	if !ok {
		return &MissingToolError{Tools: "pacman", Package: "pacman-package-manager"}
	}
	dir, err := a.c.WorkDir()
	if err != nil {
		return err
	}
	conf := filepath.Join(dir, "pacman.conf")
	if err := os.WriteFile(conf, []byte(a.config(dir)), 0o600); err != nil {
		return err
	}
	// pacman wants them, and does not make them.
	for _, d := range []string{filepath.Join(dir, "cache"), filepath.Join(dir, "hooks"), filepath.Join(rootfs, "var/lib/pacman")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	undo, err := bindDevices(rootfs)
	defer undo()
	if err != nil {
		return err
	}
	args := []string{program, "--root", rootfs, "--config", conf, "--noconfirm", "--noprogressbar", "-Sy"}
	err = run(ctx, slices.Concat(args, []string{"base"}, a.include), withEnv(a.c.Env, "LC_ALL=C"), a.c.Log.Verbose)
	undo()
	if err != nil {
		return fmt.Errorf("cannot install packages from %q: %w", a.mirror, err)
	}
	packages, err := pacmanPackages(rootfs)
	if err != nil {
		return err
	}
	a.c.Record(Origin{Agent: "arch", URI: a.mirror, Packages: packages})
	return tidyDevices(rootfs, "etc/resolv.conf", "var/lib/pacman/sync")
}

// config is the configuration of pacman, with nothing of the host's but its
// keys. A mirror without $repo is the repository "core" alone.
func (a *arch) config(dir string) string {
	var s strings.Builder
	s.WriteString("[options]\nArchitecture = x86_64\nSigLevel = Required DatabaseOptional\nLocalFileSigLevel = Optional\n")
	fmt.Fprintf(&s, "CacheDir = %s/cache\nHookDir = %s/hooks\nLogFile = %s/log\nGPGDir = %s\n", dir, dir, dir, archKeys)
	for _, o := range a.setopt {
		name, value, _ := strings.Cut(o, "=")
		fmt.Fprintf(&s, "%s = %s\n", name, value)
	}
	repos := []string{"core", "extra"}
	if !strings.Contains(a.mirror, "$repo") {
		repos = repos[:1]
	}
	for _, r := range repos {
		fmt.Fprintf(&s, "[%s]\nServer = %s\n", r, a.mirror)
	}
	return s.String()
}

// pacmanPackages reads what is installed: a directory NAME-VERSION for each.
func pacmanPackages(rootfs string) (*Packages, error) {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, err := root.Open("var/lib/pacman/local")
	if err != nil {
		return nil, fmt.Errorf("cannot list the installed packages: %w", err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	var lines []string
	for _, e := range entries {
		if e.IsDir() {
			lines = append(lines, e.Name())
		}
	}
	return newPackages(lines), err
}
