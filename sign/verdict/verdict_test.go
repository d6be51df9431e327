package verdict

import (
	"reflect"
	"strings"
	"testing"

	"singularity/verity"
)

func example() *Verdict {
	return &Verdict{State: Trusted, Text: "A <a@example.org>", Listed: true, Trees: []*verity.Params{
		{Object: 3, Off: 4096, Size: 8192, Salt: []byte{1, 2}, Root: verity.Digest{9}},
		{Object: 5, Off: 1 << 40, Size: 4096, Root: verity.Digest{8}, Salt: []byte{}},
	}}
}

func TestEncode(t *testing.T) {
	v := example()
	got, err := Decode(v.Encode())
	if err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("Decode(%s) = %+v, %v", v.Encode(), got, err)
	}
	if got.Tree(5) != got.Trees[1] || got.Tree(4) != nil {
		t.Error("Tree finds the wrong tree")
	}
	v.Text = "evil\ntree 1:2:3:4:5\x1b[2J"
	if got, err := Decode(v.Encode()); err != nil || len(got.Trees) != 2 || strings.ContainsAny(got.Text, "\n\x1b") {
		t.Errorf("control characters: %+v, %v", got, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := string(example().Encode())
	for _, bad := range []string{"", "trusted", "trusted\n", "perhaps\ntext \n", good + "x", good[:len(good)-1], strings.Replace(good, "tree", "branch", 1),
		strings.Replace(good, "3:4096", "-3:4096", 1), strings.Replace(good, "tree 3:", "tree -\ntree 3:", 1), strings.Repeat("trusted\n", 10), strings.Replace(good, "listed\n", "listed\nlisted\n", 1)} {
		if v, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, v)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(example().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := Decode(v.Encode()); err != nil || len(again.Trees) != len(v.Trees) || again.State != v.State {
			t.Errorf("%+v becomes %+v, %v", v, again, err)
		}
	})
}
