package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/sif"
	"singularity/sign"
	"singularity/sign/keyring"
)

func newECLCommand(*action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:     "ecl",
		Short:   "Look at the execution control list",
		Long:    "The execution control list, ecl.toml beside singularity.conf, says which signers an image must have, by the directory that it lies in.",
		Example: "  $ singularity ecl check /var/cache/containers/debian.sif",
	}
	c.AddCommand(newECLCheckCommand())
	return c
}

// eclCheck is the output of ecl check --json.
type eclCheck struct {
	Image     string   `json:"image"`
	Activated bool     `json:"activated"`
	Allowed   bool     `json:"allowed"`
	Group     string   `json:"execgroup,omitempty"`
	Mode      string   `json:"mode,omitempty"`
	Dir       string   `json:"dirpath,omitempty"`
	Keys      []string `json:"keyfp,omitempty"`
	Signers   []string `json:"signers,omitempty"`
	Reason    string   `json:"reason,omitempty"`
}

func newECLCheckCommand() *cobra.Command {
	var asJSON bool
	var site string
	c := &cobra.Command{
		Use:   "check [options] <image>",
		Short: "Tell whether the list lets an image run, and which rule decides",
		Long: "Judge an image as a start does: by the signatures of all its groups of objects, with the keys of the global keyring alone. " +
			"The exit status is 0 if the image may run, else 1.",
		Example: "  $ singularity ecl check /var/cache/containers/debian.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			out, err := checkECL(args[0], site)
			if err != nil {
				return err
			}
			if asJSON {
				err = writeTwoSpaces(c.OutOrStdout(), out)
			} else {
				_, err = fmt.Fprint(c.OutOrStdout(), out.text())
			}
			if err == nil && !out.Allowed {
				err = exitOne(errors.New("the image may not run"))
			}
			return err
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	c.Flags().StringVar(&site, "site", keyring.SiteDir(), "`directory` with ecl.toml and the global keyring")
	return c
}

func checkECL(path, site string) (*eclCheck, error) {
	list, err := sign.ReadList(site)
	if err != nil {
		return nil, action.Fatal(err, "no SIF image runs until the list is correct")
	}
	out := &eclCheck{Activated: list.Activated, Allowed: true}
	if out.Image, err = filepath.EvalSymlinks(path); err == nil {
		out.Image, err = filepath.Abs(out.Image)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot check %q: %w", path, cause(err))
	}
	if !list.Activated {
		out.Reason = "the list is not activated"
		return out, nil
	}
	r, size, err := openRegular(out.Image, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := sif.Open(r, size)
	if err != nil {
		out.Reason = "the list is about SIF images only"
		return out, nil
	}
	d := sign.Decide(context.Background(), f, out.Image, site, list, sign.Full, time.Now())
	out.Allowed, out.Signers = d.Err == nil, d.Signers
	if d.Group != nil {
		out.Group, out.Mode, out.Dir, out.Keys = d.Group.Tag, string(d.Group.Mode), d.Group.Dir, d.Group.Fingerprints
	}
	if d.Err != nil {
		out.Reason = d.Err.Error()
	}
	return out, nil
}

func (e *eclCheck) text() string {
	s := "Image:      " + oneLine(e.Image) + "\n"
	if e.Mode != "" {
		dir := e.Dir
		if dir == "" {
			dir = "any other directory"
		}
		s += "Execgroup:  " + oneLine(e.Group) + ", for " + dir + "\nMode:       " + e.Mode + "\n"
		for _, k := range e.Keys {
			s += "Key:        " + k + "\n"
		}
	}
	for _, k := range e.Signers {
		s += "Signed by:  " + k + "\n"
	}
	verdict := "allowed"
	if !e.Allowed {
		verdict = "refused"
	}
	if e.Reason != "" {
		verdict += ": " + oneLine(e.Reason)
	}
	return s + "Result:     " + verdict + "\n"
}
