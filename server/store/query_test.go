package store

import "testing"

// FuzzCursor: a place in an answer comes from a client.
func FuzzCursor(f *testing.F) {
	f.Add(Query{Index: "x"}.Cursor("value", "key"), true)
	f.Add(Query{}.Cursor("", "key"), false)
	f.Add("YQ", false)
	f.Fuzz(func(t *testing.T, after string, indexed bool) {
		q := Query{After: after}
		if indexed {
			q.Index = "x"
		}
		value, key, err := q.Position()
		if err != nil || after == "" {
			return
		}
		again := q
		again.After = q.Cursor(value, key)
		v2, k2, err := again.Position()
		if err != nil || v2 != value || k2 != key {
			t.Errorf("%q is read as %q %q, then as %q %q: %v", after, value, key, v2, k2, err)
		}
	})
}
