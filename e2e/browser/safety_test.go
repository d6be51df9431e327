package browser

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"singularity/pgp"
)

// clean: the page that is open has no script and no style of its own, no attribute
// that runs, nothing from elsewhere and no address that runs.
func (v *site) clean(name string) {
	v.t.Helper()
	found := eval[[]string](v, `(() => {
		const bad = [];
		for (const e of document.querySelectorAll("*")) {
			if (e.tagName === "SCRIPT" && !(e.src.startsWith(location.origin + "/static/") && !e.textContent)) bad.push("script: " + e.outerHTML);
			if (["STYLE", "IFRAME", "OBJECT", "EMBED", "IMG", "BASE", "FRAME", "AUDIO", "VIDEO", "MATH", "TEMPLATE", "MARQUEE"].includes(e.tagName)) bad.push("element: " + e.outerHTML);
			if (e.tagName === "META" && e.httpEquiv) bad.push("meta: " + e.outerHTML);
			for (const a of e.attributes) {
				if (/^on/i.test(a.name) || a.name === "style" || a.name === "srcdoc") bad.push("attribute: " + a.name + "=" + a.value);
				if (["href", "src", "action", "formaction", "xlink:href"].includes(a.name) && /^\s*(javascript|data|vbscript)\s*:/i.test(a.value)) bad.push("address: " + a.value);
			}
			if (e.tagName === "FORM" && new URL(e.action).origin !== location.origin) bad.push("form: " + e.action);
		}
		if (window.xss || document.title.includes("owned")) bad.push("a script of a stranger ran");
		return bad.map(b => b.slice(0, 300));
	})()`)
	for _, f := range found {
		v.t.Errorf("%s: %s", name, f)
	}
}

// corpus is what strangers write to make a page do something (SC-149): each ends
// contexts that a text may stand in.
var corpus = []string{
	`<script>window.xss=1</script>`, `<ScRiPt>window.xss=1</sCrIpT>`, `<img src=x onerror=window.xss=1>`, `<svg/onload=window.xss=1>`, `<svg><script>window.xss=1</script></svg>`,
	`"><script>window.xss=1</script>`, `'><img src=x onerror=window.xss=1>`, `" autofocus onfocus="window.xss=1`, `' onmouseover='window.xss=1`, `</textarea><script>window.xss=1</script>`,
	`</title><script>window.xss=1</script>`, `</script><script>window.xss=1</script>`, `--><script>window.xss=1</script>`, `<iframe srcdoc="<script>parent.xss=1</script>">`, `<iframe src="javascript:parent.xss=1">`,
	`<a href="javascript:window.xss=1">x</a>`, `[x](javascript:window.xss=1)`, `[x](JaVaScRiPt&colon;window.xss=1)`, `[x](data:text/html;base64,PHNjcmlwdD4=)`, `<javascript:window.xss=1>`,
	`![x](http://192.0.2.1/x.png)`, `![x" onerror="window.xss=1](x)`, `<style>*{background:url(http://192.0.2.1/)}</style>`, `<link rel=stylesheet href=http://192.0.2.1/>`, `<base href=http://192.0.2.1/>`,
	`<meta http-equiv=refresh content="0;url=http://192.0.2.1/">`, `<form action=http://192.0.2.1/><input type=submit>`, `<math><mtext></form><form><mglyph><style></math><img src onerror=window.xss=1>`,
	`<noscript><p title="</noscript><img src=x onerror=window.xss=1>">`, `<details open ontoggle=window.xss=1>`, `<video><source onerror=window.xss=1>`, `<object data="javascript:window.xss=1">`,
	`{{.CSRF}}{{printf "%s" .}}`, "`${window.xss=1}`", `&lt;script&gt;window.xss=1&lt;/script&gt;`, `&#60;script&#62;window.xss=1&#60;/script&#62;`, `%3Cscript%3Ewindow.xss=1%3C/script%3E`, "\u202e<script>window.xss=1</script>",
	"<scr\u0000ipt>window.xss=1</script>", "```\n</code></pre><script>window.xss=1</script>\n```", "| a |\n|---|\n| <img src=x onerror=window.xss=1> |", "[x]: javascript:window.xss=1\n[x]", `<x onclick=window.xss=1 style=position:fixed;inset:0>x`,
}

