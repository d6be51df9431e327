package action

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"singularity/conf"
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

// integrity finds out whether the image may run as its signature says and the
// administrator wants, and by which hash trees what is read of it is checked; then
// it opens the shared mount. Without a hash tree there is nothing to do, unless
// all is to be checked.
func (s *starter) integrity() error {
	mode := s.o.Integrity
	if mode == "" {
		mode = integrityLazy
	}
	if mode != integrityOff && mode != integrityLazy && mode != integrityFull {
		return Fatal(errors.New("--integrity \""+mode+"\": it must be lazy, full or off"), "leave it out: lazy is the default")
	}
	if s.o.IntegrityPanic {
		// Only the container's own server can end it.
		s.o.NoSharedMount = true
	}
	required := s.conf.RequireIntegrity && os.Getuid() != 0
	tree := s.image.HasTree()
	if required && (mode == integrityOff || !tree) {
		return Fatal(errors.New("configuration allows only images whose integrity is checked while they run, with a signature that is trusted here"),
			"sign the image with a key that this host knows: singularity sign; and do not use --integrity=off")
	}
	list := false
	if s.image.Kind == image.SIF {
		var err error
		if list, err = s.hasList(); err != nil {
			return err
		}
	}
	if s.image.Kind != image.SIF || !list && (mode == integrityOff || mode == integrityLazy && !tree) {
		return s.share(nil)
	}
	judge := func() error { return s.judge(mode, tree, required, list) }
	if mode == integrityLazy && !required && !list && s.log.Level < LevelVerbose {
		return s.share(judge)
	}
	// A holder could tell the tree, but not who signed, nor what the
	// administrator has written since.
	if err := judge(); err != nil {
		return err
	}
	if len(s.image.Trees) == 0 {
		return s.share(nil)
	}
	return s.share(func() error { return nil })
}

// siteDir is the directory of the administrator's files.
func (s *starter) siteDir() string {
	if s.o.ConfigFile != "" {
		return filepath.Dir(s.absolute(s.o.ConfigFile))
	}
	return conf.Dir()
}

// maxList bounds the execution control list, in bytes.
const maxList = 1 << 20

// hasList tells whether there is an execution control list that must be asked:
// any but one that says no more than that it is not activated.
func (s *starter) hasList() (bool, error) {
	path := s.siteDir() + "/ecl.toml"
	if err := conf.CheckSite(path); err != nil {
		return false, OwnerHint(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	var text []byte
	if err == nil {
		defer f.Close()
		text, err = io.ReadAll(io.LimitReader(f, maxList+1))
	}
	if err != nil || len(text) > maxList {
		return false, Fatal(errors.New("cannot read the execution control list "+s.siteDir()+"/ecl.toml"), "the administrator must make it readable, or remove it")
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		switch strings.Join(strings.Fields(line), "") {
		case "", "activated=false", "legacyinsecure=false", "legacyinsecure=true":
		default:
			return true, nil
		}
	}
	return false, nil
}

// What starter-verify is told of the execution control list.
const (
	listNo   = "no"
	listAsk  = "list"
	listOnly = "only" // and nothing else
)

// judge runs the check of signatures, and takes what it says.
func (s *starter) judge(mode string, tree, required, list bool) error {
	what := listNo
	switch {
	case list && mode == integrityOff:
		// Nothing is checked later, so all of it is now.
		mode, what = integrityFull, listOnly
	case list && !tree:
		what = listOnly
	case list:
		what = listAsk
	}
	v, err := s.runVerify(s.image.File, mode, what, 0)
	if err != nil {
		return err
	}
	if v.State == verdict.Refused {
		hint := "the image is not as it was signed: get it again; --integrity=off runs it all the same"
		if !strings.HasPrefix(v.Text, verdict.ListPrefix) {
			v.Text = "the signature of the image is not valid: " + v.Text
		} else {
			hint = "singularity ecl check IMAGE tells which rule decides; the list is the administrator's"
		}
		return Fatal(errors.New(v.Text), hint)
	}
	if v.Listed {
		s.log.Warning("The execution control list is obeyed, but is no boundary without the setuid helper")
	}
	if required && v.State != verdict.Trusted {
		return Fatal(errors.New("configuration allows only images signed with a key that is trusted here; this one is "+string(v.State)+" "+v.Text),
			"singularity key import adds the signer's key to your keyring")
	}
	if required && v.Tree(s.image.Root) == nil {
		return Fatal(errors.New("configuration allows only images with a hash tree; that of this one cannot be used"), "sign the image again")
	}
	s.take(v)
	return nil
}

// take keeps the hash trees of v, and says what is known of the signer.
func (s *starter) take(v *verdict.Verdict) {
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
	if v.Tree(s.image.Root) != nil {
		s.log.Verbose("What is read of the image is checked while it runs")
	}
}

// check takes the hash tree of the root partition from a holder.
func (s *starter) check(t *verity.Params) {
	if s.image.Trees == nil {
		s.image.Trees = map[uint32]*verity.Params{}
	}
	s.image.Trees[s.image.Root] = t
}

// checkPart finds the hash tree of a partition besides the root, such as an overlay,
// by which what is read of it is checked. A holder tells the root's alone.
func (s *starter) checkPart(im *image.Image, p image.Part) error {
	mode := s.o.Integrity
	if mode == "" {
		mode = integrityLazy
	}
	if mode == integrityOff || im.Trees[p.ID] != nil || !im.HasTreeOf(p.ID) {
		return nil
	}
	v, err := s.runVerify(im.File, mode, listNo, p.ID)
	if err != nil {
		return err
	}
	if v.State == verdict.Refused {
		return Fatal(errors.New("the signature of "+im.Path+" is not valid: "+v.Text), "the image is not as it was signed: get it again; --integrity=off uses it all the same")
	}
	if im.Trees == nil {
		im.Trees = map[uint32]*verity.Params{}
	}
	for _, t := range v.Trees {
		im.Trees[t.Object] = t
	}
	s.log.Verbose("What is read of object " + strconv.Itoa(int(p.ID)) + " of " + im.Path + " is checked while it runs: signature " + string(v.State) + " " + v.Text)
	return nil
}

// runVerify runs the program that checks signatures on an open image, for the
// group of the object id, 0 for that of the root partition.
func (s *starter) runVerify(f *os.File, mode, list string, id uint32) (*verdict.Verdict, error) {
	dir, err := KeyringDir(os.Getenv)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	pid, err := startVerify(f, w, []string{verifyProgram, mode, dir, s.siteDir(), list, strconv.Itoa(int(id))})
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
