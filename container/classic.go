package container

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/host"
	"singularity/linux/script"
)

// errOldKernel says that something needs the mount calls of newer kernels.
var errOldKernel = errors.New("programs that serve file systems in the root need Linux 5.12 or newer, and its mount calls allowed")

// restrictBelow restricts the mounts below a bind one by one, where no call does
// it for the whole tree. One that is gone meanwhile, or that the caller may not
// reach, cannot be reached in the container either.
func (b *builder) restrictBelow(t script.Slot, source string, attr uint64) {
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return // the bind itself fails, or is optional
	}
	for _, at := range host.MountPoints() {
		rest, below := strings.CutPrefix(at, strings.TrimSuffix(real, "/")+"/")
		if !below || rest == "" {
			continue
		}
		s := b.s
		fd := s.Call("find "+strconv.Quote(at)+" in the bind", unix.SYS_OPENAT, t.Arg(), s.Str(rest), script.Int(unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW))
		s.SkipFail(fd, 2)
		b.setattr(fd, attr, 0, "restrict the bind of "+strconv.Quote(at))
		s.Call("close "+strconv.Quote(at), unix.SYS_CLOSE, fd.Arg())
	}
}
