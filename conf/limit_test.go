package conf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

var testNames = Names{
	User:  func(name string) (int, bool) { return 1000, name == "ada" },
	Group: func(name string) (int, bool) { return 50, name == "staff" },
}

func TestCheckImage(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(dir+"/real", 0o755), os.Symlink("real", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	at := File{Path: dir + "/real/x.sif", UID: 1000, GID: 50}
	for i, row := range []struct {
		change func(*Config)
		format string
		file   File
		want   string // the directive that refuses
	}{
		{func(c *Config) {}, FormatSIF, at, ""},
		{func(c *Config) { c.AllowContainerSIF = false }, FormatSIF, at, "allow container sif"},
		{func(c *Config) { c.AllowContainerSIF = false }, FormatEncrypted, at, ""},
		{func(c *Config) { c.AllowContainerEncrypted = false }, FormatEncrypted, at, "allow container encrypted"},
		{func(c *Config) { c.AllowContainerSquashfs = false }, FormatSquashfs, at, "allow container squashfs"},
		{func(c *Config) { c.AllowContainerExtfs = false }, FormatExtfs, at, "allow container extfs"},
		{func(c *Config) { c.AllowContainerDir = false }, FormatDir, at, "allow container dir"},
		{func(c *Config) {}, "other", at, "allow container other"},
		// Paths go by components, links of the administrator are followed.
		{func(c *Config) { c.LimitContainerPaths = []string{"/nowhere", dir + "/real"} }, FormatSIF, at, ""},
		{func(c *Config) { c.LimitContainerPaths = []string{dir + "/link"} }, FormatSIF, at, ""},
		{func(c *Config) { c.LimitContainerPaths = []string{dir + "/rea"} }, FormatSIF, at, "limit container paths"},
		{func(c *Config) { c.LimitContainerPaths = []string{"real"} }, FormatSIF, at, "limit container paths"},
		{func(c *Config) { c.LimitContainerPaths = []string{"/"} }, FormatSIF, at, ""},
		{func(c *Config) { c.LimitContainerPaths = []string{"/"} }, FormatSIF, File{UID: 1000, GID: 50}, "limit container paths"},
		{func(c *Config) { c.LimitContainerOwners = []string{"root", "ada"} }, FormatSIF, at, ""},
		{func(c *Config) { c.LimitContainerOwners = []string{"1000"} }, FormatSIF, at, ""},
		{func(c *Config) { c.LimitContainerOwners = []string{"root"} }, FormatSIF, at, "limit container owners"},
		{func(c *Config) { c.LimitContainerOwners = []string{"-1", "4294967296"} }, FormatSIF, File{Path: at.Path, UID: -1, GID: -1}, "limit container owners"},
		{func(c *Config) { c.LimitContainerGroups = []string{"staff"} }, FormatSIF, at, ""},
		{func(c *Config) { c.LimitContainerGroups = []string{"51"} }, FormatSIF, at, "limit container groups"},
	} {
		c := Default()
		row.change(c)
		err := c.CheckImage(row.format, row.file, testNames)
		r := new(Check)
		if errors.As(err, &r); r.Directive != row.want || (err == nil) != (row.want == "") {
			t.Errorf("row %d: got %q %v, want %q", i, r.Directive, err, row.want)
		}
	}
}

// TestFileOf: what is open counts, not what the path leads to later.
func TestFileOf(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(dir+"/a", nil, 0o600), os.Symlink("a", dir+"/b")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir + "/b")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if at, err := FileOf(f); err != nil || at.Path != dir+"/a" || at.UID != os.Getuid() {
		t.Errorf("got %+v %v", at, err)
	}
	if err := os.Rename(dir+"/a", dir+"/c"); err != nil {
		t.Fatal(err)
	}
	if at, err := FileOf(f); err != nil || at.Path != dir+"/c" {
		t.Errorf("renamed: got %+v %v", at, err)
	}
	os.Remove(dir + "/c")
	if at, err := FileOf(f); err != nil || at.Path != "" {
		t.Errorf("removed: got %+v %v", at, err)
	}
}

// BenchmarkPolicy is all that a start asks of the configuration: the text is
// read, and an image is checked by every limit.
func BenchmarkPolicy(b *testing.B) {
	dir := b.TempDir()
	path := filepath.Join(dir, "singularity.conf")
	text := everyLine() + "limit container paths = /nowhere, " + dir + "\nlimit container owners = 1, ada\nlimit container groups = staff\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	image, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer image.Close()
	for b.Loop() {
		c, err := Load(path)
		if err != nil {
			b.Fatal(err)
		}
		f, err := FileOf(image)
		if err != nil {
			b.Fatal(err)
		}
		f.UID, f.GID = 1000, 50
		if err := c.CheckImage(FormatSIF, f, testNames); err != nil {
			b.Fatal(err)
		}
	}
}
