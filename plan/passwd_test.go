package plan

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"singularity/host"
)

var alice = host.User{Name: "alice", UID: 1001, GID: 100, Gecos: "Alice A", Home: "/home/alice", Shell: "/bin/zsh"}

const aliceLine = "alice:x:1001:100:Alice A:/home/alice:/bin/zsh\n"

func TestPasswd(t *testing.T) {
	root := host.User{Name: "root", Gecos: "root", Home: "/root", Shell: "/bin/zsh"}
	for _, c := range []struct {
		name, image string
		user        host.User
		want        string
	}{
		{"empty", "", alice, aliceLine},
		{"added", "root:x:0:0:root:/root:/bin/sh\n", alice, "root:x:0:0:root:/root:/bin/sh\n" + aliceLine},
		{"no last newline", "root:x:0:0:root:/root:/bin/sh", alice, "root:x:0:0:root:/root:/bin/sh\n" + aliceLine},
		{"replaced", "a:x:1:1:::\nbob:x:1001:5:B:/b:/bin/dash\nc:x:2:2:::\n", alice, "a:x:1:1:::\nalice:x:1001:100:Alice A:/home/alice:/bin/dash\nc:x:2:2:::\n"},
		{"image without shell", "bob:x:1001:5:B:/b:\n", alice, aliceLine},
		{"broken line of the uid", "bob:x:1001\n", alice, aliceLine},
		{"same name before", "alice:x:7:7:::\nb:x:1:1:::\n", alice, aliceLine + "alice:x:7:7:::\nb:x:1:1:::\n"},
		{"same name and same uid", "alice:x:7:7:::\nbob:x:1001:5:B:/b:/bin/dash\n", alice, strings.Replace(aliceLine, "zsh", "dash", 1) + "alice:x:7:7:::\n"},
		{"second line of the uid stays", "a:x:1001:1:::/s\nb:x:1001:1:::\n", alice, "alice:x:1001:100:Alice A:/home/alice:/s\nb:x:1001:1:::\n"},
		{"comments and empty lines", "#x\n\n+::::::\n", alice, "#x\n\n+::::::\n" + aliceLine},
		{"fakeroot", "root:x:0:0:R:/var/root:/bin/ash\n", root, "root:x:0:0:root:/root:/bin/ash\n"},
		{"hostile shell in the image", "bob:x:1001:5:B:/b:/bin/\x01\n", alice, aliceLine},
	} {
		got, err := Passwd([]byte(c.image), c.user)
		if string(got) != c.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	if got, err := Passwd(nil, alice); got != nil || err != nil {
		t.Errorf("no file: %q, %v", got, err)
	}
}

// TestSC052Separators puts real separators and control bytes into each field.
func TestSC052Separators(t *testing.T) {
	image := []byte("root:x:0:0:root:/root:/bin/sh\n")
	for _, bad := range []string{"\n", "\r", "\x00", ":", "\t", "\x1b", "\x7f", "\nevil:x:0:0::/:/bin/sh"} {
		for field, set := range map[string]func(*host.User, string){
			"name": func(u *host.User, s string) { u.Name += s }, "gecos": func(u *host.User, s string) { u.Gecos += s },
			"home": func(u *host.User, s string) { u.Home += s }, "shell": func(u *host.User, s string) { u.Shell += s },
		} {
			u := alice
			set(&u, bad)
			if got, err := Passwd(image, u); !errors.Is(err, ErrInput) || got != nil {
				t.Errorf("%s with %q: %q, %v, want ErrInput", field, bad, got, err)
			}
		}
		if got, err := Group(image, alice, []host.Group{{Name: "g" + bad, GID: 7}}); !errors.Is(err, ErrInput) || got != nil {
			t.Errorf("group with %q: %q, %v, want ErrInput", bad, got, err)
		}
		if _, err := Group(image, host.User{Name: "a" + bad}, nil); !errors.Is(err, ErrInput) {
			t.Errorf("member with %q: %v, want ErrInput", bad, err)
		}
	}
	for _, u := range []host.User{{}, {Name: "+"}, {Name: "-x"}, {Name: "#x"}, {Name: "a,b"}, {Name: "a", UID: -1}, {Name: "a", GID: -1}, {Name: "a", UID: 1<<32 - 1}} {
		if _, err := Passwd(image, u); !errors.Is(err, ErrInput) {
			t.Errorf("%+v: %v, want ErrInput", u, err)
		}
	}
	// The characters backslash and n are no newline and harm nobody.
	u := alice
	u.Gecos = `a\nb`
	if got, err := Passwd(nil, u); err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Passwd([]byte{}, u); err != nil || bytes.Count(got, []byte("\n")) != 1 {
		t.Errorf("%q, %v, want one line", got, err)
	}
}

// TestSC056Limits hands in files that an image could hold.
func TestSC056Limits(t *testing.T) {
	huge := bytes.Repeat([]byte("x"), MaxUserFile+1)
	if _, err := Passwd(huge, alice); !errors.Is(err, ErrLimit) {
		t.Errorf("passwd: %v, want ErrLimit", err)
	}
	if _, err := Group(huge, alice, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("group: %v, want ErrLimit", err)
	}
	if _, err := Group([]byte{}, alice, make([]host.Group, maxGroups+1)); !errors.Is(err, ErrLimit) {
		t.Errorf("groups: %v, want ErrLimit", err)
	}
	// The worst files of the permitted size: only colons, only newlines.
	for _, s := range []string{":", "\n"} {
		if _, err := Passwd(bytes.Repeat([]byte(s), MaxUserFile), alice); err != nil {
			t.Error(err)
		}
	}
}

func TestGroup(t *testing.T) {
	groups := []host.Group{{Name: "users", GID: 100}, {GID: 200}, {Name: "lab", GID: 300}, {Name: "again", GID: 300}, {Name: "wheel", GID: 10}}
	for _, c := range []struct{ name, image, want string }{
		{"empty", "", "users:x:100:alice\nlab:x:300:alice\nwheel:x:10:alice\n"},
		{"listed", "root:x:0:\nstaff:x:100:bob", "root:x:0:\nstaff:x:100:bob\nlab:x:300:alice\nwheel:x:10:alice\n"},
		{"odd lines", "#\n\nx\n", "#\n\nx\nusers:x:100:alice\nlab:x:300:alice\nwheel:x:10:alice\n"},
	} {
		got, err := Group([]byte(c.image), alice, groups)
		if string(got) != c.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	if got, err := Group(nil, alice, groups); got != nil || err != nil {
		t.Errorf("no file: %q, %v", got, err)
	}
}

// FuzzPasswd checks that exactly one line is new and that it is the caller's.
func FuzzPasswd(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\nalice:x:1001:1:::\n"), "alice", "Alice", "/home/a", "/bin/sh", 1001, 100)
	f.Add([]byte(""), "a\nb", ":", "\x00", "", 0, -1)
	f.Fuzz(func(t *testing.T, image []byte, name, gecos, home, shell string, uid, gid int) {
		u := host.User{Name: name, UID: uid, GID: gid, Gecos: gecos, Home: home, Shell: shell}
		before := len(splitLines(image))
		if got, err := Passwd(image, u); err == nil && image != nil {
			lines := splitLines(got)
			if n := len(lines); n != before && n != before+1 {
				t.Errorf("%d lines became %d", before, n)
			}
			found := false
			for _, line := range lines {
				f := strings.Split(string(line), ":")
				found = found || len(f) == 7 && f[0] == name && f[4] == gecos && f[5] == home
			}
			if !found {
				t.Errorf("%q has no line for %+v", got, u)
			}
		} else if err != nil && !errors.Is(err, ErrInput) && !errors.Is(err, ErrLimit) {
			t.Error(err)
		}
		if got, err := Group(image, u, []host.Group{{Name: gecos, GID: gid}}); err == nil && image != nil {
			if n := len(splitLines(got)); n != before && n != before+1 {
				t.Errorf("%d groups became %d", before, n)
			}
		}
	})
}
