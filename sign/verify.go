package sign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"singularity/pgp"
	"singularity/sif"
)

// Options say what Verify checks, and against which keys.
type Options struct {
	Selection
	Keyrings []Keyring // in the order in which they are asked
	// Lookup is asked for the keys of a 64-bit id that no ring has; may be nil.
	// Whoever answers is not trusted: only what signed with such a key is known.
	Lookup func(id uint64) []*pgp.Key
	// Keys are for DSSE signatures. If there are any, one of them must have made a
	// good signature of each group: that is what the caller asks about.
	Keys []*PublicKey
	Now  time.Time // when everything is judged
	// Any makes one good signature for each group enough. Otherwise all must
	// be good, those made with unknown keys too.
	Any bool
	// Require names keys each of which must have made a good signature for all
	// that is verified.
	Require []pgp.Fingerprint
	// Legacy takes the old signatures, and only them: that of the primary
	// partition if nothing is selected, or of every object with LegacyAll. They
	// cover neither header nor descriptors.
	Legacy, LegacyAll bool
	// How says how much of the data of partitions with a hash tree is read.
	How How
}

// How much of the data of partitions Verify reads. All else of a group is always
// read and compared.
type How int

// The ways to verify partitions that have a hash tree.
const (
	// Full compares the digest in the signature, and builds the tree again.
	Full How = iota
	// ByTree reads every block too, on all processors, but compares it with the
	// tree alone: as good for anyone who trusts the signer.
	ByTree
	// Lazy reads neither partition nor tree: whoever uses them reads through
	// Result.Trees, where the signature's promise is kept block by block.
	Lazy
)

// Result tells what became of each signature that Verify looked at.
type Result struct {
	Signatures []Signature
	Trees      []Tree   // the hash trees of what was verified
	Warnings   []string // about hash trees that are not used
}

// Signature is what became of one signature.
type Signature struct {
	ID     uint32     // of the signature object
	Group  uint32     // that it was checked for
	Key    *pgp.Key   // the signer; nil without a valid OpenPGP signature
	Origin Origin     // where Key was found
	Public *PublicKey // the signer; nil without a valid DSSE signature
	Time   time.Time  // when Key says that it signed
	// Verified are the objects found as they were signed, Damaged those whose
	// data are not.
	Verified, Damaged []sif.Object
	Err               error // nil for a good signature
}

// ErrNoSignature is wrapped by the error of Verify when there is nothing signed.
var ErrNoSignature = errors.New("signature not found")

// notFound returns the error for a task without signatures. Modern signatures
// are looked for by group, whatever part of it is verified.
func notFound(t *task, legacy bool) error {
	if !legacy {
		t = &task{group: t.group}
	}
	return fmt.Errorf("%w for %s", ErrNoSignature, t)
}

// candidate is a signature on its way through the checks.
type candidate struct {
	Signature
	task    *task
	pending []pendingDigest
}

// pendingDigest waits for the data of objects to be hashed.
type pendingDigest struct {
	objects []sif.Object
	want    digest
	job     *hashJob
}

// Verify checks the signatures of f. It returns what it found, and an error
// that wraps the first fault in the order of groups and signatures unless the
// image is signed as o demands. The Result tells about the signatures up to
// that fault, or about all with Any; it is not nil even then.
func Verify(ctx context.Context, f *sif.File, o Options) (*Result, error) {
	r := &Result{}
	if err := verify(ctx, f, o, r); err != nil {
		return r, fmt.Errorf("integrity: %w", err)
	}
	return r, nil
}

