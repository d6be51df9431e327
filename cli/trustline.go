package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/advisory"
	"singularity/image"
	"singularity/pgp"
	"singularity/sbom"
	"singularity/sif"
	"singularity/sign"
	"singularity/sign/keyring"
	"singularity/trustline"
)

// trustOfImage tells what is known here about the signatures of an image and
// their makers, by the keyrings of this host; no server is asked. It reads the
// whole image.
func trustOfImage(ctx context.Context, log *action.Log, im *image.Image) (trustline.Facts, error) {
	if im.SIF == nil {
		return trustline.Facts{}, nil
	}
	rings, err := verifyKeyrings(log)
	if err != nil {
		return trustline.Facts{}, err
	}
	r, _ := sign.Verify(ctx, im.SIF, sign.Options{Keyrings: rings, Now: time.Now(), Any: true})
	if ctx.Err() != nil {
		return trustline.Facts{}, ctx.Err()
	}
	facts := trustFacts(im.SIF, r)
	return facts, addPolicy(ctx, &facts, im.SIF, im.Path)
}

// trustFacts tells what a verification of the groups of f came to.
//
// Security: a signature of a known key that does not fit outweighs one that
// does, as the image was changed after somebody signed it.
func trustFacts(f *sif.File, r *sign.Result) trustline.Facts {
	var t trustline.Facts
	covered, signers := map[uint32]bool{}, map[string]bool{}
	for _, s := range r.Signatures {
		state := stateOf(s)
		if state == trustline.Good {
			for _, o := range s.Verified {
				covered[o.ID] = true
			}
			signers[signerName(s)] = true
			if t.Since.Before(s.Time) {
				t.Since = s.Time
			}
		}
		// The order of the states is that of what is to be said; the first signer of a state is named.
		if state == trustline.Changed || t.Signature != trustline.Changed && state > t.Signature {
			t.Signature, t.Signer, t.Fingerprint = state, "", ""
			if s.Key != nil {
				t.Signer, t.Fingerprint = s.Key.UserID(), s.Key.Fingerprint().String()
			} else if state < trustline.Changed {
				t.Fingerprint = claimed(f, s.ID)
			}
		}
	}
	for _, o := range f.Objects() {
		if o.Type != sif.DataSignature {
			t.Objects++
			if !covered[o.ID] {
				t.Open++
			}
		}
	}
	if t.Signature == trustline.Good {
		t.Others = len(signers) - 1
		if trustOf(r).ExitCode == trusted.ExitCode {
			t.Trust = trustline.Trusted
		} else {
			t.Trust = trustline.Refused
		}
	}
	return t
}

func signerName(s sign.Signature) string {
	if s.Key != nil {
		return s.Key.Fingerprint().String()
	}
	return s.Public.ID
}

// stateOf is the state of one signature.
func stateOf(s sign.Signature) trustline.Signature {
	_, unknown := errors.AsType[*pgp.UnknownKeyError](s.Err)
	switch {
	case s.Err == nil:
		return trustline.Good
	case unknown, errors.Is(s.Err, sign.ErrNoKey):
		return trustline.Unknown
	case identified(s):
		return trustline.Changed
	}
	return trustline.Invalid
}

// claimed is the fingerprint that the descriptor of a signature names, which
// nothing proves.
func claimed(f *sif.File, id uint32) string {
	o, ok := f.Object(id)
	if !ok {
		return ""
	}
	s, ok := o.Signature()
	if !ok || s.Entity == [20]byte{} {
		return ""
	}
	return pgp.Fingerprint(s.Entity).String()
}

// addPolicy adds what the execution control list of this host says of f, if
// there is one.
func addPolicy(ctx context.Context, t *trustline.Facts, f *sif.File, path string) error {
	site := keyring.SiteDir()
	list, err := sign.ReadList(site)
	if err != nil || !list.Activated {
		return err
	}
	path, err = filepath.EvalSymlinks(path)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return err
	}
	d := sign.Decide(ctx, f, path, site, list, sign.Lazy, time.Now())
	t.Trust, t.Policy = trustline.Trusted, sign.ListName
	if d.Err != nil {
		t.Trust = trustline.Refused
	}
	if d.Group != nil && d.Group.Tag != "" {
		t.Policy = d.Group.Tag
	}
	return nil
}

// verifiedLine is the sentence about an image that was verified as a whole, with
// result r.
func verifiedLine(ctx context.Context, log *action.Log, f *sif.File, r *sign.Result, path string) string {
	t := trustFacts(f, r)
	if err := addPolicy(ctx, &t, f, path); err != nil {
		log.Warning(err.Error())
	}
	return t.Line().String()
}

// advisoriesOf counts findings for a trust line.
func advisoriesOf(list []advisory.Finding, info advisory.Info, inv *sbom.Inventory) *trustline.Advisories {
	a := &trustline.Advisories{AsOf: info.Newest, Partial: len(inv.Gaps) > 0}
	for _, f := range list {
		if f.Ignored != "" {
			continue
		}
		switch f.Level {
		case advisory.Critical:
			a.Critical++
		case advisory.High:
			a.High++
		case advisory.Medium:
			a.Medium++
		case advisory.Low, advisory.Negligible:
			a.Low++
		default:
			a.Unrated++
		}
	}
	return a
}

// inspectTrust writes all that is known here about an image, in one sentence.
func inspectTrust(c *cobra.Command, log *action.Log, path string, asJSON bool) error {
	im, err := openImage(path)
	if err != nil {
		return fmt.Errorf("Failed to open image %s: %w", path, err)
	}
	defer im.Close()
	t, err := trustOfImage(c.Context(), log, im)
	if err == nil {
		t.Advisories, err = compareWithAdvisories(c.Context(), log, im)
	}
	if err != nil {
		return fmt.Errorf("cannot inspect %q: %w", path, err)
	}
	if asJSON {
		return writeTwoSpaces(c.OutOrStdout(), trustJSON{t.Line().String(), t.Sound(), t})
	}
	_, err = io.WriteString(c.OutOrStdout(), t.Line().String()+"\n")
	return err
}

// trustJSON is the output of inspect --trust --json.
type trustJSON struct {
	Line  string          `json:"line"`
	Sound bool            `json:"sound"` // signed as a whole, unchanged, and nobody says no
	Facts trustline.Facts `json:"facts"`
}

// compareWithAdvisories compares im with the advisories of this host, if there
// are any and its packages can be seen.
func compareWithAdvisories(ctx context.Context, log *action.Log, im *image.Image) (*trustline.Advisories, error) {
	dirs := slices.DeleteFunc(advisoryDirs(), func(d string) bool { _, err := os.Stat(d); return err != nil })
	if len(dirs) == 0 && os.Getenv("SINGULARITY_ADVISORIES") == "" {
		return nil, nil
	}
	inv, err := inventoryOf(ctx, im)
	if err != nil {
		if ctx.Err() == nil {
			log.Verbose("Not compared with advisories: " + err.Error())
			err = nil
		}
		return nil, err
	}
	paths, err := advisoryPaths(nil)
	if err != nil {
		return nil, err
	}
	db, err := advisory.Load(ctx, paths...)
	if err != nil {
		return nil, err
	}
	list, err := advisory.NewMatcher(db).Match(ctx, inv)
	if err != nil {
		return nil, err
	}
	return advisoriesOf(list, db.Info(), inv), nil
}
