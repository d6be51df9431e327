package sign

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"singularity/conf/ecl"
	"singularity/pgp"
	"singularity/priv"
	"singularity/sif"
	"singularity/sign/verdict"
	"singularity/verity"
)

// HelperSite is what the setuid helper gives with an image to judge: open files of
// the administrator, and nothing of the caller's.
type HelperSite struct {
	Full   bool     // read the root partition although it has a hash tree
	List   *os.File // the execution control list; nil: it is not asked
	Ring   *os.File // the site's keyring
	Caller int      // the user id, for the system's log
	// Unlock, if not nil, tells where the cipher text lies in an encrypted
	// partition, or why the caller's key is not the one of its header.
	Unlock func(r io.ReaderAt, size int64) (*priv.Crypt, error)
}

// JudgeForHelper judges an image for the setuid helper, by the site's keyring
// alone. Without a list an image that has no hash tree is not read, since nothing of
// it is used then. With one, all of an image is read whose tree is not used later.
func JudgeForHelper(ctx context.Context, image *os.File, s HelperSite) *priv.Verdict {
	v, err := s.judge(ctx, image)
	if err != nil {
		return &priv.Verdict{Text: err.Error()}
	}
	return v
}

func (s *HelperSite) judge(ctx context.Context, image *os.File) (*priv.Verdict, error) {
	fi, err := image.Stat()
	if err != nil {
		return nil, err
	}
	f, err := sif.Open(image, fi.Size())
	if err != nil {
		return nil, err
	}
	ring, err := readRing(s.Ring)
	if err != nil {
		return nil, errors.New("cannot read the site's keyring: " + err.Error())
	}
	o := Options{Now: time.Now(), How: Full, Keyrings: []Keyring{{Origin: Global, Ring: ring}}}
	v := &priv.Verdict{OK: true}
	root, err := f.Primary()
	p, ok := root.Partition()
	if kind := kernelFS(p.FS); ok && err == nil && kind != 0 && root.Off%512 == 0 {
		v.FS, v.Off, v.Size = kind, uint64(root.Off), uint64(root.Size)
	}
	trees, _ := Trees(f)
	ok = v.FS != 0 && root.Size%verity.BlockSize == 0 && slices.ContainsFunc(trees, func(t Tree) bool { return t.Partition.ID == root.ID })
	if ok && !s.Full {
		o.How = Lazy
	}
	if s.List != nil {
		if v.Listed, err = s.ask(ctx, image, f, ring, o); err != nil {
			return nil, errors.New("while checking container image with ECL: " + err.Error())
		}
	}
	if !ok {
		v.Text = "it has no hash tree of its root partition"
		return v, s.unlock(v, image, f, root, nil)
	}
	if v.Listed {
		o.How = Lazy // all that Full reads was read
	}
	judged := Judge(ctx, f, o)
	v.Text = string(judged.State) + " " + judged.Text
	t := judged.Tree(root.ID)
	switch {
	case t != nil && judged.State == verdict.Trusted:
		v.Tree = &priv.Tree{Off: uint64(t.Off), Size: uint64(t.Size), Salt: t.Salt, Root: t.Root[:]}
		return v, s.unlock(v, image, f, root, t)
	case v.Listed && !s.Full:
		// The list trusted a tree that is not used.
		return nil, errors.New("its hash tree cannot be used: " + v.Text)
	}
	return v, s.unlock(v, image, f, root, nil)
}

// unlock finds the cipher text of an encrypted root partition.
//
// Security: the header is read as the kernel reads the cipher text, by the tree of
// the verdict. Without one only an image of root's is used, which nobody else changes.
func (s *HelperSite) unlock(v *priv.Verdict, image *os.File, f *sif.File, root sif.Object, t *verity.Params) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil || s.Unlock == nil || v.FS != priv.CryptFS || t == nil && st.Uid != 0 {
		return err
	}
	r, err := t.Section(image, root.Off, root.Size)
	if err == nil {
		v.Crypt, err = s.Unlock(r, root.Size)
	}
	return err
}

// kernelFS is what the kernel mounts a partition as, 0 if it does not.
func kernelFS(fs sif.FSType) priv.FS {
	switch fs {
	case sif.FSSquashfs:
		return priv.SquashfsFS
	case sif.FSExt3:
		return priv.Ext3FS
	case sif.FSEncryptedSquashfs:
		return priv.CryptFS
	}
	return 0
}

// ask asks the list, as Site.ask does.
func (s *HelperSite) ask(ctx context.Context, image *os.File, f *sif.File, ring *pgp.Ring, o Options) (bool, error) {
	text, err := io.ReadAll(io.LimitReader(s.List, ecl.MaxSize+1))
	if err != nil {
		return false, err
	}
	c, err := ecl.Parse(text, filepath.EvalSymlinks)
	if err != nil {
		return false, errors.New("cannot use " + ListName + ": " + err.Error())
	}
	if !c.Activated {
		return false, nil
	}
	return true, obey(ctx, image, f, c, func() (*pgp.Ring, error) { return ring, nil }, o, s.Caller)
}

func readRing(f *os.File) (*pgp.Ring, error) {
	data, err := io.ReadAll(io.LimitReader(f, pgp.MaxRingSize+1))
	if err != nil {
		return nil, err
	}
	return pgp.ParseRing(data)
}