func verify(ctx context.Context, f *sif.File, o Options, r *Result) error {
	for _, object := range f.Objects() {
		if object.Group == 0 && object.Type != sif.DataSignature {
			return errors.New("non-signature object not associated with object group")
		}
	}
	signatures, err := signatureObjects(f)
	if err != nil {
		return err
	}
	tasks, err := o.tasks(f)
	if err != nil {
		return err
	}
	trees := r.findTrees(f, tasks, o.Legacy)
	list, fault := candidates(f, o, tasks, signatures)
	if err := hashPending(ctx, f, list, trees, o.How); err != nil {
		return err
	}
	for _, c := range list {
		c.compare()
		c.compareTrees(trees)
		r.Signatures = append(r.Signatures, c.Signature)
		if c.Err != nil && !o.Any {
			return c.Err
		}
	}
	if fault != nil {
		return fault
	}
	for _, t := range tasks {
		if err := judge(t, list, o); err != nil {
			return err
		}
	}
	return nil
}

// tasks returns what is to be verified.
func (o *Options) tasks(f *sif.File) ([]*task, error) {
	if !o.Legacy || o.Group != 0 || o.Object != 0 {
		return o.Selection.tasks(f)
	}
	if !o.LegacyAll {
		primary, err := f.Primary()
		if err != nil {
			return nil, err
		}
		return Selection{Object: primary.ID}.tasks(f)
	}
	groups, err := Selection{}.tasks(f)
	var list []*task
	for _, t := range groups {
		for _, object := range t.objects {
			if object.Type != sif.DataSignature {
				list = append(list, t.only(object))
			}
		}
	}
	return list, err
}

// candidates does every check but that of the data. It stops at the first fault
// unless o.Any: a bad signature is then the last of the list, and a task without
// signatures is returned as an error.
func candidates(f *sif.File, o Options, tasks []*task, signatures []signatureObject) ([]*candidate, error) {
	var list []*candidate
	for _, t := range tasks {
		found := false
		for i := range signatures {
			s := &signatures[i]
			if !s.covers(t, o.Legacy) {
				continue
			}
			found = true
			c := &candidate{Signature: Signature{ID: s.ID, Group: t.group}, task: t}
			list = append(list, c)
			c.Err = c.check(f, s, o)
			if c.Err != nil && !o.Any {
				return list, nil
			}
		}
		if !found {
			return list, notFound(t, o.Legacy)
		}
	}
	return list, nil
}

// covers tells whether s claims to be a signature for t.
func (s *signatureObject) covers(t *task, legacy bool) bool {
	if legacy != (s.form == formLegacy) {
		return false
	}
	if legacy && t.object != 0 {
		return !s.LinkIsGroup && s.Link == t.object
	}
	return s.LinkIsGroup && s.Link == t.group
}

// check verifies the signature and everything that the statement says but the
// digests of data, which it notes.
func (c *candidate) check(f *sif.File, s *signatureObject, o Options) error {
	signed, err := s.verify(o)
	if err != nil {
		return err
	}
	c.Key, c.Origin, c.Public, c.Time = signed.key, signed.origin, signed.public, signed.time
	if o.Legacy {
		return c.checkLegacy(s, signed.text)
	}
	st, err := decodeStatement(signed.text)
	if err != nil {
		return &InvalidError{ID: s.ID, Err: err}
	}
	if err := c.checkIDs(st); err != nil {
		return err
	}
	if d := digestOf(st.header.hash, f.HeaderDigestBytes()); !st.header.equal(d.sum) {
		return errors.New("header integrity compromised")
	}
	for _, object := range c.task.objects {
		relative := object.ID - c.task.base
		i, _ := st.find(relative)
		bytes, err := f.DescriptorDigestBytes(object, relative)
		if err != nil {
			return err
		}
		want := st.objects[i]
		if d := digestOf(want.descriptor.hash, bytes); !want.descriptor.equal(d.sum) {
			return fmt.Errorf("data object descriptor integrity compromised: %d", object.ID)
		}
		c.pending = append(c.pending, pendingDigest{objects: []sif.Object{object}, want: want.data})
	}
	return nil
}

// find returns where the object with that relative id is in s.
func (s *statement) find(relative uint32) (int, bool) {
	return slices.BinarySearchFunc(s.objects, relative, func(o objectDigests, id uint32) int {
		return int(int64(o.relativeID) - int64(id))
	})
}

