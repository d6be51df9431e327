package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const known = Caps(1<<41 - 1)

func TestParseCaps(t *testing.T) {
	for _, c := range []struct {
		list    []string
		want    Caps
		unknown []string
	}{
		{nil, 0, nil},
		{[]string{"CAP_CHOWN", "net_raw,Cap_Kill"}, 1<<0 | 1<<13 | 1<<5, nil},
		{[]string{" sys_admin , "}, 1 << 21, nil},
		{[]string{"all"}, allCaps, nil},
		{[]string{"ALL", "nonsense"}, allCaps, []string{"nonsense"}},
		{[]string{"checkpoint_restore"}, 1 << 40, nil},
		{[]string{"CAP_CAP_KILL"}, 0, []string{"CAP_CAP_KILL"}},
	} {
		set, unknown := ParseCaps(c.list)
		if set != c.want || !slices.Equal(unknown, c.unknown) {
			t.Errorf("%q: got %#x %q", c.list, set, unknown)
		}
	}
	if n := known.Names(); len(n) != 41 || n[0] != "CAP_CHOWN" || n[40] != "CAP_CHECKPOINT_RESTORE" {
		t.Errorf("got names %q", n)
	}
}

// rightsOf plans a start of root if uid is 0, else of an ordinary user.
func rightsOf(uid int, edit func(*Options, *Facts)) (*Rights, string, error) {
	o, f := &Options{}, facts()
	f.Host.UID, f.Host.GID = uid, uid
	f.Host.KnownCaps, f.Host.Caps = known, known&^(1<<24) // the caller lacks CAP_SYS_RESOURCE
	edit(o, f)
	p, notes, err := New("exec", o, []string{"true"}, f)
	if err != nil {
		return nil, "", err
	}
	return p.Rights, strings.Join(notes, "; "), nil
}

