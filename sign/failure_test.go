package sign

import (
	"errors"
	"testing"

	"singularity/sif"
)

// failing is an image of which so many reads succeed.
type failing struct {
	*storage
	left int
}

var errRead = errors.New("the disk is broken")

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errRead
	}
	return f.storage.ReadAt(p, off)
}

// Whichever read of an image fails, it is not verified (SC-103).
func TestSC103_ReadFailures(t *testing.T) {
	s := create(t, inputs()...)
	s.sign(t, alice(), Selection{})
	for n := range 10_000 {
		f := &failing{s, n}
		image, err := sif.Open(f, int64(len(s.b)))
		if err == nil {
			var r *Result
			r, err = Verify(t.Context(), image, Options{Keyrings: keyrings(t, alice()), Now: now})
			if f.left >= 0 {
				if err != nil || len(r.Signatures) != 1 {
					t.Errorf("without a failure: %v", err)
				}
				t.Logf("%d reads failed, one after the other", n)
				return
			}
		}
		if err == nil {
			t.Fatalf("verified although read %d failed", n+1)
		}
		if !errors.Is(err, errRead) {
			t.Errorf("read %d: the cause is lost: %v", n+1, err)
		}
	}
	t.Error("the image is read without end")
}

// A signature with 1,000 signatures in it is refused or bounded like one with as
// many objects (SC-109).
func TestSC109_ManyInOneObject(t *testing.T) {
	s := create(t, inputs()...)
	data, err := alice().ClearSign([]byte(s.statementOf(t)), now)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for range 1000 {
		all = append(all, data...)
	}
	s.add(t, all, alice().Fingerprint())
	if _, err := s.verify(t, Options{}); err == nil {
		t.Error("more than one message in an object verifies")
	}
}
