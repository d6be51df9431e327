package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"singularity/action"
	"singularity/pgp"
	"singularity/sign"
	"singularity/sign/gpgagent"
	"singularity/sign/sshagent"
)

// gpgSigner returns a signer by the key with that fingerprint, which gpg-agent
// keeps.
func gpgSigner(ctx context.Context, log *action.Log, fingerprint string, now time.Time) (sign.Signer, error) {
	fp, err := pgp.ParseFingerprint(fingerprint)
	if err != nil {
		return nil, err
	}
	key, err := gpgagent.Find(ctx, fp)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, action.Fatal(err, "install GnuPG, or sign with a key of your own keyring")
	}
	if err != nil {
		return nil, action.Fatal(err, "gpg --list-secret-keys shows the keys that gpg has")
	}
	log.Info("Signing image with the key " + fp.String() + " of gpg")
	return sign.OpenPGPBy(key.Public, key.By, now, func(digest []byte) ([][]byte, error) { return key.Sign(ctx, digest) }), nil
}

// sshSigner returns a signer by the key of that fingerprint or comment, which
// ssh-agent keeps, and what is to be done at the end.
func sshSigner(log *action.Log, name string) (sign.Signer, func(), error) {
	nothing := func() {}
	key, err := sshagent.Find(os.Getenv("SSH_AUTH_SOCK"), name)
	if errors.Is(err, sshagent.ErrNoAgent) {
		return nil, nothing, action.Fatal(err, `eval "$(ssh-agent)" starts one, ssh-add gives it keys, and ssh-add -s those of a token`)
	}
	if err != nil {
		return nil, nothing, action.Fatal(err, "ssh-add -l shows the keys of ssh-agent")
	}
	s, err := sign.DSSE(key)
	if err != nil {
		key.Close()
		return nil, nothing, fmt.Errorf("cannot sign with %q: %w", name, err)
	}
	log.Info("Signing image with the key '" + name + "' of ssh-agent")
	return s, func() { key.Close() }, nil
}
