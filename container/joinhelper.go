package container

import (
	"errors"
	"os"

	"singularity/priv"
)

// RootDir opens the root directory of a container that the setuid helper made,
// which keeps it from everybody else.
func (r *Running) RootDir() (*os.File, error) {
	a, err := priv.Ask(&priv.Request{Verb: priv.RootVerb, FDs: []int{r.FD}, Join: priv.Join{Process: r.FD}})
	switch {
	case err != nil:
		return nil, err
	case a.Refusal != "":
		return nil, errors.New(a.Refusal)
	case a.FD == 0:
		return nil, errors.New(priv.Name + " gave no directory")
	}
	return os.NewFile(uintptr(a.FD), "the root of the instance"), nil
}

// askJoin has the setuid helper carry the script out in the container r. The id
// of the process comes over left.
func (b *builder) askJoin(r *Running, left int) (int, error) {
	list, err := b.s.List()
	if err != nil {
		return 0, err
	}
	j := priv.Join{Process: r.FD, Report: b.errfd, Left: left, Steps: *list}
	if rights := b.p.Rights; rights != nil {
		j.Caps = uint64(rights.Caps)
	}
	return b.ask(&priv.Request{Verb: priv.JoinVerb, FDs: b.descriptors(b.errfd, left, r.FD), Join: j})
}
