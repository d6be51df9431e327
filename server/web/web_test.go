package web

import (
	"strings"
	"testing"

	"golang.org/x/net/html"

	"singularity/api"
)

// FuzzRender: whatever somebody writes as documentation, what comes out has only
// the elements and addresses that are let through (SC-149).
func FuzzRender(f *testing.F) {
	for _, s := range []string{"# a\n\n* b", "<script>x</script>", "[a](javascript:alert(1))", "[a](JAVA\tscript:alert(1))", "<svg onload=x>", "![x](http://192.0.2.1/a.png)", "<a href=\"data:text/html,x\">", "| a |\n|---|\n| <img onerror=x> |",
		"```\n</code></pre><script>\n```", "<http://a/?\"onmouseover=x>", "[x]: javascript:a\n[x]", "<math><mtext></form><form><mglyph><style></math><img src onerror=x>"} {
		f.Add(s)
	}
	allowed := map[string]bool{"h3": true, "h4": true, "h5": true, "h6": true, "p": true, "br": true, "hr": true, "em": true, "strong": true, "del": true, "a": true, "code": true, "pre": true, "blockquote": true,
		"ul": true, "ol": true, "li": true, "table": true, "thead": true, "tbody": true, "tr": true, "th": true, "td": true}
	f.Fuzz(func(t *testing.T, source string) {
		out, err := render(source)
		if err != nil {
			t.Fatal(err)
		}
		z := html.NewTokenizer(strings.NewReader(string(out)))
		for z.Next() != html.ErrorToken {
			k := z.Token()
			if k.Type != html.StartTagToken && k.Type != html.SelfClosingTagToken && k.Type != html.EndTagToken {
				continue
			}
			if !allowed[k.Data] {
				t.Fatalf("element %q in %q", k.Data, out)
			}
			for _, a := range k.Attr {
				switch a.Key {
				case "rel":
				case "href":
					if v := strings.ToLower(a.Val); !strings.HasPrefix(v, "http:") && !strings.HasPrefix(v, "https:") && !strings.HasPrefix(v, "mailto:") {
						t.Fatalf("address %q in %q", a.Val, out)
					}
				default:
					t.Fatalf("attribute %q in %q", a.Key, out)
				}
			}
		}
	})
}

func TestRender(t *testing.T) {
	out, err := render("# Use\n\nSee [docs](https://example.org) *now*.\n\n| a |\n|---|\n| 1 |\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<h3>Use</h3>", `href="https://example.org"`, "nofollow", "<em>now</em>", "<td>1</td>"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add("info:1:1\npub:AB01:22:256:1700000000:1800000000:r\nuid:Alice%20%3Ca%40example.org%3E:1700000000::\n")
	f.Add("uid:x\npub:\npub:a:b:c:d:e:f\nuid:%zz:")
	f.Fuzz(func(t *testing.T, text string) { parseIndex(text) })
}

func TestParseIndex(t *testing.T) {
	list := parseIndex("info:1:2\npub:AB01:22:256:1700000000::\nuid:Alice%20%3Ca%40b%3E:1::\nuid:Second:1::\npub:CD02:1:2048:1700000000:1700000001:re\n")
	if len(list) != 2 || len(list[0].UserIDs) != 2 || list[0].UserIDs[0] != "Alice <a@b>" || list[0].Revoked || !list[0].Expires.IsZero() || !list[1].Revoked || !list[1].Expired {
		t.Errorf("%+v", list)
	}
}

func TestDraw(t *testing.T) {
	var i api.Inspection
	i.Image.Size = 1000
	i.Objects = []api.SIFObject{{ID: 1, Type: "FS", Offset: 100, Size: 500}, {ID: 2, Type: "Signature", Offset: 600, Size: 1, Covers: []uint32{1, 9}}, {ID: 3, Type: "Generic/Raw", Offset: 990, Size: 10}}
	a := draw(i)
	if b := a.Boxes[0]; b.X != 100 || b.Width != 500 || b.Class != "o-covered" {
		t.Errorf("the file system: %+v", b)
	}
	if len(a.Parts) != 3 || len(a.Leads) != 3 || a.Leads[0].X1 != 350 {
		t.Errorf("the objects: %+v, %+v", a.Parts, a.Leads)
	}
	if m := a.Marks; len(m) != 1 || m[0].X != a.Parts[0].X || m[0].Width != a.Parts[0].Width {
		t.Errorf("the signature: %+v", m)
	}
	if a.Open != 1 {
		t.Errorf("%d objects are open, want 1", a.Open)
	}
	for n, want := range []string{"in signature 2", "signature of objects 1, 9", "not signed"} {
		if a.Lines[n].Coverage != want {
			t.Errorf("%d: %q, want %q", n, a.Lines[n].Coverage, want)
		}
	}
	for _, b := range append(append(a.Boxes, a.Parts...), a.Marks...) {
		if b.X < 0 || b.X+b.Width > drawnWidth+.001 || b.Width < minWidth || b.Y+b.Height > float64(a.Height) {
			t.Errorf("a box outside: %+v", b)
		}
	}
	draw(api.Inspection{Objects: []api.SIFObject{{ID: 1, Type: "Signature", Covers: []uint32{7}, Offset: -5, Size: 1 << 62}}})
	many := api.Inspection{Objects: make([]api.SIFObject, 200)}
	if a := draw(many); len(a.Parts) != 0 || a.Height != barHeight {
		t.Errorf("%d objects are spread", len(a.Parts))
	}
}

// TestTrust: a name counts only if it is proven, and a good signature of a key
// that was revoked is not taken for one.
func TestTrust(t *testing.T) {
	var k key
	for _, u := range []struct {
		Text            string
		Revoked, Proven bool
	}{{"Mallory <root@example.org>", false, false}, {"Old <old@example.org>", true, true}, {"Alice <alice@example.org>", false, true}} {
		k.UserIDs = append(k.UserIDs, u)
	}
	if got := k.provenName(); got != "Alice <alice@example.org>" {
		t.Errorf("the proven name is %q", got)
	}
	i := api.Inspection{Image: api.Image{Fingerprints: []string{"AB"}}, Objects: []api.SIFObject{{Type: "Signature", Signer: "ab"}, {Type: "Signature", Signer: "CD"}, {Type: "Signature"}, {Type: "Signature", Signer: "CD"}}}
	list, unnamed := signersOf(i)
	if len(list) != 2 || !list[0].Checked || list[1].Checked || !unnamed {
		t.Errorf("%+v %v", list, unnamed)
	}
	if got := groups("ABCDEF0123"); got != "ABCD EF01 23" {
		t.Errorf("groups %q", got)
	}
}

// TestPath: parts from outside stay parts.
func TestPath(t *testing.T) {
	for part, want := range map[string]string{"a/b": "/v1/a%2Fb", "..": "/v1/%2E%2E", "a?b#c": "/v1/a%3Fb%23c"} {
		if got := path("/v1/", part); got != want {
			t.Errorf("%q: %q, want %q", part, got, want)
		}
	}
}
