package browser

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"singularity/sif"
)

// worker is a worker whose builds the test does: it says what a build prints, and
// what comes of it.
type worker struct {
	v        *site
	internal string
	http     *http.Client
}

// task is what the server gives a worker.
type task struct {
	ID         string
	Fence      int64
	Definition []byte
}

var internalAddress = regexp.MustCompile(`msg=ready.* internal=(\S+)`)

// worker gets a certificate and asks for work once, so that there is one.
func (v *site) worker() *worker {
	v.t.Helper()
	dir := v.t.TempDir()
	cmd := exec.Command(v.program, "admin", "certificate", "--worker", "--data", v.data, "hand")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		v.t.Fatalf("%v: %s", err, out)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "hand.pem"), filepath.Join(dir, "hand.pem"))
	if err != nil {
		v.t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(v.data, "tls", "ca.pem"))
	if err != nil {
		v.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	logged, err := os.ReadFile(v.logged)
	if err != nil {
		v.t.Fatal(err)
	}
	m := internalAddress.FindSubmatch(logged)
	if m == nil {
		v.t.Fatalf("no internal address in %s", logged)
	}
	return &worker{v, "https://" + string(m[1]), &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}}}}
}

// call makes a call of the internal listener.
func (w *worker) call(path string, in, out any) int {
	w.v.t.Helper()
	text, ok := in.([]byte)
	if !ok {
		text, _ = json.Marshal(in)
	}
	res, err := w.http.Post(w.internal+"/internal/v1/builds/"+path, "application/json", bytes.NewReader(text))
	if err != nil {
		w.v.t.Error(err)
		return http.StatusConflict
	}
	defer res.Body.Close()
	all, _ := io.ReadAll(res.Body)
	if res.StatusCode >= 300 && res.StatusCode != http.StatusConflict {
		w.v.t.Errorf("%s: %d %s", path, res.StatusCode, all)
	}
	if out != nil && res.StatusCode != http.StatusNoContent {
		var e struct{ Data json.RawMessage }
		if err := json.Unmarshal(all, &e); err != nil || json.Unmarshal(e.Data, out) != nil {
			w.v.t.Errorf("%s: %s", path, all)
		}
	}
	return res.StatusCode
}

// claim asks for a build until there is one.
func (w *worker) claim() <-chan task {
	claimed := make(chan task, 1)
	go func() {
		defer close(claimed)
		for {
			var t task
			if w.call("claim", map[string]any{"worker": "hand", "archs": []string{"amd64"}, "slots": 2}, &t); t.ID != "" {
				claimed <- t
				return
			}
		}
	}()
	return claimed
}

// print adds to the log of a build, and tells whether it goes on.
func (w *worker) print(t task, text string) bool {
	w.v.t.Helper()
	return w.call(fmt.Sprintf("%s/log?fence=%d&offset=-1", t.ID, t.Fence), []byte(text), nil) != http.StatusConflict
}

// finish stores an image as the result.
func (w *worker) finish(t task, image []byte) {
	v := w.v
	v.t.Helper()
	sum := sha256.Sum256(image)
	var target struct{ Ref, Token string }
	w.call(t.ID+"/upload", map[string]any{"fence": t.Fence, "sha256": hex.EncodeToString(sum[:]), "size": len(image)}, &target)
	mine := v.token
	v.token = target.Token
	name, tag, _ := strings.Cut(strings.TrimPrefix(target.Ref, "library://"), ":")
	v.push(name, image, "amd64", tag)
	v.token = mine
	w.call(t.ID+"/done", map[string]any{"fence": t.Fence, "state": "succeeded"}, nil)
}

