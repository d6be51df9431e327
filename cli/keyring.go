package cli

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/pgp"
	"singularity/sign/keyring"
)

// localKeyring is the user's own ring of public or secret keys.
func localKeyring(log *action.Log, secret bool) (keyring.File, error) {
	dir, err := action.KeyringDir(os.Getenv)
	if secret {
		return keyring.Secret(dir, log.Warning), err
	}
	return keyring.Public(dir, log.Warning), err
}

// globalKeyring is the administrator's ring.
func globalKeyring(log *action.Log) keyring.File {
	return keyring.Global(keyring.SiteDir(), log.Warning)
}

// changeRing lets edit alter the ring k.
func changeRing(k keyring.File, edit func(*pgp.Ring) error) error {
	err := k.Change(edit)
	if k.Global && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrNotExist)) {
		return action.Fatal(err, "the global keyring belongs to the administrator of this installation")
	}
	return err
}
