package oracle

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	theirs "github.com/sylabs/sif/v2/pkg/sif"

	"singularity/sif"
)

const (
	exampleID = "0f1e2d3c-4b5a-4697-8877-665544332211"
	created   = 1700000000
	changed   = 1700000100
)

// object is one object of a test image, in words that both sides understand.
type object struct {
	typ         sif.DataType
	name        string
	group, link uint32
	linkGroup   bool
	align       int64
	extra       [384]byte
	data        string
}

type raw [384]byte

func (r raw) MarshalBinary() ([]byte, error) { return r[:], nil }

var fingerprint = [20]byte{0x12, 0x04, 0x5c, 0x8c, 19: 0x84}

func digest(s string) [384]byte {
	return sif.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s)))).Extra()
}

// objects has every type and every form of metadata.
func objects() []object {
	return []object{
		{typ: sif.DataDefFile, group: 1, data: "bootstrap: scratch\n"},
		{typ: sif.DataJSON, name: "inspect-metadata.json", group: 1, data: `{"example":true}`},
		{typ: sif.DataPartition, group: 1, data: strings.Repeat("\x00sq!", 1024),
			extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra()},
		{typ: sif.DataEnvVar, group: 2, data: "A=B"},
		{typ: sif.DataLabels, link: 3, data: "{}"},
		{typ: sif.DataGeneric, name: strings.Repeat("n", 128), align: 64, data: strings.Repeat("raw", 1000)},
		{typ: sif.DataCryptoMessage, group: 1, link: 3, data: "-----BEGIN",
			extra: sif.CryptoMessage{Format: sif.FormatPEM, Message: sif.MessageRSAOAEP}.Extra()},
		{typ: sif.DataSBOM, group: 1, extra: sif.SBOM{Format: sif.SBOMSPDXJSON}.Extra(), data: "{}"},
		{typ: sif.DataOCIBlob, group: 1, extra: digest("blob"), data: "blob"},
		{typ: sif.DataOCIRootIndex, group: 1, extra: digest("index"), data: "index"},
		{typ: sif.DataPartition, group: 3, extra: sif.Partition{FS: sif.FSExt3, Type: sif.PartOverlay, Arch: "riscv64"}.Extra(), data: "ext"},
		{typ: sif.DataPartition, group: 1, extra: sif.Partition{FS: sif.FSEncryptedSquashfs, Type: sif.PartSystem, Arch: "arm64"}.Extra(), data: "luks"},
		{typ: sif.DataSignature, link: 1, linkGroup: true, extra: sif.Signature{Hash: sif.HashSHA256, Entity: fingerprint}.Extra(), data: "signature"},
	}
}

func (o object) ours() sif.Input {
	return sif.Input{Type: o.typ, Name: o.name, Group: o.group, Link: o.link, LinkIsGroup: o.linkGroup,
		Align: o.align, Extra: o.extra, Data: strings.NewReader(o.data)}
}

func (o object) theirs(t *testing.T) theirs.DescriptorInput {
	t.Helper()
	opts := []theirs.DescriptorInputOpt{theirs.OptMetadata(raw(o.extra)), theirs.OptObjectName(o.name)}
	if p, ok := (sif.Object{Type: o.typ, Extra: o.extra}).Partition(); ok {
		// Only this option makes them see a primary partition.
		opts[0] = theirs.OptPartitionMetadata(theirs.FSType(p.FS), theirs.PartType(p.Type), p.Arch)
	}
	if o.group == 0 {
		opts = append(opts, theirs.OptNoGroup())
	} else {
		opts = append(opts, theirs.OptGroupID(o.group))
	}
	if o.linkGroup {
		opts = append(opts, theirs.OptLinkedGroupID(o.link))
	} else if o.link != 0 {
		opts = append(opts, theirs.OptLinkedID(o.link))
	}
	if o.align != 0 {
		opts = append(opts, theirs.OptObjectAlignment(int(o.align)))
	}
	in, err := theirs.NewDescriptorInput(theirs.DataType(o.typ), strings.NewReader(o.data), opts...)
	must(t, err)
	return in
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is one image made twice, by us and by them, step by step.
type pair struct {
	t     *testing.T
	file  *os.File
	ours  *sif.Editor
	buf   *theirs.Buffer
	image *theirs.FileImage
}

func newPair(t *testing.T, deterministic bool, slots int, in []object) *pair {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "ours.sif"))
	must(t, err)
	t.Cleanup(func() { file.Close() })
	p := &pair{t: t, file: file, buf: theirs.NewBuffer(nil)}

	o := sif.CreateOptions{Deterministic: deterministic, Slots: slots, LaunchScript: sif.LaunchScript, Time: time.Unix(created, 0)}
	opts := []theirs.CreateOpt{theirs.OptCreateWithLaunchScript(sif.LaunchScript)}
	if deterministic {
		opts = append(opts, theirs.OptCreateDeterministic())
	} else {
		o.ID = sif.ID{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x46, 0x97, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}
		opts = append(opts, theirs.OptCreateWithID(exampleID), theirs.OptCreateWithTime(time.Unix(created, 0)))
	}
	if slots != 0 {
		opts = append(opts, theirs.OptCreateWithDescriptorCapacity(int64(slots)))
	}
	var inputs []sif.Input
	for _, i := range in {
		inputs = append(inputs, i.ours())
		opts = append(opts, theirs.OptCreateWithDescriptors(i.theirs(t)))
	}
	f, err := sif.Create(file, o, inputs...)
	must(t, err)
	p.image, err = theirs.CreateContainer(p.buf, opts...)
	must(t, err)
	p.ours, err = sif.Edit(file, int64(len(p.bytes())))
	must(t, err)
	p.ours.Time = time.Unix(changed, 0)
	if len(f.Warnings()) != 0 {
		t.Errorf("warnings %q", f.Warnings())
	}
	return p
}

