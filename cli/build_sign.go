package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"singularity/action"
	"singularity/build"
	"singularity/cli/prompt"
	"singularity/pgp"
	"singularity/provenance"
	"singularity/sign"
)

// checkSigning refuses what cannot work before anything is built.
func (f *buildFlags) checkSigning() error {
	switch {
	case f.signKey == "":
		return nil
	case f.sandbox:
		return errors.New("cannot sign a sandbox: only a SIF file holds signatures")
	}
	if _, err := pgp.ParseFingerprint(f.signKey); err == nil {
		return nil
	}
	if _, err := os.Stat(f.signKey); err != nil {
		return fmt.Errorf("cannot sign by %q, which is neither a file nor a fingerprint: %w", f.signKey, err)
	}
	return nil
}

// sign lets the build sign what it makes, by the key of --sign-key. The key is
// opened, and its passphrase asked for, before hours of building. A key in a file
// signs the image, and by itself the statement of its provenance; one of OpenPGP the
// image alone, which covers the statement.
func (f *buildFlags) sign(log *action.Log, o *build.Options) error {
	if f.signKey == "" {
		return nil
	}
	var signer func(time.Time) sign.Signer
	p := prompt.New(os.Stdin, os.Stderr)
	if fp, err := pgp.ParseFingerprint(f.signKey); err == nil {
		if signer, err = keyringSigner(log, p, fp); err != nil {
			return err
		}
	} else {
		key, err := privateKey(p, f.signKey)
		if err != nil {
			return fmt.Errorf("cannot sign by %q: %w", f.signKey, err)
		}
		s, err := sign.DSSE(key)
		if err != nil {
			return keyMaterialError(f.signKey, err)
		}
		signer = func(time.Time) sign.Signer { return s }
		o.Attest = func(statement []byte) ([]byte, error) { return sign.Attest(key, provenance.PayloadType, statement) }
	}
	o.Sign = func(ctx context.Context, file *os.File, at time.Time) error {
		// The salt of a hash tree is random, which SOURCE_DATE_EPOCH excludes.
		trees := at.IsZero()
		if trees {
			at = time.Now()
		}
		st, err := file.Stat()
		if err != nil {
			return err
		}
		done, err := sign.Sign(ctx, file, st.Size(), sign.Request{Signer: signer(at), Now: at, Trees: trees})
		if err != nil {
			return fmt.Errorf("cannot sign the image: %w", err)
		}
		logTrees(log, done)
		log.Info("Signed by the key " + f.signKey)
		return nil
	}
	return nil
}

// keyringSigner signs by a key of the secret keyring.
func keyringSigner(log *action.Log, p *prompt.Prompter, fp pgp.Fingerprint) (func(time.Time) sign.Signer, error) {
	ring, err := localKeyring(log, true)
	if err != nil {
		return nil, err
	}
	r, err := ring.Read()
	if err != nil {
		return nil, err
	}
	for _, key := range r.Keys() {
		if key.Fingerprint() != fp {
			continue
		}
		var passphrase []byte
		if key.Locked() {
			if passphrase, err = p.Secret("Enter key passphrase : "); err != nil {
				return nil, err
			}
			if err := sign.OpenPGP(key, passphrase, time.Now()).Unlock(); err != nil {
				return nil, fmt.Errorf("cannot sign by the key %v: %w", fp, err)
			}
		}
		return func(at time.Time) sign.Signer { return sign.OpenPGP(key, passphrase, at) }, nil
	}
	return nil, action.Fatal(fmt.Errorf("no secret key %v in %q", fp, ring.Path()), "singularity key list --secret shows those that there are")
}
