package plan

import (
	"errors"
	"strconv"
	"strings"
)

// LayerKind says what a layer over the root is.
type LayerKind int

const (
	// DirLayer is a directory of the host.
	DirLayer LayerKind = iota
	// ServedLayer is an image served by our FUSE server, which cannot be
	// written to.
	ServedLayer
	// TmpfsLayer is in memory and always the writable one.
	TmpfsLayer
	// ProgramLayer is an ext3 image that a program of the system writes to.
	ProgramLayer
)

// Layer is a file system over the root.
type Layer struct {
	Kind     LayerKind
	Path     string // of the directory or image
	Dev, Ino uint64 // DirLayer: what Path was when it was checked
	Image    int    // ServedLayer, ProgramLayer: number of the image
	// Sub is the directory in it that is the layer, "" for all of it. A
	// writable layer has two, upper and work.
	Sub      string
	Size     int64 // TmpfsLayer: limit in bytes
	Writable bool
}

// Upper returns the writable layer, nil for none. It is the first.
func (p *Plan) Upper() *Layer {
	if len(p.Layers) > 0 && p.Layers[0].Writable {
		return &p.Layers[0]
	}
	return nil
}

// DropTmpfs takes the layer in memory away, and reports whether there was one
// and no other layer: then the container can do without an overlay.
func (p *Plan) DropTmpfs() bool {
	if len(p.Layers) != 1 || p.Layers[0].Kind != TmpfsLayer {
		return false
	}
	p.Layers = nil
	return true
}

// Programs tells whether an image is written to by programs of the system.
func (p *Plan) Programs() bool {
	if p.Root.Kind == ProgramRoot {
		return true
	}
	if u := p.Upper(); u != nil && u.Kind == ProgramLayer {
		return true
	}
	for i := range p.Mounts {
		if p.Mounts[i].Kind == ImageBind && !p.Mounts[i].ReadOnly {
			return true
		}
	}
	return false
}

// ImageUse is what a file besides the root image is wanted for.
type ImageUse int

// The uses of an image.
const (
	UseOverlay ImageUse = iota // a layer
	UseBind                    // a mount of a directory in it
	UseData                    // a data container
)

// ImageRef names an image that shall be a part of the container.
type ImageRef struct {
	Use      ImageUse
	Path     string // absolute
	ID       uint32 // number of the object in a SIF, 0 for the usual one
	Inside   string // UseBind, UseData: path in it
	Writable bool
}

// ImageKind is what an image turned out to be.
type ImageKind int

// The kinds of images that can be layers or mounts.
const (
	DirImage ImageKind = iota
	SquashfsImage
	ExtImage
)

// OpenImage is an image that is open and locked as it was asked for.
type OpenImage struct {
	N        int // its number; none for a directory
	Kind     ImageKind
	Dev, Ino uint64 // of a directory
	Sub      string // the directory in it that is the layer
	// Inside is what was asked for, links followed, and InsideKind what is
	// there.
	Inside     string
	InsideKind PathKind
}

const (
	defaultTmpfsSize = 64 << 20
	maxOverlays      = 20 // the kernel takes 255 bytes of names
)

// Overlay is one value of --overlay.
type Overlay struct {
	Path     string // as typed
	ReadOnly bool
}

// ParseOverlay reads "path[:ro]".
func ParseOverlay(s string) (Overlay, error) {
	o := Overlay{Path: s}
	if p, ok := strings.CutSuffix(s, ":ro"); ok {
		o = Overlay{p, true}
	} else if p, ok := strings.CutSuffix(s, ":rw"); ok {
		o.Path = p
	}
	if o.Path == "" {
		return o, errors.New("overlay " + strconv.Quote(s) + " names no path")
	}
	return o, nil
}

// ParseTmpfs reads the value of --writable-tmpfs: a boolean word, or a size
// with the suffix k, m or g. A size of 0 is the default one.
func ParseTmpfs(s string) (on bool, size int64, err error) {
	if s == "" {
		return false, 0, nil
	}
	if on, err := strconv.ParseBool(s); err == nil {
		return on, 0, nil
	}
	if size, ok := ParseSize(s); ok {
		return true, size, nil
	}
	return false, 0, errors.New("--writable-tmpfs=" + s + ": neither true, false nor a size such as 512m or 2g")
}

// ParseSize reads a size in bytes that may end in k, m or g.
func ParseSize(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	number, shift := s, 0
	switch s[len(s)-1] | 0x20 {
	case 'k':
		shift = 10
	case 'm':
		shift = 20
	case 'g':
		shift = 30
	}
	if shift > 0 {
		number = s[:len(s)-1]
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return 0, false
	}
	return n << shift, true
}

