package edit

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"singularity/conf"
)

func directive(name string) *conf.Directive {
	if d := conf.Find(name); d != nil {
		return d
	}
	panic(name)
}

func TestText(t *testing.T) {
	for _, row := range []struct {
		name, text string
		change     Change
		directive  string
		values     []string
		want       string // beginning with ! an error
	}{
		{"set", "# a\nallow setuid = yes  # why\noci mode = no\n", Set, "allow setuid", []string{"no"}, "# a\nallow setuid = no # why\noci mode = no\n"},
		{"set at its place", "# Doc.\n# cni plugin path =\n\nx = y\n", Set, "cni plugin path", []string{"/a#b"}, "# Doc.\ncni plugin path = /a#b\n\nx = y\n"},
		{"set at the end", "# nothing\n", Set, "max loop devices", []string{"7"}, "# nothing\nmax loop devices = 7\n"},
		{"set cures a bad line", "oci mode = maybe\n", Set, "oci mode", []string{"yes"}, "oci mode = yes\n"},
		{"a double line", "oci mode = no\noci mode = yes\n", Set, "oci mode", []string{"yes"}, "oci mode = yes\n"},
		{"bad value", "\noci mode = no\n", Set, "oci mode", []string{"maybe"}, `!line 2: "oci mode": "maybe" is neither yes nor no`},
		{"bad file", "x\n", Set, "oci mode", []string{"yes"}, "!line 1"},
		{"two lines", "", Set, "go path", []string{"/a\nallow setuid = no"}, "!a value is one line"},
		{"a comment", "", Set, "root search path", []string{"/a # b"}, `!it would be read as "/a"`},
		{"unset", "oci mode = yes\n", Unset, "oci mode", nil, "oci mode = no\n"},
		{"unset to nothing", "go path = /bin/go\n", Unset, "go path", nil, "# go path =\n"},
		{"list in front", "a = b\nbind path = /x, /y # both\nbind path = /z\n", Set, "bind path", []string{"/q,/x", "/r"},
			"a = b\nbind path = /q\nbind path = /r\nbind path = /x, /y # both\nbind path = /z\n"},
		{"list, there already", "bind path = /x\n", Set, "bind path", []string{"/x"}, "bind path = /x\n"},
		{"list, a comment", "", Set, "bind path", []string{"/x #y"}, "!it would be read as"},
		{"list, take out", "bind path = /x, /y # both\nbind path = /z\n", Unset, "bind path", []string{"/z", "/x"}, "bind path = /y # both\n"},
		{"list, take all", "bind path = /x\nq = r\nbind path = /z\n", Unset, "bind path", nil, "# bind path =\nq = r\n"},
		{"list, not there", "bind path = /x\n", Unset, "bind path", []string{"/q"}, "!it is not there"},
		{"list, reset", "a = b\nbind path = /x\nq = r\nbind path = /z\n", Reset, "bind path", nil, "a = b\nbind path = /etc/localtime\nbind path = /etc/hosts\nq = r\n"},
		{"list, reset from nothing", "# bind path =\n", Reset, "bind path", nil, "bind path = /etc/localtime\nbind path = /etc/hosts\n"},
		{"list, reset to nothing", "limit container paths = /x\nq = r\n", Reset, "limit container paths", nil, "# limit container paths =\nq = r\n"},
	} {
		d := directive(row.directive)
		got, err := Text(row.text, d, row.change, row.values)
		if want, bad := strings.CutPrefix(row.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q %v, want %s", row.name, got, err, want)
			}
			continue
		}
		if err != nil || got != row.want {
			t.Errorf("%s: got %q %v, want %q", row.name, got, err, row.want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("# bind path =\noci mode = yes\n", "/a,/b")
	f.Add("bind path = /x # y\nbind path=#\n", "/z #")
	d := directive("bind path")
	f.Fuzz(func(t *testing.T, text, value string) {
		before, err := conf.Read(strings.NewReader(text))
		if err != nil {
			return
		}
		changed, err := Text(text, d, Set, []string{value})
		if err != nil {
			return
		}
		after, err := conf.Read(strings.NewReader(changed))
		if err != nil {
			t.Fatalf("a file that cannot be read: %v", err)
		}
		if n := len(after.BindPaths) - len(before.BindPaths); n < 0 {
			t.Errorf("%d values less", -n)
		}
		after.BindPaths, before.BindPaths = nil, nil
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("another directive changed:\n%s", diff)
		}
	})
}
