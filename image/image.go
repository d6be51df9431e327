package image

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/sif"
	"singularity/squashfs"
	"singularity/verity"
)

// Kind is what an image is stored as.
type Kind int

// The kinds of images.
const (
	Sandbox  Kind = iota // a directory
	SIF                  // a SIF file
	Squashfs             // a bare squashfs file
	Ext3                 // a bare ext2, ext3 or ext4 file
)

func (k Kind) String() string {
	return [...]string{"sandbox", "SIF", "squashfs", "ext3"}[k]
}

// Format is the file system of a root partition.
type Format int

// The file systems that can be served.
const (
	FormatNone Format = iota // a sandbox has no partition
	FormatSquashfs
	FormatExt
	FormatEncrypted // LUKS2
	FormatGocryptfs // the other fork's
)

// Encrypted tells whether a partition must be unlocked to be read.
func (f Format) Encrypted() bool { return f == FormatEncrypted || f == FormatGocryptfs }

// Image is an image that is open. The descriptor is opened once and everything
// later goes through it, so that the image that was looked at is the one that
// runs.
type Image struct {
	Path string // absolute
	Kind Kind
	File *os.File
	// Dev and Ino identify the file or directory.
	Dev, Ino uint64
	// SIF is the container structure, for that kind.
	SIF *sif.File
	// Format, Off and Size are the root partition, in bytes of File.
	Format Format
	Off    int64
	Size   int64
	// Arch is the architecture that the image names, as GOARCH, "" if none.
	Arch string
	// Plain is the squashfs in an encrypted root partition, once it is unlocked.
	Plain *io.SectionReader
	// Trees are the hash trees of partitions by their ids: what is read of these
	// is checked.
	Trees map[uint32]*verity.Params
	// Root is the id of the root partition, in a SIF.
	Root uint32

	parts bool // opened by OpenParts
}

// Errors that a caller tells apart.
var (
	ErrFormat   = errors.New("image format not recognized")
	ErrRootPath = errors.New("/ as sandbox is not authorized")
	ErrLocked   = errors.New("the root partition is encrypted")
	ErrOCISIF   = errors.New("native runtime does not support OCI-SIF images, use --oci mode")
)

// ArchError says that the image is for another kind of processor.
type ArchError struct{ Image, Host string }

func (e *ArchError) Error() string {
	return "image targets '" + e.Image + "', cannot run on '" + e.Host + "'"
}

// probeSize is how many bytes at the start tell what a file is.
const probeSize = 2048

// Open opens the image at path, read-only, and finds its root partition.
func Open(path string) (*Image, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(abs, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: abs, Err: err}
	}
	im := &Image{Path: abs, File: os.NewFile(uintptr(fd), abs)}
	if err := im.identify(); err != nil {
		im.File.Close()
		return nil, err
	}
	return im, nil
}

// Close closes the image.
func (im *Image) Close() error { return im.File.Close() }

func (im *Image) identify() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(im.File.Fd()), &st); err != nil {
		return err
	}
	im.Dev, im.Ino = st.Dev, st.Ino
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return im.sandbox()
	case unix.S_IFREG:
	default:
		return &os.PathError{Op: "use", Path: im.Path, Err: errors.New("neither a directory nor a regular file")}
	}
	head := make([]byte, probeSize)
	n, err := io.ReadFull(im.File, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return err
	}
	head = head[:n]
	if len(head) > 42 && string(head[32:42]) == "SIF_MAGIC\x00" {
		return im.openSIF(st.Size)
	}
	// A 2.x image may begin with a launch line.
	off := int64(0)
	if i := strings.IndexByte(string(head), '\n'); i >= 0 && strings.HasPrefix(string(head), "#!") && strings.Contains(string(head[:i]), " run-singularity") {
		off = int64(i + 1)
	}
	im.Off, im.Size = off, st.Size-off
	switch detect(head[off:]) {
	case FormatSquashfs:
		im.Kind, im.Format = Squashfs, FormatSquashfs
	case FormatExt:
		im.Kind, im.Format = Ext3, FormatExt
	default:
		return ErrFormat
	}
	return nil
}

func (im *Image) sandbox() error {
	im.Kind = Sandbox
	if im.parts {
		return nil
	}
	if im.Path == "/" {
		return ErrRootPath
	}
	var root unix.Stat_t
	if unix.Stat("/", &root) == nil && root.Dev == im.Dev && root.Ino == im.Ino {
		return ErrRootPath
	}
	return nil
}

