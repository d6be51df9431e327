package action

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/container"
	"singularity/container/instance"
	"singularity/host"
	"singularity/image"
	"singularity/linux/cgroupfs"
	"singularity/linux/entry"
	"singularity/linux/signals"
	"singularity/plan"
)

// instanceTitle begins the name that the process of an instance shows, and is
// how the program knows that it shall be one.
const instanceTitle = "Singularity instance: "

// Descriptors of a process that becomes an instance, besides the standard ones.
const (
	argsFD   = 3 // words with zero bytes between: see birth
	statusFD = 4 // messages of the start, and a zero byte once it runs
	leaderFD = 5 // a pidfd of what it must not outlive, if there is one
)

// Store opens the records of the caller's instances, or, for root, of a user's.
func Store(user string) (*instance.Store, error) {
	uid := RealUID()
	u, err := host.LookupUser(uid, os.Getgid())
	if err != nil {
		u.Name = strconv.Itoa(uid)
	}
	if user == "" || user == u.Name {
		dir, err := ConfigDir(os.Getenv)
		if err != nil {
			return nil, err
		}
		return instance.Open(dir, uid, u.Name)
	}
	if uid != 0 {
		return nil, Fatal(errors.New("cannot look at the instances of "+user+": only root may"), "")
	}
	other, err := host.LookupName(user)
	if err != nil {
		return nil, err
	}
	return instance.Open(other.Home+"/.singularity", other.UID, other.Name)
}

// startInstance starts the instance that v asks for in a process of its own and
// waits until it runs.
func startInstance(v *Invocation, argv []string, ext Extensions, log *Log) (int, error) {
	name := v.Args[0]
	if !instance.ValidName(name) {
		return 0, Fatal(errors.New(name+" is not a valid instance name"), "letters, digits, dots, dashes and underscores are wanted")
	}
	if fd, err := unix.PidfdOpen(os.Getpid(), 0); err == unix.ENOSYS {
		return 0, Fatal(errors.New("instances need Linux 5.3 or newer (pidfd_open)"), "")
	} else if err == nil {
		unix.Close(fd)
	}
	store, err := Store("")
	if err != nil {
		return 0, err
	}
	if old, err := store.Get(name); err == nil {
		old.Close()
		return 0, Fatal(errors.New("instance "+name+" already exists"), "stop it (singularity instance stop "+name+") or choose another name")
	}
	// The instance will have no standard input.
	var passphrase []byte
	if o := &v.Options; o.Passphrase && o.PEMPath == "" && ext.Ask != nil && Encrypted(v.Image) {
		if passphrase, err = ext.Ask(); err != nil {
			return 0, err
		}
		defer clear(passphrase)
	}
	out, errs, err := store.Logs(name)
	if err != nil {
		return 0, Fatal(errors.New("cannot open the log files of the instance: "+err.Error()), "let SINGULARITY_CONFIGDIR name a directory that you may write to")
	}
	defer out.Close()
	defer errs.Close()
	status, err := spawnInstance(v, argv, passphrase, out, errs)
	if err != nil {
		return 0, err
	}
	defer status.Close()
	text, err := io.ReadAll(status)
	if err != nil {
		return 0, err
	}
	ok := len(text) > 0 && text[len(text)-1] == 0
	if ok {
		text = text[:len(text)-1]
	}
	log.Out.Write(text)
	if !ok {
		if len(text) == 0 {
			return 0, Fatal(errors.New("the instance ended at its start"), "see "+errs.Name())
		}
		return 255, nil
	}
	log.Info("instance started successfully")
	return 0, nil
}

