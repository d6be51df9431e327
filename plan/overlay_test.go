package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// openFake knows a few images.
func openFake(r ImageRef) (OpenImage, error) {
	kinds := map[string]OpenImage{
		"/a.sqfs": {N: 1, Kind: SquashfsImage, Inside: "/", InsideKind: Directory}, "/b.sqfs": {N: 2, Kind: SquashfsImage, Inside: "/sub/file", InsideKind: Other},
		"/o.ext3": {N: 3, Kind: ExtImage, Sub: "upper", Inside: "/data", InsideKind: Directory}, "/p.ext3": {N: 4, Kind: ExtImage},
		"/dir": {Kind: DirImage, Dev: 7, Ino: 8, Sub: "upper"}, "/img.sif": {N: 5, Kind: ExtImage, Sub: "upper"}, "/gone.sqfs": {N: 6, Kind: SquashfsImage, Inside: "/none"},
	}
	im, ok := kinds[r.Path]
	if !ok {
		return im, errors.New("could not open image " + r.Path)
	}
	if r.Path == "/img.sif" && r.ID == 4 {
		im.Kind, im.Sub = SquashfsImage, ""
	}
	return im, nil
}

func (l Layer) String() string {
	s := []string{"dir", "served", "tmpfs", "program"}[l.Kind]
	if l.Kind == TmpfsLayer {
		return fmt.Sprintf("%s %dk", s, l.Size>>10)
	}
	s += fmt.Sprintf(" %s#%d/%s", l.Path, l.Image, l.Sub)
	if l.Writable {
		s += " rw"
	}
	return s
}