func (p *pair) bytes() []byte {
	p.t.Helper()
	b, err := os.ReadFile(p.file.Name())
	must(p.t, err)
	return b
}

func (p *pair) add(o object) {
	p.t.Helper()
	_, err := p.ours.Add(o.ours())
	must(p.t, err)
	must(p.t, p.image.AddObject(o.theirs(p.t), p.addTime()...))
}

func (p *pair) deterministic() bool { return p.ours.File().Header().Deterministic() }

func (p *pair) addTime() []theirs.AddOpt {
	if p.deterministic() {
		return nil
	}
	return []theirs.AddOpt{theirs.OptAddWithTime(time.Unix(changed, 0))}
}

func (p *pair) delete(id uint32, o sif.DeleteOptions) {
	p.t.Helper()
	must(p.t, p.ours.Delete(id, o))
	opts := []theirs.DeleteOpt{theirs.OptDeleteZero(o.Zero), theirs.OptDeleteCompact(o.Compact)}
	if !p.deterministic() {
		opts = append(opts, theirs.OptDeleteWithTime(time.Unix(changed, 0)))
	}
	must(p.t, p.image.DeleteObject(id, opts...))
}

func (p *pair) setPrimary(id uint32) {
	p.t.Helper()
	must(p.t, p.ours.SetPrimary(id))
	var opts []theirs.SetOpt
	if !p.deterministic() {
		opts = append(opts, theirs.OptSetWithTime(time.Unix(changed, 0)))
	}
	must(p.t, p.image.SetPrimPart(id, opts...))
}

// same compares the bytes of the two images and what each side reads from the
// other's.
func (p *pair) same(step string) {
	p.t.Helper()
	a, b := p.bytes(), p.buf.Bytes()
	if !bytes.Equal(a, b) {
		at := 0
		for at < min(len(a), len(b)) && a[at] == b[at] {
			at++
		}
		p.t.Fatalf("%s: ours (%d bytes) and theirs (%d bytes) differ from offset %d (slot %d, byte %d): % x, % x",
			step, len(a), len(b), at, (at-4096)/585, (at-4096)%585, a[at:min(at+16, len(a))], b[at:min(at+16, len(b))])
	}
	f, err := sif.Open(bytes.NewReader(b), int64(len(b)))
	must(p.t, err)
	img, err := theirs.LoadContainer(theirs.NewBuffer(bytes.Clone(a)))
	must(p.t, err)
	compare(p.t, step, f, img)
}

// compare compares what both readers say of one image.
func compare(t *testing.T, step string, f *sif.File, img *theirs.FileImage) {
	t.Helper()
	h := f.Header()
	got := fmt.Sprint(h.LaunchScript, h.Version, h.Arch, h.ID.String(), h.Created, h.Modified, h.FreeSlots, h.TotalSlots, h.TableOff, h.TableSize, h.DataOff, h.DataSize)
	want := fmt.Sprint(img.LaunchScript(), img.Version(), img.PrimaryArch(), img.ID(), img.CreatedAt().Unix(), img.ModifiedAt().Unix(),
		img.DescriptorsFree(), img.DescriptorsTotal(), img.DescriptorsOffset(), img.DescriptorsSize(), img.DataOffset(), img.DataSize())
	if got != want {
		t.Errorf("%s: header\n%s, theirs\n%s", step, got, want)
	}
	if b, err := io.ReadAll(img.GetHeaderIntegrityReader()); err != nil || !bytes.Equal(b, f.HeaderDigestBytes()) {
		t.Errorf("%s: signed bytes of the header differ", step)
	}
	var all []theirs.Descriptor
	img.WithDescriptors(func(d theirs.Descriptor) bool { all = append(all, d); return false })
	if len(all) != len(f.Objects()) {
		t.Fatalf("%s: %d objects, theirs %d", step, len(f.Objects()), len(all))
	}
	for i, o := range f.Objects() {
		compareObject(t, step, f, o, all[i])
	}
}

