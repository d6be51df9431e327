package container

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/script"
	"singularity/plan"
	"singularity/priv"
)

// KernelRefused says that the kernel does not mount the image; a server of ours
// can.
type KernelRefused struct{ Reason string }

func (e *KernelRefused) Error() string { return e.Reason }

// helperError is a refusal of the setuid helper, with the step that it is about.
type helperError struct {
	text string
	step error
}

func (e *helperError) Error() string { return e.text }

// Unwrap returns the step.
func (e *helperError) Unwrap() error { return e.step }

// kernelFD is the number of the kernel's mount in the process that the helper
// makes.
const kernelFD = 1000

// CanHelp tells whether the setuid helper can carry p out: no program of the
// system has to mount in the container's namespaces, none in the container serves
// a file system, and no directory is the writable layer of an overlay.
func CanHelp(p *plan.Plan) bool {
	for i := range p.Fuse {
		if !p.Fuse[i].Host {
			return false
		}
	}
	if u := p.Upper(); u != nil && u.Kind != plan.TmpfsLayer {
		return false
	}
	return !p.Programs() && p.Root.Kind != plan.HostRoot && p.Root.Kind != plan.JoinedRoot
}

// kernel tells whether the helper is asked for a kernel's mount of the root.
func (b *builder) kernel() bool {
	return b.helper && len(b.images) > 0 && b.images[0].Kernel != 0 && b.p.Root.Kind == plan.ServedRoot
}

// kernelMount is the kernel's mount as the result of a step.
func (b *builder) kernelMount() script.Slot {
	if !b.kernel() {
		return 0
	}
	return b.s.Call("take the mount of the image", unix.SYS_DUP, script.Int(kernelFD))
}

// kernelRoot makes the root of an image that the kernel mounts. It has neither
// mount points nor generated files of its own, so it is treated as a directory.
func (b *builder) kernelRoot(overlay bool) []extra {
	b.img = b.images[0]
	m := b.kernelMount()
	if !overlay {
		var made []extra
		if b.hasContent() {
			made = b.layer(false)
		}
		b.root = m
		b.attachMount(b.root, "attach the image")
		return made
	}
	b.layer(true)
	// Every source of a mount is open already, so any directory can be covered.
	b.s.Call("attach the image", unix.SYS_MOVE_MOUNT, m.Arg(), b.s.Str(""), atCwd, b.s.Str("/dev"), script.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	b.s.Call("enter the image", unix.SYS_FCHDIR, m.Arg())
	b.overlay(".")
	b.attachMount(b.root, "attach the root")
	return nil
}

// askHelper has the setuid helper make the process that carries the script out,
// a child of this one.
func (b *builder) askHelper(images []*Served, devs []*device, ready int) (int, error) {
	list, err := b.s.List()
	if err != nil {
		return 0, err
	}
	req := priv.Start{PID: b.p.Namespaces.PID, Report: b.errfd, Network: cmp.Or(b.h.NetID, b.p.NetnsPath), Steps: *list}
	if r := b.p.Rights; r != nil {
		req.Caps = uint64(r.Caps)
	}
	fds := b.descriptors(b.errfd, ready)
	for _, d := range devs {
		if d != nil {
			fds = append(fds, d.fd)
		}
	}
	for _, img := range images {
		fds = append(fds, int(img.File.Fd()))
		req.Images = append(req.Images, priv.Image{FD: int(img.File.Fd()), Format: img.Policy})
	}
	if b.p.Root.Kind == plan.DirRoot {
		fd, err := unix.Open(b.p.Root.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, errors.New("cannot open the sandbox " + b.p.Root.Path + ": " + err.Error())
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
		req.Images = append(req.Images, priv.Image{FD: fd, Format: conf.FormatDir})
	}
	if b.kernel() {
		req.Kernel = &priv.Kernel{FS: images[0].Kernel, Off: uint64(images[0].Off), Size: uint64(images[0].Size), Mount: kernelFD, Tree: images[0].Tree != nil}
	}
	if b.kernel() && images[0].Kernel == priv.CryptFS {
		key, err := keyPipe(images[0].Secret)
		if err != nil {
			return 0, err
		}
		defer unix.Close(key)
		req.Kernel.Key, fds = key, append(fds, key)
	}
	return b.ask(&priv.Request{Verb: priv.StartVerb, FDs: fds, Start: req})
}

// keyPipe returns a pipe with the key of an encrypted image, which so has no copy in
// memory that the kernel could swap.
func keyPipe(secret []byte) (int, error) {
	var p [2]int
	if len(secret) < priv.KeySize {
		return 0, errors.New("no key came with the encrypted image")
	}
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(p[1])
	if _, err := unix.Write(p[1], secret[len(secret)-priv.KeySize:]); err != nil {
		unix.Close(p[0])
		return 0, err
	}
	return p[0], nil
}

// descriptors are those that every script may use, and others.
func (b *builder) descriptors(others ...int) []int {
	fds := append(others, b.keep...)
	for _, f := range slices.Concat(b.h.Procs, b.h.Stdio[:]) {
		if f != nil && f.Fd() > 2 {
			fds = append(fds, int(f.Fd()))
		}
	}
	return fds
}

// ask makes a request and returns the id of the process that was made.
func (b *builder) ask(r *priv.Request) (int, error) {
	slices.Sort(r.FDs)
	r.FDs = slices.Compact(r.FDs)
	a, err := priv.Ask(r)
	switch {
	case err != nil:
		return 0, err
	case a.NoKernel:
		return 0, &KernelRefused{a.Refusal}
	case a.Step > 0:
		step := b.s.Fail(a.Step-1, syscall.EPERM)
		_, reason, _ := strings.Cut(a.Refusal, "refused: ")
		return 0, &helperError{step.Error() + ": " + reason, step}
	case a.Refusal != "":
		return 0, errors.New(a.Refusal)
	}
	return a.PID, nil
}
