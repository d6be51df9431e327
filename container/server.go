package container

import (
	"os"

	"singularity/plan"
)

type RespawnImage struct {
	File   *os.File
	Format int
	Off    int64
	Size   int64
}
type serverProcess struct{ pid int }

func (s *serverProcess) ended() bool { return false }
func serve(img *Served, fd int, p *plan.Plan, h Hooks) (*serverProcess, error) { return nil, nil }
func Serve(fsys any, p *plan.Plan) (*Served, error)                            { return nil, nil }
// CanExec tells whether Exec can carry p out.
func CanExec(p *plan.Plan) bool {
	return p.Root.Kind == plan.DirRoot && p.IDs.Mode == plan.SingleID && !p.Process.NewPID
}
