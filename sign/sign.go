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

// OpenPGPBy returns a signer that makes clear-signed messages with by, the public
// key k or a sub-key of it, whose secret part is elsewhere: digest signs there.
func OpenPGPBy(k *pgp.Key, by pgp.Fingerprint, now time.Time, digest pgp.DigestSigner) Signer {
	return &openPGPBy{k, by, now, digest}
}

type openPGPBy struct {
	key    *pgp.Key
	by     pgp.Fingerprint
	now    time.Time
	digest pgp.DigestSigner
}

func (s *openPGPBy) Unlock() error { return nil }

func (s *openPGPBy) Sign(statement []byte) ([]byte, sif.Signature, error) {
	data, err := s.key.ClearSignBy(s.by, statement, s.now, s.digest)
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

// Request says what Sign does.
type Request struct {
	Selection
	Signer Signer
	Now    time.Time
	// Trees asks for a hash tree of each file system in the groups, where there
	// is none yet. A group that has signatures gets none: they would break.
	Trees bool
}

// Signed is what Sign added to an image.
type Signed struct {
	Signatures []sif.Object
	Trees      int // hash trees
	// NoTrees says why partitions have no hash tree although some were asked for.
	NoTrees string
}

// Sign adds a signature for each group that r selects to the image of size
// bytes in w. A hash tree that is there already is built again, and must be the
// same. A locked or read-only file is the caller's matter. If Sign is
// interrupted, the image is readable, and each signature in it is whole.
func Sign(ctx context.Context, w sif.Storage, size int64, r Request) (*Signed, error) {
	e, err := sif.Edit(w, size)
	if err != nil {
		return nil, err
	}
	e.Time = r.Now
	tasks, err := r.tasks(e.File())
	if err != nil {
		return nil, fmt.Errorf("integrity: %w", err)
	}
	if free := e.File().Header().FreeSlots; free < int64(len(tasks)) {
		return nil, fmt.Errorf("image has room for %d more objects, %d signatures are needed", free, len(tasks))
	}
	out := &Signed{}
	trees, err := r.planTrees(e.File(), tasks, out)
	if err != nil {
		return nil, err
	}
	// Adding an object waits for all of the image to be on disk. What a copy or
	// a download still owes is written while the processor hashes.
	sums, err := hashAll(ctx, e.File(), tasks, trees, r.Signer.Unlock, w.Sync)
	if err != nil {
		return nil, err
	}
	if out.Trees, err = addTrees(e, trees); err != nil {
		return nil, err
	}
	if out.Trees > 0 {
		if tasks, err = r.tasks(e.File()); err != nil {
			return nil, err
		}
		if err := sums.rest(ctx, e.File(), tasks); err != nil {
			return nil, err
		}
	}
	statements, err := state(e.File(), tasks, sums)
	if err != nil {
		return nil, err
	}
	for i, t := range tasks {
		data, extra, err := r.Signer.Sign(statements[i])
		if err != nil {
			return out, err
		}
		o, err := e.Add(sif.Input{
			Type: sif.DataSignature, Link: t.group, LinkIsGroup: true,
			Extra: extra.Extra(), Data: bytes.NewReader(data),
		})
		if err != nil {
			return out, err
		}
		out.Signatures = append(out.Signatures, o)
	}
	return out, nil
}

// signAlg is the hash of new signatures.
const signAlg = crypto.SHA256

// objectSums are the digests of objects by their ids.
type objectSums map[uint32]digest

// hashAll hashes the objects of tasks, and builds trees. All of meanwhile run at
// the same time, and one that fails ends the work.
func hashAll(ctx context.Context, f *sif.File, tasks []*task, trees []*treeJob, meanwhile ...func() error) (objectSums, error) {
	h := newHashing(f)
	jobs := map[uint32]*hashJob{}
	for _, t := range tasks {
		for _, o := range t.objects {
			jobs[o.ID] = h.want(signAlg, o)
		}
	}
	for _, t := range trees {
		t.start(h)
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
	var fault error
	for _, t := range trees {
		fault = cmp.Or(fault, t.end())
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if fault != nil {
		return nil, fault
	}
	sums := objectSums{}
	for id, j := range jobs {
		sums[id] = j.sum(signAlg)
	}
	return sums, nil
}

// rest hashes the objects of tasks that have no digest yet.
func (s objectSums) rest(ctx context.Context, f *sif.File, tasks []*task) error {
	h := newHashing(f)
	jobs := map[uint32]*hashJob{}
	for _, t := range tasks {
		for _, o := range t.objects {
			if _, ok := s[o.ID]; !ok {
				jobs[o.ID] = h.want(signAlg, o)
			}
		}
	}
	if err := h.run(ctx); err != nil {
		return err
	}
	for id, j := range jobs {
		s[id] = j.sum(signAlg)
	}
	return nil
}

// state returns the statements about tasks.
func state(f *sif.File, tasks []*task, sums objectSums) ([][]byte, error) {
	var list [][]byte
	for _, t := range tasks {
		s := statement{header: digestOf(signAlg, f.HeaderDigestBytes())}
		for _, o := range t.objects {
			relative := o.ID - t.base
			descriptor, err := f.DescriptorDigestBytes(o, relative)
			if err != nil {
				return nil, err
			}
			s.objects = append(s.objects, objectDigests{relative, digestOf(signAlg, descriptor), sums[o.ID]})
		}
		text := s.encode()
		if len(text) > maxStatementSize {
			return nil, fmt.Errorf("%s has too many objects for one signature", t)
		}
		list = append(list, text)
	}
	return list, nil
}
