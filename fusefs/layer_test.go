package fusefs

import (
	"slices"
	"sort"
	"strings"
	"testing"
)

// nameFS is a root directory with the names in it, and one directory, sub.
type nameFS struct {
	names  []string
	opaque string // an attribute of sub
}

func (nameFS) Root() uint64 { return 1 }

func (f nameFS) Attr(id uint64, a *Attr) error {
	*a = Attr{Ino: id, Mode: modeRegular | 0o644, Size: 5, Nlink: 1}
	if id <= 2 {
		a.Mode = modeDir | 0o755
	}
	return nil
}

func (f nameFS) Lookup(dir uint64, name string) (uint64, bool, error) {
	i := slices.Index(f.names, name)
	return uint64(i + 10), i >= 0 && dir == 1, nil
}

func (f nameFS) ReadDir(dir uint64, from int, emit func(Dirent) bool) error {
	for i := from; i < len(f.names); i++ {
		if !emit(Dirent{f.names[i], uint64(i + 10), uint64(i + 10), modeRegular}) {
			break
		}
	}
	return nil
}

func (nameFS) Readlink(uint64) (string, error)                    { return "", nil }
func (nameFS) Read(uint64, int64, int, *Data, bool) (bool, error) { return true, nil }
func (nameFS) Stat() Stat                                         { return Stat{} }
func (f nameFS) Xattrs(id uint64) ([]Xattr, error) {
	if f.opaque == "" {
		return []Xattr{{Name: "user.mine", Value: []byte("1")}}, nil
	}
	return []Xattr{{Name: f.opaque, Value: []byte("y")}, {Name: "user.mine", Value: []byte("1")}}, nil
}

func TestLayer(t *testing.T) {
	l := Layer(nameFS{names: []string{"a", ".wh.b", ".wh..wh..opq", ".wh..opq", "c", ".wh.c", "d", ".wh.e"}})
	var names []string
	list := func(from, n int) (got []string) {
		l.ReadDir(1, from, func(e Dirent) bool {
			name := e.Name
			if e.Mode == modeChar {
				name += " gone"
			}
			got = append(got, name)
			return len(got) < n
		})
		return got
	}
	// A directory is read in pieces: every name comes once.
	for {
		part := list(len(names), 2)
		if len(part) == 0 {
			break
		}
		names = append(names, part...)
	}
	sort.Strings(names)
	if want := []string{"a", "b gone", "c", "d", "e gone"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	for name, want := range map[string]uint32{"a": modeRegular, "b": modeChar, "c": modeRegular, ".wh.b": 0, ".wh..wh..opq": 0, "x": 0} {
		id, ok, err := l.Lookup(1, name)
		var a Attr
		if ok {
			l.Attr(id, &a)
		}
		if err != nil || ok != (want != 0) || a.Mode&modeType != want || want == modeChar && (a.Rdev != 0 || a.Size != 0) {
			t.Errorf("%s: got %v, %+v, %v, want type %o", name, ok, a, err, want)
		}
	}
	if _, ok, _ := l.Lookup(1, strings.Repeat("x", maxName)); ok {
		t.Error("a long name is found")
	}
}

func TestLayerOpaque(t *testing.T) {
	names := func(fs FS, id uint64) (got []string) {
		list, err := Layer(fs).Xattrs(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			if x.Hidden != isOpaqueName(x.Name) {
				t.Errorf("%s: hidden %v", x.Name, x.Hidden)
			}
			got = append(got, x.Name)
		}
		return got
	}
	opaque := append([]string{"user.mine"}, opaqueNames[:]...)
	for _, n := range opaqueNames {
		if got := names(nameFS{opaque: n}, 2); !slices.Equal(got, opaque) {
			t.Errorf("%s: got %q", n, got)
		}
	}
	if got := names(nameFS{}, 2); !slices.Equal(got, []string{"user.mine"}) {
		t.Errorf("an ordinary directory has %q", got)
	}
	if got := names(nameFS{names: []string{opaqueFile}}, 1); !slices.Equal(got, opaque) {
		t.Errorf("a directory with %s has %q", opaqueFile, got)
	}
	if got := names(nameFS{names: []string{opaqueFile}}, 20); !slices.Equal(got, []string{"user.mine"}) {
		t.Errorf("a file has %q", got)
	}
	if !Layer(nameFS{}).Stat().HasXattrs {
		t.Error("the kernel would not ask for attributes")
	}
}
