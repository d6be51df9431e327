package browser

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"singularity/sif"
	"singularity/squashfs"
)

// advisories makes a directory of advisories: on one package, and on one for each text of
// the corpus.
func (v *site) advisories(dir string) string {
	v.t.Helper()
	dir = filepath.Join(dir, "advisories")
	if err := os.Mkdir(dir, 0o755); err != nil {
		v.t.Fatal(err)
	}
	record := func(id, summary, name, severity string) map[string]any {
		return map[string]any{"id": id, "modified": "2026-01-02T03:04:05Z", "summary": summary, "affected": []any{map[string]any{"package": map[string]string{"ecosystem": "Debian:12", "name": name},
			"ranges": []any{map[string]any{"type": "ECOSYSTEM", "events": []any{map[string]string{"introduced": "0"}, map[string]string{"fixed": "2"}}}}, "database_specific": map[string]string{"severity": severity}}}}
	}
	list := []any{record("CVE-2026-1", "A long enough summary of what an attacker can do with this library", "zlib1g", "high"), record("CVE-2026-2", "Another one", "bash", "low")}
	for n, text := range corpus {
		list = append(list, record(fmt.Sprint("CVE-2026-9", n), printable(text), packageName(text), "critical"))
	}
	text, err := json.Marshal(list)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "all.json"), text, 0o644)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	return dir
}

// packageName is a text as a database of packages can hold it in a line.
func packageName(text string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("\n", " ", "\x00", "", "\u202e", "").Replace(text)), "_")
}

// debian is an image with a database of packages.
func debian(t *testing.T, packages ...string) []byte {
	t.Helper()
	status := ""
	for _, p := range packages {
		status += "Package: " + p + "\nStatus: install ok installed\nVersion: 1\n\n"
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, text := range map[string]string{"etc/os-release": "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n", "var/lib/dpkg/status": status} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	w.Close()
	dir := t.TempDir()
	tree, err := os.Create(filepath.Join(dir, "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	out, err := squashfs.NewWriter(tree, squashfs.WriterOptions{Digest: func(b []byte) [squashfs.DigestSize]byte { return sha256.Sum256(b) }})
	if err == nil {
		err = out.AddTar(&archive, squashfs.TarOptions{})
	}
	if err == nil {
		_, err = out.Close()
	}
	if err == nil {
		_, err = tree.Seek(0, io.SeekStart)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "image.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := sif.Create(f, sif.CreateOptions{}, sif.Input{Type: sif.DataPartition, Group: 1, Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra(), Data: tree}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSecurity: from a push to its findings, from a fault to images and running jobs; no
// name of a package does anything to a page (SC-149).
func TestSecurity(t *testing.T) {
	v := start(t)
	v.logIn()
	v.makeToken()
	entity := fmt.Sprint(v.call("POST", "/v1/entities", map[string]string{"name": "admin"})["id"])
	c := fmt.Sprint(v.call("POST", "/v1/collections", map[string]string{"name": "tools", "entity": entity})["id"])
	for _, name := range []string{"old", "new", "strange"} {
		v.call("POST", "/v1/containers", map[string]string{"name": name, "collection": c})
	}
	hash := v.push("admin/tools/old", debian(t, "zlib1g", "bash"), "amd64", "latest")
	v.push("admin/tools/new", debian(t, "dash"), "amd64", "latest")
	var strange []string
	for _, text := range corpus {
		strange = append(strange, packageName(text))
	}
	v.push("admin/tools/strange", debian(t, strange...), "amd64", "latest")
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		o := v.call("GET", "/v1/findings", nil)
		if fmt.Sprint(o["done"]) == "3" && o["data"].(map[string]any)["loaded"] == true {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the images are not read: %v", o)
		}
	}
	v.call("POST", "/v1/runs", map[string]any{"records": []any{map[string]any{"id": "1", "start": time.Now().Add(-time.Minute).UTC().Format(time.RFC3339), "host": "node1", "user": "admin", "job": "SLURM:17", "verb": "exec", "image": "/images/" + corpus[0], "digest": "sha256:" + strings.TrimPrefix(hash, "sha256.")}}})
	v.want(v.open("/library/admin/tools/old:latest"), "Signed by nobody, 1 high and 1 low advisories as of 2026-01-02, which is too long ago")
	v.look("image-findings")
	v.click("nav[aria-label='About the image'] a[href^='/security/']")
	v.want(v.text(), "CVE-2026-1", "zlib1g", "Corrected in", "Debian GNU/Linux 12", "node1", "SLURM:17", "The advisories are old")
	v.look("security-image")
	v.click("main tbody a[href$='CVE-2026-1']")
	v.want(v.text(), "admin/tools/old:latest", "node1", "SLURM:17")
	v.look("security-fault")
	v.want(v.open("/security"), "3", "Images that you may see", "admin/tools/old:latest", "CVE-2026-1")
	v.look("security")
	v.want(v.open("/security?q=zlib"), "Found 1 fault and 1 package", "zlib1g")
	v.look("security-search")
	v.want(v.open("/security/running"), "node1", "1 high")
	v.look("security-running")
	// Let a fault not count, and count again.
	v.open("/security/images/admin/tools/old:latest")
	v.press("main details summary")
	v.fill("#id", "CVE-2026-1")
	v.fill("#reason", "never called "+corpus[0])
	v.click("main details button.main")
	v.want(v.text(), "Faults that do not count here", "never called "+corpus[0])
	v.look("security-suppressed")
	v.click("button[aria-label='Let CVE-2026-1 count again']")
	if text := v.text(); strings.Contains(text, "Faults that do not count here") {
		t.Error("the fault does not count again")
	}
	// What is not served, and who is told; the secret of a webhook is shown once.
	v.open("/security/rules")
	v.fill("input[name=grace]", "soon")
	v.click("main form button.main")
	v.want(v.text(), "grace is a time like 168h")
	v.look("security-rules-refused")
	v.open("/security/rules")
	v.fill("input[name=grace]", "336h")
	v.press("input[name=unknown]")
	v.click("main form button.main")
	v.want(v.text(), "The rules are saved", "No notice was sent yet")
	v.look("security-rules-site")
	v.open("/library/admin/tools")
	v.click("main a[href='/security/rules/admin/tools']")
	v.fill("input[name=webhook]", "https://chat.example.org/hook")
	v.click("main form button.main")
	v.want(v.text(), "it is not shown again")
	v.look("security-rules")
	v.want(v.open("/security/images/admin/tools/new:latest"), "No fault that counts is known")
	v.want(v.open("/security/images/admin/tools/strange:latest"), packageName(corpus[0]))
	v.clean("strange packages")
	for n := 0; n < len(corpus); n += 9 { // the page of the image shows them all
		v.open(fmt.Sprint("/security/fault?id=CVE-2026-9", n))
		v.clean(fmt.Sprint("fault ", n))
	}
	v.do(chromedp.EmulateViewport(390, 844))
	for _, p := range []string{"/security", "/security/images/admin/tools/old:latest", "/security/images/admin/tools/strange:latest", "/security/fault?id=CVE-2026-1", "/security/running", "/security/rules", "/security/rules/admin/tools", "/library/admin/tools/old:latest"} {
		v.open(p)
		if over := eval[int](v, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("on a phone %s is %d pixels too wide", p, over)
		}
	}
	v.alone()
}
