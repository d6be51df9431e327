// Package browser drives the pages of singularity-server in a headless Chromium:
// a server of its own on loopback, images pushed by the calls that clients make,
// and what people then see and click. It is a module of its own, so that nothing
// of it is a dependency of the programs.
//
// Screenshots go to the directory SCREENSHOTS, if it is set.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"singularity/pgp"
	"singularity/sif"
	"singularity/sign"
)

//go:embed testdata/axe.min.js
var axe string

// questions are those that pages ask before something is done for good.
var questions = []string{"Cancel this build?", "Delete the password for registry.example.org:5000?", "Delete the password for second.example.org?"}

const password = "correct horse battery"

// site is a server with a browser that looks at it.
type site struct {
	t     *testing.T
	url   string
	link  string // of the administrator's first log-in
	token string
	ctx   context.Context

	program, data, logged string // of the server

	quick bool // look at no more than that nothing of a stranger can run

	mu       sync.Mutex
	requests []string
	faults   []string // what the browser had to refuse, and errors of scripts
}

// start runs the server and waits for its address.
func start(t *testing.T) *site {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium on this machine")
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "server"), "./cmd/singularity-server")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the server: %v\n%s", err, out)
	}
	v := &site{t: t, program: filepath.Join(dir, "server"), data: filepath.Join(dir, "data")}
	v.serve()
	v.browse(chromium)
	return v
}