func TestCaps(t *testing.T) {
	const full = known &^ (1 << 24)
	none := func(*Options, *Facts) {}
	for _, c := range []struct {
		name    string
		uid     int
		edit    func(*Options, *Facts)
		want    Caps
		ambient bool
		nnp     bool
		note    string
	}{
		{"user", 1000, none, 0, false, true, ""},
		{"user adds", 1000, func(o *Options, _ *Facts) { o.AddCaps = []string{"net_raw", "CAP_SYS_RESOURCE"} }, 1<<13 | 1<<24, true, true, ""},
		{"user adds all", 1000, func(o *Options, _ *Facts) { o.AddCaps = []string{"all"} }, known, true, true, ""},
		{"user adds all but one", 1000, func(o *Options, _ *Facts) { o.AddCaps, o.DropCaps = []string{"all"}, []string{"kill"} }, known &^ (1 << 5), true, true, ""},
		{"user adds nonsense", 1000, func(o *Options, _ *Facts) { o.AddCaps = []string{"fly"} }, 0, false, true, "won't add unknown capability: fly"},
		{"user without privileges", 1000, func(o *Options, _ *Facts) { o.NoPrivs = true }, 0, false, true, ""},
		{"fakeroot", 1000, func(o *Options, _ *Facts) { o.Fakeroot = true }, known, false, true, ""},
		{"fakeroot drops", 1000, func(o *Options, _ *Facts) { o.Fakeroot, o.DropCaps = true, []string{"CHOWN", "x"} }, known &^ 1, false, true, "won't drop unknown capability: x"},
		{"fakeroot without privileges", 1000, func(o *Options, _ *Facts) { o.Fakeroot, o.NoPrivs = true, true }, 0, false, true, ""},
		{"fakeroot with one", 1000, func(o *Options, _ *Facts) { o.Fakeroot, o.NoPrivs, o.AddCaps = true, true, []string{"kill"} }, 1 << 5, false, true, ""},
		{"root", 0, none, full, false, true, ""},
		{"root in a user namespace", 0, func(o *Options, _ *Facts) { o.Userns = true }, known, false, true, ""},
		{"root drops", 0, func(o *Options, _ *Facts) { o.DropCaps = []string{"chown"} }, full &^ 1, false, true, ""},
		{"root adds what it lacks", 0, func(o *Options, _ *Facts) { o.AddCaps = []string{"sys_resource"} }, full, false, true, "won't add capability that you do not have: CAP_SYS_RESOURCE"},
		{"root adds all", 0, func(o *Options, _ *Facts) { o.NoPrivs, o.AddCaps = true, []string{"all"} }, full, false, true, ""},
		{"root without privileges", 0, func(o *Options, _ *Facts) { o.NoPrivs, o.KeepPrivs = true, true }, 0, false, true, ""},
		{"root keeps privileges", 0, func(o *Options, f *Facts) { o.KeepPrivs, f.Conf.RootCaps = true, RootCapsNone }, full, false, false, ""},
		{"root allows setuid", 0, func(o *Options, _ *Facts) { o.AllowSetuid = true }, full, false, false, ""},
		{"root allows setuid in vain", 0, func(o *Options, _ *Facts) { o.AllowSetuid, o.Userns = true, true }, known, false, true, "no effect in a user namespace"},
		{"root, configured none", 0, func(_ *Options, f *Facts) { f.Conf.RootCaps = RootCapsNone }, 0, false, true, ""},
		{"root, configured file", 0, func(_ *Options, f *Facts) {
			f.Conf.RootCaps, f.Host.FileCaps = RootCapsFile, []string{"CAP_KILL", "CAP_SYS_RESOURCE"}
		}, 1 << 5, false, true, ""},
		{"root as another", 0, func(o *Options, _ *Facts) { o.Security = []string{"uid:5"} }, 0, false, true, ""},
		{"root as another with one", 0, func(o *Options, _ *Facts) { o.Security, o.AddCaps = []string{"uid:5"}, []string{"kill"} }, 1 << 5, true, true, ""},
	} {
		r, notes, err := rightsOf(c.uid, c.edit)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if r.Caps != c.want || r.Ambient != c.ambient || r.NoNewPrivs != c.nnp {
			t.Errorf("%s: got capabilities %#x, ambient %v, no_new_privs %v; want %#x, %v, %v", c.name, r.Caps, r.Ambient, r.NoNewPrivs, c.want, c.ambient, c.nnp)
		}
		if r.Drop != known&^c.want {
			t.Errorf("%s: got %#x to drop", c.name, r.Drop)
		}
		if c.note == "" && notes != "" || !strings.Contains(notes, c.note) {
			t.Errorf("%s: got notes %q, want %q", c.name, notes, c.note)
		}
	}
}

