package sign

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"singularity/pgp"
	"singularity/sif"
)

var (
	now     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	created = now.Add(-time.Hour)
)

// alice and bob are secret Ed25519 keys, which are quick to make and use.
var (
	alice = sync.OnceValue(func() *pgp.Key { return newKey("Alice") })
	bob   = sync.OnceValue(func() *pgp.Key { return newKey("Bob") })
)

func newKey(name string) *pgp.Key {
	e, err := openpgp.NewEntity(name, "", name+"@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return created.Add(-time.Hour) }})
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	if err := e.SerializePrivateWithoutSigning(&b, nil); err != nil {
		panic(err)
	}
	r, err := pgp.ParseRing(b.Bytes())
	if err != nil {
		panic(err)
	}
	return r.Keys()[0]
}

// keyrings returns a local keyring with the public parts of keys.
func keyrings(t testing.TB, keys ...*pgp.Key) []Keyring {
	t.Helper()
	r, _ := pgp.ParseRing(nil)
	for _, k := range keys {
		public, err := k.Public()
		if err != nil {
			t.Fatal(err)
		}
		r.Add(public)
	}
	return []Keyring{{Origin: Local, Ring: r}}
}

// storage is an image in memory.
type storage struct{ b []byte }

func (s *storage) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(s.b).ReadAt(p, off)
}

func (s *storage) WriteAt(p []byte, off int64) (int, error) {
	if n := int(off) + len(p); n > len(s.b) {
		s.b = append(s.b, make([]byte, n-len(s.b))...)
	}
	return copy(s.b[off:], p), nil
}

func (s *storage) Truncate(n int64) error {
	s.b = append(s.b, make([]byte, max(0, int(n)-len(s.b)))...)[:n]
	return nil
}

func (s *storage) Sync() error { return nil }