// built is an image as a build makes it, with texts of strangers where there can
// be some.
func built(t *testing.T) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "built.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bill, _ := json.Marshal(map[string]any{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": []any{
		map[string]any{"type": "library", "name": "cowsay", "version": "3.03", "purl": "pkg:deb/debian/cowsay@3.03?arch=all"},
		map[string]any{"type": "library", "name": hostile, "version": hostile, "purl": "pkg:npm/x@1"}}})
	in := []sif.Input{{Type: sif.DataPartition, Group: 1, Name: "fs", Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra(), Data: bytes.NewReader(bytes.Repeat([]byte("x"), 100_000))},
		{Type: sif.DataJSON, Group: 1, Name: "provenance.json", Data: strings.NewReader(`{"builder":"` + `<script>window.xss=1</script>` + `"}`)},
		{Type: sif.DataSBOM, Group: 1, Name: "sbom.cdx.json", Extra: sif.SBOM{Format: sif.SBOMCycloneDXJSON}.Extra(), Data: bytes.NewReader(bill)}}
	if _, err := sif.Create(f, sif.CreateOptions{}, in...); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBuilds walks through the pages of the builder, as who builds and as an
// administrator, with a worker that prints what a hostile build prints.
func TestBuilds(t *testing.T) {
	v := start(t)
	v.logIn()
	v.makeToken()
	v.want(v.open("/builder"), "No worker builds images here yet", "singularity build --remote")
	v.look("builder-empty")
	v.want(v.open("/builder/builds"), "You have built nothing here of late")
	v.want(v.open("/admin/builds"), "No worker has asked for work", "Nothing is being built", "Nothing was built yet")
	w := v.worker()
	claimed := w.claim()
	v.untilPage("/builder", "select[name=arch] option")
	v.checking()
	id := v.live(w, claimed)
	v.outcome(id)
	v.cancelled(w)
	v.watching()
	v.registries()
	v.others(id)
	v.alone()
}

