package source

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"singularity/build/deffile"
)

// zypper makes a system of RPM packages from SUSE repositories.
type zypper struct {
	mirrors []string // the first one is the distribution
	release string
	include []string
	noCheck bool // packages need no signatures
	c       Config
}

// zypperBase are the packages that every image gets.
var zypperBase = []string{"filesystem", "coreutils"}

// scriptsFailed is the exit status of zypper after packages were installed
// whose scripts failed, as some do without a running system.
const scriptsFailed = 107

func newZypper(s *deffile.Stage, c Config) (Source, error) {
	for _, k := range []string{"product", "user", "regcode", "productpgp", "registerurl", "modules"} {
		if s.Value(k) != "" {
			return nil, fmt.Errorf("line %d: registration of SUSE Linux Enterprise (%s) is not part of this version: name repositories by MirrorURL and OtherURL0", s.LineOf(k), k)
		}
	}
	if s.Value("mirrorurl") == "" {
		return nil, fmt.Errorf("line %d: bootstrap agent \"zypper\" needs the header keyword MirrorURL", s.Line)
	}
	z := &zypper{release: s.Value("osversion"), c: c}
	keywords := []string{"mirrorurl"}
	if s.Value("updateurl") != "" {
		keywords = append(keywords, "updateurl")
	}
	var others []string
	for _, k := range s.Header {
		if strings.HasPrefix(k.Name, "otherurl") && !slices.Contains(others, k.Name) {
			others = append(others, k.Name)
		}
	}
	slices.Sort(others)
	for _, k := range append(keywords, others...) {
		url, err := mirrorURL(s, k, "http", "https", "file", "dir", "ftp")
		if err != nil {
			return nil, err
		}
		z.mirrors = append(z.mirrors, url)
	}
	options, err := settings(s)
	if err != nil {
		return nil, err
	}
	for _, o := range options {
		if o != "gpgcheck=0" {
			return nil, fmt.Errorf("line %d: cannot use %q as SetOpt: for zypper there is \"gpgcheck=0\" alone", s.LineOf("setopt"), o)
		}
		z.noCheck = true
	}
	z.include, err = packageWords(s, c)
	return z, err
}

// Fetch implements Source.
func (z *zypper) Fetch(ctx context.Context, rootfs string) error {
	t, err := rpmTools(z.c, "zypper", "zypper", "zypper")
	if err != nil {
		return err
	}
	undo, err := bindDevices(rootfs)
	defer undo()
	if err != nil {
		return err
	}
	for _, args := range z.commands(t.program, rootfs) {
		err := run(ctx, args, t.env, z.c.Log.Verbose)
		if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == scriptsFailed {
			z.c.Log.Warning("Scripts of some packages failed (zypper status 107); the packages are installed")
			err = nil
		}
		if err != nil {
			return fmt.Errorf("cannot install packages from %q: %w", z.mirrors[0], err)
		}
	}
	undo()
	packages, err := t.packages(ctx, rootfs)
	if err != nil {
		return err
	}
	z.c.Record(Origin{Agent: "zypper", URI: z.mirrors[0], Release: z.release, Packages: packages})
	return tidyDevices(rootfs, "etc/resolv.conf", "var/cache/zypp", "var/log/zypp", "var/log/zypper.log")
}

// commands are the calls of zypper, one after another.
func (z *zypper) commands(program, rootfs string) [][]string {
	call := func(args ...string) []string {
		return append([]string{program, "--root", rootfs, "--non-interactive"}, args...)
	}
	var list [][]string
	add := []string{"addrepo"}
	if z.noCheck {
		add = append(add, "--no-gpgcheck")
	}
	for i, url := range z.mirrors {
		list = append(list, call(slices.Concat(add, []string{url, fmt.Sprintf("repo-%d", i)})...))
	}
	// The keys of the repositories are taken from them, as with other builders:
	// the writer of the definition trusts the mirror.
	list = append(list, call("--gpg-auto-import-keys", "refresh"))
	install := call()
	if z.release != "" {
		install = append(install, "--releasever="+z.release)
	}
	install = append(install, "install", "--auto-agree-with-licenses", "--download-in-advance", "--no-recommends")
	return append(list, slices.Concat(install, zypperBase, z.include))
}