func (s *storage) open(t testing.TB) *sif.File {
	t.Helper()
	f, err := sif.Open(s, int64(len(s.b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// inputs are a definition, JSON and the primary partition in group 1.
func inputs() []sif.Input {
	return []sif.Input{
		{Type: sif.DataDefFile, Group: 1, Data: strings.NewReader("bootstrap: scratch\n")},
		{Type: sif.DataJSON, Group: 1, Name: "inspect-metadata.json", Data: strings.NewReader(`{"example":true}`)},
		{Type: sif.DataPartition, Group: 1, Data: strings.NewReader(strings.Repeat("\x00sq!", 1024)),
			Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra()},
	}
}

func create(t testing.TB, in ...sif.Input) *storage {
	t.Helper()
	s := &storage{}
	if _, err := sif.Create(s, sif.CreateOptions{Time: created, LaunchScript: sif.LaunchScript}, in...); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *storage) sign(t testing.TB, k *pgp.Key, sel Selection) {
	t.Helper()
	if _, err := Sign(context.Background(), s, int64(len(s.b)), Request{Selection: sel, Signer: OpenPGP(k, nil, now), Now: now}); err != nil {
		t.Fatal(err)
	}
}

// add stores data as a signature object for group 1.
func (s *storage) add(t testing.TB, data []byte, by pgp.Fingerprint) {
	t.Helper()
	s.addInput(t, sif.Input{Type: sif.DataSignature, Link: 1, LinkIsGroup: true, Data: bytes.NewReader(data),
		Extra: sif.Signature{Hash: sif.HashSHA256, Entity: by}.Extra()})
}

func (s *storage) addInput(t testing.TB, in sif.Input) {
	t.Helper()
	e, err := sif.Edit(s, int64(len(s.b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Add(in); err != nil {
		t.Fatal(err)
	}
}

func (s *storage) verify(t testing.TB, o Options) (*Result, error) {
	t.Helper()
	if o.Keyrings == nil {
		o.Keyrings = keyrings(t, alice(), bob())
	}
	o.Now = now
	return Verify(context.Background(), s.open(t), o)
}

func TestSignAndVerify(t *testing.T) {
	s := create(t, append(inputs(), sif.Input{Type: sif.DataGeneric, Group: 7, Data: strings.NewReader("x")})...)
	s.sign(t, alice(), Selection{})
	s.sign(t, bob(), Selection{})
	r, err := s.verify(t, Options{})
	if err != nil || len(r.Signatures) != 4 {
		t.Fatalf("%d signatures, %v", len(r.Signatures), err)
	}
	if got := r.Signatures[0]; got.Key.Fingerprint() != alice().Fingerprint() || len(got.Verified) != 3 || got.Origin != Local {
		t.Errorf("first signature: %+v", got)
	}
	if got := r.Signatures[3]; got.Group != 7 || got.Key.Fingerprint() != bob().Fingerprint() || len(got.Verified) != 1 {
		t.Errorf("last signature: %+v", got)
	}
	for _, o := range []Options{{Selection: Selection{Group: 7}}, {Selection: Selection{Object: 2}}} {
		if r, err := s.verify(t, o); err != nil || len(r.Signatures) != 2 || len(r.Signatures[0].Verified) != 1 {
			t.Errorf("%+v: %v", o.Selection, err)
		}
	}
	global := Keyring{Global, keyrings(t, bob())[0].Ring}
	r, err = s.verify(t, Options{Keyrings: append([]Keyring{global}, keyrings(t, alice(), bob())...)})
	if err != nil || r.Signatures[0].Origin != Local || r.Signatures[1].Origin != Global {
		t.Errorf("origins: %+v, %v", r.Signatures, err)
	}
}

// The digests of the example in the format's description.
func TestKnownAnswers(t *testing.T) {
	s := &storage{}
	id := sif.ID{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x46, 0x97, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}
	if _, err := sif.Create(s, sif.CreateOptions{ID: id, Time: time.Unix(1700000000, 0), LaunchScript: sif.LaunchScript}, inputs()...); err != nil {
		t.Fatal(err)
	}
	text := s.statementOf(t)
	const want = `{"version":1,"header":{"digest":"sha256:93026b461fe0ee39cf8cc89d2dc57fe156075fdc4967ad5c66975b98ea3d66b5"},"objects":[` +
		`{"relativeId":0,"descriptorDigest":"sha256:fe60baf0e7c59ee97235d7b01bc790007e73e3b08ba80a4627879b81b885ae32","objectDigest":"sha256:3c550fd6c1cf927d1b90797fde705a047654793b63887924f6bc1bc5069e9881"},` +
		`{"relativeId":1,"descriptorDigest":"sha256:9672d29826d7112fa3536969de4e7621668ff1ec68d8b49cd9cc8181c5842214","objectDigest":"sha256:bba2d36669004a3ef16764b0dfe370dfc0c22263976dfd3d896370b3fa39be0d"},` +
		`{"relativeId":2,"descriptorDigest":"sha256:2da80fca202d07699f60ba08d60e965c1b42cf65dba6f3b4dc7389305279c861","objectDigest":"sha256:`
	if !strings.HasPrefix(text, want) {
		t.Errorf("statement is\n%s\nwant\n%s", text, want)
	}
	if st, err := decodeStatement([]byte(text)); err != nil || string(st.encode()) != text {
		t.Errorf("statement does not survive decoding: %v", err)
	}
}

func TestSelectionErrors(t *testing.T) {
	s := create(t, inputs()...)
	for _, sel := range []Selection{{Group: 9}, {Object: 9}} {
		if _, err := Sign(context.Background(), s, int64(len(s.b)), Request{Selection: sel, Signer: OpenPGP(alice(), nil, now), Now: now}); err == nil {
			t.Errorf("signed %+v", sel)
		}
		if _, err := s.verify(t, Options{Selection: sel}); err == nil {
			t.Errorf("verified %+v", sel)
		}
	}
	want := "integrity: no object groups found"
	if _, err := create(t).verify(t, Options{}); err == nil || err.Error() != want {
		t.Errorf("empty image: %v, want %s", err, want)
	}
}

func TestSC100_UnsignedObject(t *testing.T) {
	for name, c := range map[string]struct {
		group uint32
		want  string
	}{
		"in the group":  {1, "integrity: object 5: object not signed"},
		"without group": {0, "integrity: non-signature object not associated with object group"},
		"other group":   {2, "integrity: signature not found for object group 2"},
	} {
		s := create(t, inputs()...)
		s.sign(t, alice(), Selection{})
		s.addInput(t, sif.Input{Type: sif.DataGeneric, Group: c.group, Data: strings.NewReader("evil")})
		for _, o := range []Options{{}, {Any: true}} {
			if _, err := s.verify(t, o); err == nil || err.Error() != c.want {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
	}
	s := create(t, inputs()...)
	s.sign(t, alice(), Selection{Object: 1})
	if _, err := s.verify(t, Options{}); err == nil {
		t.Error("a signature of one object passed for the group")
	}
	if _, err := s.verify(t, Options{Selection: Selection{Object: 1}}); err != nil {
		t.Errorf("signed object: %v", err)
	}
	if _, err := s.verify(t, Options{Selection: Selection{Object: 2}}); err == nil || err.Error() != "integrity: object 2: object not signed" {
		t.Errorf("other object: %v", err)
	}
}

// Each byte of the header and of the descriptors is flipped in turn. What a
// signature does not cover may change only what the reader does not rely on.
func TestSC101_FlippedFields(t *testing.T) {
	s := create(t, inputs()...)
	s.sign(t, alice(), Selection{})
	original := bytes.Clone(s.b)
	before, err := s.verify(t, Options{})
	if err != nil {
		t.Fatal(err)
	}
	covered := func(off int) bool {
		if off < 128 {
			return off < 45 || off >= 48 && off < 64
		}
		field := (off - 4096) % 585
		return field < 5 || field >= 13 && field < 17 || field >= 25 && field < 33 || field >= 41 && field < 49 || field >= 57
	}
	check := func(off int, bit byte) {
		s.b = bytes.Clone(original)
		s.b[off] ^= bit
		f, err := sif.Open(s, int64(len(s.b)))
		if err != nil {
			return
		}
		after, err := Verify(context.Background(), f, Options{Keyrings: keyrings(t, alice()), Now: now})
		if err != nil {
			return
		}
		if covered(off) {
			t.Errorf("byte %d flipped by %#x: still verifies", off, bit)
		}
		for i, o := range after.Signatures[0].Verified {
			was := before.Signatures[0].Verified[i]
			o.Modified, o.Off, o.Group, o.ID = was.Modified, was.Off, was.Group, was.ID
			if o != was {
				t.Errorf("byte %d flipped by %#x: object %d changed and verifies", off, bit, was.ID)
			}
		}
	}
	for off := range 128 {
		for bit := byte(1); bit != 0; bit <<= 1 {
			check(off, bit)
		}
	}
	for off := 4096; off < 4096+3*585; off++ {
		check(off, 1)
		check(off, 0x80)
	}
}

func TestSC101_FlippedData(t *testing.T) {
	s := create(t, inputs()...)
	s.sign(t, alice(), Selection{})
	original := bytes.Clone(s.b)
	for _, o := range s.open(t).Objects()[:3] {
		for _, off := range []int64{o.Off, o.Off + o.Size - 1} {
			s.b = bytes.Clone(original)
			s.b[off] ^= 1
			r, err := s.verify(t, Options{})
			if want := fmt.Sprintf("integrity: data object integrity compromised: %d", o.ID); err == nil || err.Error() != want {
				t.Errorf("object %d: %v, want %s", o.ID, err, want)
			}
			if got := r.Signatures[0]; len(got.Damaged) != 1 || got.Damaged[0].ID != o.ID || len(got.Verified) != 2 {
				t.Errorf("object %d: %+v", o.ID, got)
			}
		}
	}
}

func TestSC101_Moved(t *testing.T) {
	s := create(t, inputs()...)
	s.sign(t, alice(), Selection{})
	// A second descriptor that points to other data of the same size.
	other := create(t, append(inputs()[:2], sif.Input{Type: sif.DataPartition, Group: 1,
		Data: strings.NewReader(strings.Repeat("evil", 1024)), Extra: inputs()[2].Extra})...)
	copy(s.b[32768:36864], other.b[32768:36864])
	if _, err := s.verify(t, Options{}); err == nil {
		t.Error("exchanged data verifies")
	}
}

// A statement with another digest than those listed is refused although its
// OpenPGP signature is good.
func TestSC102_WeakDigest(t *testing.T) {
	s := create(t, inputs()...)
	good := s.statementOf(t)
	for _, kind := range []string{"md5", "sha1", "sha3_256", "SHA256", "", "sha256:sha256"} {
		clone := &storage{bytes.Clone(s.b)}
		clone.addStatement(t, strings.Replace(good, "sha256:", kind+":", 1))
		if _, err := clone.verify(t, Options{}); err == nil {
			t.Errorf("%s verifies", kind)
		}
	}
	s.addStatement(t, good)
	if _, err := s.verify(t, Options{}); err != nil {
		t.Errorf("unchanged statement: %v", err)
	}
}

// addStatement adds a signature object of alice over any text.
func (s *storage) addStatement(t testing.TB, text string) {
	t.Helper()
	data, err := alice().ClearSign([]byte(text), now)
	if err != nil {
		t.Fatal(err)
	}
	s.add(t, data, alice().Fingerprint())
}

func TestSC105_WrongPayload(t *testing.T) {
	empty := create(t, inputs()...)
	if r, err := empty.verify(t, Options{Any: true}); !errors.Is(err, ErrNoSignature) || len(r.Signatures) != 0 {
		t.Errorf("no signature: %v", err)
	}
	other := create(t, inputs()...) // another image id
	other.sign(t, alice(), Selection{})
	f := other.open(t)
	foreign, err := f.ReadAll(f.Objects()[3])
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{"of another image": foreign, "garbage": []byte("garbage"), "empty": nil}
	for _, text := range []string{"", "{}", "null", "[]", "x", `{"version":1}`, "SIFHASH:\nabc"} {
		if cases["text "+text], err = alice().ClearSign([]byte(text), now); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range cases {
		s := create(t, inputs()...)
		s.add(t, data, alice().Fingerprint())
		for _, o := range []Options{{}, {Any: true}, {Legacy: true, Selection: Selection{Group: 1}}} {
			if _, err := s.verify(t, o); err == nil {
				t.Errorf("%s: verifies with %+v", name, o)
			}
		}
	}
}

func TestSC107_Fingerprint(t *testing.T) {
	s := create(t, inputs()...)
	s.sign(t, alice(), Selection{})
	f := s.open(t)
	data, err := f.ReadAll(f.Objects()[3])
	if err != nil {
		t.Fatal(err)
	}
	s = &storage{bytes.Clone(s.b)}
	e, err := sif.Edit(s, int64(len(s.b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Delete(4, sif.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.add(t, data, bob().Fingerprint())
	if _, err := s.verify(t, Options{}); !errors.Is(err, errFingerprint) {
		t.Errorf("foreign fingerprint: %v", err)
	}
}

// Whatever becomes of a signature object's bytes, the result is an error.
func TestSC108_CorruptSignature(t *testing.T) {
	s := create(t, inputs()...)
	s.sign(t, alice(), Selection{})
	o := s.open(t).Objects()[3]
	original := bytes.Clone(s.b)
	text := bytes.Index(original[o.Off:], []byte("BEGIN PGP SIGNATURE"))
	for i := range o.Size {
		s.b = bytes.Clone(original)
		s.b[o.Off+i] ^= 2
		if r, err := s.verify(t, Options{}); err == nil {
			// Armor has bits that carry nothing: blanks at line ends, the
			// checksum, which nobody needs beside a signature.
			if int(i) < text || len(r.Signatures[0].Verified) != 3 {
				t.Errorf("byte %d of the signature object changed: verifies", i)
			}
		}
	}
	for _, n := range []int64{0, 1, o.Size / 2, o.Size - 1} {
		clone := create(t, inputs()...)
		clone.add(t, original[o.Off:o.Off+n], alice().Fingerprint())
		if _, err := clone.verify(t, Options{Any: true}); err == nil {
			t.Errorf("first %d bytes verify", n)
		}
	}
}

func TestSC109_Limits(t *testing.T) {
	start := time.Now()
	many := &storage{}
	in, extra := inputs(), sif.Signature{Hash: sif.HashSHA256}.Extra()
	for range maxSignatures + 1 {
		in = append(in, sif.Input{Type: sif.DataSignature, Link: 1, LinkIsGroup: true, Extra: extra, Data: strings.NewReader("x")})
	}
	if _, err := sif.Create(many, sif.CreateOptions{Slots: len(in)}, in...); err != nil {
		t.Fatal(err)
	}
	if _, err := many.verify(t, Options{Any: true}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too many signatures: %v", err)
	}
	// An object that claims 1 GiB in a sparse file.
	file, err := os.Create(filepath.Join(t.TempDir(), "huge.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	huge := sif.Input{Type: sif.DataSignature, Link: 1, LinkIsGroup: true, Extra: extra,
		Write: func(w *io.OffsetWriter) (int64, error) { _, err := w.WriteAt([]byte{0}, 1<<30-1); return 1 << 30, err }}
	f, err := sif.Create(file, sif.CreateOptions{}, append(inputs(), huge)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(context.Background(), f, Options{Keyrings: keyrings(t, alice()), Now: now}); err == nil {
		t.Error("a signature of 1 GiB was read")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestAnyAndRequire(t *testing.T) {
	s := create(t, inputs()...)
	s.sign(t, alice(), Selection{})
	s.sign(t, bob(), Selection{})
	s.add(t, []byte(`{"payloadType":"application/vnd.sylabs.sif-metadata+json","payload":"","signatures":[]}`), pgp.Fingerprint{})
	if _, err := s.verify(t, Options{}); err == nil || err.Error() != "integrity: "+ErrNoKey.Error() {
		t.Errorf("DSSE signature: %v", err)
	}
	r, err := s.verify(t, Options{Any: true, Keyrings: keyrings(t, bob())})
	if err != nil || len(r.Signatures) != 3 || r.Signatures[0].Err == nil || r.Signatures[1].Err != nil || r.Signatures[2].Err == nil {
		t.Errorf("any: %+v, %v", r.Signatures, err)
	}
	var unknown *pgp.UnknownKeyError
	if !errors.As(r.Signatures[0].Err, &unknown) {
		t.Errorf("unknown key: %v", r.Signatures[0].Err)
	}
	both := []pgp.Fingerprint{alice().Fingerprint(), bob().Fingerprint()}
	if _, err := s.verify(t, Options{Any: true, Require: both}); err != nil {
		t.Errorf("both required: %v", err)
	}
	var required *RequiredError
	if _, err := s.verify(t, Options{Any: true, Require: both, Keyrings: keyrings(t, bob())}); !errors.As(err, &required) {
		t.Errorf("missing signer: %v", err)
	}
	// The fingerprint in a descriptor is nobody's signature.
	fake := create(t, inputs()...)
	fake.sign(t, bob(), Selection{})
	fake.add(t, []byte("x"), alice().Fingerprint())
	if _, err := fake.verify(t, Options{Any: true, Require: both[:1]}); !errors.As(err, &required) {
		t.Errorf("fingerprint in descriptor: %v", err)
	}
}

func TestLegacy(t *testing.T) {
	s := create(t, inputs()...)
	f := s.open(t)
	h := sha512.New384()
	for _, o := range f.Objects() {
		one := sha512.New384()
		data := make([]byte, o.Size)
		if _, err := f.Reader(o).ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		one.Write(data)
		h.Write(data)
		s.addLegacy(t, o.ID, false, one.Sum(nil))
	}
	s.addLegacy(t, 1, true, h.Sum(nil))
	if _, err := s.verify(t, Options{}); !errors.Is(err, ErrNoSignature) {
		t.Errorf("legacy signatures without asking: %v", err)
	}
	for n, o := range map[int]Options{
		1: {Legacy: true},
		3: {Legacy: true, LegacyAll: true},
	} {
		if r, err := s.verify(t, o); err != nil || len(r.Signatures) != n {
			t.Errorf("%+v: %d signatures, %v", o, len(r.Signatures), err)
		}
	}
	group := Options{Legacy: true, Selection: Selection{Group: 1}}
	if r, err := s.verify(t, group); err != nil || len(r.Signatures[0].Verified) != 3 {
		t.Errorf("group: %v", err)
	}
	o := f.Objects()[2]
	s.b[o.Off] ^= 1
	for _, o := range []Options{{Legacy: true}, {Legacy: true, LegacyAll: true}, group} {
		if _, err := s.verify(t, o); err == nil {
			t.Errorf("%+v: changed data verifies", o)
		}
	}
	modern := create(t, inputs()...)
	modern.sign(t, alice(), Selection{})
	if _, err := modern.verify(t, Options{Legacy: true}); err == nil || err.Error() != "integrity: signature not found for object 3" {
		t.Errorf("modern signature taken for a legacy one: %v", err)
	}
}

func (s *storage) addLegacy(t testing.TB, link uint32, group bool, sum []byte) {
	t.Helper()
	data, err := alice().ClearSign([]byte("SIFHASH:\n"+hex.EncodeToString(sum)+"\n"), now)
	if err != nil {
		t.Fatal(err)
	}
	s.addInput(t, sif.Input{Type: sif.DataSignature, Link: link, LinkIsGroup: group, Data: bytes.NewReader(data),
		Extra: sif.Signature{Hash: sif.HashSHA384, Entity: alice().Fingerprint()}.Extra()})
}

func TestStatementForms(t *testing.T) {
	d := `"sha256:` + strings.Repeat("0", 64) + `"`
	object := `{"relativeId":0,"descriptorDigest":` + d + `,"objectDigest":` + d + `}`
	good := `{"version":1,"header":{"digest":` + d + `},"objects":[` + object + `]}`
	if _, err := decodeStatement([]byte(" " + strings.Replace(good, "{", `{"more":[{}],`, 1) + "\n")); err != nil {
		t.Errorf("unknown key: %v", err)
	}
	for name, bad := range map[string]string{
		"version 2":       strings.Replace(good, ":1,", ":2,", 1),
		"no version":      strings.Replace(good, `"version":1,`, "", 1),
		"null version":    strings.Replace(good, ":1,", ":null,", 1),
		"key twice":       strings.Replace(good, `{"version":1`, `{"version":1,"version":1`, 1),
		"other spelling":  strings.Replace(good, "version", "Version", 1),
		"id twice":        strings.Replace(good, object, object+","+object, 1),
		"inner key twice": strings.Replace(good, `{"relativeId":0`, `{"relativeId":0,"relativeId":1`, 1),
		"null id":         strings.Replace(good, `"relativeId":0`, `"relativeId":null`, 1),
		"negative id":     strings.Replace(good, `"relativeId":0`, `"relativeId":-1`, 1),
		"large id":        strings.Replace(good, `"relativeId":0`, `"relativeId":4294967296`, 1),
		"no objects":      strings.Replace(good, object, "", 1),
		"text after":      good + "{}",
		"short digest":    strings.Replace(good, "00", "0", 1),
		"upper case":      strings.Replace(good, "00", "AA", 1),
		"too large":       good + strings.Repeat(" ", maxStatementSize),
	} {
		if _, err := decodeStatement([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHashingLargeObjects(t *testing.T) {
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 5*chunkSize + 17} {
		s := create(t, sif.Input{Type: sif.DataGeneric, Group: 1, Data: bytes.NewReader(make([]byte, size))},
			sif.Input{Type: sif.DataGeneric, Group: 1, Data: bytes.NewReader(make([]byte, 3*chunkSize))})
		s.sign(t, alice(), Selection{})
		if _, err := s.verify(t, Options{}); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		s.b = s.b[:len(s.b):len(s.b)]
		if size > 0 {
			s.b[s.open(t).Objects()[0].Off+int64(size)-1] = 1
			if _, err := s.verify(t, Options{}); err == nil {
				t.Errorf("%d bytes: change of the last one not found", size)
			}
		}
	}
}

func TestWrongPassphraseLeavesImage(t *testing.T) {
	s := create(t, inputs()...)
	locked, err := alice().Protect(nil, []byte("right"))
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(s.b)
	_, err = Sign(context.Background(), s, int64(len(s.b)), Request{Selection: Selection{}, Signer: OpenPGP(locked, []byte("wrong"), now), Now: now})
	if !errors.Is(err, pgp.ErrPassphrase) || !bytes.Equal(before, s.b) {
		t.Errorf("%v", err)
	}
}

// failsOnce is storage that tells once that it could not keep what it holds, as
// the kernel does.
type failsOnce struct {
	*storage
	err    error
	writes int
}

func (f *failsOnce) WriteAt(p []byte, off int64) (int, error) {
	f.writes++
	return f.storage.WriteAt(p, off)
}

func (f *failsOnce) Sync() error {
	err := f.err
	f.err = nil
	return err
}

func TestLostImageIsNotSigned(t *testing.T) {
	lost := errors.New("disk is broken")
	f := &failsOnce{storage: create(t, inputs()...), err: lost}
	_, err := Sign(context.Background(), f, int64(len(f.b)), Request{Selection: Selection{}, Signer: OpenPGP(alice(), nil, now), Now: now})
	if !errors.Is(err, lost) || f.writes > 0 {
		t.Errorf("%v, %d writes", err, f.writes)
	}
}

func TestNoRoom(t *testing.T) {
	s := &storage{}
	if _, err := sif.Create(s, sif.CreateOptions{Slots: 3}, inputs()...); err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(context.Background(), s, int64(len(s.b)), Request{Selection: Selection{}, Signer: OpenPGP(alice(), nil, now), Now: now}); err == nil {
		t.Error("signed an image without a free descriptor")
	}
}

func FuzzStatement(f *testing.F) {
	d := `"sha256:` + strings.Repeat("0", 64) + `"`
	f.Add([]byte(`{"version":1,"header":{"digest":` + d + `},"objects":[{"relativeId":0,"descriptorDigest":` + d + `,"objectDigest":` + d + `}]}`))
	f.Add([]byte(`{"version":1,"version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeStatement(data)
		if err != nil {
			return
		}
		again, err := decodeStatement(s.encode())
		if err != nil || !bytes.Equal(again.encode(), s.encode()) {
			t.Errorf("%q: %v", data, err)
		}
	})
}

// FuzzSignatureObject puts any bytes in a signature object: they never verify
// unless they are one of alice's messages.
func FuzzSignatureObject(f *testing.F) {
	base := create(f, inputs()...)
	signed := &storage{bytes.Clone(base.b)}
	signed.sign(f, alice(), Selection{})
	file := signed.open(f)
	good, err := file.ReadAll(file.Objects()[3])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"payloadType":"application/vnd.sylabs.sif-metadata+json"}`))
	text, _ := pgp.ClearText(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &storage{bytes.Clone(base.b)}
		s.add(t, data, alice().Fingerprint())
		_, err := s.verify(t, Options{Any: true})
		if got, _ := pgp.ClearText(data); err == nil && !bytes.Equal(got, text) {
			t.Errorf("%q verifies", data)
		}
	})
}
