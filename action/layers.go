package action

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/container"
	"singularity/host"
	"singularity/image"
	"singularity/linux/lockfile"
	"singularity/plan"
)

// maxImages bounds the images of one container.
const maxImages = 64

// images are the image files of a container: what is served, and what is locked.
type images struct {
	served []*container.Served
	opened map[plan.ImageRef]*openedImage
	leases []*lockfile.Lease
	// lost is closed when a lease is: then the container must end.
	lost chan struct{}
	stop chan struct{}
}

// openedImage is the answer to an ImageRef.
type openedImage struct {
	plan.OpenImage
	files image.Files
	res   *image.Resolver
}

// addRoot makes the root image the first of those that are served, and locks it
// if it can be changed: an ext3 file, for others or for this container alone.
func (s *starter) addRoot() error {
	im := s.image
	if im.Kind == image.Sandbox {
		return nil
	}
	writable := im.Kind == image.Ext3 && s.o.Writable
	part := image.Part{ID: im.Root, Format: im.Format, Off: im.Off, Size: im.Size}
	switch {
	case writable:
		w, err := image.OpenParts(im.Path, true)
		if err != nil {
			return noWrite(im.Path, err)
		}
		if w.Dev != im.Dev || w.Ino != im.Ino {
			return errors.New("the image " + im.Path + " has been replaced meanwhile")
		}
		if err := s.own(w.File, im.Path); err != nil {
			return err
		}
		im.File = w.File
	case im.Kind == image.Ext3:
		if err := lockfile.Share(im.File, im.Path); err != nil {
			return heldError(err)
		}
	}
	v := s.serve(im, part, s.fsys, plan.UseBind, writable)
	v.ReadFile, v.Secret, v.Kernel = s.files.ReadFile, s.secret, s.kernelMounts()
	return nil
}

// serve adds an image to those of the container.
func (s *starter) serve(im *image.Image, p image.Part, fsys any, use plan.ImageUse, writable bool) *container.Served {
	v := &container.Served{FS: fsys, File: im.File, Format: int(p.Format), Off: p.Off, Size: p.Size, Layer: use == plan.UseOverlay, Writable: writable,
		Tree: im.Trees[p.ID], Panic: s.o.IntegrityPanic, Policy: formatOf(im)}
	if len(s.images.served) == 0 {
		v.Hold = s.hold
	}
	s.images.served = append(s.images.served, v)
	return v
}

// findPartitions lists the overlay partitions of the image.
func (s *starter) findPartitions() error {
	parts, err := s.image.Overlays()
	for _, p := range parts {
		s.overlays = append(s.overlays, plan.Partition{ID: p.ID, Ext: p.Format == image.FormatExt})
	}
	return err
}

// openLayers opens what lies over the root, so that the environment and the
// mount points are those of all layers together.
func (s *starter) openLayers() error {
	var refs []plan.ImageRef
	if !s.o.Writable {
		for _, spec := range s.o.Overlay {
			o, err := plan.ParseOverlay(spec)
			if err != nil {
				return err
			}
			refs = append(refs, plan.ImageRef{Use: plan.UseOverlay, Path: s.absolute(o.Path), Writable: !o.ReadOnly})
		}
	}
	for i := len(s.overlays) - 1; i >= 0; i-- {
		// Which partition is written to, the plan decides by the same rule.
		write := s.o.Writable && s.firstExt() == i
		refs = append(refs, plan.ImageRef{Use: plan.UseOverlay, Path: s.image.Path, ID: s.overlays[i].ID, Writable: write})
	}
	var union image.Union
	for _, r := range refs {
		o, err := s.open(r)
		if err != nil {
			return err
		}
		l := image.UnionLayer{Files: o.files}
		if o.Sub != "" {
			l.Dir = "/" + o.Sub
		}
		if o.Kind != plan.SquashfsImage && r.Writable {
			l.Dir = "/upper"
			union = append(image.Union{l}, union...)
			continue
		}
		union = append(union, l)
	}
	if len(union) > 0 {
		s.files = append(union, image.UnionLayer{Files: s.files})
	}
	return nil
}

func (s *starter) firstExt() int {
	for i := range s.overlays {
		if s.overlays[i].Ext {
			return i
		}
	}
	return -1
}

func (s *starter) absolute(p string) string {
	if strings.HasPrefix(p, "/") {
		return p
	}
	dir, err := os.Getwd()
	if err != nil {
		return p
	}
	return dir + "/" + p
}

// open opens an image besides the root, once for each way that it is wanted in.
func (s *starter) open(r plan.ImageRef) (*openedImage, error) {
	inside := r.Inside
	r.Inside = ""
	o := s.images.opened[r]
	if o == nil {
		if len(s.images.served) >= maxImages {
			return nil, errors.New("too many images: at most " + strconv.Itoa(maxImages))
		}
		var err error
		if o, err = s.openNew(r); err != nil {
			return nil, err
		}
		if s.images.opened == nil {
			s.images.opened = map[plan.ImageRef]*openedImage{}
		}
		s.images.opened[r] = o
	}
	if o.Kind == plan.DirImage || r.Use == plan.UseOverlay {
		return o, nil
	}
	answer := *o
	at, mode, ok := o.res.Resolve(inside)
	answer.Inside = at
	switch {
	case !ok:
		answer.InsideKind = plan.Missing
	case mode.IsDir():
		answer.InsideKind = plan.Directory
	default:
		answer.InsideKind = plan.Other
	}
	return &answer, nil
}

