package host

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestCapabilities(t *testing.T) {
	have, known := Capabilities()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("needs /proc: ", err)
	}
	var last int
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err != nil {
		t.Skip("needs /proc/sys: ", err)
	} else {
		fmt.Sscan(string(b), &last)
	}
	if known != 1<<(last+1)-1 {
		t.Errorf("got known %#x, want %d bits", known, last+1)
	}
	var permitted, bounding uint64
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "CapPrm: %x", &permitted)
		fmt.Sscanf(line, "CapBnd: %x", &bounding)
	}
	if have != permitted&bounding {
		t.Errorf("got %#x, want %#x", have, permitted&bounding)
	}
	if os.Getuid() == 0 && have == 0 {
		t.Error("root has no capabilities")
	}
}

func TestSecurityModulesAgree(t *testing.T) {
	list := strings.Join(SecurityModules(), ",")
	if list == "" {
		t.Skip("needs securityfs")
	}
	for name, got := range map[string]bool{"apparmor": AppArmor(), "selinux": SELinux(), "landlock": Landlock() > 0} {
		if want := strings.Contains(","+list+",", ","+name+","); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}
