package action

import (
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"

	"singularity/image"
	"singularity/linux/entry"
	"singularity/linux/signals"
	"singularity/sign/verdict"
	"singularity/verity"
)

// The values of --integrity.
const (
	integrityOff  = "off"
	integrityLazy = "lazy"
	integrityFull = "full"
)

// verifyProgram checks signatures for a start.
const verifyProgram = "starter-verify"

// integrity finds out whether the image may run as its signature says, and by
// which hash trees what is read of it is checked; then it opens the shared mount.
// Without a hash tree there is nothing to do, unless all is to be checked or the
// administrator wants it.
func (s *starter) integrity() error {
	mode := s.o.Integrity
	if mode == "" {
		mode = integrityLazy
	}
	if mode != integrityOff && mode != integrityLazy && mode != integrityFull {
		return Fatal(errors.New("--integrity \""+mode+"\": it must be lazy, full or off"), "leave it out: lazy is the default")
	}
	required := s.conf.RequireIntegrity && os.Getuid() != 0
	if s.o.IntegrityPanic {
		// Only the container's own server can end it.
		s.o.NoSharedMount = true
	}
	tree := s.image.HasTree()
	switch {
	case required && (mode == integrityOff || !tree):
		return Fatal(errors.New("configuration allows only images whose integrity is checked while they run, with a signature that is trusted here"),
			"sign the image with a key that this host knows: singularity sign; and do not use --integrity=off")
	case mode == integrityOff, s.image.Kind != image.SIF, mode == integrityLazy && !tree:
		return s.share(nil)
	}
	judge := func() error { return s.judge(mode, required) }
	if mode == integrityFull || required || s.log.Level >= LevelVerbose {
		// A holder could tell the tree, but not who signed.
		if err := judge(); err != nil {
			return err
		}
		judge = func() error { return nil }
		if len(s.image.Trees) == 0 {
			judge = nil
		}
	}
	return s.share(judge)
}

// judge runs the check of signatures, and takes what it says.
func (s *starter) judge(mode string, required bool) error {
	v, err := runVerify(s.image.File, mode)
	if err != nil {
		return err
	}
	if v.State == verdict.Refused {
		return Fatal(errors.New("the signature of the image is not valid: "+v.Text),
			"the image is not as it was signed: get it again; --integrity=off runs it all the same")
	}
	if required && v.State != verdict.Trusted {
		return Fatal(errors.New("configuration allows only images signed with a key that is trusted here; this one is "+string(v.State)+" "+v.Text),
			"singularity key import adds the signer's key to your keyring")
	}
	if required && v.Tree(s.image.Root) == nil {
		return Fatal(errors.New("configuration allows only images with a hash tree; that of this one cannot be used"), "sign the image again")
	}
	switch v.State {
	case verdict.Trusted:
		s.log.Verbose("Image signed by " + v.Text)
	case verdict.Unknown:
		s.log.Verbose("The origin of the image is not proven: " + v.Text)
	case verdict.Unsigned:
		s.log.Verbose("The origin of the image is not proven: it is not signed")
	}
	s.image.Trees = map[uint32]*verity.Params{}
	for _, t := range v.Trees {
		s.image.Trees[t.Object] = t
	}
	if t := v.Tree(s.image.Root); t != nil {
		s.log.Verbose("What is read of the image is checked while it runs")
	}
	return nil
}

// check takes the hash tree of the root partition from a holder.
func (s *starter) check(t *verity.Params) {
	if s.image.Trees == nil {
		s.image.Trees = map[uint32]*verity.Params{}
	}
	s.image.Trees[s.image.Root] = t
}

// runVerify runs the program that checks signatures on an open image.
func runVerify(f *os.File, mode string) (*verdict.Verdict, error) {
	dir, err := KeyringDir(os.Getenv)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	pid, err := startVerify(f, w, []string{verifyProgram, mode, dir})
	w.Close()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, verdict.MaxSize+1))
	var ws syscall.WaitStatus
	for {
		if _, waitErr := syscall.Wait4(pid, &ws, 0, nil); waitErr != syscall.EINTR {
			break
		}
	}
	if ws.Signaled() {
		return nil, errors.New("the check of the image's signature was interrupted")
	}
	if err != nil {
		return nil, err
	}
	return verdict.Decode(b)
}

// startVerify starts the program, with the signals of this process as they were
// before it started, so that Ctrl-C ends the check.
func startVerify(f, w *os.File, argv []string) (int, error) {
	if st := entry.Read(); st.Masked {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		signals.SetMask(st.Mask)
		defer signals.SetMask(entry.Blocked &^ signals.Unblocked)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return 0, err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{Dir: "/", Env: os.Environ(), Files: []uintptr{null.Fd(), w.Fd(), 2, f.Fd()},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
	for _, path := range ProgramPaths(verifyProgram) {
		pid, err := syscall.ForkExec(path, argv, attr)
		if err != syscall.ENOENT {
			return pid, err
		}
	}
	return 0, Fatal(errors.New("cannot find the program "+verifyProgram), "install singularity again: its programs belong together")
}
