package action

import (
	"errors"
	"os"

	"singularity/container/env"
	"singularity/plan"
)

// maxShellScript bounds a script of an image that our own shell may run, in
// bytes.
const maxShellScript = 4 << 20

// isScript tells whether a file of the image is a script for a shell.
func (s *starter) isScript(path string) bool {
	text, err := s.files.ReadFile(path, maxShellScript)
	return err == nil && env.IsScript(text[:min(len(text), 256)])
}

// ownShell returns a copy of the program that is our own shell, if p may need
// it; else nil.
//
// Security (SC-023): the container executes the copy, in memory and sealed, and
// nothing of the host; the descriptor ends with execve.
func (s *starter) ownShell(p *plan.Plan) (*os.File, error) {
	if p.Process.OwnShell == nil {
		return nil, nil
	}
	places := ProgramPaths("singularity-cli")
	if s.ext.Program != "" {
		places = []string{s.ext.Program}
	}
	for _, place := range places {
		fd, err := sealedCopy(place)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.log.Verbose("The image has no /bin/sh: a shell of our own takes its place")
		return os.NewFile(uintptr(fd), "shell"), nil
	}
	s.log.Debug("no shell of our own: " + places[0] + " is missing")
	return nil, nil
}