// TestHostile puts the corpus into every text that people write and looks at every
// page that shows one (SC-149).
func TestHostile(t *testing.T) {
	v := start(t)
	v.quick = true
	v.logIn()
	v.makeToken()
	entity := fmt.Sprint(v.call("POST", "/v1/entities", map[string]string{"name": "admin"})["id"])
	print, key := hostileKey(t)
	v.form("/pks/add", url.Values{"keytext": {key}})
	pages := []string{"/", "/library", "/library/admin", "/account", "/auth/tokens", "/admin", "/admin/users", "/admin/storage", "/admin/audit", "/keystore/mine", "/keystore/" + print, "/keystore?q=0x" + print}
	image := newImage(t, "amd64", true)
	for n, text := range corpus {
		name, all := fmt.Sprintf("c%d", n), clip(text, 490)
		c := fmt.Sprint(v.call("POST", "/v1/collections", map[string]string{"name": name, "entity": entity, "description": printable(all)})["id"])
		v.call("PATCH", "/v1/collections/admin/"+name, map[string]string{"fullDescription": strings.ReplaceAll(text, "\x00", "")})
		v.call("POST", "/v1/containers", map[string]string{"name": "k", "collection": c, "description": printable(all), "fullDescription": strings.ReplaceAll(text, "\x00", "")})
		v.call("PATCH", "/v1/entities/admin", map[string]string{"description": printable(all)})
		v.call("POST", "/v1/users/admin/tokens", map[string]any{"name": printable(clip(text, 90)), "scopes": []string{"library:read"}, "days": 1})
		v.call("POST", "/v1/groups", map[string]string{"name": "g" + name, "description": printable(clip(text, 150))})
		v.call("POST", "/v1/robots", map[string]string{"name": "r" + name, "description": printable(clip(text, 150))})
		v.call("POST", "/v1/admin/users", map[string]string{"name": "u" + name, "realName": printable(clip(text, 150))})
		// Lists show them all; what is alone on its page is looked at in turn.
		q := url.QueryEscape(text)
		alone := []string{"/library?q=x" + q + "&arch=" + q + "&sort=" + q, "/keystore?q=x" + q, "/admin/audit?field=actor&value=" + q, "/auth/device?code=" + q, "/new?in=" + q, "/groups/g" + name, "/robots/r" + name}
		pages = append(pages, "/library/admin/"+name+"/k", "/edit/admin/"+name, alone[n%len(alone)], alone[(n+3)%len(alone)])
	}
	v.push("admin/c0/k", image, "amd64", "latest")
	pages = append(pages, "/library/admin/c0/k:latest", "/library?q=latest", "/members/admin/c0", "/trash/admin/c0/k")
	v.strangeBrowsers()
	for _, p := range pages {
		v.open(p)
		v.clean(p)
	}
	v.policy(pages)
	v.alone()
}

// printable leaves out what descriptions do not take.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x202e {
			return ' '
		}
		return c
	}, s)
}

func clip(s string, n int) string { return strings.ToValidUTF8(s[:min(n, len(s))], "") }

// hostileKey makes a key whose name is no name.
func hostileKey(t *testing.T) (string, string) {
	t.Helper()
	key, err := pgp.Generate(pgp.Options{Name: `"onfocus="window.xss=1" autofocus '&lt;script&gt;`, Email: "x@example.org", Bits: 2048, Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	armored, err := public.Armor()
	if err != nil {
		t.Fatal(err)
	}
	return key.Fingerprint().String(), string(armored)
}

// strangeBrowsers logs the administrator in with browsers that call themselves what
// is in the corpus: the page of tokens lists them. A log-in costs time by design, so
// some are enough.
func (v *site) strangeBrowsers() {
	for _, text := range corpus[:10] {
		jar, _ := cookiejar.New(nil)
		req, err := http.NewRequest("POST", v.url+"/auth/login", strings.NewReader(url.Values{"name": {"admin"}, "password": {password}}.Encode()))
		if err != nil {
			v.t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", v.url)
		req.Header.Set("User-Agent", strings.TrimSpace(printable(text)))
		res, err := (&http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
		if err != nil {
			v.t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusSeeOther {
			v.t.Fatalf("a log-in with the browser %q: %d", text, res.StatusCode)
		}
	}
}

// policy: every page says to the browser that nothing but our files may run, and
// is not kept or shown inside another site's.
func (v *site) policy(pages []string) {
	want := map[string]string{"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store"}
	for _, p := range pages {
		req, err := http.NewRequest("GET", v.url+p, nil)
		if err != nil {
			v.t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		res, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
		if err != nil {
			v.t.Fatal(err)
		}
		res.Body.Close()
		if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") || res.StatusCode == http.StatusSeeOther {
			continue
		}
		for name, value := range want {
			if got := res.Header.Get(name); got != value {
				v.t.Errorf("%.80s: %s is %q, want %q", p, name, got, value)
			}
		}
	}
}