// Unpack tells whether the image must be unpacked to a temporary sandbox first,
// and what to tell about that.
func Unpack(o *Options, f *Facts) (yes bool, note string, err error) {
	im := &f.Image
	wants := o.TmpSandbox && im.Kind == ServedRoot && !im.Ext
	if o.Writable && im.Kind == ServedRoot && !im.Ext && writableOverlay(im) == nil {
		missing := errors.New("no SIF writable overlay partition found in " + im.Path)
		switch {
		case o.NoTmpSandbox, f.Host.UID == 0 && !o.Userns && !o.TmpSandbox:
			return false, "", missing
		}
		wants, note = true, "--writable applies to temporary sandbox only, changes will not be written to the original image."
	}
	if f.Host.NoFUSE && f.Conf.TmpSandbox && !o.NoTmpSandbox && im.Kind == ServedRoot && !im.Ext && len(im.Overlays) == 0 && !o.Writable {
		wants = true // the start would fail
	}
	if wants && (!f.Conf.TmpSandbox || o.NoTmpSandbox) {
		return false, "", errors.New("unpacking image to temporary sandbox dir required, but is prohibited by 'tmp sandbox = no' in singularity.conf or --no-tmp-sandbox command-line flag")
	}
	return wants, note, nil
}

// writableOverlay returns the overlay partition that can be written to.
func writableOverlay(im *ImageFacts) *Partition {
	for i := range im.Overlays {
		if im.Overlays[i].Ext {
			return &im.Overlays[i]
		}
	}
	return nil
}

// layers plans the root and what lies over it.
func (m *maker) layers() error {
	im := &m.f.Image
	m.p.Root = Root{Kind: im.Kind, Path: im.Path, Dev: im.Dev, Ino: im.Ino}
	var partition *Partition // of the image, that is written to
	if m.o.Writable {
		if len(m.o.Overlay) > 0 {
			return errors.New("you could not use --overlay in conjunction with --writable")
		}
		switch partition = writableOverlay(im); {
		case im.Kind == ServedRoot && !im.Ext && partition == nil:
			return errors.New("no SIF writable overlay partition found in " + im.Path)
		case im.NoWrite:
			return errors.New("could not use " + im.Path + " for writing, you don't have write permissions")
		case partition == nil:
			m.p.Root.Writable = true
			if im.Ext {
				m.p.Root.Kind = ProgramRoot
			}
		}
	}
	if err := m.overlays(); err != nil {
		return err
	}
	if err := m.partitions(partition); err != nil {
		return err
	}
	if err := m.tmpfs(); err != nil {
		return err
	}
	m.raise()
	return m.overlayAllowed()
}

// overlays plans the layers of --overlay.
func (m *maker) overlays() error {
	if len(m.o.Overlay) > maxOverlays {
		return errors.New("too many overlays: " + strconv.Itoa(len(m.o.Overlay)) + ", at most " + strconv.Itoa(maxOverlays))
	}
	upper := ""
	for _, spec := range m.o.Overlay {
		o, err := ParseOverlay(spec)
		if err != nil {
			return err
		}
		path := m.absolute(o.Path)
		im, err := m.f.Open(ImageRef{Use: UseOverlay, Path: path, Writable: !o.ReadOnly})
		if err != nil {
			return err
		}
		l := Layer{Kind: ServedLayer, Path: path, Image: im.N, Sub: im.Sub, Dev: im.Dev, Ino: im.Ino, Writable: !o.ReadOnly}
		switch im.Kind {
		case SquashfsImage:
			l.Writable = false
		case DirImage:
			l.Kind = DirLayer
			if l.Writable {
				m.p.HostDirs = append(m.p.HostDirs, HostDir{Path: path + "/upper", Perm: 0o755}, HostDir{Path: path + "/work", Perm: 0o755})
			}
		case ExtImage:
			if l.Writable {
				l.Kind = ProgramLayer
			}
		}
		if l.Writable && upper != "" {
			return errors.New("you can't specify more than one writable overlay, " + upper + " and " + path + " are: add :ro to one of them")
		}
		if l.Writable {
			upper = path
		}
		m.p.Layers = append(m.p.Layers, l)
	}
	return nil
}

