package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is the ordinary user that everything runs as.
type account struct {
	name, home string
	uid, gid   int
	credential *syscall.Credential // nil: this process's own
}

// ordinaryUser is the caller, or, for root, name or the first user who may log
// in and has subordinate ids.
func ordinaryUser(name string) (account, error) {
	ranges := readAll("/etc/subuid")
	for line := range strings.Lines(readAll("/etc/passwd")) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 7 {
			continue
		}
		uid, _ := strconv.Atoi(f[2])
		gid, _ := strconv.Atoi(f[3])
		a := account{name: f[0], home: f[5], uid: uid, gid: gid}
		if os.Getuid() != 0 {
			if uid == os.Getuid() {
				return a, nil
			}
			continue
		}
		if (uid < 1000 || uid >= 65534) && name != a.name || (name != "" && name != a.name) || (name == "" && !strings.Contains("\n"+ranges, "\n"+a.name+":")) {
			continue
		}
		a.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return a, nil
	}
	return account{}, errors.New("cannot find an ordinary user with subordinate ids; name one with -user")
}

// peerNames are the programs of others that rows need.
var peerNames = []string{"bwrap", "squashfuse_ll", "unshare", "mksquashfs", "tar2sqfs", "openssl", "mmdebstrap", "tar", "mount", "setpriv", "curl", "nginx", "busybox"}

func (b *bench) findPeers() {
	b.peers = map[string]string{}
	for _, name := range peerNames {
		if path, err := exec.LookPath(name); err == nil {
			b.peers[name] = path
			continue
		}
		if path := "/usr/sbin/" + name; exists(path) {
			b.peers[name] = path
		}
	}
}

// need returns an error that names the programs that are not installed.
func (b *bench) need(names ...string) error {
	missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return b.peers[n] != "" })
	if len(missing) > 0 {
		return errors.New("not installed: " + strings.Join(missing, ", "))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// binds are what our programs mount by themselves, for the peers to mount too.
// Those that the host lacks are left out on both sides.
func (b *bench) binds() []string {
	list := []string{"/proc", "/sys", b.user.home, "/tmp", "/var/tmp", "/etc/localtime", "/etc/hosts", "/etc/resolv.conf", "/etc/passwd", "/etc/group"}
	return slices.DeleteFunc(list, func(p string) bool { return !exists(p) })
}

// bwrap is the command line that runs args in root.
func (b *bench) bwrap(root string, args ...string) []string {
	out := []string{b.peers["bwrap"], "--ro-bind", root, "/", "--dev-bind", "/dev", "/dev"}
	for _, p := range b.binds() {
		how := "--bind"
		if strings.HasPrefix(p, "/etc/") {
			how = "--ro-bind"
		}
		out = append(out, how, p, p)
	}
	return append(out, args...)
}

// singularity is the command line that runs args in an image, with a mount of
// its own.
func (b *bench) singularity(image string, args ...string) []string {
	argv := []string{b.program("singularity"), "exec"}
	if image != b.path("tree") { // a directory is not mounted
		argv = append(argv, "--no-shared-mount")
	}
	return append(append(argv, image), args...)
}

// isolated is the command line of a shell with script, as root of a user
// namespace with mounts and processes of its own: what it mounts and what it
// leaves running ends with it, however it ends.
func (b *bench) isolated(script string) []string {
	return []string{b.peers["unshare"], "-Urm", "-pf", "--kill-child", "--mount-proc", "/bin/sh", "-c", script}
}

// squashfuse is the shell command that mounts image on the mount point.
func (b *bench) squashfuse(image string) string {
	return quote([]string{b.peers["squashfuse_ll"], image, b.path("mnt")})
}

// squashfuseSession is a shell in image, served by squashfuse.
func (b *bench) squashfuseSession(ctx context.Context, image string) (*session, error) {
	shell := quote(b.bwrap(b.path("mnt"), "/bin/sh", "-c", loop))
	return b.session(ctx, b.isolated(b.squashfuse(image)+" && exec "+shell)...)
}

// kernelSession is a shell in image, mounted by the kernel's squashfs, which
// only root may. Root mounts in a mount namespace, which ends with the shell
// and takes the loop device along; the shell is the ordinary user's.
func (b *bench) kernelSession(ctx context.Context, image string) (*session, error) {
	if b.user.credential == nil {
		return nil, errors.New("the kernel's squashfs needs root")
	}
	if err := b.need("bwrap", "mount", "setpriv", "unshare"); err != nil {
		return nil, err
	}
	at := b.path("kernel")
	mount := quote([]string{b.peers["mount"], "-t", "squashfs", "-o", "loop,ro", image, at})
	become := quote([]string{b.peers["setpriv"], "--reuid", strconv.Itoa(b.user.uid), "--regid", strconv.Itoa(b.user.gid), "--clear-groups"})
	shell := quote(b.bwrap(at, "/bin/sh", "-c", loop))
	c := b.command(ctx, b.peers["unshare"], "-m", "/bin/sh", "-c", mount+" && exec "+become+" "+shell)
	c.SysProcAttr.Credential = nil
	return b.start(c)
}

// path is a place in the cache.
func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// program is a copy of a program of ours, in a place that the user can reach.
func (b *bench) program(name string) string { return filepath.Join(b.dir, "bin", name) }
