package cdi

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"singularity/host"
)

// write makes directories of device files and returns them in order.
func write(t *testing.T, files ...map[string]string) []string {
	t.Helper()
	var dirs []string
	for _, list := range files {
		dir := t.TempDir()
		for name, text := range list {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

const yamlSpec = `cdiVersion: "0.6.0"
kind: vendor.com/gpu
containerEdits:
  env: ["SHARED=1", "QUOTED=a b$c"]
  hooks:
  - hookName: createContainer
    path: /usr/bin/hook
    args: [hook, update-ldcache]
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/null
    - path: /dev/gpu0
      hostPath: /dev/zero
      permissions: rw
    mounts:
    - {hostPath: /etc/hosts, containerPath: /opt/hosts, options: [ro, nosuid, bind]}
- name: all
  containerEdits:
    env: [ALL=yes]
    mounts:
    - {hostPath: /etc, containerPath: /opt/etc/../etc}
    - {containerPath: /opt/tmp, type: tmpfs}
    additionalGIDs: [4]
`

const jsonSpec = `{"cdiVersion": "1.0.0", "kind": "vendor.com/net", "devices": [{"name": "eth:1", "containerEdits": {"env": ["NET=1"]}}], "annotations": {"x": "y"}}`

func TestResolve(t *testing.T) {
	dirs := write(t, map[string]string{"a.yaml": yamlSpec, "b.json": jsonSpec, "c.txt": "x", "broken.json": "{"})
	e, notes, err := Resolve([]string{"vendor.com/gpu=0", "vendor.com/gpu=all", "vendor.com/net=eth:1", "vendor.com/gpu=0"}, append(dirs, "/nonexistent"))
	want := &host.Edits{
		Env:    []string{"SHARED=1", "QUOTED=a b$c", "ALL=yes", "NET=1"},
		Mounts: []host.EditMount{{Source: "/etc/hosts", Destination: "/opt/hosts", ReadOnly: true}, {Source: "/etc", Destination: "/opt/etc"}},
		Nodes:  []host.EditNode{{Source: "/dev/null", Destination: "/dev/null"}, {Source: "/dev/zero", Destination: "/dev/gpu0"}},
	}
	if err != nil || !reflect.DeepEqual(e, want) {
		t.Errorf("%+v, %v; want %+v", e, err, want)
	}
	text := strings.Join(notes, "\n")
	for _, s := range []string{"broken.json", "Not running the createContainer hook /usr/bin/hook", "Not mounting a tmpfs", "Not adding the groups"} {
		if strings.Count(text, s) != 1 {
			t.Errorf("notes %q, want %q once", text, s)
		}
	}
}

func TestLibraries(t *testing.T) {
	libs, _ := filepath.Glob("/lib/*-linux-gnu/libm.so.6")
	if more, _ := filepath.Glob("/lib64/libm.so.6"); len(libs) == 0 {
		libs = more
	}
	if len(libs) == 0 {
		t.Skip("needs the GNU C library")
	}
	dirs := write(t, map[string]string{"a.json": `{"cdiVersion":"0.3.0","kind":"v/c","devices":[{"name":"d","containerEdits":{"mounts":[{"hostPath":"` + libs[0] + `","containerPath":"/opt/libm-2.so"}]}}]}`})
	e, _, err := Resolve([]string{"v/c=d"}, dirs)
	if err != nil || len(e.Libraries) != 1 || e.Libraries[0].Name != "libm.so.6" || e.Libraries[0].Path != libs[0] || e.Libraries[0].Glibc == "" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestPriority(t *testing.T) {
	spec := func(v string) string {
		return `{"cdiVersion":"0.5.0","kind":"v/c","devices":[{"name":"d","containerEdits":{"env":["V=` + v + `"]}}]}`
	}
	dirs := write(t, map[string]string{"a.json": spec("1"), "b.json": spec("2")}, map[string]string{"a.json": spec("3")})
	e, _, err := Resolve([]string{"v/c=d"}, dirs)
	if err != nil || !reflect.DeepEqual(e.Env, []string{"V=3"}) {
		t.Errorf("%+v, %v; want that of the later directory", e, err)
	}
	if _, _, err = Resolve([]string{"v/c=d"}, dirs[:1]); err == nil || !strings.Contains(err.Error(), "described twice") {
		t.Errorf("%v, want a clash", err)
	}
}

func TestRefused(t *testing.T) {
	device := func(edits string) string {
		return `{"cdiVersion":"0.5.0","kind":"v/c","devices":[{"name":"d","containerEdits":` + edits + `}]}`
	}
	for _, c := range []struct{ spec, name, want string }{
		{device("{}"), "v/c", "not of the form"},
		{device("{}"), "v/c=", "not of the form"},
		{device("{}"), "v /c=d", "not of the form"},
		{device("{}"), "v/c=e", "they have v/c=d"},
		{"", "v/c=d", "they hold no device"},
		{device(`{"deviceNodes":[{"path":"/dev/nosuch"}]}`), "v/c=d", "no device node /dev/nosuch"},
		{device(`{"deviceNodes":[{"path":"/dev/x","hostPath":"/etc/hosts"}]}`), "v/c=d", "not a device node"},
		{device(`{"mounts":[{"hostPath":"/nosuch","containerPath":"/x"}]}`), "v/c=d", "no path /nosuch"},
		{device(`{"mounts":[{"hostPath":"/etc","containerPath":"x"}]}`), "v/c=d", "not absolute"},
		{device(`{"env":["novalue"]}`), "v/c=d", "not NAME=value"},
		{`{"cdiVersion":"9.0.0","kind":"v/c","devices":[{"name":"d"}]}`, "v/c=d", "they hold no device"},
		{`{"cdiVersion":"0.5.0","kind":"v","devices":[{"name":"d"}]}`, "v/c=d", "they hold no device"},
	} {
		dirs := write(t, map[string]string{"a.json": c.spec})
		if _, _, err := Resolve([]string{c.name}, dirs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %s: %v, want %q", c.name, c.spec, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(yamlSpec))
	f.Add([]byte(jsonSpec))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse(b)
		if err != nil {
			return
		}
		for i := range s.Devices {
			if checkName(s.Kind+"="+s.Devices[i].Name) != nil {
				t.Errorf("device %q of kind %q", s.Devices[i].Name, s.Kind)
			}
		}
	})
}
