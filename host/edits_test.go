package host

import (
	"bytes"
	"reflect"
	"testing"
)

var someEdits = &Edits{
	Env:       []string{"A=b\nc", "B="},
	Mounts:    []EditMount{{"/a", "/b", true}, {"/c d", "/e", false}},
	Nodes:     []EditNode{{"/dev/x", "/dev/y"}},
	Libraries: []Library{{Name: "libx.so.1", Path: "/l/libx.so.1.2", Glibc: "2.17"}},
}

func TestEdits(t *testing.T) {
	for _, e := range []*Edits{someEdits, {}} {
		if got, err := DecodeEdits(e.Encode()); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v, %v; want %+v", got, err, e)
		}
	}
	for _, bad := range []string{"env", "env\x00", "env\x00A\x00", "other\x00x\x00", "mount\x00/a\x00/b\x00", "mount\x00a\x00/b\x00ro\x00",
		"mount\x00/a\x00/b\x00xx\x00", "node\x00/a\x00b\x00", "library\x00a/b\x00/c\x00\x00", "library\x00\x00/c\x00\x00", "\x00"} {
		if e, err := DecodeEdits([]byte(bad)); err == nil {
			t.Errorf("%q: %+v, want an error", bad, e)
		}
	}
}

func FuzzDecodeEdits(f *testing.F) {
	f.Add(someEdits.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEdits(b)
		if err != nil {
			return
		}
		if again, err := DecodeEdits(e.Encode()); err != nil || !bytes.Equal(again.Encode(), e.Encode()) {
			t.Errorf("%q does not survive", b)
		}
	})
}
