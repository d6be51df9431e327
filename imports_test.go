package singularity

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers reads the table of doc/design.md.
func layers(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile("doc/design.md")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]int{}
	_, table, _ := strings.Cut(string(text), "## Layers")
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || len(strings.TrimSpace(cells[1])) != 1 {
			continue
		}
		for _, p := range strings.Split(cells[2], ",") {
			m[strings.TrimSpace(p)] = int(strings.TrimSpace(cells[1])[0] - '0')
		}
	}
	return m
}

func layerOf(m map[string]int, pkg string) (int, bool) {
	if l, ok := m[pkg]; ok {
		return l, true
	}
	dir, _, ok := strings.Cut(pkg, "/")
	l, ok2 := m[dir+"/*"]
	return l, ok && ok2
}

func TestImportDirection(t *testing.T) {
	m := layers(t)
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], "singularity/")
		if pkg == "singularity" || strings.HasPrefix(pkg, "e2e") || strings.HasPrefix(pkg, "bench") {
			continue
		}
		from, ok := layerOf(m, pkg)
		if !ok {
			t.Errorf("package %s has no place in the table of doc/design.md", pkg)
			continue
		}
		for _, imp := range words[1:] {
			if imp == "unsafe" && !strings.HasPrefix(pkg, "linux/") {
				t.Errorf("%s imports unsafe: only linux/* may", pkg)
			}
			dep, ours := strings.CutPrefix(imp, "singularity/")
			if !ours {
				continue
			}
			if strings.HasPrefix(dep, pkg+"/") || strings.HasPrefix(pkg, "linux/") && strings.HasPrefix(dep, "linux/") ||
				strings.HasPrefix(pkg, "squashfs/") && dep == "squashfs/huffman" || pkg == "linux/cni" && dep == "conf/jsonread" {
				continue
			}
			to, ok := layerOf(m, dep)
			if !ok || to >= from {
				t.Errorf("%s (layer %d) imports %s (layer %d)", pkg, from, dep, to)
			}
		}
	}
}

// TestStartStaysSmall keeps what costs time at every start out of the programs
// that start containers.
func TestStartStaysSmall(t *testing.T) {
	startStaysSmall(t, "./cmd/singularity")
	// The header of LUKS2 is JSON, and crypto/x509 brings math/rand/v2.
	startStaysSmall(t, "./cmd/singularity-unlock", "encoding/json", "math/rand/v2")
}

func startStaysSmall(t *testing.T, program string, needs ...string) {
	out, err := exec.Command("go", "list", "-deps", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"net/http", "encoding/json", "github.com/spf13/cobra", "github.com/ProtonMail/go-crypto/openpgp", "regexp", "crypto/tls",
		"github.com/pelletier/go-toml/v2", "github.com/google/go-containerregistry/pkg/v1", "singularity/fetch", "singularity/fetch/cache", "github.com/godbus/dbus/v5", "github.com/cilium/ebpf",
		"mvdan.cc/sh/v3/interp", "mvdan.cc/sh/v3/syntax", "math/rand/v2"} {
		for _, dep := range strings.Fields(string(out)) {
			if dep == bad && !slices.Contains(needs, dep) {
				t.Errorf("%s links %s", program, bad)
			}
		}
	}
}

// TestVerifierStaysSmall: the program that reads hostile signatures, for root
// too, asks nobody on the network and starts no program.
func TestVerifierStaysSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./cmd/starter-verify").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		switch dep {
		case "net/http", "os/exec", "golang.org/x/crypto/ssh", "singularity/client/keyserver", "singularity/sign/gpgagent", "singularity/sign/sshagent":
			t.Errorf("cmd/starter-verify links %s", dep)
		}
	}
}

// TestKeeperStaysSmall: the program that is root for the networks of users reads
// the administrator's files and runs plug-ins, and nothing else.
func TestKeeperStaysSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./cmd/starter-network").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		_, ours := strings.CutPrefix(dep, "singularity/")
		known := slices.Contains([]string{"cmd/starter-network", "conf", "conf/jsonread", "linux/cni", "linux/entry", "linux/script", "priv", "priv/keeper"}, strings.TrimPrefix(dep, "singularity/"))
		if ours && !known || dep == "net" || dep == "os/exec" || dep == "encoding/json" || dep == "os/user" || dep == "plugin" {
			t.Errorf("cmd/starter-network links %s", dep)
		}
	}
}

// TestNoMathRand: ids, salts and names of temporary files come from the
// generator of the operating system (SC-120).
func TestNoMathRand(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "singularity/e2e/") {
			continue // attacks that a seed repeats
		}
		for _, word := range strings.Fields(line) {
			if word == "math/rand" || word == "math/rand/v2" {
				t.Errorf("math/rand is imported: %s", line)
			}
		}
	}
}

// TestSecurityCases: the tests that doc/security-cases.md names are there and
// carry the number of their case.
func TestSecurityCases(t *testing.T) {
	text, err := os.ReadFile("doc/security-cases.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		number, isRow := strings.CutPrefix(line, "| SC-")
		if !isRow {
			continue
		}
		rows++
		number = number[:3]
		for i, file := range strings.Split(line[strings.LastIndex(strings.TrimRight(line, "|\n "), "|"):], "`") {
			if i%2 == 0 {
				continue // between the names
			}
			test, err := os.ReadFile(file)
			if err != nil {
				t.Error(err)
			} else if !strings.Contains(string(test), "SC-"+number) && !strings.Contains(string(test), "SC"+number) {
				t.Errorf("%s does not name SC-%s", file, number)
			}
		}
	}
	if rows < 169 {
		t.Errorf("%d cases, want 169", rows)
	}
}
