package pgp

import (
	"bytes"
	"slices"
	"testing"
)

// sameByID compares what is found in a ring that was read and in one that was
// not. A key whose sub-key is damaged may be found in the latter alone: of it only
// what is wanted was read.
func sameByID(t testing.TB, ring []byte, ids ...uint64) {
	t.Helper()
	r, err := ParseRing(ring)
	for _, id := range ids {
		var want, got []Fingerprint
		if err == nil {
			for _, k := range r.ByID(id) {
				want = append(want, k.Fingerprint())
			}
		}
		for _, k := range RawRing(ring).ByID(id) {
			got = append(got, k.Fingerprint())
		}
		if err == nil && len(r.Problems()) > 0 {
			got = slices.DeleteFunc(got, func(fp Fingerprint) bool { return !slices.Contains(want, fp) })
		}
		if !slices.Equal(got, want) {
			t.Errorf("id %016X: found %v, want %v", id, got, want)
		}
	}
}

// idsIn returns the ids of the keys and sub-keys that are in ring, and one that
// is not.
func idsIn(ring []byte) []uint64 {
	ids := []uint64{1}
	for len(ring) > 0 {
		p, err := nextPacket(ring)
		if err != nil {
			return ids
		}
		if id, err := keyID(p); err == nil && (p.tag == tagPublicKey || p.tag == tagSecretKey || p.tag == tagPublicSubkey || p.tag == tagSecretSubkey) {
			ids = append(ids, id)
		}
		ring = ring[len(p.data):]
	}
	return ids
}

func TestRawRing(t *testing.T) {
	a, b, c := public(t, alice()).Bytes(), bob(), quick(t).Bytes()
	ring := slices.Concat(a, b, a, c)
	ids := idsIn(ring)
	if len(ids) != 9 {
		t.Fatalf("%d ids", len(ids))
	}
	sameByID(t, ring, ids...)
	for _, cut := range []int{1, 3, 50, 290, 400, 700, len(b) - 1} {
		sameByID(t, slices.Concat(a, b[:cut], c), ids...)
	}
	// Of a key that is wanted itself no sub-key is read, of a sub-key the key.
	if k := RawRing(ring).ByID(ids[1])[0]; len(k.entity.Subkeys) != 0 || k.UserID() != key(t, alice()).UserID() {
		t.Errorf("%d sub-keys of %q", len(k.entity.Subkeys), k.UserID())
	}
	if k := RawRing(ring).ByID(ids[2])[0]; len(k.entity.Subkeys) != 1 || k.Fingerprint() != key(t, alice()).Fingerprint() {
		t.Errorf("%d sub-keys of %s", len(k.entity.Subkeys), k.Fingerprint())
	}
}

// A key that is revoked stays so, wherever the revocation is.
func TestRawRingRevocation(t *testing.T) {
	k := quick(t)
	if err := k.Unlock(nil); err != nil {
		t.Fatal(err)
	}
	full := public(t, k.Bytes()).Bytes()
	k.entity.PrivateKey = k.signer
	if err := k.entity.RevokeKey(0, "", nil); err != nil {
		t.Fatal(err)
	}
	var sig bytes.Buffer
	if err := k.entity.Revocations[0].Serialize(&sig); err != nil {
		t.Fatal(err)
	}
	first, err := nextPacket(full)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := keyID(first)
	at := len(first.data)
	for place, ring := range [][]byte{slices.Concat(full[:at], sig.Bytes(), full[at:]), slices.Concat(full, sig.Bytes())} {
		sameByID(t, ring, id)
		for _, found := range RawRing(ring).ByID(id) {
			if !found.Revoked(now.AddDate(10, 0, 0)) {
				t.Errorf("revocation at place %d is not seen", place)
			}
		}
	}
}

func FuzzRawRing(f *testing.F) {
	f.Add(quick(f).Bytes(), uint64(1))
	f.Fuzz(func(t *testing.T, ring []byte, id uint64) {
		if len(ring) > 1<<14 {
			return
		}
		ids := idsIn(ring)
		sameByID(t, ring, append(ids[:min(len(ids), 5)], id)...)
	})
}