func (s *starter) openNew(r plan.ImageRef) (*openedImage, error) {
	im, err := image.OpenParts(r.Path, false)
	if err != nil {
		return nil, imageError(r.Path, err)
	}
	if err := s.allowed(im); err != nil {
		return nil, err
	}
	if im.Kind == image.Sandbox {
		return s.openDir(im, r)
	}
	if im.Dev == s.image.Dev && im.Ino == s.image.Ino {
		im.Trees = s.image.Trees
	}
	p, err := choosePart(im, r)
	if err != nil {
		return nil, errors.New("cannot use " + r.Path + ": " + err.Error())
	}
	if err := s.checkPart(im, p, p.Format == image.FormatExt && r.Writable); err != nil {
		return nil, err
	}
	o := &openedImage{}
	o.Kind = plan.SquashfsImage
	write := false
	if p.Format == image.FormatExt {
		o.Kind, write = plan.ExtImage, r.Writable
		if err := s.lock(im, write); err != nil {
			return nil, err
		}
	}
	var fsys any
	if o.files, fsys, err = im.Open(p); err != nil {
		return nil, imageError(r.Path, err)
	}
	if _, err := o.files.ReadDir("/upper"); err == nil && o.Kind == plan.ExtImage && r.Use == plan.UseOverlay {
		o.Sub = "upper"
	}
	o.res = image.NewResolver(o.files)
	o.N = len(s.images.served)
	s.serve(im, p, fsys, r.Use, write)
	if write {
		s.slowNote(r)
	}
	return o, nil
}

// choosePart returns the file system in im that r means.
func choosePart(im *image.Image, r plan.ImageRef) (image.Part, error) {
	switch {
	case r.Use == plan.UseData:
		return im.Data()
	case r.Use != plan.UseOverlay || im.Kind != image.SIF || r.ID != 0:
		return im.Part(r.ID)
	}
	list, err := im.Overlays()
	if err == nil && len(list) == 0 {
		err = errors.New("it is a SIF without an overlay partition")
	}
	if err != nil {
		return image.Part{}, err
	}
	return list[len(list)-1], nil
}

// openDir makes a directory a layer.
func (s *starter) openDir(im *image.Image, r plan.ImageRef) (*openedImage, error) {
	o := &openedImage{}
	o.Dev, o.Ino = im.Dev, im.Ino
	var err error
	if o.files, _, err = im.Files(); err != nil {
		return nil, err
	}
	if mode, _, err := o.files.Lstat("/upper"); err == nil && mode.IsDir() {
		o.Sub = "upper"
	}
	if r.Use != plan.UseOverlay || !r.Writable {
		return o, nil
	}
	if err := unix.Access(r.Path, unix.W_OK); err != nil {
		return nil, noWrite(r.Path, err)
	}
	return o, s.own(im.File, r.Path)
}

// lock locks an ext3 image as it will be used. For writing it opens it again.
func (s *starter) lock(im *image.Image, write bool) error {
	if !write {
		return heldError(lockfile.Share(im.File, im.Path))
	}
	w, err := image.OpenParts(im.Path, true)
	if err != nil {
		return noWrite(im.Path, err)
	}
	if w.Dev != im.Dev || w.Ino != im.Ino {
		return errors.New("the image " + im.Path + " has been replaced meanwhile")
	}
	if err := s.own(w.File, im.Path); err != nil {
		return err
	}
	im.File.Close()
	*im = *w
	return nil
}

// own takes a file or directory for this container alone.
func (s *starter) own(f *os.File, path string) error {
	l, err := lockfile.Own(f, path, s.userName())
	if err != nil {
		return heldError(err)
	}
	s.images.leases = append(s.images.leases, l)
	return nil
}

func (s *starter) userName() string {
	uid, gid := os.Getuid(), os.Getgid()
	if s.entry.Unshared {
		uid, gid = s.entry.UID, s.entry.GID
	}
	if u, err := host.LookupUser(uid, gid); err == nil {
		return u.Name
	}
	return strconv.Itoa(uid)
}

// slowNote says once what writing to an image file costs.
func (s *starter) slowNote(r plan.ImageRef) {
	through := "fuse2fs"
	if r.Use == plan.UseOverlay {
		through = "fuse2fs and fuse-overlayfs"
	}
	s.log.Info("Writing to " + r.Path + " through " + through + ", in user space: a directory is faster")
}

func noWrite(path string, err error) error {
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EPERM) {
		return Fatal(errors.New("could not use "+path+" for writing, you don't have write permissions"), "add :ro to use it read-only")
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return errors.New("could not open image " + path + ": " + err.Error())
}

func heldError(err error) error {
	if errors.Is(err, lockfile.ErrLocked) {
		return Fatal(err, "wait for that process, end it, or use another image; a writable image serves one container at a time")
	}
	return err
}

// keepLeases renews the leases while the container runs.
func (m *images) keepLeases(log *Log) {
	if len(m.leases) == 0 {
		return
	}
	m.lost, m.stop = make(chan struct{}), make(chan struct{})
	go func() {
		tick := time.NewTicker(lockfile.Beat)
		defer tick.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-tick.C:
			}
			for _, l := range m.leases {
				if err := l.Renew(); err != nil {
					log.Error("Ending the container: its writable image is lost: " + err.Error())
					close(m.lost)
					return
				}
			}
		}
	}()
}

// release takes the word of this container out of the images.
func (m *images) release() {
	if m.stop != nil {
		close(m.stop)
		m.stop = nil
	}
	for _, l := range m.leases {
		l.Release()
	}
	m.leases = nil
}

// noOverlay tells whether the kernel lacks overlays. The file system may be a
// module that is loaded on demand, so only a kernel without modules is sure.
func noOverlay() bool {
	text, err := os.ReadFile("/proc/filesystems")
	if err != nil || strings.Contains(string(text), "\toverlay\n") {
		return false
	}
	_, err = os.Stat("/proc/modules")
	return err != nil
}