func TestLayers(t *testing.T) {
	list := func(s ...string) []string { return s }
	for _, c := range []struct {
		name string
		edit func(*Options, *Facts)
		want []string
		note string
	}{
		{"none", func(*Options, *Facts) {}, nil, ""},
		{"tmpfs", func(o *Options, _ *Facts) { o.WritableTmpfs = "true" }, list("tmpfs 65536k"), ""},
		{"tmpfs by number", func(o *Options, _ *Facts) { o.WritableTmpfs = "1" }, list("tmpfs 65536k"), ""},
		{"no tmpfs", func(o *Options, _ *Facts) { o.WritableTmpfs = "false" }, nil, ""},
		{"sized", func(o *Options, _ *Facts) { o.WritableTmpfs = "2g" }, list("tmpfs 2097152k"), ""},
		{"sized in capitals", func(o *Options, _ *Facts) { o.WritableTmpfs = "512K" }, list("tmpfs 512k"), ""},
		{"bounded", func(o *Options, f *Facts) { o.WritableTmpfs, f.Conf.TmpfsLimit = "2g", 128<<20 }, list("tmpfs 131072k"), "is more than 'sessiondir max size' allows: the limit is 128 MiB"},
		{"the administrator's default", func(o *Options, f *Facts) { o.WritableTmpfs, f.Conf.TmpfsLimit = "true", 16<<20 }, list("tmpfs 16384k"), ""},
		{"compat", func(o *Options, _ *Facts) { o.Compat = true; o.Imply() }, list("tmpfs 65536k"), ""},
		{"tmpfs and writable", func(o *Options, f *Facts) { o.WritableTmpfs, o.Writable, f.Image.Kind = "true", true, DirRoot }, nil, "Disabling --writable-tmpfs flag, mutually exclusive with --writable"},
		{"squashfs", func(o *Options, _ *Facts) { o.Overlay = list("/a.sqfs", "/b.sqfs:ro") }, list("served /a.sqfs#1/", "served /b.sqfs#2/"), ""},
		{"tmpfs over squashfs", func(o *Options, _ *Facts) { o.Overlay, o.WritableTmpfs = list("/a.sqfs"), "true" }, list("tmpfs 65536k", "served /a.sqfs#1/"), ""},
		{"directory", func(o *Options, _ *Facts) { o.Overlay = list("/dir") }, list("dir /dir#0/upper rw"), ""},
		{"read-only directory", func(o *Options, _ *Facts) { o.Overlay = list("/dir:ro") }, list("dir /dir#0/upper"), ""},
		{"ext3", func(o *Options, _ *Facts) { o.Overlay = list("/o.ext3") }, list("program /o.ext3#3/upper rw"), ""},
		{"read-only ext3", func(o *Options, _ *Facts) { o.Overlay = list("/o.ext3:ro", "/dir:rw") }, list("dir /dir#0/upper rw", "served /o.ext3#3/upper"), "above all others"},
		{"relative", func(o *Options, _ *Facts) { o.Overlay = list("../../../dir:ro") }, list("dir /dir#0/upper"), ""},
		{"in the SIF", func(_ *Options, f *Facts) { f.Image.Overlays = []Partition{{3, true}, {4, false}} }, list("served /img.sif#5/", "served /img.sif#5/upper"), ""},
		{"in the SIF, below others", func(o *Options, f *Facts) { o.Overlay, f.Image.Overlays = list("/a.sqfs"), []Partition{{3, true}} }, list("served /a.sqfs#1/", "served /img.sif#5/upper"), ""},
		{"in the SIF, writable", func(o *Options, f *Facts) { o.Writable, f.Image.Overlays = true, []Partition{{4, false}, {3, true}} },
			list("program /img.sif#5/upper rw", "served /img.sif#5/"), ""},
	} {
		o, f := &Options{}, facts()
		f.Open = openFake
		c.edit(o, f)
		p, notes, err := New("exec", o, []string{"true"}, f)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for _, l := range p.Layers {
			got = append(got, l.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if all := strings.Join(notes, "; "); c.note == "" && all != "" || !strings.Contains(all, c.note) {
			t.Errorf("%s: got notes %q, want %q", c.name, all, c.note)
		}
	}
}

func TestWritableRoot(t *testing.T) {
	for _, c := range []struct {
		edit     func(*Facts)
		kind     RootKind
		writable bool
	}{
		{func(f *Facts) { f.Image.Kind = DirRoot }, DirRoot, true},
		{func(f *Facts) { f.Image.Ext = true }, ProgramRoot, true},
		{func(f *Facts) { f.Image.Overlays = []Partition{{3, true}} }, ServedRoot, false},
	} {
		f := facts()
		f.Open = openFake
		c.edit(f)
		p, _, err := New("exec", &Options{Writable: true}, []string{"true"}, f)
		if err != nil || p.Root.Kind != c.kind || p.Root.Writable != c.writable {
			t.Errorf("got %+v, %v, want kind %d, writable %v", p, err, c.kind, c.writable)
		}
	}
}

func TestLayerRefusals(t *testing.T) {
	for _, c := range []struct {
		edit func(*Options, *Facts)
		want string
	}{
		{func(o *Options, _ *Facts) { o.Writable, o.Overlay = true, []string{"/dir"} }, "you could not use --overlay in conjunction with --writable"},
		{func(o *Options, _ *Facts) { o.Overlay = []string{"/dir", "/o.ext3"} }, "you can't specify more than one writable overlay, "},
		{func(o *Options, _ *Facts) { o.Overlay, o.WritableTmpfs = []string{"/o.ext3"}, "true" }, "you can't specify --writable-tmpfs with another writable overlay image (/o.ext3)"},
		{func(o *Options, f *Facts) { o.Overlay, f.Conf.Overlay = []string{"/a.sqfs"}, "no" }, "overlay images requires 'enable overlay = yes': set to 'no' by administrator"},
		{func(o *Options, f *Facts) { o.WritableTmpfs, f.Conf.Overlay = "true", "no" }, "--writable-tmpfs requires 'enable overlay = yes': set to 'no' by administrator"},
		{func(o *Options, f *Facts) { o.WritableTmpfs, f.Host.NoOverlay = "true", func() bool { return true } }, "--writable-tmpfs requires overlay kernel support: your kernel doesn't support it"},
		{func(o *Options, f *Facts) { o.Writable, f.Image.Kind, f.Image.NoWrite = true, DirRoot, true }, "could not use /img.sif for writing, you don't have write permissions"},
		{func(o *Options, _ *Facts) { o.WritableTmpfs = "lots" }, "neither true, false nor a size"},
		{func(o *Options, _ *Facts) { o.WritableTmpfs = "-5m" }, "neither true, false nor a size"},
		{func(o *Options, _ *Facts) { o.WritableTmpfs = "99999999999g" }, "neither true, false nor a size"},
		{func(o *Options, _ *Facts) { o.Overlay = []string{":ro"} }, "names no path"},
		{func(o *Options, _ *Facts) { o.Overlay = []string{"/nothing"} }, "could not open image /nothing"},
		{func(o *Options, _ *Facts) { o.Overlay = make([]string, 21) }, "too many overlays: 21, at most 20"},
		{func(o *Options, _ *Facts) { o.Bind = []string{"/data/file:/mnt:image-src=/x"} }, "could not open image /data/file"},
		{func(o *Options, _ *Facts) { o.Bind = []string{"/dir:/mnt:image-src=/x"} }, "it is a directory, not an image file"},
		{func(o *Options, _ *Facts) { o.Bind = []string{"/a.sqfs:/mnt:image-src=/,rw"} }, "only an ext3 image can be written to"},
		{func(o *Options, _ *Facts) { o.Bind = []string{"/gone.sqfs:/mnt:image-src=/none"} }, "mount source /none doesn't exist in /gone.sqfs"},
		{func(o *Options, _ *Facts) { o.Data = []string{"/a.sqfs"} }, "is not of the form SRC:DEST"},
		{func(o *Options, _ *Facts) { o.Data = []string{"/a.sqfs:rel"} }, "is not of the form SRC:DEST"},
	} {
		o, f := &Options{}, facts()
		f.Open = openFake
		path := f.Host.Path
		f.Host.Path = func(p string) PathKind {
			if strings.HasSuffix(p, ".sqfs") || strings.HasSuffix(p, ".ext3") || p == "/dir" {
				return Other
			}
			return path(p)
		}
		c.edit(o, f)
		if _, _, err := New("exec", o, []string{"true"}, f); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestImageBinds(t *testing.T) {
	f := facts()
	f.Open = openFake
	f.Host.Path = func(string) PathKind { return Other }
	o := &Options{Bind: []string{"/a.sqfs:/mnt:image-src=/", "/b.sqfs:/f:image-src=/sub/file", "/o.ext3:/e:image-src=/data,rw", "/o.ext3:/r:id=3"}, Data: []string{"/a.sqfs:/d"}}
	p, _, err := New("exec", o, []string{"true"}, f)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range p.Mounts {
		if m.Kind == ImageBind {
			got = append(got, fmt.Sprintf("%d%s %s dir=%v ro=%v", m.Image, m.Source, m.Destination, m.Dir, m.ReadOnly))
		}
	}
	want := []string{"1/ /mnt dir=true ro=true", "2/sub/file /f dir=false ro=true", "3/data /e dir=true ro=false", "3/data /r dir=true ro=true", "1/ /d dir=true ro=true"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !p.Programs() {
		t.Error("a writable bind needs no program")
	}
	for _, x := range p.Files {
		if x.Path == "/f" && x.Dir || x.Path == "/e" && !x.Dir {
			t.Errorf("mount point %+v", x)
		}
	}
}

func TestUnpack(t *testing.T) {
	const prohibited = "unpacking image to temporary sandbox dir required, but is prohibited by 'tmp sandbox = no' in singularity.conf or --no-tmp-sandbox command-line flag"
	for _, c := range []struct {
		edit func(*Options, *Facts)
		yes  bool
		text string // note or error
	}{
		{func(*Options, *Facts) {}, false, ""},
		{func(o *Options, _ *Facts) { o.TmpSandbox = true }, true, ""},
		{func(o *Options, _ *Facts) { o.TmpSandbox, o.NoTmpSandbox = true, true }, false, prohibited},
		{func(o *Options, f *Facts) { o.TmpSandbox, f.Conf.TmpSandbox = true, false }, false, prohibited},
		{func(o *Options, f *Facts) { o.TmpSandbox, f.Image.Kind = true, DirRoot }, false, ""},
		{func(o *Options, _ *Facts) { o.Writable = true }, true, "--writable applies to temporary sandbox only, changes will not be written to the original image."},
		{func(o *Options, _ *Facts) { o.Writable, o.NoTmpSandbox = true, true }, false, "no SIF writable overlay partition found in /img.sif"},
		{func(o *Options, f *Facts) { o.Writable, f.Host.UID = true, 0 }, false, "no SIF writable overlay partition found in /img.sif"},
		{func(o *Options, f *Facts) { o.Writable, f.Image.Ext = true, true }, false, ""},
		{func(o *Options, f *Facts) { o.Writable, f.Image.Overlays = true, []Partition{{3, true}} }, false, ""},
		{func(o *Options, f *Facts) { o.Writable, f.Conf.TmpSandbox = true, false }, false, prohibited},
		{func(_ *Options, f *Facts) { f.Host.NoFUSE = true }, true, ""},
		{func(o *Options, f *Facts) { f.Host.NoFUSE, o.NoTmpSandbox = true, true }, false, ""}, // the start says what is missing
		{func(_ *Options, f *Facts) { f.Host.NoFUSE, f.Image.Ext = true, true }, false, ""},
		{func(_ *Options, f *Facts) { f.Host.NoFUSE, f.Image.Overlays = true, []Partition{{3, false}} }, false, ""},
		{func(_ *Options, f *Facts) { f.Host.NoFUSE, f.Image.Kind = true, DirRoot }, false, ""},
	} {
		o, f := &Options{}, facts()
		f.Conf.TmpSandbox = true
		c.edit(o, f)
		yes, note, err := Unpack(o, f)
		if err != nil {
			note = err.Error()
		}
		if yes != c.yes || note != c.text {
			t.Errorf("%+v: got %v, %q, want %v, %q", o, yes, note, c.yes, c.text)
		}
	}
}
