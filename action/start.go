package action

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/container"
	"singularity/container/env"
	"singularity/container/hot"
	"singularity/host"
	"singularity/image"
	"singularity/linux/entry"
	"singularity/plan"
)

// usualIDs is how many subordinate ids most images need.
const usualIDs = 65536

// maxEnvScript bounds one environment script of an image, in bytes.
const maxEnvScript = 1 << 20

// starter holds what one start of a container needs, in the order in which it
// is found out.
type starter struct {
	verb  string
	o     *plan.Options
	args  []string
	argv  []string // the command line, to hand over
	ext   Extensions
	log   *Log
	entry entry.State
	// instance is the name of the instance that is started or joined, and
	// started is called when it runs.
	instance string
	group    string // the control group, if there is one
	started  func(pid int, p *plan.Plan) error

	conf    *conf.Config
	image   *image.Image
	files   image.Files
	helper  bool            // the setuid helper makes the container
	trusted bool            // the image is signed with a key of a keyring
	hold    *container.Hold // of the shared mount; may be nil
	// listSaid tells that the warning about the execution control list was given.
	listSaid bool
	// noFUSE is set if this process may not mount images itself.
	noFUSE *host.Finding
	fsys   any
	user   host.User
	// hotConfig is what is kept of the image's blocks, hot the session of this
	// start if it serves the image itself.
	hotConfig hot.Config
	hot       *hot.Session
	facts     plan.Facts

	images   images
	overlays []plan.Partition // in the image
	net      *Network         // if the container has one of its own
	sandbox  *sandbox         // what the image was unpacked to, if it was
	secret   []byte           // of an encrypted image: for a server process
	// passphrase was asked for by the process that started this one; may be nil.
	passphrase []byte
}

// start runs the verb in a container made from the image at path and returns its
// exit status.
func (s *starter) start(path string) (int, error) {
	o, log := s.o, s.log
	o.Imply()
	if s.instance != "" {
		o.PID = true
	}
	var err error
	if s.conf, err = LoadConfig(o.ConfigFile); err != nil {
		return 0, err
	}
	if err := s.native(); err != nil {
		return 0, err
	}
	if o.Linger && s.instance != "" && s.ext.Leave != nil {
		s.ext.Leave(s.conf, s.log) // before a holder is started, which stays where it began
	}
	if s.image, err = image.Open(path); err != nil {
		return 0, imageError(path, err)
	}
	if err := s.unblocked(s.image); err != nil {
		return 0, err
	}
	if err := s.needKey(); err != nil {
		return 0, err
	}
	if err := s.image.Runnable(); err != nil {
		return 0, err
	}
	if err := s.allowed(s.image); err != nil {
		return 0, err
	}
	if os.Getuid() == 0 && !o.Userns && !host.MayMount() {
		s.log.Verbose("Using a user namespace: root has no CAP_SYS_ADMIN here")
		o.Userns = true
	}
	s.helper = s.useHelper()
	if s.hotConfig, err = s.hotCache(); err != nil {
		return 0, err
	}
	if s.image.Kind != image.Sandbox {
		s.noFUSE = missingFUSE()
	}
	if err := s.integrity(); err != nil {
		return 0, err
	}
	if err := s.unlock(); err != nil {
		return 0, err
	}
	if s.files, s.fsys, err = s.image.Files(); err != nil {
		return 0, imageError(path, err)
	}
	s.watch()
	defer func() {
		s.images.release()
		s.sandbox.remove(log)
	}()
	if err := s.findPartitions(); err != nil {
		return 0, err
	}
	if err := s.unpack(); err != nil {
		return 0, err
	}
	if err := s.addRoot(); err != nil {
		return 0, err
	}
	if err := s.openLayers(); err != nil {
		return 0, err
	}
	if err := s.checkApp(); err != nil {
		return 0, err
	}
	if s.verb == "test" && !s.hasTest() {
		log.Info("No test script found in container, exiting")
		return 0, nil
	}
	if err := s.gather(); err != nil {
		return 0, err
	}
	if err := s.connect(); err != nil {
		return 0, err
	}
	defer s.disconnect()
	p, notes, err := plan.New(s.verb, o, s.args, &s.facts)
	if err == nil && s.helper && (!container.CanHelp(p) || len(s.images.served) > 1 && s.demanded()) {
		s.log.Verbose("Using a user namespace: the setuid helper writes to no overlay but one in memory, and to no image file, no program in its containers serves a file system, and where signatures are demanded it takes one image")
		s.facts.Host.Helper, s.facts.Host.NetRights = false, plan.NetRights{}
		s.sayListed(s.image.Kind == image.SIF && s.listed())
		p, notes, err = plan.New(s.verb, o, s.args, &s.facts)
	}
	for _, n := range notes {
		log.Warning(n)
	}
	if err != nil {
		return 0, err
	}
	s.verbose(p)
	return s.run(p)
}

