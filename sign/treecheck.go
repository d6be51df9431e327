package sign

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"singularity/sif"
	"singularity/verity"
)

// treeCheck is a hash tree on its way through the checks.
type treeCheck struct {
	Tree
	task    *task
	rebuilt *treeJob       // for Full
	reader  *verity.Reader // for ByTree
	fault   error
	checked bool // whether the partition was read through the tree
}

// findTrees returns the trees of tasks, those of single objects excepted.
func (r *Result) findTrees(f *sif.File, tasks []*task, legacy bool) []*treeCheck {
	var list []*treeCheck
	for _, t := range tasks {
		if t.object != 0 || legacy {
			continue
		}
		for _, o := range t.objects {
			if !treeable(o) {
				continue
			}
			tree, err := t.tree(f, o)
			switch {
			case err != nil:
				r.Warnings = append(r.Warnings, fmt.Sprintf("the hash tree of partition %d is not used: %v", o.ID, err))
			case tree != nil:
				r.Trees = append(r.Trees, *tree)
				list = append(list, &treeCheck{Tree: *tree, task: t})
			}
		}
	}
	return list
}

// start prepares the check, and lets h feed it.
func (t *treeCheck) start(f *sif.File, h *hashing, how How) (err error) {
	switch how {
	case Full:
		if t.rebuilt, err = checkJob(f, t.task, &t.Tree); err != nil {
			t.fault = err
			return nil
		}
		t.rebuilt.start(h)
	case ByTree:
		t.reader, err = t.Reader(f)
	}
	return err
}

// spares tells whether the tree makes hashing p needless.
func (t *treeCheck) spares(p pendingDigest, how How) bool {
	if len(p.objects) != 1 || p.objects[0].Group != t.task.group {
		return false
	}
	id := p.objects[0].ID
	return how != Full && id == t.Partition.ID || how == Lazy && id == t.Object.ID
}

// end finishes the check. It must be called after start, and after an error too.
func (t *treeCheck) end(ctx context.Context, failed bool) error {
	switch {
	case t.rebuilt != nil && t.rebuilt.writer != nil:
		if err := t.rebuilt.end(); !failed {
			t.fault = err
		}
	case t.reader != nil && !failed:
		var block *verity.BlockError
		err := t.reader.Check(ctx, runtime.GOMAXPROCS(0), nil)
		if err != nil && !errors.As(err, &block) {
			return fmt.Errorf("cannot read object %d: %w", t.Partition.ID, err)
		}
		t.fault, t.checked = err, true
	}
	return nil
}

// compareTrees adds what the trees of its group say to a candidate that is good
// so far.
func (c *candidate) compareTrees(trees []*treeCheck) {
	for _, t := range trees {
		if t.task != c.task || c.Err != nil {
			continue
		}
		same := func(o sif.Object) bool { return o.ID == t.Partition.ID }
		switch {
		case t.fault != nil:
			c.Verified = slices.DeleteFunc(c.Verified, same)
			c.Damaged = append(c.Damaged, t.Partition)
			c.Err = fmt.Errorf("data object integrity compromised: %d: %w", t.Partition.ID, t.fault)
		case t.checked && !slices.ContainsFunc(c.Verified, same):
			c.Verified = append(c.Verified, t.Partition)
			slices.SortFunc(c.Verified, func(a, b sif.Object) int { return int(a.ID) - int(b.ID) })
		}
	}
}