// openSIF finds the primary system partition.
func (im *Image) openSIF(size int64) error {
	f, err := sif.Open(im.File, size)
	if err != nil {
		return err
	}
	im.Kind, im.SIF = SIF, f
	if im.parts {
		return nil
	}
	for _, o := range f.Objects() {
		if o.Type == sif.DataOCIRootIndex {
			return ErrOCISIF
		}
	}
	o, err := f.Primary()
	if err != nil {
		return err
	}
	p, _ := o.Partition()
	im.Off, im.Size, im.Arch, im.Root = o.Off, o.Size, p.Arch, o.ID
	switch p.FS {
	case sif.FSSquashfs:
		im.Format = FormatSquashfs
	case sif.FSExt3:
		im.Format = FormatExt
	case sif.FSEncryptedSquashfs:
		im.Format = FormatEncrypted
		return nil
	case sif.FSGocryptfsSquashfs:
		im.Format = FormatGocryptfs
		return nil
	default:
		return errors.New("the root partition's file system cannot be mounted: " + p.FS.String())
	}
	head := make([]byte, min(int64(probeSize), o.Size))
	if _, err := im.File.ReadAt(head, o.Off); err != nil && err != io.EOF {
		return err
	}
	if detect(head) != im.Format {
		return errors.New("the root partition does not hold the file system that the SIF names (" + p.FS.String() + ")")
	}
	return nil
}

// HasTree tells whether the root partition of a SIF has a hash tree, by the names
// of the objects alone.
func (im *Image) HasTree() bool { return im.HasTreeOf(im.Root) }

// HasTreeOf tells that of the partition id.
func (im *Image) HasTreeOf(id uint32) bool {
	if im.Kind != SIF {
		return false
	}
	for _, o := range im.SIF.Objects() {
		if o.Type == sif.DataJSON && o.Link == id && !o.LinkIsGroup && strings.HasPrefix(o.Name, "verity.json") {
			return true
		}
	}
	return false
}

// Section returns a reader of the root partition as it is stored; what Trees tell
// of it is checked.
func (im *Image) Section() (*io.SectionReader, error) { return im.section(im.Root, im.Off, im.Size) }

// section returns a reader of the partition id, which lies at off.
func (im *Image) section(id uint32, off, size int64) (*io.SectionReader, error) {
	return im.Trees[id].Section(im.File, off, size)
}

// detect tells which file system begins with head.
func detect(head []byte) Format {
	if len(head) >= squashfs.SuperblockSize && string(head[:4]) == "hsqs" {
		return FormatSquashfs
	}
	// The superblock of ext2, 3 and 4 lies at 1024, its magic at 56.
	if len(head) >= 1024+58 && head[1024+56] == 0x53 && head[1024+57] == 0xef {
		return FormatExt
	}
	return FormatNone
}

// Runnable returns an ArchError if this machine cannot run the image.
func (im *Image) Runnable() error {
	host := runtime.GOARCH
	switch {
	case im.Arch == "" || im.Arch == host || im.Arch == "unknown":
		return nil
	case host == "amd64" && im.Arch == "386", host == "arm64" && im.Arch == "arm":
		return nil
	case emulated(im.Arch):
		return nil
	}
	return &ArchError{Image: im.Arch, Host: host}
}

// emulated tells whether a persistent binfmt_misc handler runs programs of the
// architecture arch: only one with flag F works inside a container.
func emulated(arch string) bool {
	name := map[string]string{"amd64": "x86_64", "386": "i386", "arm64": "aarch64", "loong64": "loongarch64"}[arch]
	if name == "" {
		name = arch
	}
	text, err := os.ReadFile("/proc/sys/fs/binfmt_misc/qemu-" + name)
	if err != nil {
		return false
	}
	enabled, persistent := false, false
	for _, l := range strings.Split(string(text), "\n") {
		enabled = enabled || l == "enabled"
		if flags, ok := strings.CutPrefix(l, "flags: "); ok {
			persistent = strings.Contains(flags, "F")
		}
	}
	return enabled && persistent
}

// Unreadable tells whether err says that the image may not be read.
func Unreadable(err error) bool { return errors.Is(err, syscall.EACCES) }
