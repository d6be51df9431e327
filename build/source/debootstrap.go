package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
)

// debootstrap makes a minimal Debian or Ubuntu, by mmdebstrap where it is
// installed, as that is several times faster, else by debootstrap.
type debootstrap struct {
	suite, mirror string
	include       []string
	log           Log
	env           []string
}

func newDebootstrap(s *deffile.Stage, c Config) Source {
	split := func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }
	packages := slices.Concat(strings.FieldsFunc(s.Value("include"), split), c.Include)
	return &debootstrap{suite: s.Value("osversion"), mirror: s.Value("mirrorurl"), include: packages, log: c.Log, env: c.Env}
}

// check refuses values that a program would take for something else.
//
// Security: "--" in front of a package or a mirror would be an option, such as
// one that runs a command of the definition's choice on the host.
func (d *debootstrap) check() error {
	for _, s := range slices.Concat([]string{d.suite, d.mirror}, d.include) {
		if strings.HasPrefix(s, "-") || strings.ContainsAny(s, "\n ") {
			return fmt.Errorf("cannot use %q as a mirror, a version or a package", s)
		}
	}
	scheme, _, ok := strings.Cut(d.mirror, ":")
	if !ok || !slices.Contains([]string{"http", "https", "file", "copy", "ftp"}, scheme) {
		return fmt.Errorf("cannot use MirrorURL %q: want an address that begins with http, https, ftp, file or copy", d.mirror)
	}
	if strings.Contains(d.suite, "/") {
		return fmt.Errorf("cannot use OSVersion %q: want the name of a release", d.suite)
	}
	return nil
}

func (d *debootstrap) Fetch(ctx context.Context, rootfs string) error {
	if err := d.check(); err != nil {
		return err
	}
	mm, hasMM := findTool("mmdebstrap")
	plain, hasPlain := findTool("debootstrap")
	if !hasMM && !hasPlain {
		return &MissingToolError{Tools: packageNames, Package: "mmdebstrap"}
	}
	undo, err := bindDevices(rootfs)
	defer undo()
	if err != nil {
		return err
	}
	if hasMM {
		err = run(ctx, d.mmdebstrap(mm, rootfs), d.env, d.line)
	} else {
		// The name of a kind of container is debootstrap's switch for "do not
		// make device nodes".
		err = run(ctx, d.debootstrap(plain, rootfs), append(slices.Clone(d.env), "container=lxc"), d.line)
	}
	undo()
	if err != nil {
		return fmt.Errorf("cannot bootstrap %q from %q: %w", d.suite, d.mirror, err)
	}
	return tidy(rootfs)
}

func (d *debootstrap) mmdebstrap(program, rootfs string) []string {
	args := []string{
		program, "--mode=root", "--variant=minbase", "--format=directory",
		// The build directory is closed to other users, and with a single id
		// there are none: apt cannot give up root for its downloads.
		`--aptopt=APT::Sandbox::User "root"`,
		// Devices are bound already; a user namespace can neither make nodes
		// nor, without its own network, mount sysfs.
		"--skip=check/empty,chroot/mount/dev,chroot/mount/sys,output/dev",
	}
	if len(d.include) > 0 {
		args = append(args, "--include="+strings.Join(d.include, ","))
	}
	return append(args, d.suite, rootfs, d.mirror)
}

func (d *debootstrap) debootstrap(program, rootfs string) []string {
	include := append([]string{"apt"}, d.include...)
	return []string{program, "--variant=minbase", "--include=" + strings.Join(include, ","), d.suite, rootfs, d.mirror}
}

// line shows a line of output as what it is: both programs mark information
// with "I:", warnings with "W:" and errors, which end up in the error, with "E:".
func (d *debootstrap) line(s string) {
	switch {
	case strings.HasPrefix(s, "I: skipping "), strings.HasPrefix(s, "I: Retrieving "), strings.HasPrefix(s, "I: Validating "),
		strings.HasPrefix(s, "I: Unpacking "), strings.HasPrefix(s, "I: Extracting "), strings.HasPrefix(s, "I: Configuring "):
		d.log.Verbose(s)
	case strings.HasPrefix(s, "I: "):
		d.log.Info(s[3:])
	default:
		d.log.Verbose(s)
	}
}

// devices are the nodes that packages' scripts may use.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// bindDevices gives rootfs the host's harmless devices, and plain files where
// debootstrap would make nodes. undo takes the mounts away again; it may be
// called twice.
func bindDevices(rootfs string) (undo func(), err error) {
	dev := filepath.Join(rootfs, "dev")
	var bound []string
	undo = func() {
		for _, p := range bound {
			// A failure shows when the tree is removed or packed.
			_ = unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		bound = nil
	}
	if err := os.Mkdir(dev, 0o755); err != nil {
		return undo, err
	}
	for _, name := range append(devices, "console", "ptmx") {
		if err := os.WriteFile(filepath.Join(dev, name), nil, 0o666); err != nil {
			return undo, err
		}
	}
	for _, name := range devices {
		p := filepath.Join(dev, name)
		if err := unix.Mount("/dev/"+name, p, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			return undo, fmt.Errorf("cannot bind \"/dev/%s\" into the image: %w", name, err)
		}
		bound = append(bound, p)
	}
	return undo, nil
}

// tidy removes what the tools leave of this host and of themselves. The tree
// is still the tools' own: no package may have made these paths links.
func tidy(rootfs string) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	dev, err := root.Open("dev")
	if err != nil {
		return err
	}
	defer dev.Close()
	names, err := dev.Readdirnames(-1)
	if err != nil {
		return err
	}
	for i := range names {
		names[i] = "dev/" + names[i]
	}
	// The host's name and name servers, and the option given to apt above.
	for _, name := range append(names, "etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap") {
		if err := root.RemoveAll(name); err != nil {
			return fmt.Errorf("cannot tidy the bootstrapped system: %w", err)
		}
	}
	return nil
}
