package action

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/host"
	"singularity/image"
	"singularity/plan"
)

// A Preview is a start that was planned and is not carried out.
type Preview struct {
	Plan  *plan.Plan
	Notes []string // warnings
	// Unpacked tells that the image would be unpacked to a directory first.
	Unpacked bool
	// NoFUSE is what keeps the caller from mounting images, nil if nothing does.
	NoFUSE *host.Finding
	// Checks are what the limits of the configuration say of the image. They do
	// not bind root.
	Checks []conf.Check
}

// NewPreview plans the start that v asks for, from an open image, as a start of
// the calling user would. What is in an encrypted image is left out. Of the
// preview what is known is there in spite of an error.
func NewPreview(v *Invocation, c *conf.Config, im *image.Image, log *Log) (*Preview, error) {
	s := newStarter(v, Extensions{}, log)
	s.conf, s.image = c, im
	s.o.Imply()
	defer s.images.release()
	w := &Preview{}
	if os.Getuid() == 0 && !s.o.Userns && !host.MayMount() {
		s.o.Userns = true
	}
	f, err := conf.FileOf(im.File)
	if err != nil {
		return w, err
	}
	w.Checks = c.Checks(formatOf(im), f, SystemNames())
	if im.Kind != image.Sandbox {
		s.noFUSE = missingFUSE()
		w.NoFUSE = s.noFUSE
	}
	if im.Format.Encrypted() {
		s.files = noFiles{}
	} else if s.files, s.fsys, err = im.Files(); err != nil {
		return w, imageError(im.Path, err)
	}
	for _, step := range []func() error{
		s.findPartitions,
		func() (err error) { w.Unpacked, _, err = s.unpacks(); return err },
		s.addRoot, s.openLayers, s.gather,
	} {
		if err := step(); err != nil {
			return w, err
		}
	}
	w.Plan, w.Notes, err = plan.New(s.verb, s.o, s.args, &s.facts)
	return w, err
}

// noFiles is an image whose files nobody may see.
type noFiles struct{}

func missing(path string) error { return &fs.PathError{Op: "open", Path: path, Err: unix.ENOENT} }

func (noFiles) ReadFile(path string, _ int64) ([]byte, error)  { return nil, missing(path) }
func (noFiles) ReadDir(path string) ([]string, error)          { return nil, missing(path) }
func (noFiles) Stat(path string) (image.Stat, error)           { return image.Stat{}, missing(path) }
func (noFiles) Lstat(path string) (fs.FileMode, string, error) { return 0, "", missing(path) }
