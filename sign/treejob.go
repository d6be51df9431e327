package sign

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"fmt"
	"io"
	"runtime"
	"slices"

	"singularity/sif"
	"singularity/verity"
)

// treeJob builds the hash tree of a partition while that is being hashed.
type treeJob struct {
	task      *task
	partition sif.Object
	salt      []byte
	uuid      [16]byte
	have      *Tree    // the one in the image, nil if a new one is made
	job       *hashJob // reads the partition
	stored    *hashJob // hashes the tree of have
	writer    *verity.Writer
	tree      *verity.Tree
}

// planTrees returns a job for each tree that tasks have or get.
func (r *Request) planTrees(f *sif.File, tasks []*task, out *Signed) ([]*treeJob, error) {
	var list []*treeJob
	room := f.Header().FreeSlots - int64(len(tasks))
	for _, t := range tasks {
		if t.object != 0 {
			continue
		}
		signed := slices.ContainsFunc(f.Objects(), func(o sif.Object) bool {
			return o.Type == sif.DataSignature && o.LinkIsGroup && o.Link == t.group
		})
		for _, o := range t.objects {
			if !treeable(o) {
				continue
			}
			have, err := t.tree(f, o)
			switch {
			case err != nil:
				return nil, fmt.Errorf("the hash tree of partition %d is damaged: %w", o.ID, err)
			case have != nil:
				job, err := checkJob(f, t, have)
				if err != nil {
					return nil, err
				}
				list = append(list, job)
			case !r.Trees:
			case signed:
				out.NoTrees = "it has been signed before"
			case room < 2:
				out.NoTrees = "it has no room for more objects"
			default:
				job := &treeJob{task: t, partition: o, salt: make([]byte, 32)}
				rand.Read(job.salt)
				rand.Read(job.uuid[:])
				list = append(list, job)
				room -= 2
			}
		}
	}
	return list, nil
}

// checkJob returns the job that builds the tree again.
func checkJob(f *sif.File, t *task, have *Tree) (*treeJob, error) {
	b := make([]byte, verity.BlockSize)
	if _, err := f.Reader(have.Object).ReadAt(b, 0); err != nil {
		return nil, err
	}
	s, err := verity.ParseSuperblock(b)
	if err != nil {
		return nil, fmt.Errorf("the hash tree of partition %d is damaged: %w", have.Partition.ID, err)
	}
	return &treeJob{task: t, partition: have.Partition, salt: have.Salt, uuid: s.UUID, have: have}, nil
}

// start lets h feed the job.
func (t *treeJob) start(h *hashing) {
	if t.writer = verity.NewSummingWriter(t.salt); t.writer == nil {
		t.writer = verity.NewWriter(t.salt, max(1, runtime.GOMAXPROCS(0)-1))
	}
	t.job = h.job(t.partition)
	t.job.tree = t.writer
	if t.have != nil {
		t.stored = h.want(crypto.SHA256, t.have.Object)
	}
}

// end must be called once nothing is read any more, and before the digests of
// the partition are asked for. It compares the tree with
// the one in the image.
func (t *treeJob) end() error {
	var err error
	if t.tree, err = t.writer.Sum(t.uuid); err != nil {
		return err
	}
	if t.writer.Sums() {
		sum := t.writer.Plain()
		t.job.sums[crypto.SHA256] = sum[:]
	}
	if t.have == nil {
		return nil
	}
	h := crypto.SHA256.New()
	t.tree.WriteTo(h)
	if t.tree.Root != t.have.Root || !t.stored.sum(crypto.SHA256).equal(h.Sum(nil)) {
		return &TreeError{Partition: t.partition.ID}
	}
	return nil
}

// TreeError says that a partition and its hash tree differ.
type TreeError struct{ Partition uint32 }

func (e *TreeError) Error() string {
	return fmt.Sprintf("the hash tree of partition %d is not that of its data", e.Partition)
}

// addTrees adds the new ones of trees to the image, in one change, and returns
// their number.
func addTrees(e *sif.Editor, trees []*treeJob) (int, error) {
	trees = slices.DeleteFunc(slices.Clone(trees), func(t *treeJob) bool { return t.have != nil })
	if len(trees) == 0 {
		return 0, nil
	}
	_, err := e.AddAll(func(added []sif.Object) []sif.Input {
		var list []sif.Input
		switch len(added) {
		case 0:
			for _, t := range trees {
				list = append(list, t.input(sif.DataGeneric, treeName, func(w io.Writer) (int64, error) { return t.tree.WriteTo(w) }))
			}
		case len(trees):
			for i, t := range trees {
				m := newManifest(t.task.base, t.partition, added[i], t.salt, t.tree.Root)
				list = append(list, t.input(sif.DataJSON, manifestName, bytes.NewReader(m.encode()).WriteTo))
			}
		}
		return list
	})
	return len(trees), err
}

func (t *treeJob) input(typ sif.DataType, name string, write func(io.Writer) (int64, error)) sif.Input {
	in := sif.Input{Type: typ, Name: name, Group: t.partition.Group, Link: t.partition.ID,
		Write: func(w *io.OffsetWriter) (int64, error) { return write(w) }}
	if p, _ := t.partition.Partition(); p.Type != sif.PartPrimary {
		in.Name = fmt.Sprintf("%s.%d", name, t.partition.ID)
	}
	if typ == sif.DataGeneric {
		in.Align = verity.BlockSize
	}
	return in
}
