package trustline

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var day = time.Date(2026, 11, 26, 23, 30, 0, 0, time.FixedZone("x", -3600))

func ExampleFacts() {
	f := Facts{Signature: Good, Signer: "Alice <alice@example.org>", Fingerprint: "8883491f4268f173c6e5dc49edece4f3f38d871e", Objects: 5, Since: day,
		Trust: Trusted, Policy: "cluster", Advisories: &Advisories{High: 2, Low: 1, AsOf: day}}
	fmt.Println(f.Line())
	fmt.Println((&Facts{}).Line())
	// Output:
	// Signed by "Alice <alice@example.org>" (fingerprint 8883491F4268F173C6E5DC49EDECE4F3F38D871E), trusted by site policy "cluster", unchanged since 2026-11-27, 2 high and 1 low advisories as of 2026-11-27.
	// Signed by nobody, not compared with advisories.
}

func TestWords(t *testing.T) {
	print := "8883491F4268F173C6E5DC49EDECE4F3F38D871E"
	one := &Advisories{Critical: 1, AsOf: day}
	for _, c := range []struct {
		f    Facts
		want string
	}{
		{Facts{Signature: Unchecked, Advisories: one}, `Signed, which was not checked, 1 critical advisory as of 2026-11-27.`},
		{Facts{Signature: Unknown, Fingerprint: print, Advisories: &Advisories{}}, `Signed by no key that is known here (it names ` + print + `), no known advisories as of an unknown date.`},
		{Facts{Signature: Unknown, Trust: Refused, Policy: "all", Advisories: one}, `Signed by no key that is known here, not trusted by site policy "all", 1 critical advisory as of 2026-11-27.`},
		{Facts{Signature: Invalid, Fingerprint: print}, `Signed with a signature that is not valid (it names ` + print + `), not compared with advisories.`},
		{Facts{Signature: Changed, Fingerprint: print, Signer: "A"}, `Changed after it was signed by "A" (fingerprint ` + print + `), not compared with advisories.`},
		{Facts{Signature: Revoked, Fingerprint: print, Signer: "A", Since: day}, `Signed by "A" (fingerprint ` + print + `), a key that was revoked, unchanged since 2026-11-27, not compared with advisories.`},
		{Facts{Signature: Good, Fingerprint: print, Others: 2, Objects: 4, Open: 1, Since: day, Trust: Refused}, `Signed by somebody whose name is not known (fingerprint ` + print + `) and by 2 other keys, not trusted by the keyrings of this host, 1 of 4 objects not signed, unchanged since 2026-11-27, not compared with advisories.`},
		{Facts{Signature: Good, Builder: "b1", Reproduced: true, Advisories: &Advisories{Critical: 1, High: 2, Medium: 3, Low: 4, Unrated: 5, AsOf: day, Old: true, Partial: true}}, `Signed with a key file or certificate, unchanged since an unknown date, built reproducibly by "b1", 1 critical, 2 high, 3 medium, 4 low and 5 unrated advisories as of 2026-11-27, which is too long ago, with packages that could not be read.`},
	} {
		if got := c.f.Line().String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// TestHostileNames: a name can neither drive a terminal nor go on in our words.
func TestHostileNames(t *testing.T) {
	hostile := "Alice\" (fingerprint 00), trusted by site policy \"x\x1b[2J\u202e\n" + strings.Repeat("ä", 200)
	f := Facts{Signature: Good, Signer: hostile, Fingerprint: "ab\x1b</code>12", Trust: Trusted, Policy: hostile, Builder: hostile}
	line := f.Line().String()
	if strings.ContainsAny(line, "\x1b\n\u202e<") || len(line) > 1200 {
		t.Errorf("got %q", line)
	}
	if strings.Count(line, `Alice\" (fingerprint`) != 3 || !strings.Contains(line, "(fingerprint ABCDE12)") {
		t.Errorf("got %q", line)
	}
}

// TestSound: what looks good in a page is good in every part.
func TestSound(t *testing.T) {
	for _, f := range []Facts{{}, {Signature: Revoked}, {Signature: Good, Objects: 2, Open: 1}, {Signature: Good, Trust: Refused}, {Signature: Changed, Trust: Trusted}} {
		if f.Sound() {
			t.Errorf("%+v passes for sound", f)
		}
	}
	if f := (Facts{Signature: Good}); !f.Sound() {
		t.Errorf("%+v does not", f)
	}
}
