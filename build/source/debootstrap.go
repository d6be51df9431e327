package source

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"singularity/build/deffile"
)

// debootstrap makes a minimal Debian or Ubuntu, by mmdebstrap where it is
// installed, as that is several times faster, else by debootstrap.
type debootstrap struct {
	suite, mirror string
	include       []string
	c             Config
}

func newDebootstrap(s *deffile.Stage, c Config) (Source, error) {
	packages := slices.Concat(splitWords(s.Value("include")), c.Include)
	d := &debootstrap{suite: s.Value("osversion"), mirror: s.Value("mirrorurl"), include: packages, c: c}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("line %d: %w", s.Line, err)
	}
	return d, nil
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
		err = run(ctx, d.mmdebstrap(mm, rootfs), d.c.Env, d.line)
	} else {
		// The name of a kind of container is debootstrap's switch for "do not
		// make device nodes".
		err = run(ctx, d.debootstrap(plain, rootfs), append(slices.Clone(d.c.Env), "container=lxc"), d.line)
	}
	undo()
	if err != nil {
		return fmt.Errorf("cannot bootstrap %q from %q: %w", d.suite, d.mirror, err)
	}
	// The host's name and name servers, and the option given to apt below.
	if err := tidyDevices(rootfs, "etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap"); err != nil {
		return err
	}
	packages, err := dpkgPackages(rootfs)
	if err != nil {
		return err
	}
	d.c.Record(Origin{Agent: "debootstrap", URI: d.mirror, Release: d.suite, Packages: packages})
	return nil
}

// maxStatus bounds the list of packages that is read, in bytes.
const maxStatus = 64 << 20

// dpkgPackages reads what is installed.
func dpkgPackages(rootfs string) (*Packages, error) {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open("var/lib/dpkg/status")
	if err != nil {
		return nil, fmt.Errorf("cannot read what is installed: %w", err)
	}
	defer f.Close()
	var lines []string
	fields := map[string]string{}
	s := bufio.NewScanner(io.LimitReader(f, maxStatus))
	s.Buffer(nil, 1<<20)
	for more := true; more; {
		more = s.Scan()
		if k, v, ok := strings.Cut(s.Text(), ": "); more && ok && s.Text()[0] != ' ' {
			fields[k] = v
		}
		if s.Text() == "" || !more {
			if fields["Package"] != "" {
				lines = append(lines, fields["Package"]+" "+fields["Version"]+" "+fields["Architecture"])
			}
			clear(fields)
		}
	}
	return newPackages(lines), s.Err()
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
		d.c.Log.Verbose(s)
	case strings.HasPrefix(s, "I: "):
		d.c.Log.Info(s[3:])
	default:
		d.c.Log.Verbose(s)
	}
}
