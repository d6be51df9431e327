package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBinds(t *testing.T) {
	tests := []struct {
		in   string
		want []Bind
	}{
		{"/a", []Bind{{Source: "/a"}}},
		{"a:/b", []Bind{{Source: "a", Dest: "/b"}}},
		{"/a:/b:ro", []Bind{{Source: "/a", Dest: "/b", ReadOnly: true}}},
		{"/a:/b:rw", []Bind{{Source: "/a", Dest: "/b", Write: true}}},
		{"/a,/b:/c", []Bind{{Source: "/a"}, {Source: "/b", Dest: "/c"}}},
		{"x.sif:/b:image-src=/d,id=4,ro", []Bind{{Source: "x.sif", Dest: "/b", ImageSource: "/d", ID: 4, ReadOnly: true}}},
		{"x.sif:/b:id=4,/c:/d:ro", []Bind{{Source: "x.sif", Dest: "/b", ID: 4}, {Source: "/c", Dest: "/d", ReadOnly: true}}},
		// Without a third part before it, "ro" is a directory.
		{"/a:/b,ro", []Bind{{Source: "/a", Dest: "/b"}, {Source: "ro"}}},
		{`/a\:b:/c\,d`, []Bind{{Source: "/a:b", Dest: "/c,d"}}},
		{`/a\b:/c`, []Bind{{Source: `/a\b`, Dest: "/c"}}},
		{"/a:/b:image-src=/x\\,y", []Bind{{Source: "/a", Dest: "/b", ImageSource: "/x,y"}}},
	}
	for _, tt := range tests {
		got, err := ParseBinds(tt.in)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%q: %v, want - got +\n%s", tt.in, err, diff)
		}
	}
}

func TestParseBindErrors(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", `cannot use bind "": the source is empty`},
		{":/a", "the source is empty"},
		{"/a,", "the source is empty"},
		{"/a:b", `destination "b" is not an absolute path`},
		{"/a:", `destination "" is not an absolute path`},
		{"/a:/b:wo", `option "wo" is not one of ro, rw`},
		{"/a:/b:ro:ro", "4 parts found"},
		{"/a:/b:id=0", `id "0" is not the number`},
		{"/a:/b:ro,id=4294967296", `id "4294967296" is not the number`},
		{"/a:/b:image-src=", "is not one of"},
	}
	for _, tt := range tests {
		if _, err := ParseBinds(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.in, err, tt.want)
		}
	}
}

func TestParseMounts(t *testing.T) {
	tests := []struct {
		in   string
		want []Bind
	}{
		{"type=bind,source=/a,destination=/b", []Bind{{Source: "/a", Dest: "/b"}}},
		{"src=/a,dst=/b,ro", []Bind{{Source: "/a", Dest: "/b", ReadOnly: true}}},
		{"type=bind,src=a,target=/b,readonly,image-src=/x,id=3", []Bind{{Source: "a", Dest: "/b", ReadOnly: true, ImageSource: "/x", ID: 3}}},
		{`type=bind,"src=/a,b","dst=/c:d",ro=false`, []Bind{{Source: "/a,b", Dest: "/c:d", Write: true}}},
		{"src=/a,dst=/b\nsrc=/c,dst=/d,ro", []Bind{{Source: "/a", Dest: "/b"}, {Source: "/c", Dest: "/d", ReadOnly: true}}},
	}
	for _, tt := range tests {
		got, err := ParseMounts(tt.in)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%q: %v, want - got +\n%s", tt.in, err, diff)
		}
	}
	for in, want := range map[string]string{
		"type=tmpfs,dst=/a":                              `type "tmpfs" is not supported`,
		"type=bind,dst=/a":                               "no source given",
		"type=bind,src=/a":                               "no destination given",
		"type=bind,src=,dst=/a":                          "the source is empty",
		"type=bind,src=/a,dst=b":                         "not an absolute path",
		"type=bind,src=/a,dst=/b,bind-propagation=slave": "bind-propagation",
		"type=bind,src=/a,dst=/b,x=1":                    `unknown key "x"`,
		"type=bind,src=/a,dst=/b,ro=x":                   "neither true nor false",
		`type=bind,"src=/a`:                              "cannot use mount",
	} {
		if _, err := ParseMounts(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"/a:/b:ro,id=4,/c", `/a\:b\,c:/d`, "type=bind,src=/a,dst=/b,ro", `"src=/a,b",dst=/c`, "", "\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string) ([]Bind, error){ParseBinds, ParseMounts} {
			binds, err := parse(s)
			if err != nil {
				continue
			}
			for _, b := range binds {
				if b.Source == "" || b.Dest != "" && b.Dest[0] != '/' {
					t.Errorf("%q gave %+v", s, b)
				}
			}
		}
	})
}