// share takes a hold on the shared mount of the image, where this start may have
// one. It comes first, so that the holder starts while the plan is made. If judge
// is not nil it is called unless a holder has the answer already.
//
// Security: containers that share a user namespace have equal rights in it, so
// only those share that have no rights there at all.
func (s *starter) share(judge func() error) error {
	if !s.mayShare() {
		if judge != nil {
			return judge()
		}
		return nil
	}
	var refused error
	check := judge
	if judge != nil {
		check = func() error {
			refused = judge()
			return refused
		}
	}
	v := s.served()
	var err error
	if s.hold, err = container.Share(v, os.Getuid() == 0 && !s.o.Userns, s.noFUSE == nil, check); err != nil {
		s.log.Debug("not sharing a mount: " + err.Error())
	}
	switch {
	case judge == nil || refused != nil:
		return refused
	case v.Tree != nil:
		s.check(v.Tree)
		return nil
	}
	return judge()
}

func (s *starter) mayShare() bool {
	o := s.o
	if len(o.FuseMount) > 0 || len(o.Overlay) > 0 || o.WritableTmpfs != "" || len(o.Data) > 0 || s.image.Kind == image.Ext3 {
		return false // layers and locks are the container's own
	}
	if s.conf.EnableOverlay == "no" {
		return false // files that differ from those of the first start need one
	}
	return s.image.Kind != image.Sandbox && !s.helper && !o.NoSharedMount && !o.TmpSandbox && !o.Fakeroot && !o.Writable && !o.AllowSetuid && len(o.AddCaps) == 0
}

// missingFUSE tells what keeps this process from /dev/fuse, nil if nothing does.
func missingFUSE() *host.Finding {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return host.Explain(host.ErrNoFUSE)
	}
	unix.Close(fd)
	return nil
}

// served is the image as a server of ours shows it.
func (s *starter) served() *container.Served {
	return &container.Served{FS: s.fsys, File: s.image.File, Format: int(s.image.Format), Off: s.image.Off, Size: s.image.Size, Hold: s.hold, Hot: s.hotConfig, Tree: s.image.Trees[s.image.Root]}
}

// native refuses what belongs to OCI mode.
func (s *starter) native() error {
	notes, err := plan.Native(s.o, s.conf.OCIMode)
	for _, n := range notes {
		s.log.Warning(n)
	}
	return err
}

// imageError names the image in an error of opening it.
func imageError(path string, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	text := errors.New("While checking image: could not open image " + path + ": " + err.Error())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Fatal(text, "check the path; an image in a library or registry needs its scheme, e.g. library://"+strings.TrimLeft(path, "/."))
	case errors.Is(err, syscall.EACCES):
		return Fatal(text, "you may not read it as uid "+strconv.Itoa(os.Getuid())+": ask its owner for read permission")
	case errors.Is(err, image.ErrFormat):
		return Fatal(text, "a SIF, squashfs or ext3 file or a directory is wanted; the file may be damaged or only partly downloaded")
	}
	return Fatal(text, "")
}

