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

// wants is what a start asks of an image file.
type wants struct {
	mode     string // of --integrity
	tree     bool   // the partition that is used has a hash tree
	required bool   // the administrator wants it to be used
	list     bool   // the execution control list is to be asked
}

var errUnchecked = errors.New("configuration allows only images whose integrity is checked while they run, with a signature that is trusted here")

// wants finds out what is asked of the partition id of im.
func (s *starter) wants(im *image.Image, id uint32) (w wants, err error) {
	w.mode = s.o.Integrity
	if w.mode == "" {
		w.mode = integrityLazy
	}
	if w.mode != integrityOff && w.mode != integrityLazy && w.mode != integrityFull {
		return w, Fatal(errors.New("--integrity \""+w.mode+"\": it must be lazy, full or off"), "leave it out: lazy is the default")
	}
	w.required, w.tree = s.conf.RequireIntegrity && os.Getuid() != 0, im.HasTreeOf(id)
	if im.Kind == image.SIF {
		w.list, err = s.hasList()
	}
	return w, err
}

// unchecked is the refusal of an image that the administrator wants checked.
func (w wants) unchecked(name string) error {
	if !w.required || w.tree && w.mode != integrityOff {
		return nil
	}
	err := errUnchecked
	if name != "" {
		err = errors.New("cannot use " + name + ": " + err.Error())
	}
	return Fatal(err, "sign the image with a key that this host knows: singularity sign; and do not use --integrity=off")
}

// integrity finds out whether the image may run as its signature says and the
// administrator wants, and by which hash trees what is read of it is checked; then
// it opens the shared mount. Without a hash tree there is nothing to do, unless
// all is to be checked.
func (s *starter) integrity() error {
	w, err := s.wants(s.image, s.image.Root)
	if err != nil {
		return err
	}
	if s.o.IntegrityPanic {
		// Only the container's own server can end it.
		s.o.NoSharedMount = true
	}
	if err := w.unchecked(""); err != nil {
		return err
	}
	if s.image.Kind != image.SIF || !w.list && (w.mode == integrityOff || w.mode == integrityLazy && !w.tree) {
		return s.share(nil)
	}
	judge := func() error {
		v, err := s.judge(s.image, 0, w)
		if err == nil {
			s.take(v)
		}
		return err
	}
	if w.mode == integrityLazy && !w.required && !w.list && s.log.Level < LevelVerbose {
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

// judge runs the check of signatures for the group of the object id of im, 0 for that
// of the root partition, and refuses what may not be used.
func (s *starter) judge(im *image.Image, id uint32, w wants) (*verdict.Verdict, error) {
	name := "the image"
	if id != 0 {
		name = im.Path
	}
	what := listNo
	switch {
	case w.list && w.mode == integrityOff:
		// Nothing is checked later, so all of it is now.
		w.mode, what = integrityFull, listOnly
	case w.list && !w.tree:
		what = listOnly
	case w.list:
		what = listAsk
	}
	v, err := s.runVerify(im.File, w.mode, what, id)
	if err != nil {
		return nil, err
	}
	if v.State == verdict.Refused {
		hint := "the image is not as it was signed, or its key does not count now: get them again; --integrity=off uses it all the same"
		if text, ok := strings.CutPrefix(v.Text, verdict.ListPrefix); !ok {
			v.Text = "the signature of " + name + " is not valid: " + v.Text
		} else {
			hint = "singularity ecl check IMAGE tells which rule decides; the list is the administrator's"
			if id != 0 {
				v.Text = verdict.ListPrefix + name + ": " + text
			}
		}
		return nil, Fatal(errors.New(v.Text), hint)
	}
	if v.Listed {
		s.sayListed(!s.helper)
	}
	if id == 0 {
		id, name = s.image.Root, "this one"
	}
	if w.required && v.State != verdict.Trusted {
		return nil, Fatal(errors.New("configuration allows only images signed with a key that is trusted here; "+name+" is "+string(v.State)+" "+v.Text),
			"singularity key import adds the signer's key to your keyring")
	}
	if w.required && v.Tree(id) == nil {
		return nil, Fatal(errors.New("configuration allows only images with a hash tree; that of "+name+" cannot be used"), "sign the image again")
	}
	return v, nil
}

// sayListed warns once that the execution control list is a rule of the house, if
// the helper does not make the container.
func (s *starter) sayListed(warn bool) {
	if warn && !s.listSaid {
		s.log.Warning("The execution control list is obeyed, but is no boundary without the setuid helper")
	}
	s.listSaid = s.listSaid || warn
}

// take keeps the hash trees of v, and says what is known of the signer.
func (s *starter) take(v *verdict.Verdict) {
	switch v.State {
	case verdict.Trusted:
		s.trusted = true
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

// checkPart judges an image besides the root, such as an overlay, as the root is, and
// finds the hash tree of the partition p by which what is read of it is checked. A
// holder tells the root's alone. Directories are no images: the binds of the
// configuration are about them.
func (s *starter) checkPart(im *image.Image, p image.Part, write bool) error {
	if im.Dev != s.image.Dev || im.Ino != s.image.Ino {
		if err := s.unblocked(im); err != nil {
			return err
		}
	}
	w, err := s.wants(im, p.ID)
	if err != nil {
		return err
	}
	if write && w.tree {
		// What is written is not what was signed: nothing reads it by the tree,
		// so the list has to see all of it now.
		w.tree, w.mode = false, integrityFull
	} else if im.Dev == s.image.Dev && im.Ino == s.image.Ino {
		w.list = false // it is about whole files, and was asked
	}
	if err := w.unchecked(im.Path); err != nil {
		return err
	}
	done := w.mode == integrityOff || im.Trees[p.ID] != nil || !w.tree
	if done && !w.list {
		return nil
	}
	v, err := s.judge(im, p.ID, w)
	if err != nil || done {
		return err
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
	reap := func() (ws syscall.WaitStatus) {
		for {
			if _, err := syscall.Wait4(pid, &ws, 0, nil); err != syscall.EINTR {
				return ws
			}
		}
	}
	var v *verdict.Verdict
	if err == nil {
		v, err = verdict.Decode(b)
	}
	if err == nil {
		go reap() // it has said all: nobody waits for its end
		return v, nil
	}
	if reap().Signaled() {
		err = errors.New("the check of the image's signature was interrupted")
	}
	return nil, err
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
	env := os.Environ()
	if argv[1] == integrityLazy && argv[4] == listNo {
		env = append([]string{"GOMAXPROCS=1"}, env...) // little work: more threads would take longer to start
	}
	attr := &syscall.ProcAttr{Dir: "/", Env: env, Files: []uintptr{null.Fd(), w.Fd(), 2, f.Fd()},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
	for _, path := range ProgramPaths(verifyProgram) {
		if syscall.Access(path, 0) == syscall.ENOENT {
			continue // a fork would be in vain
		}
		pid, err := syscall.ForkExec(path, argv, attr)
		if err != syscall.ENOENT {
			return pid, err
		}
	}
	return 0, Fatal(errors.New("cannot find the program "+verifyProgram), "install singularity again: its programs belong together")
}
