// Package trustlinetest makes facts about many different images, for tests that
// the same ones are said in the same words everywhere.
package trustlinetest

import (
	"fmt"
	"time"

	"singularity/trustline"
)

// names are of people, of none, and of those who write what they should not.
var names = [...]string{"", "Alice <alice@example.org>", "Jörg & Söhne <j@example.org>", "\x1b[2J\u202eevil\n", `"</strong><script>alert(1)</script>`, "{{.}} %s &amp;"}

// Corpus makes n facts: every state of signatures with every verdict, names of
// all kinds, and advisories of all severities. It makes the same ones each time.
func Corpus(n int) []trustline.Facts {
	list := make([]trustline.Facts, n)
	for i := range list {
		// Each digit of i in bases without a common factor chooses a fact of its own.
		f := trustline.Facts{
			Signature: trustline.Signature(i % 7), Signer: names[i/7%6], Others: i / 11 % 3, Objects: 2 + i%5, Open: i / 13 % 3,
			Trust: trustline.Verdict(i / 3 % 3), Since: time.Date(2026, 1, 1+i, 0, 0, 0, 0, time.UTC), Reproduced: i%17 == 0,
		}
		if i%5 != 0 {
			f.Fingerprint = fmt.Sprintf("%040x", 1<<40+i)
		}
		if i%4 != 0 {
			f.Policy = names[1+i/9%5]
		}
		if i%3 == 0 {
			f.Builder = names[1+i/27%5]
		}
		if i%8 != 0 {
			f.Advisories = &trustline.Advisories{Critical: i / 8 % 3, High: i / 5 % 4, Medium: i / 3 % 7, Low: i % 2, Unrated: i / 19 % 2,
				AsOf: time.Date(2026, 3, 1+i/2, 0, 0, 0, 0, time.UTC), Partial: i%23 == 0, Old: i%29 == 0}
		}
		list[i] = f
	}
	return list
}