// gather finds the facts about host and image, and makes the environment.
func (s *starter) gather() error {
	uid, gid := os.Getuid(), os.Getgid()
	groups, err := os.Getgroups()
	if s.entry.Unshared {
		uid, gid, groups = s.entry.UID, s.entry.GID, s.entry.Groups
	}
	if err != nil {
		return err
	}
	groups = append(groups, gid)
	if s.user, err = host.LookupUser(uid, gid); err != nil {
		s.log.Warning(err.Error())
	}
	cwd, _ := os.Getwd()
	h := plan.HostFacts{UID: uid, GID: gid, Home: s.user.Home, Cwd: cwd, Path: hostPath, Mounts: host.MountPoints, NoOverlay: noOverlay}
	if s.o.Contain || s.conf.MountDev == "minimal" {
		h.TTY, h.Terminal = terminalName(), hasTerminal()
	}
	h.Helper = s.helper
	if err := s.rights(&h, groups); err != nil {
		return err
	}
	inside := s.user
	if s.o.Fakeroot && uid != 0 {
		inside = host.User{Name: "root", Gecos: "root", Home: "/root", Shell: s.user.Shell}
		s.ranges(&h)
	}
	inside, groups = s.target(inside, groups)
	if s.conf.ConfigPasswd && inside.Name != "" {
		h.Passwd = func(old []byte) ([]byte, error) { return plan.Passwd(old, inside) }
		h.PasswdKey = fmt.Sprint(inside)
	}
	if s.conf.ConfigGroup && inside.Name != "" {
		fake := s.o.Fakeroot && uid != 0
		h.Group = func(old []byte) ([]byte, error) { return plan.Group(old, inside, groupsInside(groups, fake)) }
		h.GroupKey = fmt.Sprint(inside.Name, fake, groups)
	}
	if err := s.drivers(&h); err != nil {
		return err
	}
	resolver := image.NewResolver(s.files)
	s.facts = plan.Facts{Host: h, Conf: settings(s.conf), Image: plan.ImageFacts{
		Kind: plan.ServedRoot, Path: s.image.Path, Dev: s.image.Dev, Ino: s.image.Ino,
		Resolve: func(p string) (string, plan.PathKind) {
			at, mode, ok := resolver.Resolve(p)
			switch {
			case !ok:
				return at, plan.Missing
			case mode.IsDir():
				return at, plan.Directory
			}
			return at, plan.Other
		},
		Script: s.isScript,
		Ext:    s.image.Kind == image.Ext3, NoWrite: s.o.Writable && unix.Access(s.image.Path, unix.W_OK) != nil, Overlays: s.overlays,
	}, Open: func(r plan.ImageRef) (plan.OpenImage, error) {
		o, err := s.open(r)
		if err != nil {
			return plan.OpenImage{}, err
		}
		return o.OpenImage, nil
	}}
	if s.image.Kind == image.Sandbox {
		s.facts.Image.Kind = plan.DirRoot
	}
	if s.image.Kind == image.Sandbox || s.image.Kind == image.Ext3 && s.o.Writable {
		s.readFiles()
	}
	s.libraryFacts()
	s.environment()
	return nil
}

// groupsInside names the groups that the caller is in inside. As root of a user
// namespace that is root alone: the host's other groups are not mapped there,
// and their numbers mean somebody else or nobody.
func groupsInside(groups []int, fakeroot bool) []host.Group {
	if fakeroot {
		return []host.Group{{Name: "root", GID: 0}}
	}
	return host.Groups(groups)
}

// readFiles lets the generated files of a sandbox be made from its own ones;
// a FUSE server hands them over when somebody looks.
func (s *starter) readFiles() {
	h := &s.facts.Host
	for _, f := range []struct {
		path string
		load *func([]byte) ([]byte, error)
	}{{"/etc/passwd", &h.Passwd}, {"/etc/group", &h.Group}} {
		if make := *f.load; make != nil {
			*f.load = func([]byte) ([]byte, error) {
				old, err := s.files.ReadFile(f.path, plan.MaxUserFile)
				if err != nil {
					return nil, nil
				}
				return make(old)
			}
		}
	}
}

// ranges finds the subordinate ids for fakeroot, or says that there are none.
func (s *starter) ranges(h *plan.HostFacts) {
	var err error
	if h.UIDRanges, h.GIDRanges, err = ranges(s.user); err != nil {
		s.log.Info("No subordinate ids for " + s.user.Name + ": only root is mapped, and changes of ownership succeed without effect")
		s.log.Verbose(err.Error() + "; an administrator can add ids: singularity config fakeroot --add " + s.user.Name)
		return
	}
	count := uint32(0)
	for _, r := range h.UIDRanges {
		count += r.Count
	}
	if count < usualIDs {
		s.log.Info("Only " + strconv.Itoa(int(count)) + " subordinate ids for " + s.user.Name + ": files of other owners in the image cannot be told apart")
	}
}