func (v *site) serve() {
	t := v.t
	cmd := exec.Command(v.program, "serve", "--watch-advisories", v.advisories(filepath.Dir(v.data)), "--insecure-http", "--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0", "--data", v.data, "--rate-search", "100000", "--rate-push", "100000", "--rate-key-add", "100000", "--rate-user", "100000", "--rate-anonymous", "100000", "--rate-login", "100000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	logged, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	v.logged, cmd.Stderr = logged.Name(), logged
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if text, err := os.ReadFile(logged.Name()); err == nil && t.Failed() {
			lines := strings.Split(string(text), "\n")
			t.Logf("the last lines of the server:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	lines := bufio.NewScanner(out)
	for v.link == "" && lines.Scan() {
		l := strings.TrimSpace(lines.Text())
		if rest, ok := strings.CutPrefix(l, "singularity-server at "); ok {
			v.url = rest
		}
		if strings.HasPrefix(l, "http") && strings.Contains(l, "/auth/setup") {
			v.link = l
		}
	}
	if v.link == "" || v.url == "" {
		t.Fatal("the server does not say how to log in")
	}
	go io.Copy(io.Discard, out)
}

func (v *site) browse(chromium string) {
	t := v.t
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocated, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocated)
	t.Cleanup(cancel)
	v.ctx = ctx
	v.do(chromedp.EmulateViewport(1280, 900))
	err := chromedp.Listen(ctx, func(ev any) {
		v.mu.Lock()
		defer v.mu.Unlock()
		switch e := ev.(type) {
		case *network.EventRequestWillBeSent:
			v.requests = append(v.requests, e.Request.URL)
		case *log.EventEntryAdded:
			// A page that is answered with a refusal is an error for the log too.
			if e.Entry.Source != log.EntrySourceNetwork && (e.Entry.Level == log.EntryLevelError || e.Entry.Source == log.EntrySourceSecurity) {
				v.faults = append(v.faults, e.Entry.URL+": "+e.Entry.Text)
			}
		case *runtime.EventExceptionThrown:
			v.faults = append(v.faults, fmt.Sprintf("%s: %s", e.ExceptionDetails.URL, e.ExceptionDetails.Text))
		case *page.EventJavascriptDialogOpening:
			if !slices.Contains(questions, e.Message) {
				v.faults = append(v.faults, "a dialog: "+e.Message)
			}
			go chromedp.Call(ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (v *site) do(steps ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	if err := chromedp.Do(v.ctx, steps...); err != nil {
		v.t.Fatal(err)
	}
}

func eval[T any](v *site, expression string, options ...chromedp.EvaluateOption) T {
	v.t.Helper()
	out, err := chromedp.Run(v.ctx, chromedp.Evaluate[T](expression, options...))
	if err != nil {
		v.t.Fatal(err)
	}
	return out
}

// open goes to a page and returns its text.
func (v *site) open(path string) string {
	v.t.Helper()
	v.do(chromedp.Navigate(v.url + path))
	return v.text()
}

func (v *site) text() string {
	v.t.Helper()
	return eval[string](v, "document.body.innerText")
}

// click presses what leads to another page, and waits for that.
func (v *site) click(selector string) {
	v.t.Helper()
	if _, err := chromedp.RunResponse(v.ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		v.t.Fatalf("%s: %v", selector, err)
	}
}

// press presses what changes the page that is open.
func (v *site) press(selector string) {
	v.t.Helper()
	v.do(chromedp.Click(chromedp.CSS(selector)))
}

func (v *site) fill(selector, text string) {
	v.t.Helper()
	v.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

func (v *site) want(text string, words ...string) {
	v.t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			v.t.Errorf("%s: no %q in\n%s", eval[string](v, "location.href"), w, text)
		}
	}
}

// look checks the page that is open, in light and dark: no violation of the rules
// of WCAG, nothing of a stranger that could run, and a picture.
func (v *site) look(name string) {
	v.t.Helper()
	v.clean(name)
	if v.quick {
		return
	}
	eval[any](v, axe+";0")
	for _, scheme := range []string{"light", "dark"} {
		_, err := chromedp.Call(v.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		if err != nil {
			v.t.Fatal(err)
		}
		type finding struct {
			ID    string
			Help  string
			Nodes []struct{ HTML, FailureSummary string }
		}
		// What is in the page is the same in the dark, but for its colours.
		rules := map[string]string{"light": "", "dark": `, runOnly: {type: "rule", values: ["color-contrast"]}`}[scheme]
		text := eval[string](v, `axe.run(document, {resultTypes: ["violations"]`+rules+`}).then(r => JSON.stringify(r.violations.map(x => ({ID: x.id, Help: x.help, Nodes: x.nodes.slice(0, 4).map(n => ({HTML: n.html, FailureSummary: n.failureSummary}))}))))`, chromedp.EvalAwaitPromise)
		var found []finding
		if err := json.Unmarshal([]byte(text), &found); err != nil {
			v.t.Fatal(err)
		}
		for _, f := range found {
			v.t.Errorf("%s, %s: %s: %s: %+v", name, scheme, f.ID, f.Help, f.Nodes)
		}
		v.picture(name + "-" + scheme)
	}
}

func (v *site) picture(name string) {
	v.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	b, err := chromedp.Run(v.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// call makes a call of the API with the token and returns the data.
func (v *site) call(method, path string, body any) map[string]any {
	v.t.Helper()
	text, ok := body.([]byte)
	if !ok {
		text, _ = json.Marshal(body)
	}
	req, err := http.NewRequest(method, v.url+path, bytes.NewReader(text))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+v.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	var out struct{ Data map[string]any }
	all, _ := io.ReadAll(res.Body)
	json.Unmarshal(all, &out)
	if res.StatusCode != 200 {
		v.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, all)
	}
	return out.Data
}

// push sends an image of an architecture to a container that is there.
func (v *site) push(container string, image []byte, arch, tag string) string {
	v.t.Helper()
	k := fmt.Sprint(v.call("GET", "/v1/containers/"+container, nil)["id"])
	sum := sha256.Sum256(image)
	hash := hex.EncodeToString(sum[:])
	id := fmt.Sprint(v.call("POST", "/v1/images", map[string]string{"hash": "sha256." + hash, "container": k})["id"])
	v.call("POST", "/v1/imagefile/"+id, image)
	v.call("POST", "/v2/tags/"+k, map[string]string{"Arch": arch, "Tag": tag, "ImageID": id})
	return "sha256." + hash
}

// hostile is what texts of strangers may hold (SC-149).
const hostile = `<script>document.title='owned'</script><img src=x onerror="document.title='owned'"><svg onload="document.title='owned'">`

// newImage makes an image with a definition, metadata and a signature object.
func newImage(t *testing.T, arch string, signed bool) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	definition := "Bootstrap: library\nFrom: alpine\n\n%labels\n    Author " + hostile + "\n"
	meta, _ := json.Marshal(map[string]any{"data": map[string]any{"attributes": map[string]any{"labels": map[string]string{"Author": hostile, "org.label-schema.name": "tools"},
		"environment": map[string]string{"90-environment.sh": "export A=1 " + hostile}, "runscript": "exec python \"$@\"", "helpfile": "Ask " + hostile}}})
	in := []sif.Input{{Type: sif.DataDefFile, Group: 1, Name: "definition", Data: strings.NewReader(definition)}, {Type: sif.DataJSON, Group: 1, Name: "inspect-metadata.json", Data: bytes.NewReader(meta)},
		{Type: sif.DataPartition, Group: 1, Name: "<b>fs</b>", Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: arch}.Extra(), Data: bytes.NewReader(bytes.Repeat([]byte(arch), 100_000))}}
	if signed {
		in = append(in, sif.Input{Type: sif.DataSignature, Link: 1, LinkIsGroup: true, Extra: sif.Signature{Hash: sif.HashSHA256, Entity: [20]byte{0xAB, 1}}.Extra(), Data: strings.NewReader("no signature")},
			sif.Input{Type: sif.DataGeneric, Name: "late", Data: bytes.NewReader(make([]byte, 90_000))})
	}
	if _, err := sif.Create(f, sif.CreateOptions{}, in...); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPages walks through the site as its first administrator, and as nobody.
func TestPages(t *testing.T) {
	v := start(t)
	v.want(v.open("/"), "No image for you to see yet", "singularity remote add")
	v.look("home-empty")
	v.logIn()
	v.makeToken()
	v.makeCollection()
	v.images()
	v.people()
	v.mine()
	v.keys()
	v.phone()
	v.anonymous()
	v.alone()
}

func (v *site) logIn() {
	v.do(chromedp.Navigate(v.link))
	v.look("setup")
	v.fill("input[name=password]", password)
	v.click("main button")
	v.want(v.text(), "Access tokens", "None yet")
	// Out, and in again by the password.
	v.click("header form[action='/auth/logout'] button")
	v.want(v.text(), "Log in")
	v.look("login")
	v.fill("input[name=name]", "admin")
	v.fill("input[name=password]", "not the password at all")
	v.click("main button.main")
	if !strings.Contains(eval[string](v, "document.querySelector('[role=alert]').textContent"), " ") {
		v.t.Error("a wrong password is not said to be one")
	}
	v.fill("input[name=password]", password)
	v.click("main button.main")
	v.want(v.text(), "Access tokens")
}

func (v *site) makeToken() {
	v.open("/auth/tokens")
	v.fill("section input[name=name]", "laptop <b>")
	v.do(chromedp.Click(chromedp.CSS("input[value='library:delete']")), chromedp.Click(chromedp.CSS("input[value='account:write']")), chromedp.Click(chromedp.CSS("input[value='runs:write']")), chromedp.Click(chromedp.CSS("input[value='admin']")))
	v.click("section[aria-labelledby=make] button.main")
	v.token = strings.TrimSpace(eval[string](v, "document.querySelector('textarea').value"))
	v.look("token")
	v.want(v.open("/auth/tokens"), "laptop <b>")
	if eval[bool](v, "!!document.querySelector('textarea')") {
		v.t.Error("a token is shown twice")
	}
	v.look("tokens")
	v.want(v.open("/auth/device"), "Code that the terminal shows")
	v.look("device")
}

func (v *site) makeCollection() {
	v.click("a[href='/new']")
	v.look("new-collection")
	v.fill("main input[name=name]", "tools")
	v.fill("main input[name=description]", "Tools of the site "+hostile)
	v.click("main button.main")
	v.want(v.text(), "tools", "Tools of the site <script>", "No container yet", "singularity push image.sif library://admin/tools")
	v.look("collection-empty")
	// Its documentation, with a preview first.
	v.click("main a[href='/edit/admin/tools']:not(.button)")
	v.fill("main textarea", "# House rules\n\nEvery image is *signed*.\n\n"+hostile)
	v.click("button[name=preview]")
	v.want(v.text(), "How it will look", "House rules")
	v.look("edit-collection")
	v.click("main button.main")
	v.want(v.text(), "House rules", "Every image is signed.")
	v.click("a[href='/new?in=admin/tools']")
	v.fill("main input[name=name]", "python")
	v.fill("main textarea", "# Use\n\n"+hostile+"\n\n* one\n* [bad](javascript:alert(1)) ![track](http://192.0.2.1/x.png)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
	v.click("main button.main")
	v.want(v.text(), "python", "No tag yet", "Use", "one")
	// A name that is taken is said to be, and nothing typed is lost.
	v.open("/new?in=admin/tools")
	v.fill("main input[name=name]", "python")
	v.click("main button.main")
	v.want(v.text(), "there is a container admin/tools/python already")
	// Edit, with a preview first.
	v.open("/edit/admin/tools/python")
	v.look("edit")
	v.fill("main input[name=description]", "The language")
	v.click("button[name=preview]")
	v.want(v.text(), "How it will look")
	v.click("main button.main")
	v.want(v.text(), "The language")
}

func (v *site) images() {
	v.push("admin/tools/python", newImage(v.t, "amd64", true), "amd64", "latest")
	hash := v.push("admin/tools/python", newImage(v.t, "arm64", false), "arm64", "latest")
	v.want(v.open("/library"), "python:latest", "amd64", "arm64", "signed")
	v.look("library")
	v.want(v.open("/library?q=python&arch=arm64"), "Found 1 image,")
	v.want(v.open("/library?q=python&signed=false"), "Found 1 image,", "arm64")
	v.want(v.open("/library?q=python&sort=size"), "Found 2 images,")
	v.look("search")
	v.want(v.open("/library?q=nothing-like-it"), "Found 0 images", "Nothing by that name")
	v.look("search-nothing")
	v.want(v.open("/library?encrypted=true"), "Nothing here for you to see with these filters")
	v.open("/library/admin/tools/python")
	v.look("container")
	if n := eval[int](v, "document.querySelectorAll('.markdown img, .markdown script, .markdown [onerror], .markdown a[href^=javascript]').length"); n != 0 {
		v.t.Errorf("%d elements that Markdown must not make", n)
	}
	v.click("main table a[href$='arch=amd64']")
	v.press("section[aria-label='What is known about it'] summary")
	v.want(v.text(), "Signed, which was not checked, not compared with advisories.", "AB01", "signature of objects 1, 2, 3", "in signature 4", "not signed", "Bootstrap: library", "<script>document.title='owned'</script>", "singularity pull library://admin/tools/python:latest")
	if n := eval[int](v, "document.querySelectorAll('.anatomy rect').length"); n != 14 {
		v.t.Errorf("the drawing has %d boxes, want that of the file, two for each of 5 objects, and a mark for each of 3 that are signed", n)
	}
	v.look("image")
	v.do(chromedp.EmulateViewport(390, 844))
	if over := eval[int](v, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		v.t.Errorf("on a phone the page of an image is %d pixels too wide", over)
	}
	v.look("image-phone")
	v.do(chromedp.EmulateViewport(1280, 900))
	v.want(v.open("/library/admin/tools/python:"+hash), "Signed by nobody, not compared with advisories.", "arm64")
	v.click("a[href^='/delete/']")
	v.want(v.text(), "1 image", "latest", "can be pulled no more")
	v.look("delete")
	v.click("main button.danger")
	if strings.Contains(v.text(), "arm64") {
		v.t.Error("a deleted image is listed")
	}
	// And back, with its tag.
	v.click("a[href^='/trash/']")
	v.want(v.text(), hash, "by admin")
	v.look("trash")
	v.click("main td button")
	v.want(v.text(), "arm64", "latest")
	v.want(v.open("/trash/admin/tools/python"), "Nothing was deleted here of late")
	v.open("/library/admin/tools/python")
	v.look("container-again")
	for _, p := range []string{"/", "/library/admin", "/library/admin/tools"} {
		v.open(p)
		v.look("place" + strings.ReplaceAll(p, "/", "-"))
	}
}

func (v *site) people() {
	v.want(v.open("/admin"), "Stored by 1 owner", "Free on the disk", "image.restore", "What happened last")
	v.look("admin")
	v.open("/admin/storage")
	v.click("button[value=dry]")
	v.want(v.text(), "It would free 0 bytes in 0 contents", "Nobody has asked for one yet")
	v.click("button[value=gc]")
	v.want(v.text(), "It freed 0 bytes", "gc.run")
	v.fill("input[name=mib]", "5000")
	v.click("button[value=quota]")
	v.want(v.text(), "4.9 GiB")
	v.look("storage")
	v.open("/admin/users")
	v.fill("main form input[name=realname]", "Alice "+hostile)
	v.do(chromedp.SendKeys(chromedp.CSS("input[name=name][required]:not([type=hidden])"), "alice"))
	v.click("button[value=create]")
	v.want(v.text(), "One-time link for alice", "/auth/setup")
	v.look("users")
	v.click("button[aria-label='Disable alice']")
	v.want(v.text(), "disabled")
	v.click("button[aria-label='Enable alice']")
	if strings.Contains(v.text(), "Enable") {
		v.t.Error("alice is still disabled")
	}
	v.open("/members/admin/tools")
	v.fill("main input[name=name]:not([type=hidden])", "nobody-at-all")
	v.click("main button.main")
	v.want(v.text(), "there is no account")
	v.fill("main input[name=name]:not([type=hidden])", "alice")
	v.click("main button.main")
	v.want(eval[string](v, "document.querySelector('tbody').innerText"), "alice", "reader", "no end")
	v.look("members")
	v.want(v.open("/admin/audit"), "token.create", "grant.set", "collection.create")
	v.look("audit")
}

// mine walks through what is the administrator's own: account, a group, a robot,
// set-up, status.
func (v *site) mine() {
	v.want(v.open("/account"), "In your library, of 4.9 GiB", "You are in no group", "No robot")
	v.look("account-empty")
	v.press("#groups ~ details summary")
	v.fill("input[name=name]", "lab")
	v.fill("input[name=description]", "The laboratory "+hostile)
	v.click("button[value=group]")
	v.want(v.text(), "lab", "The laboratory <script>", "admin", "owner")
	v.fill("main input[name=name]:not([type=hidden])", "nobody-at-all")
	v.click("main button.main")
	v.want(v.text(), "there is no such account")
	v.fill("main input[name=name]:not([type=hidden])", "alice")
	v.click("main button.main")
	v.want(v.text(), "alice", "reader")
	v.look("group")
	v.open("/account")
	v.press("#robots ~ details summary")
	v.fill("#robots ~ details input[name=name]", "pipeline")
	v.fill("#robots ~ details input[name=description]", "Builds at night "+hostile)
	v.click("button[value=robot]")
	v.want(v.text(), "pipeline", "Builds at night <script>", "No token yet")
	v.fill("main input[name=name]:not([type=hidden])", "nightly")
	v.do(chromedp.Click(chromedp.CSS("input[value='library:read']")))
	v.click("button[value=token]")
	if token := eval[string](v, "document.querySelector('textarea').value"); !strings.HasPrefix(token, "sgt_") {
		v.t.Errorf("the robot's token is %.20q", token)
	}
	v.look("robot")
	v.click("button[aria-label='Revoke nightly']")
	v.want(v.text(), "revoked")
	v.want(v.open("/account"), "lab", "pipeline")
	v.look("account")
	v.want(v.open("/keystore/mine"), "You have published no key")
	v.look("mykeys-empty")
	v.fill("main textarea", "no key at all")
	v.click("button[value=add]")
	v.want(v.text(), "the key is not accepted")
	v.want(v.open("/docs"), "singularity remote add --no-login --insecure", "library://admin/default", "podman login --username admin")
	v.look("docs")
	v.want(v.open("/docs/api"), "/v1/containers/{entity}/{collection}/{container}", "library:delete")
	v.look("api")
	v.want(v.open("/status"), "Everything answers", "Library", "transparency log")
	v.look("status")
}

// phone looks at pages as wide as a phone: nothing sticks out.
func (v *site) phone() {
	v.do(chromedp.EmulateViewport(390, 844))
	for _, p := range []string{"/", "/library", "/library/admin/tools", "/library/admin/tools/python", "/library/admin/tools/python:signed", "/keystore", "/account", "/auth/tokens", "/admin", "/admin/users", "/admin/storage", "/admin/builds", "/builder", "/builder/builds", "/builder/registries", "/docs", "/docs/api", "/status", "/security", "/security/running", "/security/rules", "/security/rules/admin/tools", "/groups/lab", "/robots/pipeline", "/edit/admin/tools/python", "/members/admin/tools"} {
		v.open(p)
		if over := eval[int](v, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			v.t.Errorf("on a phone %s is %d pixels too wide", p, over)
		}
		v.picture("phone" + strings.NewReplacer("/", "-", ":", "-").Replace(p))
	}
	v.do(chromedp.EmulateViewport(1280, 900))
}

func (v *site) keys() {
	v.want(v.open("/keystore"), "Keys", "What a key is for")
	v.look("keys")
	v.want(v.open("/keystore?q=nobody@example.org"), "No key is known by that")
	// Somebody's key, and an image that it signed.
	key, err := pgp.Generate(pgp.Options{Name: "Alice " + strings.ReplaceAll(strings.ReplaceAll(hostile, "<", "&lt"), ">", ""), Email: "alice@example.org", Bits: 2048, Time: time.Now()})
	if err != nil {
		v.t.Fatal(err)
	}
	public, err := key.Public()
	if err != nil {
		v.t.Fatal(err)
	}
	armored, err := public.Armor()
	if err != nil {
		v.t.Fatal(err)
	}
	v.form("/pks/add", url.Values{"keytext": {string(armored)}})
	print := key.Fingerprint().String()
	v.push("admin/tools/python", signed(v.t, key), "amd64", "signed")
	v.want(v.open("/library/admin/tools/python:signed"), "Signed by somebody whose name is not known (fingerprint "+print+"), unchanged since", "in signature")
	v.call("PUT", "/v1/keys/"+print+"/addresses/alice@example.org", nil)
	v.want(v.open("/library/admin/tools/python:signed"), "Signed by \"Alice", "unchanged since")
	v.look("image-signed")
	v.click("section[aria-label='What is known about it'] p a[href^='/keystore/']")
	v.want(v.text(), "In use", "python:signed", "singularity key pull "+print, "address known to be theirs")
	v.look("key")
	v.want(v.open("/keystore?q=0x"+print), "Found 1 key.")
	v.look("keys-found")
	v.want(v.open("/keystore/AB01000000000000000000000000000000000000"), "There is nothing here")
}

// signed makes an image with a good signature.
func signed(t *testing.T, key *pgp.Key) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "signed.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := newImage(t, "amd64", false)
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := sign.Sign(t.Context(), f, int64(len(b)), sign.Request{Signer: sign.OpenPGP(key, nil, time.Now()), Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(f.Name()); err != nil {
		t.Fatal(err)
	}
	return b
}

// form sends a form with the token.
func (v *site) form(path string, values url.Values) {
	v.t.Helper()
	req, err := http.NewRequest("POST", v.url+path, strings.NewReader(values.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+v.token)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); res.StatusCode != 200 {
		v.t.Fatalf("%s: %d %s", path, res.StatusCode, text)
	}
}

// anonymous sees what is public alone, and is led to the log-in.
func (v *site) anonymous() {
	v.open("/edit/admin/tools")
	v.do(chromedp.Click(chromedp.CSS("input[name=private]")))
	v.click("main button.main")
	v.want(v.text(), "private")
	v.click("header form[action='/auth/logout'] button")
	for _, p := range []string{"/", "/library", "/library/admin", "/library?q=python", "/library/admin/tools", "/library/admin/tools/python", "/library/admin/tools/python:latest"} {
		if text := v.open(p); strings.Contains(text, "Tools of the site") || strings.Contains(text, "The language") {
			v.t.Errorf("%s shows to everybody what is private", p)
		}
	}
	v.look("not-found")
	v.open("/admin")
	v.want(eval[string](v, "location.pathname+location.search"), "/auth/login?next=%2Fadmin")
}

// alone: the pages asked nobody else for anything, and no script of a stranger ran.
func (v *site) alone() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.requests) < 40 {
		v.t.Errorf("%d requests were seen: too few to say anything", len(v.requests))
	}
	for _, f := range v.faults {
		v.t.Errorf("the browser refused something, or a script failed: %s", f)
	}
	for _, r := range v.requests {
		if !strings.HasPrefix(r, v.url+"/") && !strings.HasPrefix(r, "data:") {
			v.t.Errorf("the pages asked for %s", r)
		}
	}
}

// TestFirstPage: the first page with all that belongs to it is small.
func TestFirstPage(t *testing.T) {
	v := start(t)
	v.open("/")
	type entry struct {
		Name string
		Size int
	}
	list := eval[[]entry](v, `[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].map(e => ({Name: e.name, Size: e.encodedBodySize + 300}))`)
	total := 0
	for _, e := range list {
		total += e.Size
	}
	if len(list) < 3 || total > 100_000 {
		t.Errorf("%d bytes in %d answers: %v", total, len(list), list)
	}
	t.Logf("first page: %d bytes in %d answers", total, len(list))
}
