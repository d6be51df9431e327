package browser

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// tabTo presses the tabulator until what is wanted has the focus. The focus is to
// be seen wherever it is on the way.
func (v *site) tabTo(selector string) {
	v.t.Helper()
	for range 120 {
		v.do(chromedp.KeyEvent(kb.Tab))
		type place struct {
			Here, Seen bool
			What       string
		}
		p := eval[place](v, `(() => {
			const e = document.activeElement, s = getComputedStyle(e), a = getComputedStyle(e, "::after");
			const outlined = s => s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0;
			return {Here: e.matches(`+"`"+selector+"`"+`), Seen: e === document.body || outlined(s) || outlined(a), What: e.outerHTML.slice(0, 120)};
		})()`)
		if !p.Seen {
			v.t.Errorf("the focus cannot be seen on %s", p.What)
		}
		if p.Here {
			return
		}
	}
	v.t.Fatalf("%s: no tabulator leads to %s", eval[string](v, "location.href"), selector)
}

// enter presses the key that opens another page.
func (v *site) enter() {
	v.t.Helper()
	if _, err := chromedp.RunResponse(v.ctx, chromedp.KeyEvent(kb.Enter)); err != nil {
		v.t.Fatal(err)
	}
}

// TestKeyboard goes from a search to an image, copies the command to pull it, and
// makes a token, without a mouse.
func TestKeyboard(t *testing.T) {
	v := start(t)
	v.quick = true
	v.logIn()
	v.makeToken()
	v.makeCollection()
	v.push("admin/tools/python", newImage(t, "amd64", true), "amd64", "latest")
	for _, p := range []string{"clipboard-read", "clipboard-write"} {
		if _, err := chromedp.CallBrowser(v.ctx, browser.SetPermission, browser.SetPermissionParams{Permission: &browser.PermissionDescriptor{Name: p}, Setting: browser.PermissionSettingGranted}); err != nil {
			t.Fatal(err)
		}
	}
	v.open("/status")
	// The first place leads past the navigation.
	v.do(chromedp.KeyEvent(kb.Tab))
	if got := eval[string](v, "document.activeElement.textContent"); got != "Skip to the content" {
		t.Errorf("the first place for the focus is %q", got)
	}
	v.do(chromedp.KeyEvent("/"), chromedp.KeyEvent("python"))
	v.enter()
	v.want(v.text(), "Found 1 image,")
	v.tabTo("main a[href*='python:latest']")
	v.enter()
	v.want(v.text(), "python:latest")
	v.tabTo(".command.prompt button")
	v.do(chromedp.KeyEvent(" "))
	v.until("document.activeElement.textContent === 'Copied'")
	if got := eval[string](v, "navigator.clipboard.readText()", chromedp.EvalAwaitPromise); got != "singularity pull library://admin/tools/python:latest" {
		t.Errorf("the clipboard has %q", got)
	}
	v.tabTo("summary")
	v.do(chromedp.KeyEvent(" "))
	v.until("document.activeElement.parentElement.open")
	v.open("/")
	v.tabTo("header a[href='/account']")
	v.enter()
	v.tabTo("main a[href='/auth/tokens']")
	v.enter()
	v.tabTo("section[aria-labelledby=make] input[name=name]")
	v.do(chromedp.KeyEvent("by keyboard"))
	v.tabTo("input[value='library:delete']")
	v.do(chromedp.KeyEvent(" "))
	v.tabTo("section[aria-labelledby=make] button.main")
	v.enter()
	v.want(v.text(), "The new token", "by keyboard")
	if got := eval[string](v, "document.querySelector('textarea').value"); !strings.HasPrefix(got, "sgt_") {
		t.Errorf("the token is %.20q", got)
	}
	v.alone()
}

// until waits for what the page does by itself.
func (v *site) until(expression string) {
	v.t.Helper()
	if _, err := chromedp.Run(v.ctx, chromedp.Poll[bool](expression)); err != nil {
		v.t.Fatalf("%s: %v", expression, err)
	}
}

// TestWithoutScripts: all can be read and done without them, but that copying is
// by hand.
func TestWithoutScripts(t *testing.T) {
	v := start(t)
	v.quick = true
	// There is one script, and the policy lets no other run.
	blocked := network.SetBlockedURLsParams{URLPatterns: []*network.BlockPattern{{URLPattern: v.url + "/static/page.js*", Block: true}}}
	if _, err := chromedp.Call(v.ctx, network.SetBlockedURLs, blocked); err != nil {
		t.Fatal(err)
	}
	v.logIn()
	v.makeToken()
	v.makeCollection()
	v.push("admin/tools/python", newImage(t, "amd64", true), "amd64", "latest")
	v.want(v.open("/library?q=python"), "Found 1 image,")
	v.want(v.open("/library/admin/tools/python"), "Documentation", "latest")
	v.want(v.open("/library/admin/tools/python:latest"), "singularity pull library://admin/tools/python:latest", "signature of objects 1, 2, 3", "Bootstrap: library")
	v.press("section[aria-label='Use it'] summary")
	v.want(v.text(), "srun singularity run", "oras://")
	if n := eval[int](v, "document.querySelectorAll('.copy').length"); n != 0 {
		t.Errorf("%d buttons are there that do nothing", n)
	}
	v.want(v.open("/keystore"), "What a key is for")
	v.want(v.open("/docs"), "singularity remote login")
	v.want(v.open("/status"), "Everything answers")
	v.want(v.open("/admin"), "Free on the disk")
	v.picture("without-scripts")
}