// untilSays waits for a text in a page that loads itself again.
func (v *site) untilSays(text string) {
	v.t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		got, err := chromedp.Run(v.ctx, chromedp.Evaluate[string]("document.readyState === 'complete' ? document.body.innerText : ''"))
		if err == nil && strings.Contains(got, text) {
			return
		}
		if time.Now().After(end) {
			v.t.Fatalf("no %q in %q, %v", text, got, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// untilPage loads a page until it has an element.
func (v *site) untilPage(path, selector string) {
	v.t.Helper()
	end := time.Now().Add(time.Minute)
	for v.open(path); !eval[bool](v, "!!document.querySelector(`"+selector+"`)"); v.open(path) {
		if time.Now().After(end) {
			v.t.Fatalf("%s has no %s", path, selector)
		}
	}
}

// write replaces what is in the editor.
func (v *site) write(text string) {
	v.t.Helper()
	value, _ := json.Marshal(text)
	eval[any](v, "(() => { const e = document.getElementById('definition'); e.value = "+string(value)+"; e.dispatchEvent(new Event('input')); })(), 0")
}

// checking: the editor says what is wrong and in which line, by its script and by
// the button.
func (v *site) checking() {
	v.want(eval[string](v, "document.getElementById('definition').value"), "Bootstrap: docker", "%post")
	v.write("Bootstrap: docker\nFrom: debian\n\n%pots\n    true\n")
	v.until("document.getElementById('verdict').textContent.includes('Line 4:')")
	v.want(v.text(), "Line 4:", "%pots")
	v.look("builder-fault")
	v.write("Bootstrap: docker\nFrom: debian\n\n%files\n    here /there\n")
	v.until("document.getElementById('verdict').textContent.includes('can be used')")
	v.want(v.text(), "which a page cannot send")
	v.write("Bootstrap: docker\nFrom: debian\n%post\n    {{ missing }} " + hostile + "\n")
	v.click("button[value=check]")
	v.want(v.text(), "Line 4:", "missing")
	v.want(eval[string](v, "document.getElementById('definition').value"), hostile)
	// What the service refuses is said, and nothing typed is lost.
	v.write("Bootstrap: localimage\nFrom: x.sif\n")
	v.click("button[value=build]")
	v.want(eval[string](v, "document.querySelector('[role=alert]').textContent"), "takes an image of your machine")
	v.want(eval[string](v, "document.getElementById('definition').value"), "localimage")
}

// live submits a build and watches what it prints.
func (v *site) live(w *worker, claimed <-chan task) string {
	v.write("Bootstrap: docker\nFrom: debian:bookworm-slim\n# " + hostile + "\n%post\n    apt-get install -y cowsay\n")
	v.click("button[value=build]")
	v.want(v.text(), "Log", "Definition", "<script>document.title='owned'</script>")
	t := <-claimed
	v.until("document.getElementById('output').textContent.includes('Started')")
	w.print(t, "\x1b[32mGet:1\x1b[0m http://deb.example.org cowsay\r\n\x1b]0;owned\x07"+hostile+"\n\x1b[1;31mE: \u202enot so bad\x1b[2J\x1b[m\n10 %\r20 %\r30 %\n")
	v.until("document.getElementById('output').textContent.includes('30 %')")
	v.want(v.text(), "The log goes on by itself", "<script>document.title='owned'</script>", "not so bad")
	if !eval[bool](v, "!!document.querySelector('#output .t-good') && !document.getElementById('output').textContent.match(/[\\x1b\\x07\\r\\u202e]/)") {
		v.t.Error("the log has no colour, or what a terminal obeys")
	}
	v.look("build-running")
	v.want(v.open("/admin/builds"), "hand", "admin", "running", "Running now")
	v.look("admin-builds-running")
	v.open("/builder/builds/" + t.ID)
	v.until("document.getElementById('output').textContent.includes('30 %')")
	w.finish(t, built(v.t))
	v.untilSays("singularity pull library://") // the page loads itself again
	return t.ID
}

// outcome looks at what came of a build.
func (v *site) outcome(id string) {
	v.want(v.text(), "succeeded", "Build complete", "cowsay", "3.03", "deb", "<script>document.title='owned'</script>", `{"builder":"<script>window.xss=1</script>"}`, "Signed by", "nobody", "hand", "30 %")
	if eval[bool](v, "document.getElementById('output').textContent.match(/[\\x1b\\x07\\r\\u202e]/) !== null") {
		v.t.Error("the log of a build that is over has what a terminal obeys")
	}
	v.look("build")
	v.click("aside a[href^='/library/']")
	v.want(v.text(), "rb-"+id)
	v.want(v.open("/builder/builds"), id[:8], "succeeded")
	v.look("builds")
	v.open("/builder/builds/" + id)
	v.click("a[href='/builder?from=" + id + "']")
	v.want(eval[string](v, "document.getElementById('definition').value"), "cowsay")
	v.look("builder")
}

// cancelled ends a build by its page.
func (v *site) cancelled(w *worker) {
	claimed := w.claim()
	v.click("button[value=build]")
	t := <-claimed
	v.click("button[value=cancel]")
	v.want(v.text(), "cancelled", "Build cancelled")
	if w.print(t, "more") {
		v.t.Error("the worker of a build that was cancelled may go on")
	}
	v.look("build-cancelled")
}

// watching is what an administrator sees and does.
func (v *site) watching() {
	v.want(v.open("/admin/builds"), "Builds in 30 days, 1 succeeded", "Everybody with an account may", "cancelled")
	v.look("admin-builds")
	v.want(v.open("/admin/builds?days=7"), "Builds in 7 days")
	v.click("button[value=drain]")
	v.want(v.text(), "Workers get nothing new")
	// Who waits is stopped.
	v.open("/builder")
	v.click("button[value=build]")
	v.want(v.text(), "queued", "It waits for a worker")
	v.open("/admin/builds")
	v.click("button[value=first]")
	v.click("button[value=stop]")
	v.want(eval[string](v, "document.querySelector('#builds ~ .scroll tbody tr').innerText"), "cancelled")
	v.click("button[value=go]")
	v.fill("#ban", "nobody-at-all")
	v.click("form:has(#ban) button")
	v.want(eval[string](v, "document.querySelector('[role=alert]').textContent"), "there is no such account")
	v.fill("#ban", "admin")
	v.click("form:has(#ban) button")
	v.want(v.text(), "Let them build again")
	v.look("admin-builds-banned")
	v.want(v.open("/builder"), "does not let you build here")
	v.open("/admin/builds")
	v.click("button[value=unban]")
	v.want(v.text(), "Everybody with an account may")
}

// registries: a password is stored, replaced and deleted, and no page has it again.
func (v *site) registries() {
	const secret = "hunter2-canary"
	v.open("/builder")
	v.click("a[href='/builder/registries']")
	v.want(v.text(), "No password is stored")
	store := func(registry, name string) {
		v.open("/builder/registries")
		v.fill("label input[name=registry]", registry)
		v.fill("input[name=username]", name)
		v.fill("input[name=password]", secret)
		v.click("button[value=set]")
		if page := eval[string](v, "document.documentElement.outerHTML + [...document.querySelectorAll('input')].map(i => i.value).join()"); strings.Contains(page, "canary") {
			v.t.Errorf("the page shows a password: %s", page)
		}
	}
	store("registry.example.org/path", hostile)
	v.want(v.text(), "HOST or HOST:PORT")
	v.want(eval[string](v, "document.querySelector('label input[name=registry]').value"), "registry.example.org/path")
	v.clean("registries with a fault")
	store("registry.example.org:5000", hostile)
	store("registry.example.org:5000", "ada"+hostile)
	store("second.example.org", "grace")
	v.want(v.text(), "registry.example.org:5000", "ada"+hostile, "second.example.org", "grace")
	if n := eval[int](v, "document.querySelectorAll('tbody tr').length"); n != 2 {
		v.t.Errorf("%d registries", n)
	}
	v.clean("registries")
	v.look("builder-registries")
	v.click("button[aria-label='Delete the password for registry.example.org:5000']")
	if text := v.text(); strings.Contains(text, "registry.example.org:5000") || !strings.Contains(text, "second.example.org") {
		v.t.Errorf("after one was deleted: %s", text)
	}
	v.click("button[aria-label='Delete the password for second.example.org']")
	v.want(v.text(), "No password is stored")
}

// others see nothing of a build (SC-159).
func (v *site) others(id string) {
	link := v.create("mallory")
	v.click("header form[action='/auth/logout'] button")
	for _, p := range []string{"/builder", "/builder/builds", "/builder/registries", "/builder/builds/" + id, "/builder/builds/" + id + "/live", "/admin/builds"} {
		v.open(p)
		v.want(eval[string](v, "location.pathname"), "/auth/login")
	}
	v.do(chromedp.Navigate(link))
	v.fill("input[name=password]", password)
	v.click("main button")
	for _, p := range []string{"/builder/builds/" + id, "/builder/builds/" + id + "/live", "/builder?from=" + id} {
		v.want(v.open(p), "There is nothing here")
	}
	v.want(v.open("/builder/builds"), "You have built nothing")
	v.want(v.open("/builder/registries"), "No password is stored")
	v.want(v.open("/admin/builds"), "not allowed")
	for _, path := range []string{"/builder/builds/" + id, "/admin/builds", "/builder"} {
		got := eval[int](v, `fetch("`+path+`", {method: "POST", body: new URLSearchParams({csrf: document.querySelector("input[name=csrf]").value, do: "cancel", id: "`+id+`"})}).then(r => r.status)`, chromedp.EvalAwaitPromise)
		if want := map[string]int{"/builder/builds/" + id: 404, "/admin/builds": 403, "/builder": 400}[path]; got != want {
			v.t.Errorf("POST %s: %d, want %d", path, got, want)
		}
	}
}

// create makes an account by the page and returns its link.
func (v *site) create(name string) string {
	v.t.Helper()
	v.open("/admin/users")
	v.do(chromedp.SendKeys(chromedp.CSS("input[name=name][required]:not([type=hidden])"), name))
	v.click("button[value=create]")
	m := eval[string](v, "[...document.querySelectorAll('main code, main textarea')].map(e => e.textContent).find(t => t.includes('/auth/setup')) || ''")
	if m == "" {
		v.t.Fatal("no link for the new account")
	}
	return m
}