// IDRanges returns the subordinate ids of the user uid, as id maps from 1 up.
func IDRanges(uid int) (uids, gids []plan.Map, err error) {
	user, err := host.LookupUser(uid, os.Getgid())
	if err != nil {
		return nil, nil, err
	}
	return ranges(user)
}

func ranges(user host.User) (uids, gids []plan.Map, err error) {
	u, g, err := host.SubIDs(user)
	if err != nil {
		return nil, nil, err
	}
	return idMaps(u), idMaps(g), nil
}

// idMaps numbers ranges from 1 up, since 0 is the caller.
func idMaps(list []host.Range) []plan.Map {
	var out []plan.Map
	next := uint32(1)
	for _, r := range list {
		out = append(out, plan.Map{Inside: next, Outside: r.Start, Count: r.Count})
		next += r.Count
	}
	return out
}

func hostPath(p string) plan.PathKind {
	var st syscall.Stat_t
	switch err := syscall.Stat(p, &st); {
	case err != nil:
		return plan.Missing
	case st.Mode&syscall.S_IFMT == syscall.S_IFDIR:
		return plan.Directory
	}
	return plan.Other
}

// shippedSessionSize is the "sessiondir max size" of the file as it is
// installed, in MiB.
const shippedSessionSize = 64

func settings(c *conf.Config) plan.Settings {
	s := plan.Settings{
		MountProc: c.MountProc, MountSys: c.MountSys, MountDev: c.MountDev, MountDevpts: c.MountDevpts, MountHome: c.MountHome,
		MountTmp: c.MountTmp, MountHostfs: c.MountHostFS,
		BindPaths: c.BindPaths, ConfigResolv: c.ConfigResolvConf, UserBinds: c.UserBindControl, Fusemount: c.EnableFusemount,
		AllowPID: c.AllowPIDNS, AllowIPC: c.AllowIPCNS, AllowUTS: c.AllowUTSNS, AllowUser: c.AllowUserNS,
		RootCaps: c.RootDefaultCapabilities,
	}
	s.Overlay, s.Underlay, s.TmpSandbox = c.EnableOverlay, c.EnableUnderlay, c.TmpSandbox
	s.PrivateMounts, s.Ramfs = !c.MountSlave, c.MemoryFSType == "ramfs"
	if os.Getuid() != 0 {
		s.SessionSize = c.SessiondirMaxSize << 20
		// The value of the file as it is installed is nobody's wish.
		if c.SessiondirMaxSize != shippedSessionSize {
			s.TmpfsLimit = s.SessionSize
		}
	}
	return s
}

// environment makes the variables of the program from the image's scripts.
func (s *starter) environment() {
	in := env.Input{Host: os.Environ(), Clean: s.o.CleanEnv, NoEval: s.o.NoEval}
	in.Scripts, in.App = s.scripts("/.singularity.d/env"), s.app()
	in.User = s.userVariables(in.Host)
	home := s.facts.Host.Home
	if s.o.Fakeroot {
		home = "/root"
	}
	if _, dst, ok := strings.Cut(s.o.Home, ":"); ok {
		home = dst
	} else if s.o.Home != "" {
		home = s.o.Home
	}
	in.Fixed = []string{
		"HOME=" + orRoot(home),
		"SINGULARITY_CONTAINER=" + s.image.Path,
		"SINGULARITY_NAME=" + filepath.Base(s.image.Path),
		"SINGULARITY_COMMAND=" + strings.TrimPrefix(s.verb, "instance "),
		"SINGULARITY_ENVIRONMENT=/.singularity.d/env/91-environment.sh",
		"SINGULARITY_BIND=" + strings.Join(s.o.Bind, ","),
		"USER_PATH=" + os.Getenv("PATH") + ":" + env.DefaultPath,
	}
	if s.instance != "" {
		in.Fixed = append(in.Fixed, "SINGULARITY_INSTANCE="+s.instance)
	}
	if s.o.NoEval {
		in.Fixed = append(in.Fixed, "SINGULARITY_NO_EVAL=1")
	}
	if s.o.App != "" {
		in.Fixed = append(in.Fixed, "SINGULARITY_APPNAME="+s.o.App)
	}
	if s.verb == "shell" && s.o.Shell != "" {
		in.Fixed = append(in.Fixed, "SINGULARITY_SHELL="+s.o.Shell)
	}
	if e := s.facts.Host.Edits; e != nil {
		in.Fixed = append(in.Fixed, e.Env...)
	}
	r := env.Make(in)
	for _, w := range r.Warnings {
		s.log.Warning(w)
	}
	for _, name := range r.Changed {
		s.log.Verbose("The value of " + name + " is not set as it stands, but as a shell reads it between double quotes: --no-eval sets it literally")
	}
	s.facts.Env, s.facts.Shell = r.Env, r.Shell
}