// checkIDs compares the objects of the file with those of the statement. For a
// whole group they must be the same; a single object must be among them.
//
// Security: otherwise an object could be added to a signed group, or be left
// out, and the image would still count as signed.
func (c *candidate) checkIDs(st *statement) error {
	for _, object := range c.task.objects {
		if _, ok := st.find(object.ID - c.task.base); !ok {
			return fmt.Errorf("object %d: object not signed", object.ID)
		}
	}
	present := map[uint32]bool{}
	for _, object := range c.task.members {
		present[object.ID-c.task.base] = true
	}
	for _, signed := range st.objects {
		if c.task.object == 0 && !present[signed.relativeID] {
			return fmt.Errorf("object %d: signed object not found", uint64(signed.relativeID)+uint64(c.task.base))
		}
	}
	return nil
}

// hashPending hashes all data that a candidate waits for, and checks trees.
func hashPending(ctx context.Context, f *sif.File, list []*candidate, trees []*treeCheck, how How) error {
	h := newHashing(f)
	for _, t := range trees {
		if !slices.ContainsFunc(list, func(c *candidate) bool { return c.Err == nil && c.task == t.task }) {
			continue
		}
		if err := t.start(f, h, how); err != nil {
			return err
		}
	}
	for _, c := range list {
		if c.Err == nil {
			c.pending = slices.DeleteFunc(c.pending, func(p pendingDigest) bool {
				return slices.ContainsFunc(trees, func(t *treeCheck) bool { return t.spares(p, how) })
			})
			for i := range c.pending {
				p := &c.pending[i]
				p.job = h.want(p.want.hash, p.objects...)
			}
		}
	}
	err := h.run(ctx)
	for _, t := range trees {
		if endErr := t.end(ctx, err != nil); err == nil {
			err = endErr
		}
	}
	return err
}

// compare checks the data digests of c, once they are there.
func (c *candidate) compare() {
	if c.Err != nil {
		return
	}
	for _, p := range c.pending {
		if got := p.job.sum(p.want.hash); p.want.equal(got.sum) {
			c.Verified = append(c.Verified, p.objects...)
			continue
		}
		c.Damaged = append(c.Damaged, p.objects...)
		if c.Err == nil {
			c.Err = fmt.Errorf("data object integrity compromised: %d", p.objects[0].ID)
		}
	}
}

// judge decides whether t is signed: by anyone, and by all that o requires.
func judge(t *task, list []*candidate, o Options) error {
	signers := map[pgp.Fingerprint]bool{}
	good, byKeys := false, false
	var first error
	for _, c := range list {
		if c.task != t {
			continue
		}
		switch {
		case c.Err != nil && first == nil:
			first = c.Err
		case c.Err != nil:
		case c.Public != nil:
			good, byKeys = true, true
		default:
			good = true
			signers[c.Key.Fingerprint()] = true
		}
	}
	// Security: no signature at all, or none that is good, never passes.
	if !good && first == nil {
		return notFound(t, o.Legacy)
	}
	if !good {
		return first
	}
	if len(o.Keys) > 0 && !byKeys {
		return fmt.Errorf("%s: %w", t, errDSSE)
	}
	for _, fp := range o.Require {
		if !signers[fp] {
			return &RequiredError{Fingerprint: fp, Of: t.String()}
		}
	}
	return nil
}

// InvalidError tells why the signature object ID is not valid.
type InvalidError struct {
	ID  uint32
	Err error
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("signature object %d not valid: %v", e.ID, e.Err)
}

// Unwrap returns the reason.
func (e *InvalidError) Unwrap() error { return e.Err }

// RequiredError tells that a required key did not sign something.
type RequiredError struct {
	Fingerprint pgp.Fingerprint
	Of          string
}

func (e *RequiredError) Error() string {
	return fmt.Sprintf("required signature of %s not found for %s", e.Fingerprint, e.Of)
}