// SC-046 among them: what this kernel cannot confine with is refused.
func TestSecurity(t *testing.T) {
	all := Supported{AppArmor: true, SELinux: true, Seccomp: true, Landlock: true}
	for _, c := range []struct {
		uid   int
		words []string
		can   Supported
		want  string // the rights or the error
	}{
		{0, []string{"uid:5"}, all, "uid 5 [0]"},
		{0, []string{"uid:5", "gid:7:8"}, all, "uid 5 [7 8]"},
		{0, []string{"gid:7"}, all, "uid 0 [7]"},
		{0, []string{"uid:-1"}, all, "is no user or group id"},
		{0, []string{"uid:4294967295"}, all, "is no user or group id"},
		{0, []string{"gid:1::2"}, all, "is no user or group id"},
		{1000, []string{"uid:5"}, all, "Could not configure --security uid: --security uid requires root privileges"},
		{1000, []string{"apparmor:docker-default"}, all, "apparmor docker-default"},
		{1000, []string{"apparmor:docker-default"}, Supported{SELinux: true}, "apparmor requested, but is not enabled or supported on this system"},
		{1000, []string{"selinux:u:r:t:s0:c1", "c2", "c4.c9"}, all, "selinux u:r:t:s0:c1,c2,c4.c9"},
		{1000, []string{"selinux:u:r:t:s0"}, Supported{AppArmor: true}, "selinux requested, but is not enabled or supported on this system"},
		{1000, []string{"selinux:l", "apparmor:p"}, all, "you can't specify both an apparmor profile and a selinux label"},
		{1000, []string{"apparmor:p", "apparmor:p"}, all, "apparmor p"},
		{1000, []string{"apparmor:p", "apparmor:q"}, all, "given twice"},
		{1000, []string{"apparmor:a\nb"}, all, "is no label"},
		{1000, []string{"apparmor"}, all, "needs a value"},
		{1000, []string{"seccomp:p.json"}, all, "seccomp /home/u/work/p.json"},
		{1000, []string{"seccomp:p.json"}, Supported{}, "seccomp requested but not enabled"},
		{1000, []string{"landlock"}, all, "landlock [/dev/shm /dev/mqueue /home/u /tmp /var/tmp /mnt]"},
		{1000, []string{"landlock"}, Supported{}, "landlock requested, but is not enabled or supported on this system"},
		{1000, []string{"landlock:x"}, all, "takes no value"},
		{1000, []string{"nonsense:x"}, all, "known are uid:N"},
	} {
		r, _, err := rightsOf(c.uid, func(o *Options, f *Facts) {
			o.Security, f.Host.Supported = c.words, c.can
			o.Bind = []string{"/data:/mnt", "/data/x:/data/x:ro"}
		})
		got := fmt.Sprint(err)
		switch {
		case err != nil:
		case r.SetIDs:
			got = fmt.Sprint("uid ", r.UID, " ", r.GIDs)
		case r.LSM != "":
			got = r.LSM + " " + r.Label
		case r.Seccomp != "":
			got = "seccomp " + r.Seccomp
		case r.Landlock != nil:
			got = fmt.Sprint("landlock ", r.Landlock.Write)
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%q: got %q, want %q", c.words, got, c.want)
		}
	}
}

// What a writable layer takes may be written.
func TestLandlockWritable(t *testing.T) {
	for name, edit := range map[string]func(*Options, *Facts){
		"--writable":       func(o *Options, f *Facts) { o.Writable, f.Image.Kind = true, DirRoot },
		"--writable-tmpfs": func(o *Options, _ *Facts) { o.WritableTmpfs = "true" },
	} {
		r, _, err := rightsOf(1000, func(o *Options, f *Facts) {
			edit(o, f)
			o.Security, f.Host.Supported.Landlock, f.Conf.Overlay = []string{"landlock"}, true, "yes"
		})
		if err != nil || !slices.Contains(r.Landlock.Write, "/") {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
	}
}

func TestNeedsRoot(t *testing.T) {
	for name, edit := range map[string]func(*Options){
		"--keep-privs":   func(o *Options) { o.KeepPrivs = true },
		"--allow-setuid": func(o *Options) { o.AllowSetuid = true },
		"--boot":         func(o *Options) { o.Boot = true },
		"--security gid": func(o *Options) { o.Security = []string{"gid:0"} },
	} {
		for _, fakeroot := range []bool{false, true} {
			_, _, err := rightsOf(1000, func(o *Options, _ *Facts) { edit(o); o.Fakeroot = fakeroot })
			if err == nil || !strings.Contains(err.Error(), "Could not configure "+name+": ") || !strings.Contains(err.Error(), "requires root privileges") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
}

func FuzzParseSecurity(f *testing.F) {
	f.Add("uid:5\ngid:1:2\nselinux:a:b:c:s0:c1\nc2\nlandlock")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSecurity(strings.Split(text, "\n"))
		if err == nil && (len(s.GIDs) > maxGIDs || len(s.Label) > maxLabel || s.UID < -1 || strings.ContainsAny(s.Label, "\x00\n")) {
			t.Errorf("%q: got %+v", text, s)
		}
	})
}
