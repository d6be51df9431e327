package elf

import (
	"bytes"
	stdelf "debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAgainstStandardLibrary reads the libraries of this machine and compares
// with package debug/elf.
func TestAgainstStandardLibrary(t *testing.T) {
	var files []string
	for _, p := range []string{"/lib/*/*.so*", "/usr/lib/*/*.so*", "/lib64/*.so*", "/usr/lib64/*.so*"} {
		m, _ := filepath.Glob(p)
		files = append(files, m...)
	}
	if len(files) == 0 {
		t.Skip("no shared libraries on this machine")
	}
	versions := 0
	for _, name := range files {
		want, err := stdelf.Open(name)
		if err != nil {
			continue // a linker script, a dangling link
		}
		r, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Read(r)
		r.Close()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if so, _ := want.DynString(stdelf.DT_SONAME); len(so) > 0 && so[0] != got.SOName {
			t.Errorf("%s: name %q, want %q", name, got.SOName, so[0])
		}
		if got.Machine != uint16(want.Machine) || got.Wide != (want.Class == stdelf.ELFCLASS64) {
			t.Errorf("%s: target %+v", name, got.Target)
		}
		var needs, offers []string
		if list, err := want.DynamicVersionNeeds(); err == nil {
			for _, f := range list {
				for _, v := range f.Needs {
					needs = append(needs, v.Dep)
				}
			}
		}
		if list, err := want.DynamicVersions(); err == nil {
			for _, v := range list {
				if v.Flags&stdelf.VER_FLG_BASE == 0 {
					offers = append(offers, v.Name)
				}
			}
		}
		if !slices.Equal(needs, got.Needs) || !slices.Equal(offers, got.Offers) {
			t.Errorf("%s: needs %q offers %q, want %q and %q", name, got.Needs, got.Offers, needs, offers)
		}
		versions += len(needs) + len(offers)
		want.Close()
	}
	if versions == 0 {
		t.Error("no file had versions: nothing was compared")
	}
}

func TestGlibc(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""}, {"GLIBC_2.2.5 GLIBC_2.34 GLIBC_2.4", "2.34"}, {"GLIBC_PRIVATE GLIBC_ABI_DT_RELR", ""}, {"GLIBC_2.9 GLIBC_2.10", "2.10"},
		{"GLIBCXX_3.4.30 GCC_3.0 GLIBC_2.17", "2.17"}, {"GLIBC_", ""},
	} {
		if got := Glibc(strings.Fields(c.in)); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
	if Newer("2.31", "2.31") || Newer("2.4", "2.31") || !Newer("2.31.1", "2.31") || !Newer("3", "2.31") {
		t.Error("versions compare wrongly")
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"/lib/x86_64-linux-gnu/libdl.so.2", "/lib/x86_64-linux-gnu/libutil.so.1", "/lib64/libdl.so.2"} {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b[:min(len(b), 1<<15)])
		}
	}
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(got.Needs)+len(got.Offers) > maxVersions || len(got.SOName) >= maxName {
			t.Errorf("more than the limits: %+v", got)
		}
	})
}
