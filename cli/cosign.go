package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/sif"
	"singularity/sign"
)

// Flags that say which OpenPGP key, certificate, group or form is meant. None
// has a sense for a cosign signature, which is of one image by one key file.
var (
	noCosignSign   = []string{"gpg", "ssh-agent", "keyidx", "group-id", "groupid", "sif-id", "id", "all", "no-tree"}
	noCosignVerify = []string{"certificate", "certificate-intermediates", "certificate-roots", "ocsp-verify", "local", "url",
		"group-id", "groupid", "sif-id", "id", "all", "legacy-insecure", "any", "require-fingerprint", "by-tree"}
)

const cosignFlag = "cosign"

func addCosignFlag(c *cobra.Command, verb string) {
	c.Flags().BoolP(cosignFlag, "c", false, verb+" a cosign signature, of an OCI-SIF image, by the key of --key")
}

// withCosign tells whether --cosign was given. It refuses flags that do not go
// with it; a variable that stands in for one of them is not for this command.
func withCosign(c *cobra.Command, exclude []string) (bool, error) {
	if on, _ := c.Flags().GetBool(cosignFlag); !on {
		return false, nil
	}
	for _, name := range exclude {
		if c.Flags().Changed(name) {
			return true, fmt.Errorf("--cosign and --%s exclude each other", name)
		}
	}
	return true, nil
}

var errCosignKey = errors.New("--cosign needs --key")

func cosignSign(c *cobra.Command, log *action.Log, file, path string) error {
	fail := func(err error) error {
		return explainCosign(explainSign(fmt.Errorf("failed to sign container: %w", err), path))
	}
	log.Info("Signing image with key material from '" + file + "'")
	key, err := privateKey(newPrompter(c), file)
	if err != nil {
		return fail(err)
	}
	w, err := openLocked(path)
	if err != nil {
		return fail(err)
	}
	fi, err := w.Stat()
	if err == nil {
		err = sign.SignCosign(context.Background(), w, fi.Size(), key, time.Now())
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return fail(err)
	}
	log.Info("Signature created and applied to image '" + path + "'")
	return nil
}

// verifyCosign verifies with the key of --key or its variable.
func (o *verifyOptions) verifyCosign(c *cobra.Command, log *action.Log, path string) error {
	if err := setFromEnv(c, []flagEnv{{flag: "key", key: "VERIFY_KEY"}}); err != nil {
		return err
	}
	if o.key == "" {
		return usageError(c, errCosignKey)
	}
	return cosignVerify(c, log, o.key, path)
}

func cosignVerify(c *cobra.Command, log *action.Log, file, path string) error {
	fail := func(err error) error { return explainCosign(fmt.Errorf("failed to verify container: %w", err)) }
	log.Info("Verifying image with key material from '" + file + "'")
	key, err := publicKey(file)
	if err != nil {
		return fail(keyMaterialError(file, err))
	}
	r, size, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	f, err := sif.Open(r, size)
	if err != nil {
		return fail(fmt.Errorf("cannot read %q: %w", path, err))
	}
	result, err := sign.VerifyCosign(context.Background(), f, key)
	for _, w := range result.Warnings {
		log.Warning(w)
	}
	if err == nil {
		err = writeTwoSpaces(c.OutOrStdout(), result.Payloads)
	}
	if err != nil {
		return fail(err)
	}
	log.Info("Verified signature(s) from image '" + path + "'")
	return nil
}

// explainCosign gives err the hint that helps the user.
func explainCosign(err error) error {
	switch {
	case errors.Is(err, sign.ErrNotOCISIF):
		return action.Fatal(err, "--cosign is for OCI-SIF images, such as data package makes; other images are signed and verified without it")
	case errors.Is(err, sign.ErrSigned):
		return action.Fatal(err, "add cosign signatures first, then sign the groups")
	case errors.Is(err, sign.ErrNoCosign):
		return action.Fatal(err, "no cosign signature of this image is by the key of --key")
	case errors.Is(err, sif.ErrTableFull):
		return action.Fatal(err, "a cosign signature needs three free descriptors: singularity sif header shows how many there are")
	}
	return err
}
