package pgp

import (
	"bytes"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// Our armor is byte for byte that of another implementation, and reads back.
func TestArmoredAsOthers(t *testing.T) {
	raw := make([]byte, 300)
	for i := range raw {
		raw[i] = byte(i * 7)
	}
	for n := 1; n <= len(raw); n++ {
		got, err := ArmorPublic(raw[:n])
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		w, err := armor.Encode(&want, openpgp.PublicKeyType, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(raw[:n])
		w.Close()
		want.WriteByte('\n')
		if !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("%d bytes:\n%s\nwant\n%s", n, got, &want)
		}
	}
	if _, err := ArmorPublic(nil); err == nil {
		t.Error("nothing was armored")
	}
}
