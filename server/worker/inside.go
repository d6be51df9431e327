package worker

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/conf"
)

// inside is the first process of a sandbox: root of its user namespace.
type inside struct {
	spec    *spec
	control *net.UnixConn
	mu      sync.Mutex

	proxy string

	res result
}

// Inside is the program of the first process. What it says goes to the keeper;
// what the build says goes to standard output.
func Inside() int {
	runtime.LockOSThread()
	f := os.NewFile(3, "control")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return 1
	}
	in := &inside{control: c.(*net.UnixConn)}
	r := bufio.NewReaderSize(in.control, 64<<10)
	line, err := r.ReadBytes('\n') // it comes when the ids are mapped
	if err != nil {
		return 1
	}
	in.spec = &spec{}
	if err := json.Unmarshal(line, in.spec); err != nil {
		return 1
	}
	go func() { // the keeper has died
		io.Copy(io.Discard, r)
		os.Exit(1)
	}()
	status, err := in.run()
	if err != nil {
		in.res.Error = err.Error()
		in.tell()
	} else if in.spec.Probe {
		in.tell()
	}
	return status
}

func (in *inside) tell() {
	in.mu.Lock()
	defer in.mu.Unlock()
	text, err := json.Marshal(in.res)
	if err == nil {
		in.control.Write(append(text, '\n'))
	}
}

// stop ends the sandbox because of a limit.
func (in *inside) stop(limit string) {
	in.res.Limit = limit
	in.tell()
	os.Exit(1)
}

func (in *inside) run() (int, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 1, fmt.Errorf("cannot make mounts private: %w", err)
	}
	// The directory is opened as who the worker is, who alone may get there, and
	// then reached by its descriptor.
	dir, err := unix.Open(in.spec.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 1, fmt.Errorf("cannot open the directory of the build: %w", err)
	}
	if err := in.becomeRoot(); err != nil {
		return 1, err
	}
	if in.spec.Remove {
		return 0, removeAll(fmt.Sprintf("/proc/self/fd/%d", dir))
	}
	if err := in.root(fmt.Sprintf("/proc/self/fd/%d", dir)); err != nil {
		return 1, fmt.Errorf("cannot make a sandbox: %w", err)
	}
	in.res.Emulate = registerEmulators()
	if in.spec.Probe {
		return 0, nil
	}
	if err := errors.Join(in.files(), in.network()); err != nil {
		return 1, err
	}
	if err := in.unpack(); err != nil {
		return 1, err
	}
	if err := in.limits(); err != nil {
		return 1, err
	}
	go in.watchDisk()
	return in.start()
}

// becomeRoot takes the ids 0 of the user namespace.
func (in *inside) becomeRoot() error {
	if in.spec.IDs.Count > 1 {
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("cannot drop groups: %w", err)
		}
	}
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		return fmt.Errorf("cannot become root of the sandbox: %w", err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return fmt.Errorf("cannot become root of the sandbox: %w", err)
	}
	// A change of ids forgets this. And /proc/PID of ours must be ours, to start
	// a process with ids of its own.
	return errors.Join(unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0), unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
}

