package container

import (
	"testing"

	"singularity/plan"
)

func TestCapData(t *testing.T) {
	// Effective, permitted and inheritable, each a low and a high half.
	got := capData(1<<40|1<<33|0x2020, 1<<33|0x20)
	want := []uint64{0x2020_0000_2020, 0x102_0000_0020, 0x2_0000_0102}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("word %d: got %#x, want %#x", i, got[i], want[i])
		}
	}
}

func TestWords(t *testing.T) {
	for n := range 40 {
		w := words(make([]byte, n))
		if len(w)%2 != 0 || 8*len(w) < n || 8*len(w) >= n+16 {
			t.Errorf("%d bytes: got %d words", n, len(w))
		}
	}
}

func TestLandlockAll(t *testing.T) {
	for abi, want := range map[int]uint64{1: 0x1fff, 2: 0x3fff, 3: 0x7fff, 4: 0x7fff, 5: 0xffff, 9: 0xffff} {
		if got := landlockAll(abi); got != want {
			t.Errorf("version %d: got %#x, want %#x", abi, got, want)
		}
	}
}

func TestLabelText(t *testing.T) {
	for _, c := range []struct{ lsm, label, write, back string }{
		{plan.AppArmor, "docker-default", "exec docker-default", "docker-default ("},
		{plan.AppArmor, "unconfined", "exec unconfined", "unconfined\n"},
		{plan.SELinux, "u:r:t:s0", "u:r:t:s0", "u:r:t:s0\x00"},
	} {
		write, back := labelText(&plan.Rights{LSM: c.lsm, Label: c.label})
		if write != c.write || back != c.back {
			t.Errorf("%s %s: got %q %q", c.lsm, c.label, write, back)
		}
	}
}
