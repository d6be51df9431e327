package network

import (
	"bufio"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/linux/cni"
)

// server is the address at which both programs answer for the host's name servers.
const server = "10.0.2.3"

// device is the interface in the container.
const device = "eth0"

// ErrNoTun says that this user may not make network devices.
var ErrNoTun = errors.New("cannot open /dev/net/tun")

// Find returns the first of programs that this host has, or "".
func Find(programs []string) string {
	if unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK) != nil {
		return ""
	}
	for _, name := range programs {
		if _, err := find(name); err == nil {
			return name
		}
	}
	return ""
}

// A MissingError says that a program is not installed.
type MissingError struct{ Program string }

func (e *MissingError) Error() string { return "cannot find the program " + e.Program }

// find returns the path of a program of the system.
func find(name string) (string, error) {
	for _, dir := range []string{"/usr/bin/", "/bin/", "/usr/local/bin/"} {
		if unix.Access(dir+name, unix.X_OK) == nil {
			return dir + name, nil
		}
	}
	return "", &MissingError{name}
}

// Own returns the network of a container whose way out is the program called name,
// with the words of --network-args. The container's namespace gets it by Join.
func Own(name string, words []string) (*Network, error) {
	if _, err := find(name); err != nil {
		return nil, err
	}
	if err := unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK); err != nil {
		return nil, errors.Join(ErrNoTun, err)
	}
	args, err := cni.ParseArgs([]string{name}, words, lowestPort())
	if err != nil {
		return nil, err
	}
	if args[0].IP != "" {
		return nil, errors.New("cannot use IP=" + args[0].IP + " of --network-args: " + name + " chooses the address")
	}
	n := &Network{Servers: []string{server}, program: name, args: words}
	if name == "slirp4netns" {
		n.IPs = []string{"10.0.2.100"}
	}
	return n, nil
}

// lowestPort is the lowest port of the host that ordinary users may publish.
func lowestPort() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	n, err2 := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || err2 != nil {
		return 1024
	}
	return n
}

// Join gives the network namespace of the process pid its way out.
func (n *Network) Join(pid int) (err error) {
	n.keeper, _, err = startKeeper(append([]string{userMode, strconv.Itoa(pid), n.program}, n.args...))
	return err
}

// keepUser starts the program for the process args[0].
func keepUser(args []string) (func() error, error) {
	pid, name := args[0], args[1]
	asked, err := cni.ParseArgs([]string{name}, args[2:], lowestPort())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "singularity-net-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	start := startPasta
	if name == "slirp4netns" {
		start = startSlirp
	}
	w, err := start(pid, dir, asked[0].Ports)
	if err != nil {
		return nil, err
	}
	return w.stop, nil
}

// wayOut is a running program.
type wayOut struct {
	process *os.Process
	name    string
	log     *os.File // what it said
}

func (w *wayOut) stop() error {
	w.process.Kill()
	_, err := w.process.Wait()
	return err
}

// launch starts a program of the system in the directory dir; its descriptors from
// 3 up are files.
func launch(name, dir string, args []string, files []*os.File) (*wayOut, error) {
	file, err := find(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	w := &wayOut{name: name, log: os.NewFile(uintptr(fd), name)}
	w.process, err = os.StartProcess(file, append([]string{name}, args...), &os.ProcAttr{Dir: dir, Env: []string{"PATH=" + path},
		Files: append([]*os.File{null, w.log, w.log}, files...)})
	return w, err
}

// fail ends a program that does not do what it should, and says what it said.
func (w *wayOut) fail(err error) (*wayOut, error) {
	w.stop()
	text := make([]byte, 1024)
	n, _ := w.log.ReadAt(text, 0)
	var said []string
	for line := range strings.Lines(string(text[:max(n, 0)])) {
		// pasta complains of a machine without a system log.
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, "to syslog") {
			said = append(said, line)
		}
	}
	if len(said) > 0 {
		err = errors.New(strings.Join(said, "; "))
	}
	return nil, errors.New("cannot set up the network by " + w.name + ": " + err.Error())
}

// patience is how long a program may take to be ready, in milliseconds.
const patience = 60_000