// spawnInstance starts this program again, as the process of an instance, in a
// session of its own. What it says about its start can be read from the result.
func spawnInstance(v *Invocation, argv []string, passphrase []byte, out, errs *os.File) (*os.File, error) {
	args, argsEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer args.Close()
	status, statusEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer statusEnd.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), out.Fd(), errs.Fd(), args.Fd(), statusEnd.Fd()}
	leader := jobLeader(&v.Options)
	if leader >= 0 {
		defer unix.Close(leader)
		files = append(files, uintptr(leader))
	}
	if st := entry.Read(); st.Masked {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		signals.SetMask(st.Mask)
	}
	user := strconv.Itoa(os.Getuid())
	if u, err := host.LookupUser(os.Getuid(), os.Getgid()); err == nil {
		user = u.Name
	}
	title := instanceTitle + user + " [" + v.Args[0] + "]"
	exe, err := sealedCopy("/proc/self/exe")
	if err != nil {
		status.Close()
		return nil, err
	}
	defer unix.Close(exe)
	_, err = syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(exe), []string{title}, &syscall.ProcAttr{Env: os.Environ(), Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err == nil {
		b := birth{leader: leader >= 0, passphrase: passphrase, fileEnv: v.Options.FileEnv, argv: argv}
		text := b.encode()
		_, err = argsEnd.Write(text)
		clear(text)
	}
	if err := errors.Join(err, argsEnd.Close()); err != nil {
		status.Close()
		return nil, err
	}
	return status, nil
}

// sealedCopy returns a copy of a program of ours in memory that nobody can
// change.
//
// Security (SC-023): the process 1 of an instance is this program, as is the
// shell of a container that has none, and root in the user namespace can open
// its file.
func sealedCopy(path string) (int, error) {
	from, err := os.Open(path)
	if err != nil {
		return -1, err
	}
	defer from.Close()
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("singularity", flags|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("singularity", flags)
	}
	if err == unix.EACCES {
		return -1, Fatal(errors.New("cannot make a copy of the program in memory: this host lets nobody execute one"), "an administrator can allow it: sysctl vm.memfd_noexec=1")
	}
	if err != nil {
		return -1, err
	}
	st, err := from.Stat()
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	for left := st.Size(); left > 0 && err == nil; {
		var n int
		if n, err = unix.Sendfile(fd, int(from.Fd()), nil, int(left)); n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
		left -= int64(n)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		unix.Close(fd)
		return -1, errors.New("cannot copy the program: " + err.Error())
	}
	return fd, nil
}