// partitions plans the overlay partitions of the image: the one that was added
// last is above the others.
func (m *maker) partitions(writable *Partition) error {
	im := &m.f.Image
	for i := len(im.Overlays) - 1; i >= 0; i-- {
		p := &im.Overlays[i]
		write := p == writable
		got, err := m.f.Open(ImageRef{Use: UseOverlay, Path: im.Path, ID: p.ID, Writable: write})
		if err != nil {
			return err
		}
		l := Layer{Kind: ServedLayer, Path: im.Path, Image: got.N, Sub: got.Sub, Writable: write}
		if write {
			l.Kind = ProgramLayer
		}
		m.p.Layers = append(m.p.Layers, l)
	}
	return nil
}

// tmpfs plans the writable layer in memory.
func (m *maker) tmpfs() error {
	on, size, err := ParseTmpfs(m.o.WritableTmpfs)
	if err != nil || !on {
		return err
	}
	if m.o.Writable {
		m.note("Disabling --writable-tmpfs flag, mutually exclusive with --writable")
		return nil
	}
	for i := range m.p.Layers {
		if l := &m.p.Layers[i]; l.Writable {
			return errors.New("you can't specify --writable-tmpfs with another writable overlay image (" + l.Path + ")")
		}
	}
	limit := m.f.Conf.TmpfsLimit
	switch {
	case size == 0 && limit > 0:
		size = limit
	case size == 0:
		size = defaultTmpfsSize
	case limit > 0 && size > limit:
		m.note("--writable-tmpfs=" + m.o.WritableTmpfs + " is more than 'sessiondir max size' allows: the limit is " + strconv.FormatInt(limit>>20, 10) + " MiB")
		size = limit
	}
	m.p.Layers = append(m.p.Layers, Layer{Kind: TmpfsLayer, Path: "memory", Size: size, Writable: true})
	return nil
}

// raise puts the writable layer on top, where alone an overlay writes.
func (m *maker) raise() {
	list := m.p.Layers
	for i := range list {
		if !list[i].Writable {
			continue
		}
		l := list[i]
		if i > 0 && l.Kind != TmpfsLayer {
			m.note("The writable overlay " + l.Path + " is above all others, wherever it is in the list")
		}
		copy(list[1:i+1], list[:i])
		list[0] = l
	}
}

// overlayAllowed checks what the administrator and the kernel allow.
func (m *maker) overlayAllowed() error {
	if len(m.p.Layers) == 0 {
		return nil
	}
	what := "overlay images requires "
	if u := m.p.Upper(); u != nil && u.Kind == TmpfsLayer && len(m.p.Layers) == 1 {
		what = "--writable-tmpfs requires "
	}
	switch {
	case m.f.Conf.Overlay == "no":
		return errors.New(what + "'enable overlay = yes': set to 'no' by administrator")
	case m.f.Host.NoOverlay != nil && m.f.Host.NoOverlay():
		return errors.New(what + "overlay kernel support: your kernel doesn't support it")
	}
	return nil
}

// imageBind plans a mount from inside an image file.
func (m *maker) imageBind(src, dst string, b *Bind) error {
	inside := b.ImageSource
	if inside == "" {
		inside = "/"
	}
	im, err := m.f.Open(ImageRef{Use: UseBind, Path: src, ID: b.ID, Inside: inside, Writable: b.Write})
	if err != nil {
		return err
	}
	if im.Kind == DirImage {
		return errors.New("cannot bind from inside " + src + ": it is a directory, not an image file")
	}
	if b.Write && im.Kind != ExtImage {
		return errors.New("cannot bind " + src + " writable: only an ext3 image can be written to")
	}
	return m.mountImage(src, dst, im, !b.Write)
}

func (m *maker) mountImage(src, dst string, im OpenImage, readOnly bool) error {
	if im.InsideKind == Missing {
		return errors.New("mount source " + im.Inside + " doesn't exist in " + src)
	}
	m.bind(Mount{Kind: ImageBind, Source: im.Inside, Image: im.N, Destination: dst, Dir: im.InsideKind == Directory, ReadOnly: readOnly, Tag: "user"})
	return nil
}

// data plans the data containers.
func (m *maker) data() error {
	for _, spec := range m.o.Data {
		src, dst, ok := strings.Cut(spec, ":")
		if !ok || src == "" || !strings.HasPrefix(dst, "/") {
			return errors.New("--data " + strconv.Quote(spec) + " is not of the form SRC:DEST with an absolute DEST")
		}
		src = m.absolute(src)
		if !m.f.Conf.UserBinds {
			m.note("Ignoring " + src + " data container: user bind control disabled by system administrator")
			continue
		}
		im, err := m.f.Open(ImageRef{Use: UseData, Path: src, Inside: "/"})
		if err != nil {
			return err
		}
		if err := m.mountImage(src, dst, im, true); err != nil {
			return err
		}
	}
	return nil
}
