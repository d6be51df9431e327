package container

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/fusefs"
	"singularity/plan"
)

// ServerName is the first argument of a server process. It holds a character
// that no verb has.
const ServerName = "@server"

// RespawnImage describes an image to a server process of its own.
type RespawnImage struct {
	File   *os.File
	Format byte // as the opener given to ServeMain understands it
	Off    int64
	Size   int64
}

// serverProcess is a FUSE server in a process and session of its own.
type serverProcess struct {
	pid  int
	gone bool
}

// serve starts to answer on the FUSE device fd, which it takes over: in this
// process, or in one of its own if a terminal is attached.
func serve(img *Served, fd int, p *plan.Plan, h Hooks) (*serverProcess, error) {
	extras, err := loadExtras(p.Files)
	if err != nil {
		return nil, err
	}
	if IsTerminal() && img.Respawn.File != nil {
		defer syscall.Close(fd)
		return respawn(img, fd, extras)
	}
	srv, err := newServer(img.FS, img.UID, img.GID, p.Files, h)
	if err != nil {
		return nil, err
	}
	debug.SetGCPercent(50)
	go srv.Serve(fd)
	return nil, nil
}
