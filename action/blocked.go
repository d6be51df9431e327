package action

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"singularity/conf"
	"singularity/conf/blocked"
	"singularity/image"
	"singularity/sif"
)

// blockedHint is what helps who has an image that is blocked.
const blockedHint = "build or pull the image anew with packages that are corrected, or ask the administrator, whose list it is"

// Blocked tells what the list of blocked images says of im: its entry, nil if there is
// none, and the first line of the list. An image that is no SIF, or has no id, is in no list.
//
// It is a rule of the house and no boundary: who can read an image can copy what is
// in it.
func Blocked(c *conf.Config, im *image.Image) (made string, e *blocked.Entry, err error) {
	if c.BlockedImages == "" || im.SIF == nil || im.SIF.Header().ID == (sif.ID{}) {
		return "", nil, nil
	}
	f, err := conf.OpenRule(c.BlockedImages)
	if err == nil {
		defer f.Close()
		made, e, err = blocked.Find(f, im.SIF.Header().ID.String())
	}
	if err == nil {
		return made, e, nil
	}
	if _, ok := errors.AsType[*conf.OwnerError](err); ok {
		return "", nil, OwnerHint(fmt.Errorf("cannot use the list of blocked images: %w", err))
	}
	hint := "the administrator makes a good one (singularity scan --block-list, singularity runs blocked), or takes 'blocked images' out of singularity.conf"
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err
	}
	return "", nil, Fatal(fmt.Errorf("cannot read the list of blocked images %q: %w", c.BlockedImages, err), hint)
}

// BlockedWhy is what a list says of an image, in words.
func BlockedWhy(e *blocked.Entry) string {
	return strings.TrimRight(e.Advisory+" ("+e.Severity+") "+e.Text, " ")
}

// unblocked refuses an image that the list blocks, and warns of one that it will block.
func (s *starter) unblocked(im *image.Image) error {
	_, e, err := Blocked(s.conf, im)
	if err != nil || e == nil {
		return err
	}
	if time.Now().Before(e.From) {
		s.log.Warning(fmt.Sprintf("From %s on, the image %s does not run here: %s", e.From.UTC().Format(time.RFC3339), im.Path, BlockedWhy(e)))
		return nil
	}
	return Fatal(fmt.Errorf("cannot run the image %q: it is blocked here since %s: %s", im.Path, e.From.UTC().Format(time.RFC3339), BlockedWhy(e)), blockedHint)
}
