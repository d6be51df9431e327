package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singularity/plan"
)

// TestCapabilityText: each name has a text, and none is left over.
func TestCapabilityText(t *testing.T) {
	if n := len(plan.Caps(^uint64(0)).Names()); n != len(capabilityText) {
		t.Errorf("%d texts for %d names", len(capabilityText), n)
	}
}

// TestCapabilityFile: the shape of the file is that of others who read it.
func TestCapabilityFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SINGULARITY_CONFIG_FILE", filepath.Join(dir, "singularity.conf"))
	run := func(want string, args ...string) string {
		t.Helper()
		out, messages, code := call(append([]string{"capability"}, args...)...)
		if want == "" && code != 0 || want != "" && !strings.Contains(messages, want) {
			t.Errorf("%q: status %d, %s; want %q", args, code, messages, want)
		}
		return out
	}
	run("", "add", "--user", "root", "net_raw,CAP_CHOWN")
	run("won't add unknown capability: CAP_FLY,swim", "add", "-u", "root", "kill,CAP_FLY,swim")
	run("", "add", "--group", "root", "sys_nice")
	want := "{\n\t\"users\": {\n\t\t\"root\": [\n\t\t\t\"CAP_CHOWN\",\n\t\t\t\"CAP_KILL\",\n\t\t\t\"CAP_NET_RAW\"\n\t\t]\n\t},\n" +
		"\t\"groups\": {\n\t\t\"root\": [\n\t\t\t\"CAP_SYS_NICE\"\n\t\t]\n\t}\n}\n"
	file := filepath.Join(dir, "capability.json")
	if text, err := os.ReadFile(file); err != nil || string(text) != want {
		t.Errorf("got %s %v", text, err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode() != 0o644 {
		t.Errorf("mode %v %v", fi.Mode(), err)
	}
	if out := run("", "list"); out != "root [user]: CAP_CHOWN,CAP_KILL,CAP_NET_RAW\nroot [group]: CAP_SYS_NICE\n" {
		t.Errorf("got %q", out)
	}
	if out := run("", "list", "--desc", "root"); !strings.Contains(out, "CAP_NET_RAW:\n    Use raw") {
		t.Errorf("got %q", out)
	}
	run(`no capability is granted to a user or group "ada"`, "list", "ada")
	run("won't drop unknown capability: fly", "drop", "-u", "root", "fly,net_raw")
	run(`user "root" has none of them`, "drop", "-u", "root", "net_raw")
	run("", "drop", "-u", "root", "all")
	run("", "drop", "-g", "root", "cap_sys_nice")
	if text, err := os.ReadFile(file); err != nil || string(text) != "{}\n" {
		t.Errorf("got %s %v", text, err)
	}
	run("no capability is granted to any", "list")
	run("give one of --user and --group", "add", "kill")
	run("give one of --user and --group", "add", "-u", "a", "-g", "b", "kill")
	run("names no capability", "add", "-u", "root", "fly")
	run(`cannot find user "no-such-user"`, "add", "-u", "no-such-user", "kill")
	run(`cannot find group "no-such-group"`, "add", "-g", "no-such-group", "kill")
	run("unknown capability: fly", "avail", "fly")
	if out := run("", "avail"); strings.Count(out, "CAP_") != len(capabilityText) {
		t.Errorf("%d capabilities", strings.Count(out, "CAP_"))
	}
	os.WriteFile(file, []byte(`{"users": {"root": ["CAP_KILL"]}, "admins": {}}`), 0o644)
	run(`unknown member "admins"`, "add", "-u", "root", "kill")
	run(`unknown member "admins"`, "list")
}