func compareObject(t *testing.T, step string, f *sif.File, o sif.Object, d theirs.Descriptor) {
	t.Helper()
	link, isGroup := d.LinkedID()
	got := fmt.Sprint(o.ID, o.Type, o.Group, o.Link, o.LinkIsGroup, o.Off, o.Size, o.Created, o.Modified, o.Name)
	want := fmt.Sprint(d.ID(), d.DataType(), d.GroupID(), link, isGroup, d.Offset(), d.Size(), d.CreatedAt().Unix(), d.ModifiedAt().Unix(), d.Name())
	switch o.Type {
	case sif.DataPartition:
		p, _ := o.Partition()
		fs, pt, arch, err := d.PartitionMetadata()
		must(t, err)
		got, want = got+fmt.Sprint(p.FS, p.Type, p.Arch), want+fmt.Sprint(fs, pt, arch)
	case sif.DataSignature:
		s, _ := o.Signature()
		ht, fp, err := d.SignatureMetadata()
		must(t, err)
		got, want = got+fmt.Sprintf("%x", s.Entity), want+fmt.Sprintf("%x", fp)
		if s.Hash != sif.HashSHA256 || ht != crypto.SHA256 {
			t.Errorf("hash %s, theirs %s", s.Hash, ht)
		}
	case sif.DataCryptoMessage:
		m, _ := o.CryptoMessage()
		ft, mt, err := d.CryptoMessageMetadata()
		must(t, err)
		got, want = got+fmt.Sprint(m.Format, m.Message), want+fmt.Sprint(ft, mt)
	case sif.DataSBOM:
		s, _ := o.SBOM()
		ft, err := d.SBOMMetadata()
		must(t, err)
		got, want = got+s.Format.String(), want+ft.String()
	case sif.DataOCIBlob, sif.DataOCIRootIndex:
		dg, ok := o.Digest()
		h, err := d.OCIBlobDigest()
		must(t, err)
		got, want = got+fmt.Sprintln(dg, ok), want+fmt.Sprintln(h, true)
	}
	if got != want {
		t.Errorf("%s: object\n%s, theirs\n%s", step, got, want)
	}
	data, err := d.GetData()
	must(t, err)
	if b, err := io.ReadAll(f.Reader(o)); err != nil || !bytes.Equal(b, data) {
		t.Errorf("%s: data of object %d differ, %v", step, o.ID, err)
	}
}

func eachMode(t *testing.T, test func(t *testing.T, deterministic bool)) {
	t.Run("times", func(t *testing.T) { test(t, false) })
	t.Run("deterministic", func(t *testing.T) { test(t, true) })
}

func TestCreate(t *testing.T) {
	eachMode(t, func(t *testing.T, deterministic bool) {
		newPair(t, deterministic, 0, nil).same("empty")
		newPair(t, deterministic, 0, objects()).same("all objects")
		newPair(t, deterministic, len(objects()), objects()).same("full table")
	})
}

func TestAddDeleteSetPrimary(t *testing.T) {
	eachMode(t, func(t *testing.T, deterministic bool) {
		p := newPair(t, deterministic, 20, nil)
		for _, o := range objects() {
			p.add(o)
			p.same("add " + o.typ.String())
		}
		p.setPrimary(12)
		p.same("set primary")
		p.delete(4, sif.DeleteOptions{})
		p.same("delete in the middle")
		p.add(object{typ: sif.DataGeneric, data: "again"})
		p.same("add into a free slot")
		p.delete(12, sif.DeleteOptions{})
		p.same("delete the primary partition")
		p.delete(6, sif.DeleteOptions{Zero: true})
		p.same("delete with zeros")
		p.delete(4, sif.DeleteOptions{})
		p.same("delete the last object")
		p.add(object{typ: sif.DataGeneric, data: "over"})
		p.same("overwrite the last object")
		p.delete(4, sif.DeleteOptions{Compact: true})
		p.same("compact")
		for _, o := range p.ours.File().Objects() {
			p.delete(o.ID, sif.DeleteOptions{Zero: true, Compact: true})
			p.same(fmt.Sprint("empty the image: ", o.ID))
		}
		p.add(objects()[2])
		p.same("add a primary partition")
	})
}

// TestSignedBytes compares the bytes of each descriptor that signatures cover.
func TestSignedBytes(t *testing.T) {
	p := newPair(t, false, 0, objects())
	img, err := theirs.LoadContainer(theirs.NewBuffer(p.bytes()))
	must(t, err)
	f := p.ours.File()
	first := make(map[uint32]uint32) // the smallest id of each group
	for _, o := range f.Objects() {
		if first[o.Group] == 0 {
			first[o.Group] = o.ID
		}
		d, err := img.GetDescriptor(theirs.WithID(o.ID))
		must(t, err)
		want, err := io.ReadAll(d.GetIntegrityReader())
		must(t, err)
		if got, err := f.DescriptorDigestBytes(o, o.ID-first[o.Group]); err != nil || !bytes.Equal(got, want) {
			t.Errorf("object %d: %v\n%x, theirs\n%x", o.ID, err, got, want)
		}
	}
}
