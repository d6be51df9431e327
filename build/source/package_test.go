package source

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestHostileValues holds off values of the header that a package tool would
// take for options, commands or further lines (SC-090).
func TestHostileValues(t *testing.T) {
	good := "https://example.org/x/"
	for _, text := range []string{
		"Bootstrap: dnf\nMirrorURL: " + good + "\nInclude: --setopt=x\n",
		"Bootstrap: dnf\nMirrorURL: ext::sh -c id\n",
		"Bootstrap: dnf\nMirrorURL: --help\n",
		"Bootstrap: dnf\nMirrorURL: " + good + " [main]\n",
		"Bootstrap: dnf\nMirrorURL: https://x/%{OSVERSION}/\n",
		"Bootstrap: dnf\nMirrorURL: " + good + "\nOSVersion: --x\n",
		"Bootstrap: dnf\nMirrorURL: " + good + "\nUpdateURL: /etc\n",
		"Bootstrap: dnf\nMirrorURL: " + good + "\nSetOpt: --x\n",
		"Bootstrap: dnf\nMirrorURL: " + good + "\nSetOpt: [x]=1\n",
		"Bootstrap: zypper\n",
		"Bootstrap: zypper\nMirrorURL: plugin:script?file=/bin/id\n",
		"Bootstrap: zypper\nMirrorURL: " + good + "\nOtherURL0: --x\n",
		"Bootstrap: zypper\nMirrorURL: " + good + "\nSetOpt: x=1\n",
		"Bootstrap: zypper\nMirrorURL: " + good + "\nRegcode: 1\n",
		"Bootstrap: arch\nMirrorURL: ext::sh\n",
		"Bootstrap: arch\nInclude: --root=/\n",
		"Bootstrap: arch\nSetOpt: XferCommand\n",
		"Bootstrap: busybox\nMirrorURL: /etc/passwd\n",
		"Bootstrap: https\nFrom: ftp://example.org/x\n",
		"Bootstrap: https\nFrom: https:///x\n",
		"Bootstrap: localimage\nFrom: x\nFingerprints: ,\n",
	} {
		if _, err := New(stage(t, text), Config{}); err == nil {
			t.Errorf("got no error for\n%s", text)
		}
	}
	if _, err := New(stage(t, "Bootstrap: dnf\nMirrorURL: "+good+"\n"), Config{Env: []string{"GPG=http://x/key"}}); err == nil {
		t.Error("a key by plain http was taken")
	}
}

func TestYumArguments(t *testing.T) {
	s, err := New(stage(t, "Bootstrap: yum\nOSVersion: 9\nMirrorURL: https://m/%{OSVERSION}/\nUpdateURL: https://u/\nInclude: a b\nSetOpt: x=1 y=2\n"),
		Config{Include: []string{"c"}, Env: []string{"GPG=https://k/"}})
	if err != nil {
		t.Fatal(err)
	}
	y := s.(*yum)
	want := strings.Fields("dnf -c C --installroot /r -y --releasever=9 --setopt=x=1 --setopt=y=2 install /etc/redhat-release coreutils a b c")
	if got := y.args("dnf", "C", "/r"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	text := y.config("/w")
	for _, line := range []string{"reposdir=/dev/null", "plugins=0", "gpgcheck=1", "cachedir=/w/cache", "baseurl=https://m/9/", "baseurl=https://u/"} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("got no %q in\n%s", line, text)
		}
	}
	if strings.Contains(text, "gpgcheck=0") || y.tools[0] != "yum" {
		t.Errorf("got tools %q and\n%s", y.tools, text)
	}
}

func TestZypperCommands(t *testing.T) {
	s, err := New(stage(t, "Bootstrap: zypper\nMirrorURL: https://m/\nOtherURL1: https://o1/\nOtherURL0: https://o0/\nInclude: a\n"), Config{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range s.(*zypper).commands("zypper", "/r") {
		got = append(got, strings.Join(c[4:], " "))
	}
	want := []string{
		"addrepo https://m/ repo-0", "addrepo https://o0/ repo-1", "addrepo https://o1/ repo-2", "--gpg-auto-import-keys refresh",
		"install --auto-agree-with-licenses --download-in-advance --no-recommends filesystem coreutils a",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestArchConfig(t *testing.T) {
	for mirror, want := range map[string]string{
		"file:///m/$repo": "[core]\nServer = file:///m/$repo\n[extra]\nServer = file:///m/$repo\n",
		"file:///m":       "SigLevel = Never\n[core]\nServer = file:///m\n",
	} {
		s, err := New(stage(t, "Bootstrap: arch\nMirrorURL: "+mirror+"\nSetOpt: SigLevel=Never\n"), Config{})
		if err != nil {
			t.Skip(err)
		}
		if got := s.(*arch).config("/w"); !strings.HasSuffix(got, want) {
			t.Errorf("got\n%s\nwant at its end\n%s", got, want)
		}
	}
}

func TestDpkgPackages(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "var/lib/dpkg"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) *Packages {
		if err := os.WriteFile(filepath.Join(dir, "var/lib/dpkg/status"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := dpkgPackages(dir)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a := write("Package: b\nVersion: 1\nArchitecture: amd64\nDescription: x\n Package: no\n\nPackage: a\nVersion: 2\nArchitecture: all\n")
	b := write("Package: a\nVersion: 2\nArchitecture: all\n\nPackage: b\nArchitecture: amd64\nVersion: 1\n\n")
	if a.Count != 2 || *a != *b {
		t.Errorf("got %+v and %+v", a, b)
	}
	if c := write("Package: a\nVersion: 3\nArchitecture: all\n\nPackage: b\nVersion: 1\nArchitecture: amd64\n"); c.Digest == a.Digest {
		t.Error("another version has the same digest")
	}
}
