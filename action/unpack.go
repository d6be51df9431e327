package action

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"singularity/host"
	"singularity/image"
	"singularity/plan"
	"singularity/squashfs"
)

// unpacks tells whether the image must be unpacked, and what to tell about that.
func (s *starter) unpacks() (yes bool, note string, err error) {
	f := plan.Facts{Conf: settings(s.conf), Host: plan.HostFacts{UID: os.Getuid(), NoFUSE: s.noFUSE != nil && s.hold == nil},
		Image: plan.ImageFacts{Path: s.image.Path, Ext: s.image.Kind == image.Ext3, Kind: plan.ServedRoot, Overlays: s.overlays}}
	if s.image.Kind == image.Sandbox {
		f.Image.Kind = plan.DirRoot
	}
	return plan.Unpack(s.o, &f)
}

// unpack replaces the image by a temporary sandbox, if that is wanted.
func (s *starter) unpack() error {
	yes, note, err := s.unpacks()
	if err != nil || !yes {
		return err
	}
	if s.image.Format.Encrypted() {
		return Fatal(errors.New("cannot unpack "+s.image.Path+" to a temporary sandbox: its files would lie on disk in clear"), "run it without --tmp-sandbox and --writable; --writable-tmpfs and --overlay let programs write")
	}
	r, ok := s.fsys.(*squashfs.Reader)
	if !ok {
		return errors.New("cannot unpack " + s.image.Path + " to a temporary sandbox: it holds no squashfs")
	}
	if note == "" && s.noFUSE != nil && !s.o.TmpSandbox {
		note = "The image is unpacked instead of mounted, which takes time and space: " + s.noFUSE.Cause + " (" + s.noFUSE.Cure + ")"
	}
	if note != "" {
		s.log.Warning(note)
	}
	s.log.Info("Converting SIF file to temporary sandbox...")
	switch s.sandbox, err = newSandbox(s.tempDir()); {
	case errors.Is(err, syscall.EAGAIN):
		return err
	case err != nil:
		return Fatal(errors.New("cannot make a temporary sandbox: "+err.Error()), "let SINGULARITY_TMPDIR name a directory that you may write to")
	}
	dir := s.sandbox.dir
	root := dir + "/root"
	err = os.Mkdir(root, 0o700)
	if err == nil {
		err = host.CheckRoom(host.Temporary, dir, s.image.Size)
	}
	if err == nil {
		err = unpackTree(r, root, s.log)
	}
	if err != nil {
		return Fatal(errors.New("cannot unpack "+s.image.Path+" to "+dir+": "+err.Error()), "let SINGULARITY_TMPDIR name a directory with more space")
	}
	if s.image, err = image.Open(root); err != nil {
		return err
	}
	s.overlays = nil
	s.files, s.fsys, err = s.image.Files()
	return err
}

// tempDir is where temporary sandboxes are made.
func (s *starter) tempDir() string {
	return host.TempDir(s.o.TmpDir, os.Getenv("SINGULARITY_TMPDIR"), os.Getenv("SINGULARITY_LOCALCACHEDIR"), os.Getenv("SINGULARITY_CACHEDIR"), os.Getenv("TMPDIR"))
}

// unpackTree makes the files of r below the empty directory dir, all owned by
// the caller, who alone could see others in a container. Device nodes are left
// out.
//
// Security: the names and links are the image's. os.Root lets none of them lead
// out of dir.
func unpackTree(r *squashfs.Reader, dir string, log *Log) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	type perm struct {
		path string
		mode fs.FileMode
	}
	var dirs []perm
	links := map[uint32]string{}
	devices := 0
	err = r.Each(func(path string, in *squashfs.Inode) error {
		if path == "" {
			path = "."
		}
		mode := fs.FileMode(in.Mode & 0o777)
		if !in.IsDir() && in.Nlink > 1 {
			if first, ok := links[in.Number]; ok {
				return root.Link(first, path)
			}
			links[in.Number] = path
		}
		switch {
		case in.IsDir():
			dirs = append(dirs, perm{path, mode | 0o700})
			if path == "." {
				return nil
			}
			return root.Mkdir(path, 0o700)
		case in.IsSymlink():
			target, err := r.Readlink(in)
			if err != nil {
				return err
			}
			return root.Symlink(target, path)
		case in.IsRegular():
			return unpackFile(r, root, path, in, mode)
		}
		delete(links, in.Number)
		devices++
		return nil
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := root.Chmod(dirs[i].path, dirs[i].mode); err != nil {
			return err
		}
	}
	if devices > 0 {
		log.Verbose(strconv.Itoa(devices) + " device nodes, pipes and sockets of the image are not in the temporary sandbox")
	}
	return nil
}

func unpackFile(r *squashfs.Reader, root *os.Root, path string, in *squashfs.Inode, mode fs.FileMode) error {
	f, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.NewSectionReader(squashReader{r, in}, 0, in.Size))
	if err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}

type squashReader struct {
	r  *squashfs.Reader
	in *squashfs.Inode
}

func (s squashReader) ReadAt(p []byte, off int64) (int, error) { return s.r.ReadAt(s.in, p, off) }