// jobVariables are set in the jobs of batch systems.
var jobVariables = [...]string{"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "OAR_JOB_ID", "COBALT_JOBID", "SGE_JOB_SPOOL_DIR"}

// jobLeader returns a pidfd of the leader of this session if that is a batch
// job: an instance ends with it, unless it shall linger. Otherwise it is -1.
func jobLeader(o *plan.Options) int {
	if o.Linger {
		return -1
	}
	for _, k := range jobVariables {
		if os.Getenv(k) == "" {
			continue
		}
		sid, err := unix.Getsid(0)
		if err != nil || sid <= 0 {
			return -1
		}
		fd, err := unix.PidfdOpen(sid, 0)
		if err != nil {
			return -1
		}
		return fd
	}
	return -1
}

// IsInstance tells whether argv is that of a process that shall become an
// instance.
func IsInstance(argv []string) bool {
	return len(argv) == 1 && strings.HasPrefix(argv[0], instanceTitle)
}

// BecomeInstance is the life of the process of an instance: the start, with its
// messages for the one who waits, and then the watch over it. It returns the exit
// status.
func BecomeInstance(ext Extensions) int {
	for fd := argsFD; fd <= leaderFD; fd++ {
		unix.CloseOnExec(fd) // the last may not be there
	}
	status := os.NewFile(statusFD, "status")
	log := NewLog()
	log.Out, log.Color = status, false
	text, err := io.ReadAll(io.LimitReader(os.NewFile(argsFD, "arguments"), maxBirth))
	if err != nil {
		return 255
	}
	code, err := instanceOf(decodeBirth(text), ext, log, status)
	if err != nil {
		return Report(log, err)
	}
	return code
}

// birth is what the process of an instance is told.
type birth struct {
	leader     bool   // whether there is a leader
	passphrase []byte // of an encrypted image, nil if it was not asked for
	fileEnv    []string
	argv       []string
}

// maxBirth bounds it, in bytes.
const maxBirth = 16 << 20

// encode returns b as decodeBirth reads it: the words, and before them the length
// of the passphrase, -1 for none, and the passphrase itself.
func (b *birth) encode() []byte {
	size := -1
	if b.passphrase != nil {
		size = len(b.passphrase)
	}
	words := append([]string{strconv.FormatBool(b.leader), strconv.Itoa(len(b.fileEnv))}, b.fileEnv...)
	rest := strings.Join(append(words, b.argv...), "\x00")
	text := append(make([]byte, 0, len(rest)+len(b.passphrase)+16), strconv.Itoa(size)+"\x00"...)
	return append(append(text, b.passphrase...), rest...)
}

func decodeBirth(text []byte) (b birth) {
	head, rest, _ := bytes.Cut(text, []byte{0})
	size, err := strconv.Atoi(string(head))
	if err != nil || size < -1 || size > len(rest) {
		return b
	}
	var passphrase []byte
	if size >= 0 {
		passphrase, rest = rest[:size:size], rest[size:]
	}
	words := strings.Split(string(rest), "\x00")
	if len(words) < 2 {
		return b
	}
	n, err := strconv.Atoi(words[1])
	if err != nil || n < 0 || n > len(words)-2 {
		return b
	}
	return birth{leader: words[0] == "true", passphrase: passphrase, fileEnv: words[2 : 2+n], argv: words[2+n:]}
}

func instanceOf(b birth, ext Extensions, log *Log, status *os.File) (int, error) {
	var v Invocation
	verb, err := Parse(&v, b.argv, log)
	v.Options.FileEnv = b.fileEnv
	if err != nil || verb == nil || verb.Set&Instances == 0 {
		return 255, err
	}
	store, err := Store("")
	if err != nil {
		return 0, err
	}
	s := newStarter(&v, ext, log)
	s.args, s.instance, s.passphrase = v.Args[1:], v.Args[0], b.passphrase
	var pid int
	s.started = func(id int, p *plan.Plan) error {
		pid = id
		r, err := s.record(id, p, store)
		if err == nil {
			err = store.Add(r)
		}
		if errors.Is(err, instance.ErrExists) {
			err = Fatal(errors.New("instance "+s.instance+" already exists"), "")
		}
		if err == nil && v.Options.PIDFile != "" {
			err = os.WriteFile(v.Options.PIDFile, []byte(strconv.Itoa(id)+"\n"), 0o644)
		}
		if err != nil {
			return err
		}
		if b.leader {
			go watchLeader(id)
		}
		container.CloseInherited(leaderFD + 1) // options may have named some until now
		status.Write([]byte{0})
		log.Out = os.Stderr
		status.Close()
		return os.Chdir("/")
	}
	code, err := s.start(v.Image)
	if pid != 0 {
		store.Remove(s.instance, pid)
	}
	return code, err
}

// record describes the instance whose first process is pid.
func (s *starter) record(pid int, p *plan.Plan, store *instance.Store) (*instance.Record, error) {
	begin, err := instance.StartTime(pid)
	if err != nil && s.helper && errors.Is(err, os.ErrNotExist) {
		return nil, Fatal(errors.New("cannot start an instance through the setuid helper: /proc is mounted with hidepid, which hides its process"),
			"an administrator can mount /proc with hidepid=0, or with gid= of a group that you are in; with --userns it is not hidden")
	}
	if err != nil {
		return nil, err
	}
	out, errs := store.LogPaths(s.instance)
	rights := plan.Rights{Caps: ^plan.Caps(0)}
	if p.Rights != nil {
		rights = *p.Rights
	}
	var write []string
	if rights.Landlock != nil {
		write = rights.Landlock.Write
	}
	return &instance.Record{
		PID: pid, PPID: os.Getpid(), Name: s.instance, User: s.user.Name, Image: s.image.Path, UserNS: p.IDs.Mode != plan.HostIDs,
		LogOutPath: out, LogErrPath: errs, Cgroup: s.group, IP: s.address(),
		Config: instance.Config{Start: begin, Home: p.Home, Fakeroot: s.o.Fakeroot, Ranges: p.IDs.Mode == plan.Ranges, FakeOwners: p.IDs.FakeOwners, KeepGroups: p.IDs.KeepGroups, Init: p.Process.Init,
			Caps: uint64(rights.Caps), LSM: rights.LSM, Label: rights.Label, Seccomp: rights.Seccomp,
			Landlock: rights.Landlock != nil, Write: write},
	}, nil
}

// stopTime is what an instance gets to end by itself.
const stopTime = 10 * time.Second

// watchLeader ends the instance when the batch job that it belongs to ends.
func watchLeader(pid int) {
	list := []unix.PollFd{{Fd: leaderFD, Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(list, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		break
	}
	syscall.Kill(pid, syscall.SIGTERM)
	time.Sleep(stopTime)
	syscall.Kill(pid, syscall.SIGKILL)
}

// join runs verb in the running instance called name.
func join(verb string, o *plan.Options, name string, args []string, log *Log) (int, error) {
	forgetKeys()
	o.Imply()
	store, err := Store("")
	if err != nil {
		return 0, err
	}
	i, err := store.Get(name)
	if errors.Is(err, instance.ErrNone) {
		return 0, noInstance(name)
	}
	if err != nil {
		return 0, err
	}
	defer i.Close()
	s := &starter{verb: verb, o: o, args: args, log: log, entry: entry.Read(), instance: name}
	if s.conf, err = LoadConfig(o.ConfigFile); err != nil {
		return 0, err
	}
	if err := s.native(); err != nil {
		return 0, err
	}
	running := &container.Running{FD: i.FD(), PID: i.PID}
	// What the record says decides who is asked, and nothing else.
	s.helper = !i.UserNS && os.Getuid() != 0
	dir, err := s.rootOf(running)
	if err != nil && i.Wait(0) {
		return 0, noInstance(name)
	}
	if err != nil {
		return 0, Fatal(errors.New("cannot look into the instance "+name+": "+err.Error()), "")
	}
	s.files, s.image = dir, &image.Image{Path: i.Image, Kind: image.Sandbox}
	if err := s.gather(); err != nil {
		return 0, err
	}
	c := &i.Config
	ids := s.facts.Host
	r := &plan.Running{Home: c.Home, IDs: plan.IDs{Mode: plan.SingleID, UID: ids.UID, GID: ids.GID, FakeOwners: c.FakeOwners, KeepGroups: c.KeepGroups}}
	r.Caps, r.LSM, r.Label, r.Seccomp = plan.Caps(c.Caps), c.LSM, c.Label, c.Seccomp
	if c.Landlock {
		r.Landlock = plan.NewLandlock(c.Write)
	}
	if c.Fakeroot || c.Ranges {
		r.IDs.InsideUID, r.IDs.InsideGID = 0, 0
	} else {
		r.IDs.InsideUID, r.IDs.InsideGID = ids.UID, ids.GID
	}
	switch {
	case !i.UserNS:
		r.IDs.Mode, r.IDs.Helper = plan.HostIDs, s.helper
	case c.Ranges:
		r.IDs.Mode = plan.Ranges
	}
	p, notes, err := plan.Join(verb, o, args, &s.facts, r)
	if err != nil {
		return 0, err
	}
	for _, n := range notes {
		log.Warning(n)
	}
	hooks := container.Hooks{Warning: log.Warning, Debug: log.Debug, Procs: groupsOf(i, log)}
	if hooks.Shell, err = s.ownShell(p); err != nil {
		return 0, err
	}
	ws, err := container.Join(p, running, hooks)
	if err != nil {
		return 0, StartError(err)
	}
	return container.Exit(ws), nil
}

// rootOf opens the root directory of a running instance.
func (s *starter) rootOf(r *container.Running) (image.Files, error) {
	path := "/proc/" + strconv.Itoa(r.PID) + "/root"
	if s.helper {
		dir, err := r.RootDir()
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		path = "/proc/self/fd/" + strconv.Itoa(int(dir.Fd()))
	}
	return image.OpenDir(path)
}

func noInstance(name string) error {
	return Fatal(errors.New("no instance found with name "+name), "singularity instance list shows those that run")
}

// groupsOf opens what puts a process into the control groups of the instance, if
// it was given one. The kernel says where the instance is, the record only
// whether it matters.
func groupsOf(i *instance.Instance, log *Log) []*os.File {
	if i.Cgroup == "" {
		return nil
	}
	var procs []*os.File
	h, err := cgroupfs.FindHost()
	if err == nil {
		procs, err = h.Enter(i.PID)
	}
	if err != nil {
		log.Warning("The limits of the instance do not hold for this program, and its statistics leave it out: " + err.Error() +
			" (join it from the job or login that it was started in)")
	}
	return procs
}