// removeAll removes what is in a directory.
func removeAll(dir string) error {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// What a build sees of the host, read-only: programs, and what they need to run
// and to check certificates. Nothing here is a secret of a host, and no
// directory of /etc is taken as a whole that may hold one.
var (
	hostTrees = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
	hostFiles = []string{"ssl/certs", "ssl/openssl.cnf", "pki/ca-trust", "pki/tls/certs", "pki/rpm-gpg", "ca-certificates", "ca-certificates.conf", "alternatives", "ld.so.cache", "ld.so.conf",
		"ld.so.conf.d", "debian_version", "os-release", "localtime", "mime.types", "debootstrap", "apt/trusted.gpg.d", "apt/keyrings", "dnf/dnf.conf", "dnf/vars", "zypp/zypp.conf",
		"pacman.conf", "protocols", "services", "magic", "rpm"}
	siteFiles = []string{"singularity.conf", "nvliblist.conf", "rocmliblist.conf", "ecl.toml", "global-pgp-public", "seccomp-profiles", "capability.json"}
	devices   = []string{"null", "zero", "full", "random", "urandom", "tty", "fuse"}
)

// root makes the sandbox's file system and goes into it. dir is that of the
// build, by a descriptor of this process in this mount namespace.
func (in *inside) root(dir string) error {
	root := dir + "/root"
	if err := unix.Mount("sandbox", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64m,nr_inodes=20000,mode=0755,uid=0,gid=0"); err != nil {
		return err
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	root = fmt.Sprintf("/proc/self/fd/%d", fd)
	for _, d := range []string{"proc", "sys", "dev", "etc", "run", "var", "var/tmp", "tmp", "root", "home", "build", "opt", "mnt", "srv", "old"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for _, tree := range hostTrees {
		if err := mirror(tree, root+tree); err != nil {
			return err
		}
	}
	for _, name := range hostFiles {
		if err := mirror("/etc/"+name, root+"/etc/"+name); err != nil {
			return err
		}
	}
	if err := in.mounts(root, dir+"/work"); err != nil {
		return err
	}
	if err := in.program(root); err != nil {
		return err
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "old"); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return err
	}
	if err := os.Remove("/old"); err != nil {
		return err
	}
	unix.Close(fd)
	return os.Chdir(insideDir)
}

// program shows singularity with what it needs, where that is not in /usr.
func (in *inside) program(root string) error {
	prefix := filepath.Dir(filepath.Dir(in.spec.Program))
	if !strings.HasPrefix(prefix+"/", "/usr/") {
		for _, d := range []string{"bin", "libexec", "lib", "share"} {
			if err := mirror(filepath.Join(prefix, d), filepath.Join(root, prefix, d)); err != nil {
				return err
			}
		}
		// A directory for mounts, which it looks for.
		if err := os.MkdirAll(filepath.Join(root, prefix, "var/singularity/mnt/session"), 0o755); err != nil {
			return err
		}
	}
	for _, name := range siteFiles {
		if err := mirror(filepath.Join(conf.Dir(), name), filepath.Join(root, conf.Dir(), name)); err != nil {
			return err
		}
	}
	return nil
}

// mirror shows something of the host at another place, read-only. A link is made
// anew; what is not there is left out.
func mirror(from, to string) error {
	st, err := os.Lstat(from)
	if err != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	switch {
	case st.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case st.IsDir():
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
	case st.Mode().IsRegular():
		f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	default:
		return nil
	}
	return bind(from, to, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

func bind(from, to string, attributes uint64) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot show %q: %w", from, err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attributes}); err != nil {
		return fmt.Errorf("cannot protect %q: %w", from, err)
	}
	return nil
}

// mounts makes /proc, /sys, /dev and the places that a build may write to.
func (in *inside) mounts(root, work string) error {
	if err := unix.Mount("proc", root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("cannot mount a /proc of its own: %w", err)
	}
	// Without one, builds have an empty directory there.
	_ = unix.Mount("sysfs", root+"/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
	for _, name := range devices {
		if _, err := os.Stat("/dev/" + name); err != nil {
			continue
		}
		f, err := os.OpenFile(root+"/dev/"+name, os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		f.Close()
		if err := bind("/dev/"+name, root+"/dev/"+name, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return err
		}
	}
	for _, d := range []string{"pts", "shm"} {
		if err := os.Mkdir(root+"/dev/"+d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", root+"/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return err
	}
	if err := unix.Mount("shm", root+"/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64m,nr_inodes=10000,mode=1777"); err != nil {
		return err
	}
	for name, target := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, root+"/dev/"+name); err != nil {
			return err
		}
	}
	if err := os.Chmod(work+"/tmp", 0o777|os.ModeSticky); err != nil {
		return err
	}
	for to, from := range map[string]string{"/build": work, "/tmp": work + "/tmp", "/var/tmp": work + "/tmp"} {
		if err := bind(from, root+to, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
			return err
		}
	}
	return nil
}

// files writes what the build finds in /etc and in its home. The home is memory,
// and another one for the push.
func (in *inside) files() error {
	if err := os.MkdirAll(insideHome, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("home", insideHome, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=16m,nr_inodes=2000,mode=0700"); err != nil {
		return err
	}
	if err := os.Mkdir(insideHome+"/.singularity", 0o700); err != nil {
		return err
	}
	user := "root:x:0:0:build:" + insideHome + ":/bin/sh\n"
	for name, text := range map[string]string{
		"/etc/passwd":                            user + "build:x:1000:1000:build:" + insideHome + ":/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"/etc/group":                             "root:x:0:\nbuild:x:1000:\nnogroup:x:65534:\n",
		"/etc/hosts":                             "127.0.0.1 localhost build\n::1 localhost\n",
		"/etc/resolv.conf":                       "",
		"/etc/nsswitch.conf":                     "passwd: files\ngroup: files\nhosts: files\n",
		"/etc/build-ca.pem":                      string(in.spec.CA),
		insideDir + "/definition":                string(in.spec.Definition),
		insideHome + "/.singularity/remote.yaml": string(in.spec.Login),
	} {
		if err := writeInside(name, text); err != nil {
			return fmt.Errorf("cannot write %q: %w", name, err)
		}
	}
	if len(in.spec.Registries) > 0 {
		if err := writeInside(registriesFile, string(in.spec.Registries)); err != nil {
			return err
		}
		if err := os.Chmod(registriesFile, 0o600); err != nil {
			return err
		}
	}
	if err := os.Chmod(insideHome+"/.singularity/remote.yaml", 0o600); err != nil {
		return err
	}
	for _, d := range []string{insideDir + "/context"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return unix.Sethostname([]byte("build"))
}

// writeInside writes a file anew. What a build left there is no place to write
// through.
func writeInside(name, text string) error {
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// network brings the loopback up and listens there for the keeper, whose proxy is
// the only way out.
func (in *inside) network() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("cannot bring the loopback up: %w", err)
	}
	// Programs use no proxy for a loopback address: a library there is at its own.
	// That is taken first, so that the proxy gets another port.
	var library *os.File
	if u, err := url.Parse(in.spec.Library); err == nil {
		if at, ok := loopback(u); ok {
			own, err := net.Listen("tcp", at)
			if err != nil {
				return fmt.Errorf("cannot listen at the library's address: %w", err)
			}
			defer own.Close()
			if library, err = own.(*net.TCPListener).File(); err != nil {
				return err
			}
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	in.proxy = "http://" + l.Addr().String()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	files := []*os.File{f}
	if library != nil {
		files = append(files, library)
	}
	l.Close()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	_, _, err = in.control.WriteMsgUnix([]byte("\n"), unix.UnixRights(fds...), nil)
	for _, f := range files {
		f.Close()
	}
	return err
}

// start runs the program in a user namespace below this one, where it is an
// ordinary user, or root of ids that are nobody's; waits for it and reaps what it
// leaves. The end of this process ends all that is left.
func (in *inside) start() (int, error) {
	s := in.spec
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWCGROUP, Setsid: true}
	id := 1000
	if s.IDs.Count > 1 {
		id = 0
		// In two pieces, as they are above: the kernel takes none that spans two.
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: 1, HostID: 1, Size: int(s.IDs.Count) - 1}}
		attr.GidMappings, attr.GidMappingsEnableSetgroups = attr.UidMappings, true
	} else {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: id, HostID: 0, Size: 1}}
		attr.GidMappings = attr.UidMappings
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 1, err
	}
	env := []string{"PATH=" + filepath.Dir(s.Program) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + insideHome, "TMPDIR=/tmp", "LANG=C.UTF-8", "TERM=dumb",
		"USER=" + map[bool]string{true: "root", false: "build"}[id == 0], "SINGULARITY_CACHEDIR=" + insideDir + "/cache", "SINGULARITY_DISABLE_CACHE=true",
		"SSL_CERT_FILE=/etc/build-ca.pem", "CURL_CA_BUNDLE=/etc/build-ca.pem", "GIT_SSL_CAINFO=/etc/build-ca.pem", "REQUESTS_CA_BUNDLE=/etc/build-ca.pem"}
	for _, name := range []string{"http_proxy", "https_proxy", "ftp_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"} {
		env = append(env, name+"="+in.proxy)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 1, err
	}
	p, err := os.StartProcess(s.Program, s.Args, &os.ProcAttr{Dir: insideDir, Env: env, Files: []*os.File{null, os.Stdout, os.Stderr}, Sys: attr})
	if err != nil {
		return 1, fmt.Errorf("cannot start singularity in the sandbox: %w", err)
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, err
		case pid == p.Pid && ws.Signaled():
			in.res.Error = "it was ended by signal " + strconv.Itoa(int(ws.Signal()))
			if ws.Signal() == unix.SIGKILL && s.Grouped {
				in.res.Error = "it was killed, as it used too much memory"
			}
			in.tell()
			return 1, nil
		case pid == p.Pid:
			return ws.ExitStatus(), nil
		}
	}
}
