package sign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"singularity/linux/syslog"
	"singularity/pgp"
	"singularity/sif"
	"singularity/sign/keyring"
	"singularity/sign/verdict"
	"singularity/verity"
)

// Site says how images are judged here.
type Site struct {
	Full     bool   // read partitions that have a hash tree, too
	Keyrings string // directory of the user's keyrings
	Dir      string // directory of the administrator's files
	List     bool   // ask the execution control list
	ListOnly bool   // and nothing else
	Object   uint32 // judge the group of this object; 0 stands for the root partition
}

// JudgeFile judges the open image file.
func JudgeFile(ctx context.Context, image *os.File, s Site) (*verdict.Verdict, error) {
	fi, err := image.Stat()
	if err != nil {
		return nil, err
	}
	f, err := sif.Open(image, fi.Size())
	if err != nil {
		return nil, err
	}
	o := Options{Now: time.Now(), How: Lazy, Keyrings: Keyrings(s.Dir, s.Keyrings)}
	if s.Full {
		o.How = Full
	}
	listed := false
	if s.List || s.ListOnly {
		if listed, err = s.ask(ctx, image, f, o); err != nil {
			return &verdict.Verdict{State: verdict.Refused, Text: verdict.ListPrefix + err.Error()}, nil
		}
		if s.ListOnly {
			return &verdict.Verdict{State: verdict.Allowed, Listed: listed}, nil
		}
		if listed {
			o.How = Lazy // all that Full reads was read
		}
	}
	o.Object = s.Object
	v := Judge(ctx, f, o)
	v.Listed = listed
	return v, nil
}

// ask asks the execution control list, and tells the system's log what it said.
// It returns whether the list is activated.
func (s *Site) ask(ctx context.Context, image *os.File, f *sif.File, o Options) (bool, error) {
	c, err := ReadList(s.Dir)
	if err != nil || !c.Activated {
		return false, err
	}
	// The path of what is open, whatever its name leads to by now.
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(image.Fd())))
	if err != nil {
		return true, err
	}
	d := Decide(ctx, f, path, s.Dir, c, o.How, o.Now)
	rule, result := "none", "allowed"
	if d.Group != nil {
		rule = d.Group.Tag + " (" + string(d.Group.Mode) + ")"
	}
	if d.Err != nil {
		result = "refused: " + d.Err.Error()
	}
	syslog.Send("execution control list: uid " + strconv.Itoa(os.Getuid()) + ", image " + strconv.Quote(path) + ", id " + f.Header().ID.String() +
		", signed by " + strings.Join(d.Signers, " ") + ", execgroup " + rule + ": " + result)
	return true, d.Err
}

// Judge tells what is to be known before a container starts from f: who signed
// the group of its root partition, or of the object that o selects, and the hash
// trees there. With o.How Lazy it
// reads no partition, so that the time does not depend on their size.
//
// A key that is not known here does not forbid a start: blocks are checked
// against the tree all the same, which finds damage and later changes, but the
// origin is not proven.
func Judge(ctx context.Context, f *sif.File, o Options) *verdict.Verdict {
	refuse := func(err error) *verdict.Verdict {
		return &verdict.Verdict{State: verdict.Refused, Text: err.Error()}
	}
	root, err := f.Primary()
	if id := o.Object; id != 0 {
		var ok bool
		if root, ok = f.Object(id); !ok {
			return refuse(fmt.Errorf("it has no object %d", id))
		}
		err = nil
	}
	if err != nil {
		return refuse(err)
	}
	o.Selection, o.Any = Selection{Group: root.Group}, true
	r, err := Verify(ctx, f, o)
	v := &verdict.Verdict{State: verdict.Trusted}
	for _, t := range r.Trees {
		v.Trees = append(v.Trees, &verity.Params{Object: t.Partition.ID, Off: t.Object.Off, Size: t.Object.Size, Salt: t.Salt, Root: t.Root})
	}
	switch {
	case errors.Is(err, ErrNoSignature):
		v.State = verdict.Unsigned
	case err != nil && onlyUnknown(r):
		v.State, v.Text = verdict.Unknown, err.Error()
	case err != nil:
		return refuse(err)
	}
	if v.State == verdict.Trusted {
		for _, s := range r.Signatures {
			if s.Err == nil && s.Key != nil {
				v.Text = s.Key.UserID() + ", " + s.Key.Fingerprint().String()
				break
			}
		}
		return v
	}
	if o.How != Lazy {
		// Nobody vouches for the tree, but it must be that of the data.
		if err := checkTrees(ctx, f, r.Trees); err != nil {
			return refuse(err)
		}
	}
	return v
}

// Keyrings returns the administrator's ring, which is in site, and the user's,
// which is in dir, in the order in which they are asked. One that cannot be used
// is left out, so that its keys are unknown.
func Keyrings(site, dir string) []Keyring {
	var list []Keyring
	for _, k := range []struct {
		origin Origin
		file   keyring.File
	}{{Global, keyring.Global(site, nil)}, {Local, keyring.Public(dir, nil)}} {
		if ring, err := k.file.Raw(); err == nil {
			list = append(list, Keyring{Origin: k.origin, Ring: ring})
		}
	}
	return list
}

// onlyUnknown tells whether no signature was found wrong: their keys are not
// here.
func onlyUnknown(r *Result) bool {
	for _, s := range r.Signatures {
		var unknown *pgp.UnknownKeyError
		if s.Err != nil && !errors.As(s.Err, &unknown) && !errors.Is(s.Err, ErrNoKey) && !errors.Is(s.Err, errNoKeyring) {
			return false
		}
	}
	return len(r.Signatures) > 0
}

func checkTrees(ctx context.Context, f *sif.File, trees []Tree) error {
	for i := range trees {
		p := &treeCheck{Tree: trees[i], task: &task{}}
		if err := p.start(f, nil, ByTree); err != nil {
			return err
		}
		if err := errors.Join(p.end(ctx, false), p.fault); err != nil {
			return err
		}
	}
	return nil
}
