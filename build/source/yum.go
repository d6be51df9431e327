package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"singularity/build/deffile"
)

// yum makes a system of RPM packages, by dnf where it is installed, else by
// yum. Its configuration is a file of its own, so that the repositories of this
// host play no part.
type yum struct {
	tools           []string
	mirror, update  string
	release         string
	include, setopt []string
	key             string // address of the key that packages must be signed with, "" for any
	c               Config
}

// yumBase are the packages that every image gets, as in other builders.
var yumBase = []string{"/etc/redhat-release", "coreutils"}

func newYum(s *deffile.Stage, c Config) (Source, error) {
	y := &yum{tools: []string{"dnf", "yum"}, release: s.Value("osversion"), c: c}
	if s.Agent() == "yum" {
		y.tools = []string{"yum", "dnf"}
	}
	var err error
	if y.mirror, err = mirrorURL(s, "mirrorurl", "http", "https", "file", "ftp"); err != nil {
		return nil, err
	}
	if s.Value("updateurl") != "" {
		if y.update, err = mirrorURL(s, "updateurl", "http", "https", "file", "ftp"); err != nil {
			return nil, err
		}
	}
	if y.release != "" {
		if err := checkWord(s, "osversion", "OSVersion", y.release); err != nil {
			return nil, err
		}
	}
	if y.include, err = packageWords(s, c); err != nil {
		return nil, err
	}
	if y.setopt, err = settings(s); err != nil {
		return nil, err
	}
	y.key = value(c.Env, "GPG")
	if y.key != "" && !strings.HasPrefix(y.key, "https://") {
		return nil, fmt.Errorf("cannot use the variable GPG, %q: want an address that begins with https://", y.key)
	}
	return y, nil
}

// Fetch implements Source.
func (y *yum) Fetch(ctx context.Context, rootfs string) error {
	t, err := rpmTools(y.c, "dnf or yum", "dnf", y.tools...)
	if err != nil {
		return err
	}
	conf := filepath.Join(t.dir, "yum.conf")
	if err := os.WriteFile(conf, []byte(y.config(t.dir)), 0o600); err != nil {
		return err
	}
	undo, err := bindDevices(rootfs)
	defer undo()
	if err != nil {
		return err
	}
	if y.key != "" {
		if err := run(ctx, []string{t.rpm, "--root", rootfs, "--import", y.key}, t.env, y.c.Log.Verbose); err != nil {
			return fmt.Errorf("cannot import the key %q: %w", y.key, err)
		}
	}
	err = run(ctx, y.args(t.program, conf, rootfs), t.env, y.c.Log.Verbose)
	undo()
	if err != nil {
		return fmt.Errorf("cannot install packages from %q: %w", y.mirror, err)
	}
	packages, err := t.packages(ctx, rootfs)
	if err != nil {
		return err
	}
	y.c.Record(Origin{Agent: "dnf", URI: y.mirror, Release: y.release, Packages: packages})
	return tidyDevices(rootfs, "etc/resolv.conf", "var/cache/dnf", "var/cache/yum", "var/log/dnf.log", "var/log/dnf.rpm.log", "var/log/dnf.librepo.log", "var/log/hawkey.log")
}

// config is the configuration of the tool, with nothing of the host's.
func (y *yum) config(dir string) string {
	check := "0"
	if y.key != "" {
		check = "1"
	}
	var s strings.Builder
	s.WriteString("[main]\nreposdir=/dev/null\nvarsdir=/dev/null\nplugins=0\nkeepcache=0\nobsoletes=1\ninstall_weak_deps=0\ntsflags=nodocs\nassumeyes=1\n")
	fmt.Fprintf(&s, "gpgcheck=%s\ncachedir=%s/cache\nlogdir=%s\npersistdir=%s/state\n", check, dir, dir, dir)
	fmt.Fprintf(&s, "[base]\nname=base\nbaseurl=%s\nenabled=1\ngpgcheck=%s\n", y.mirror, check)
	if y.update != "" {
		fmt.Fprintf(&s, "[updates]\nname=updates\nbaseurl=%s\nenabled=1\ngpgcheck=%s\n", y.update, check)
	}
	return s.String()
}

func (y *yum) args(program, conf, rootfs string) []string {
	args := []string{program, "-c", conf, "--installroot", rootfs, "-y"}
	if y.release != "" {
		args = append(args, "--releasever="+y.release)
	}
	for _, o := range y.setopt {
		args = append(args, "--setopt="+o)
	}
	return slices.Concat(args, []string{"install"}, yumBase, y.include)
}