// await waits for a byte on r, or for the end of the program.
func (w *wayOut) await(r *os.File) error {
	pidfd, err := unix.PidfdOpen(w.process.Pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	list := []unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		switch n, err := unix.Poll(list, patience); {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return errors.New("it does not say that it is ready")
		case list[0].Revents&unix.POLLIN != 0:
			return nil
		case list[1].Revents != 0:
			return errors.New("it ended at its start")
		}
	}
}

// startPasta starts pasta, which says in a file, here a pipe with a name, when it
// is ready.
func startPasta(pid, dir string, ports []cni.Port) (*wayOut, error) {
	fifo := dir + "/ready"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		return nil, err
	}
	fd, err := unix.Open(fifo, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	r := os.NewFile(uintptr(fd), fifo)
	defer r.Close()
	args := []string{"--foreground", "--quiet", "--stderr", "--config-net", "--ns-ifname", device, "--dns-forward", server,
		// What listens on the host's loopback device is none of the container's.
		"--no-map-gw", "--tcp-ns", "none", "--udp-ns", "none", "--pid", fifo}
	for _, f := range []struct{ option, protocol string }{{"--tcp-ports", "tcp"}, {"--udp-ports", "udp"}} {
		spec := "none"
		var list []string
		for _, p := range ports {
			if p.Protocol == f.protocol {
				list = append(list, strconv.Itoa(p.Host)+":"+strconv.Itoa(p.Container))
			}
		}
		if len(list) > 0 {
			spec = strings.Join(list, ",")
		}
		args = append(args, f.option, spec)
	}
	if err := onlyTCPAndUDP(ports); err != nil {
		return nil, err
	}
	w, err := launch("pasta", dir, append(args, pid), nil)
	if err != nil {
		return nil, err
	}
	if err := w.await(r); err != nil {
		return w.fail(err)
	}
	return w, nil
}

func onlyTCPAndUDP(ports []cni.Port) error {
	for _, p := range ports {
		if p.Protocol == "sctp" {
			return errors.New("cannot publish the sctp port " + strconv.Itoa(p.Host) + ": only tcp and udp are possible without root")
		}
	}
	return nil
}

// startSlirp starts slirp4netns, which writes to a descriptor when it is ready,
// ends when another one does, and publishes ports by requests to a socket.
func startSlirp(pid, dir string, ports []cni.Port) (*wayOut, error) {
	if err := onlyTCPAndUDP(ports); err != nil {
		return nil, err
	}
	r, ready, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer ready.Close()
	var life [2]int // the second stays open as long as this process lives
	if err := unix.Pipe2(life[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	exit := os.NewFile(uintptr(life[0]), "exit")
	defer exit.Close()
	args := []string{"--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=3", "--exit-fd=4"}
	if len(ports) > 0 {
		// The path of a socket has at most 107 bytes.
		args = append(args, "--api-socket=api")
	}
	w, err := launch("slirp4netns", dir, append(args, pid, device), []*os.File{ready, exit})
	if err != nil {
		return nil, err
	}
	ready.Close()
	if err := w.await(r); err != nil {
		return w.fail(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return w.fail(err)
	}
	defer d.Close()
	for _, p := range ports {
		if err := publish("/proc/self/fd/"+strconv.Itoa(int(d.Fd()))+"/api", p); err != nil {
			w.stop()
			return nil, errors.New("cannot publish the port " + strconv.Itoa(p.Host) + ": " + err.Error())
		}
	}
	return w, nil
}

// publish asks slirp4netns for a port.
func publish(socket string, p cni.Port) error {
	c, err := net.DialTimeout("unix", socket, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	request := `{"execute":"add_hostfwd","arguments":{"proto":"` + p.Protocol + `","host_addr":"0.0.0.0","host_port":` + strconv.Itoa(p.Host) +
		`,"guest_port":` + strconv.Itoa(p.Container) + `}}`
	if _, err := c.Write([]byte(request)); err != nil {
		return err
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString(0)
	if strings.Contains(answer, `"return"`) {
		return nil
	}
	if answer != "" {
		err = errors.New("slirp4netns does not get it from the host: " + strings.TrimSpace(answer))
	}
	return err
}