func orRoot(home string) string {
	if home == "" {
		return "/"
	}
	return home
}

// verbose lists what is mounted by itself, for those who wonder.
func (s *starter) verbose(p *plan.Plan) {
	if s.log.Level < LevelVerbose {
		return
	}
	for i := range p.Layers {
		l := &p.Layers[i]
		switch {
		case l.Kind == plan.TmpfsLayer:
			s.log.Verbose("Changes are kept in memory, at most " + strconv.FormatInt(l.Size>>10, 10) + " KiB; a program that writes more gets \"no space left on device\": use --writable-tmpfs=SIZE")
		case l.Writable:
			s.log.Verbose("Writable overlay " + l.Path)
		default:
			s.log.Verbose("Read-only overlay " + l.Path)
		}
	}
	for i := range p.Mounts {
		m := &p.Mounts[i]
		s.log.Verbose("Mounting " + m.Source + " on " + m.Destination + " [" + m.Tag + "]")
	}
}

// run carries the plan out.
func (s *starter) run(p *plan.Plan) (int, error) {
	if err := container.MakeDirs(p); err != nil {
		return 0, Fatal(errors.New("cannot make a directory of --workdir or --overlay: "+err.Error()), "name a directory that you may write to")
	}
	procs, end, err := s.limit(p)
	if err != nil {
		return 0, err
	}
	hooks := container.Hooks{Warning: s.log.Warning, Debug: s.log.Debug, Procs: procs, Panic: func() { os.Exit(255) }}
	if hooks.Shell, err = s.ownShell(p); err != nil {
		return 0, err
	}
	s.networkHooks(&hooks)
	record := &runRecord{s: s}
	hooks.Started = func(pid int) error {
		record.write()
		if s.started == nil {
			return nil
		}
		return s.started(pid, p)
	}
	if s.entry.Unshared && procs == nil && container.CanExec(p) {
		record.write() // the program takes the place of this one
		return 0, StartError(container.Exec(p, s.entry, hooks))
	}
	if len(s.images.served) > 0 && p.Upper() != nil {
		// What root owns could not be changed.
		s.images.served[0].Kernel = 0
	}
	s.images.keepLeases(s.log)
	hooks.Done = s.images.lost
	ws, err := container.Run(p, s.images.served, hooks)
	if container.NoProc(err) {
		s.log.Verbose(err.Error() + ": using the host's")
		p.HostProc()
		ws, err = container.Run(p, s.images.served, hooks)
	}
	record.end()
	end()
	s.disconnect()
	s.hot.End()
	s.log.Debug("hot blocks: " + s.hot.String())
	s.images.release()
	s.sandbox.remove(s.log)
	if err != nil {
		return 0, StartError(err)
	}
	return container.Exit(ws), nil
}

// StartError adds what this host lacks to an error of starting a container.
func StartError(err error) error {
	if m, ok := errors.AsType[*container.MissingToolError](err); ok && strings.HasPrefix(m.Tool, "fuse") {
		return Fatal(err, "to write to an image file install the package "+m.Tool+", or use a directory as overlay, or add :ro")
	}
	if container.NoLayers(err) {
		return Fatal(err, "an overlay needs Linux 5.11 for ordinary users, and for what it writes a local file system such as ext4, xfs or tmpfs: not NFS, Lustre or another overlay")
	}
	if found := host.Explain(err); found != nil {
		return Fatal(errors.New(err.Error()+": "+found.Cause), found.Cure)
	}
	return err
}

// openServed opens an image's partition in a server process.
func openServed(format int, r *io.SectionReader, secret []byte) (any, error) {
	_, fsys, err := image.OpenFiles(image.Format(format), r)
	return fsys, err
}
