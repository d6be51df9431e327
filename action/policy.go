package action

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/host"
	"singularity/image"
)

// LoadConfig reads singularity.conf: file, or the installed one, or the
// defaults if there is none.
func LoadConfig(file string) (*conf.Config, error) {
	path := file
	if file == "" {
		path = conf.Path()
	}
	c, err := conf.Load(path)
	switch {
	case err == nil:
		return c, nil
	case file == "" && errors.Is(err, os.ErrNotExist):
		return conf.Default(), nil
	}
	return nil, OwnerHint(fmt.Errorf("While initializing: %w", err))
}

// OwnerHint adds how to cure that others could write a file of the
// administrator's.
func OwnerHint(err error) error {
	if oe, ok := errors.AsType[*conf.OwnerError](err); ok {
		return Fatal(err, "see who wrote to it, then: sudo chown root:root "+oe.Path+" && sudo chmod go-w "+oe.Path+"; a link must be replaced by what it leads to")
	}
	return err
}

// allowed checks what the administrator lets run: by format, place and owner.
// Without the setuid helper this is a rule of the house and no boundary.
func (s *starter) allowed(im *image.Image) error {
	if os.Getuid() == 0 {
		return nil
	}
	f, err := s.fileOf(im)
	if err != nil {
		return err
	}
	err = s.conf.CheckImage(formatOf(im), f, SystemNames())
	if r, ok := errors.AsType[*conf.Check](err); ok {
		hint := fmt.Sprintf("the administrator's rule is %q in singularity.conf; singularity policy explain %s tells more", r.Directive, im.Path)
		if f.UID < 0 && (r.Directive == "limit container owners" || r.Directive == "limit container groups") {
			hint = "whose directory this is cannot be seen from within a user namespace: give the option --no-shared-mount, which has it looked at from outside"
		}
		return Fatal(err, hint)
	}
	return err
}

// formatOf is what the directives call the format of im.
func formatOf(im *image.Image) string {
	switch {
	case im.Kind == image.Sandbox:
		return conf.FormatDir
	case im.Kind == image.Squashfs:
		return conf.FormatSquashfs
	case im.Kind == image.Ext3:
		return conf.FormatExtfs
	case im.Format.Encrypted():
		return conf.FormatEncrypted
	}
	return conf.FormatSIF
}

// fileOf tells what the limits look at. In a user namespace without maps every
// owner looks like nobody; there, only what is the caller's own can be told.
func (s *starter) fileOf(im *image.Image) (conf.File, error) {
	if !s.conf.Limited() {
		return conf.File{}, nil
	}
	f, err := conf.FileOf(im.File)
	if err != nil || !s.entry.Unshared {
		return f, err
	}
	f.UID, f.GID = -1, -1
	// The kernel lets only the owner read without a mark of the time.
	again := "/proc/self/fd/" + strconv.Itoa(int(im.File.Fd()))
	if fd, err := unix.Open(again, unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
		unix.Close(fd)
		f.UID = s.entry.UID
	}
	return f, nil
}

// SystemNames finds users and groups where the system does.
func SystemNames() conf.Names {
	return conf.Names{
		User: func(name string) (int, bool) {
			u, err := host.LookupName(name)
			return u.UID, err == nil
		},
		Group: host.LookupGroup,
	}
}
