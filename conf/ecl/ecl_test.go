package ecl

import (
	"errors"
	"strings"
	"testing"
)

const fpA = "5994BE54C31CF1B5E1994F987C52CF6D055F072B"

// resolve knows three directories, one of which is a link.
func resolve(p string) (string, error) {
	switch p {
	case "/images", "/other":
		return p, nil
	case "/link":
		return "/images", nil
	}
	return "", errors.New("no such file or directory")
}

func TestParse(t *testing.T) {
	c, err := Parse([]byte(`# of the site
activated = true
legacyinsecure = true
[[execgroup]]
  tagname = "group1"
  mode = "whitelist"
  dirpath = "/images"
  keyfp = ["`+strings.ToLower(fpA)+`"]
[[execgroup]]
  tagname = "rest"
  mode = "whitestrict"
  dirpath = ""
  keyfp = []
`), resolve)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Activated || !c.LegacyInsecure || c.Groups[0].Fingerprints[0] != fpA {
		t.Errorf("%+v", c)
	}
	for dir, tag := range map[string]string{"/images": "group1", "/images/below": "rest", "/": "rest"} {
		if g := c.Group(dir); g == nil || g.Tag != tag {
			t.Errorf("%s: %+v, want %s", dir, g, tag)
		}
	}
	if c, err := Parse(nil, resolve); err != nil || c.Activated || c.Group("/images") != nil {
		t.Errorf("an empty file: %+v, %v", c, err)
	}
}

// TestSC014_Refused: what cannot be read as a whole is no list, activated or not.
func TestSC014_Refused(t *testing.T) {
	group := func(lines string) string { return "activated = false\n[[execgroup]]\n" + lines }
	for _, c := range []struct{ text, want string }{
		{"activated = tru", "line 1"},
		{"activated = true\nactivate = true\n", `line 2: unknown key "activate"`},
		{"activated = \"yes\"", "line 1"},
		{group(`mode = "greylist"`), "greylist"},
		{group(`tagname = "x"`), "mode"},
		{group("mode = \"whitelist\"\ndirpath = \"images\""), "absolute"},
		{group("mode = \"whitelist\"\ndirpath = \"/images/\""), "absolute"},
		{group("mode = \"whitelist\"\ndirpath = \"/images/../other\""), "absolute"},
		{group("mode = \"whitelist\"\ndirpath = \"/nowhere\""), "no such file"},
		{group("mode = \"whitelist\"\ndirpath = \"/link\""), "symbolic links"},
		{group("mode = \"whitelist\"\nkeyfp = [\"ABCD\"]"), "40 hexadecimal"},
		{group("mode = \"whitelist\"\n[[execgroup]]\nmode = \"blacklist\""), "another one"},
		{strings.Repeat("#", MaxSize+1), "more than"},
	} {
		if got, err := Parse([]byte(c.text), resolve); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80q: %+v, %v, want %q", c.text, got, err, c.want)
		}
	}
}

func TestAllows(t *testing.T) {
	set := func(names ...string) map[string]bool {
		m := map[string]bool{}
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	for _, c := range []struct {
		mode     Mode
		keys     []string
		all, any map[string]bool
		want     error
	}{
		{Whitelist, []string{"A", "B"}, set("B"), set("B"), nil},
		{Whitelist, []string{"A"}, set(), set("A"), ErrRequired},
		{Whitelist, nil, set("A"), set("A"), ErrRequired},
		{WhiteStrict, []string{"A", "B"}, set("A", "B", "C"), set("A", "B", "C"), nil},
		{WhiteStrict, []string{"A", "B"}, set("A"), set("A", "B"), ErrRequired},
		{WhiteStrict, nil, set("A"), set("A"), nil},
		{Blacklist, []string{"A"}, set("B"), set("B"), nil},
		{Blacklist, []string{"A"}, set("B"), set("A", "B"), ErrForbidden},
		{Blacklist, nil, set("B"), set("B"), nil},
	} {
		g := Group{Mode: c.mode, Fingerprints: c.keys}
		if err := g.Allows(c.all, c.any); !errors.Is(err, c.want) {
			t.Errorf("%s %v, all %v, any %v: %v, want %v", c.mode, c.keys, c.all, c.any, err, c.want)
		}
	}
	if (&Group{}).Allows(nil, nil) == nil {
		t.Error("a group without a mode allows")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("activated = true\n[[execgroup]]\nmode = \"whitelist\"\ndirpath = \"/images\"\nkeyfp = [\"" + fpA + "\"]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text, resolve)
		if err != nil {
			return
		}
		for i := range c.Groups {
			if c.Groups[i].Mode == "" {
				t.Errorf("%+v", c.Groups[i])
			}
		}
	})
}
