package sign

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"singularity/pgp"
	"singularity/sif"
)

// Signer makes signature objects of one form with one key.
type Signer interface {
	// Unlock makes the key usable. It may take long, and is called once, while
	// the image is being hashed.
	Unlock() error
	// Sign returns the data of a signature object for a statement, and what its
	// descriptor says.
	Sign(statement []byte) ([]byte, sif.Signature, error)
}

// OpenPGP returns a signer that makes clear-signed messages with the primary
// key of k, which passphrase unlocks if it is locked, dated now.
func OpenPGP(k *pgp.Key, passphrase []byte, now time.Time) Signer {
	return &openPGP{k, passphrase, now}
}

type openPGP struct {
	key        *pgp.Key
	passphrase []byte
	now        time.Time
}

func (s *openPGP) Unlock() error { return s.key.Unlock(s.passphrase) }

func (s *openPGP) Sign(statement []byte) ([]byte, sif.Signature, error) {
	data, err := s.key.ClearSign(statement, s.now)
	return data, sif.Signature{Hash: sif.HashSHA256, Entity: s.key.Fingerprint()}, err
}

// Selection names what is to be signed or verified. The zero value means every
// group; at most one field is set.
type Selection struct {
	Group  uint32 // all objects of this group
	Object uint32 // this object alone
}

// task is what one signature is to cover.
type task struct {
	group   uint32
	object  uint32       // 0: the whole group
	base    uint32       // smallest id of the group: relative ids count from it
	members []sif.Object // of the group, in the order of the table
	objects []sif.Object // those that the signature must name, by id
}

func (t *task) String() string {
	if t.object != 0 {
		return fmt.Sprintf("object %d", t.object)
	}
	return fmt.Sprintf("object group %d", t.group)
}

// groupTasks returns a task for each group of f, in the order of their numbers.
func groupTasks(f *sif.File) []*task {
	groups := map[uint32]*task{}
	var list []*task
	for _, o := range f.Objects() {
		if o.Group == 0 {
			continue
		}
		t := groups[o.Group]
		if t == nil {
			t = &task{group: o.Group, base: o.ID}
			groups[o.Group] = t
			list = append(list, t)
		}
		t.base = min(t.base, o.ID)
		t.members = append(t.members, o)
	}
	for _, t := range list {
		t.objects = slices.Clone(t.members)
		slices.SortFunc(t.objects, func(a, b sif.Object) int { return cmp.Compare(a.ID, b.ID) })
	}
	slices.SortFunc(list, func(a, b *task) int { return cmp.Compare(a.group, b.group) })
	return list
}

// only returns t narrowed to its object o.
func (t *task) only(o sif.Object) *task {
	return &task{group: t.group, object: o.ID, base: t.base, members: t.members, objects: []sif.Object{o}}
}

// tasks returns what sel means for f.
func (sel Selection) tasks(f *sif.File) ([]*task, error) {
	list := groupTasks(f)
	group := sel.Group
	var object sif.Object
	if sel.Object != 0 {
		o, ok := f.Object(sel.Object)
		if !ok {
			return nil, fmt.Errorf("object %d not found", sel.Object)
		}
		if o.Group == 0 {
			return nil, fmt.Errorf("object %d is in no group", sel.Object)
		}
		object, group = o, o.Group
	}
	if group == 0 {
		if len(list) == 0 {
			return nil, errors.New("no object groups found")
		}
		return list, nil
	}
	i := slices.IndexFunc(list, func(t *task) bool { return t.group == group })
	if i < 0 {
		return nil, fmt.Errorf("group %d not found", group)
	}
	if sel.Object != 0 {
		return []*task{list[i].only(object)}, nil
	}
	return list[i : i+1], nil
}

// Sign adds a signature for each group that sel selects to the image of size
// bytes in w, and returns the signature objects. A locked or read-only file is
// the caller's matter. If Sign is interrupted, the image is readable, and each
// signature in it is whole.
func Sign(ctx context.Context, w sif.Storage, size int64, sel Selection, s Signer, now time.Time) ([]sif.Object, error) {
	e, err := sif.Edit(w, size)
	if err != nil {
		return nil, err
	}
	e.Time = now
	tasks, err := sel.tasks(e.File())
	if err != nil {
		return nil, fmt.Errorf("integrity: %w", err)
	}
	if free := e.File().Header().FreeSlots; free < int64(len(tasks)) {
		return nil, fmt.Errorf("image has room for %d more objects, %d signatures are needed", free, len(tasks))
	}
	// Adding an object waits for all of the image to be on disk. What a copy or
	// a download still owes is written while the processor hashes.
	statements, err := state(ctx, e.File(), tasks, s.Unlock, w.Sync)
	if err != nil {
		return nil, err
	}
	var added []sif.Object
	for i, t := range tasks {
		data, extra, err := s.Sign(statements[i])
		if err != nil {
			return added, err
		}
		o, err := e.Add(sif.Input{
			Type: sif.DataSignature, Link: t.group, LinkIsGroup: true,
			Extra: extra.Extra(), Data: bytes.NewReader(data),
		})
		if err != nil {
			return added, err
		}
		added = append(added, o)
	}
	return added, nil
}

// state hashes what tasks name and returns their statements. All of meanwhile run
// at the same time, and one that fails ends the work.
func state(ctx context.Context, f *sif.File, tasks []*task, meanwhile ...func() error) ([][]byte, error) {
	const alg = crypto.SHA256
	h := newHashing(f)
	jobs := map[uint32]*hashJob{}
	for _, t := range tasks {
		for _, o := range t.objects {
			jobs[o.ID] = h.want(alg, o)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, do := range append(meanwhile, func() error { return h.run(ctx) }) {
		wg.Go(func() {
			if err := do(); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	var list [][]byte
	for _, t := range tasks {
		s := statement{header: digestOf(alg, f.HeaderDigestBytes())}
		for _, o := range t.objects {
			relative := o.ID - t.base
			descriptor, err := f.DescriptorDigestBytes(o, relative)
			if err != nil {
				return nil, err
			}
			s.objects = append(s.objects, objectDigests{relative, digestOf(alg, descriptor), jobs[o.ID].sum(alg)})
		}
		text := s.encode()
		if len(text) > maxStatementSize {
			return nil, fmt.Errorf("%s has too many objects for one signature", t)
		}
		list = append(list, text)
	}
	return list, nil
}
