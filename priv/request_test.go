package priv

import (
	"bytes"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"singularity/linux/script"
)

// sample is a request with every field set.
func sample(t testing.TB) *Request {
	s := new(script.Script)
	fd := s.Call("open", unix.SYS_OPENAT, script.Int(unix.AT_FDCWD), s.Str("/etc/hosts"), script.Int(unix.O_PATH))
	s.SkipFail(fd, 1)
	s.Want(s.Call("close", unix.SYS_CLOSE, fd.Arg()), 0)
	st := make([]uint64, 32)
	s.Call("look", unix.SYS_FSTAT, fd.Arg(), s.Words(st))
	s.Equal("same", st, 0, 1, 5, 7)
	s.Drop()
	s.Call("filter", unix.SYS_PRCTL, script.Int(1), s.Pointers(script.Int(1), s.Bytes([]byte{1, 2})))
	s.Exec([]string{"/bin/sh"}, []string{"sh", "-c", "true"}, []string{"A=b"}, "/bin/sh")
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	return &Request{Verb: StartVerb, FDs: []int{5, 9}, Start: Start{PID: true, Report: 5, Caps: 1 << 40, Images: []Image{{9, "sif"}},
		Kernel: &Kernel{FS: Ext3FS, Off: 512, Size: 1 << 33, Mount: 77, Tree: true, Key: 5}, Network: "u1-ab", Steps: *list}}
}

// TestVerbsRoundTrip: the other verbs, and that a request of one is none of another.
func TestVerbsRoundTrip(t *testing.T) {
	steps := sample(t).Start.Steps
	for _, want := range []*Request{
		{Verb: JoinVerb, FDs: []int{7}, Join: Join{Process: 7, Report: 8, Left: 9, Caps: 1 << 13, Steps: steps}},
		{Verb: RootVerb, FDs: []int{7}, Join: Join{Process: 7}},
		{Verb: NetVerb, Nets: []Net{{"a", "IP=10.0.0.1"}, {Name: "b"}}},
	} {
		got, err := Decode(want.Encode())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		b := want.Encode()
		for n := range len(b) {
			if _, err := Decode(b[:n]); err == nil {
				t.Errorf("the first %d of %d bytes are a request", n, len(b))
			}
		}
		if b[0] = byte(StartVerb); want.Verb != StartVerb {
			if _, err := Decode(b); err == nil {
				t.Errorf("a request of verb %d is one of a start", want.Verb)
			}
		}
	}
}

func TestRequestRoundTrip(t *testing.T) {
	want := sample(t)
	got, err := Decode(want.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Encode(), want.Encode()) || !reflect.DeepEqual(got.FDs, want.FDs) || got.Start.Kernel.Size != 1<<33 || len(got.Start.Steps.Steps) != len(want.Start.Steps.Steps) {
		t.Errorf("got %+v", got.Start)
	}
}

// TestRaiseIsNotSent: SC-002: no bit of a request says what a step is made with: two
// listings that differ in that alone are the same bytes.
func TestRaiseIsNotSent(t *testing.T) {
	r := sample(t)
	plain := r.Encode()
	for i := range r.Start.Steps.Steps {
		r.Start.Steps.Steps[i].Raise(1<<64 - 1)
	}
	if !bytes.Equal(r.Encode(), plain) {
		t.Error("a request has the capabilities of a step")
	}
	// A field that codec can write to is one that everybody can.
	for f := range reflect.TypeFor[script.Step]().Fields() {
		if f.IsExported() && f.Type.Kind() == reflect.Uint64 && f.Name != "Expect" {
			t.Errorf("%s is part of a request: is it a capability?", f.Name)
		}
	}
}

// TestRequestRefused: SC-006, SC-008, SC-036: what is not a whole request of one
// verb is none.
func TestRequestRefused(t *testing.T) {
	good := sample(t).Encode()
	for n := range len(good) {
		if _, err := Decode(good[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes are a request", n, len(good))
		}
	}
	if _, err := Decode(append(good[:len(good):len(good)], 0)); err == nil {
		t.Error("a request has a byte behind it")
	}
	for verb := range 256 {
		b := append([]byte{}, good...)
		if b[0] = byte(verb); Verb(verb) == StartVerb {
			continue
		}
		if _, err := Decode(b); err == nil {
			t.Errorf("verb %d takes the fields of another", verb)
		}
	}
	// A list that says it is longer than what is left.
	if _, err := Decode([]byte{byte(StartVerb), 0xff, 0xff, 0xff, 0xff, 0x0f}); err == nil {
		t.Error("a list has no end")
	}
	// A number in a longer form than it needs.
	if _, err := Decode([]byte{0x81, 0}); err == nil {
		t.Error("a number has two forms")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample(f).Encode())
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Encode(), b) {
			t.Fatal("a request has two forms")
		}
		// Whatever the steps are, looking at them does no harm, and what passes
		// refers to nothing outside of its memory.
		var l *script.Listing
		switch r.Verb {
		case StartVerb:
			l = &r.Start.Steps
		case JoinVerb:
			l = &r.Join.Steps
		default:
			return
		}
		if _, err := newChecker(l).check(); err != nil {
			return
		}
		in := func(r script.Ref, n int) { _ = l.Memory[r.Mem()][r.Off():][:n] }
		for _, k := range l.Links {
			in(k.At, 8)
			in(k.To, 1)
		}
		for _, s := range l.Steps {
			for k, a := range s.Args {
				if s.Refs&(1<<k) != 0 {
					in(script.Ref(a), 1)
				}
			}
			if s.Op == script.OpEqual {
				in(script.Ref(s.Args[2]), 8)
				in(script.Ref(s.Args[3]), 8)
			}
		}
		if p := l.Program; p != nil {
			in(p.Argv, 8)
			in(p.Envp, 8)
			if p.Shell != 0 {
				in(p.Shell, 16)
			}
		}
	})
}
