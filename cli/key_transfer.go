package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/cli/prompt"
	"singularity/pgp"
	"singularity/sign/keyring"
)

func newKeyImportCommand(log *action.Log) *cobra.Command {
	var s keySelection
	newPassword := false
	c := &cobra.Command{
		Use:   "import [options] <file>",
		Short: "Import keys from a file",
		Long: "Import the keys of a file, binary or armored, as gpg --export writes them. " +
			"Secret keys go to your secret keyring, and their public parts to the public one." +
			"\n\nAn imported key is trusted by verify: import only keys that you have from their owner.",
		Example: "  $ singularity key import theirkey.asc",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return exitWith(2, keyImport(c, log, s, newPassword, args[0]))
		},
	}
	s.addFlags(c, "")
	c.Flags().BoolVar(&newPassword, "new-password", false, "give imported secret keys a new passphrase")
	return c
}

func keyImport(c *cobra.Command, log *action.Log, s keySelection, newPassword bool, path string) error {
	keys, err := readKeyFile(log, path)
	if err != nil {
		return fmt.Errorf("cannot import %q: %w", path, err)
	}
	public, err := s.keyring(log)
	if err != nil {
		return err
	}
	p := newPrompter(c)
	var present error
	for _, key := range keys {
		if key.Secret() {
			err = importSecret(p, log, s.global, newPassword, key)
		} else {
			err = importPublic(public, key)
		}
		if _, ok := errors.AsType[*presentError](err); ok {
			present = errors.Join(present, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot import key %s: %w", key.Fingerprint(), err)
		}
		log.Info(fmt.Sprintf("Key with fingerprint %s imported", key.Fingerprint()))
	}
	return present
}

func readKeyFile(log *action.Log, path string) ([]*pgp.Key, error) {
	f, _, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, pgp.MaxRingSize+1))
	if err != nil {
		return nil, err
	}
	r, err := pgp.ParseRing(data)
	if err != nil {
		return nil, err
	}
	for _, p := range r.Problems() {
		log.Warning(p.Error())
	}
	if len(r.Keys()) == 0 {
		return nil, errors.New("it has no usable keys")
	}
	return r.Keys(), nil
}

func importPublic(k keyring.File, key *pgp.Key) error {
	return changeRing(k, func(r *pgp.Ring) error {
		if r.Find(key.Fingerprint()) != nil {
			return &presentError{key.Fingerprint()}
		}
		r.Add(key)
		return nil
	})
}

func importSecret(p *prompt.Prompter, log *action.Log, global, newPassword bool, key *pgp.Key) error {
	if global {
		return errors.New("the global keyring takes no secret keys")
	}
	secret, err := localKeyring(log, true)
	if err != nil {
		return err
	}
	public, err := localKeyring(log, false)
	if err != nil {
		return err
	}
	switch {
	case newPassword:
		if key, err = changePassphrase(p, key); err != nil {
			return err
		}
	case !key.Protected():
		log.Warning(fmt.Sprintf("secret key %s is not, or not wholly, protected by a passphrase; import with --new-password gives it one", key.Fingerprint()))
	}
	return storeKey(secret, public, key)
}

// changePassphrase asks for the old passphrase of key, if it has one, and for a
// new one.
func changePassphrase(p *prompt.Prompter, key *pgp.Key) (*pgp.Key, error) {
	var old []byte
	var err error
	if key.Locked() {
		if old, err = p.Secret("Enter key passphrase : "); err != nil {
			return nil, err
		}
	}
	defer clear(old)
	passphrase, err := p.NewSecret()
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	if len(passphrase) == 0 {
		return nil, errors.New("the new passphrase is empty")
	}
	return key.Protect(old, passphrase)
}

func newKeyExportCommand(log *action.Log) *cobra.Command {
	var s keySelection
	armored := false
	c := &cobra.Command{
		Use:   "export [options] <file>",
		Short: "Export a key to a file",
		Long: "Write a key to a file, which is replaced if it exists. Asks which one if there are several. " +
			"A secret key leaves as it is kept, protected by its passphrase.",
		Example: "  $ singularity key export --armor mykey.asc",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return exitWith(10, keyExport(c, log, s, armored, args[0]))
		},
	}
	s.addFlags(c, "export a secret key")
	c.Flags().BoolVarP(&armored, "armor", "a", false, "write text instead of binary data")
	return c
}

func keyExport(c *cobra.Command, log *action.Log, s keySelection, armored bool, path string) error {
	k, err := s.keyring(log)
	if err != nil {
		return err
	}
	r, err := k.Read()
	if err != nil {
		return err
	}
	if len(r.Keys()) == 0 {
		return action.Fatal(fmt.Errorf("cannot export: no keys in %q", k.Path()), "singularity key newpair makes one")
	}
	kind := "public"
	if s.secret {
		kind = "private"
	}
	key, err := chooseKey(newPrompter(c), r.Keys(), kind)
	if err != nil {
		return fmt.Errorf("cannot export: %w", err)
	}
	data := key.Bytes()
	if armored {
		if data, err = key.Armor(); err != nil {
			return err
		}
	}
	mode := os.FileMode(0o644)
	if key.Secret() {
		mode = 0o600
	}
	if err := writeFileWhole(path, data, mode); err != nil {
		return fmt.Errorf("cannot export to %q: %w", path, err)
	}
	log.Info(fmt.Sprintf("Key with fingerprint %s exported to %s", key.Fingerprint(), path))
	return nil
}

// writeFileWhole makes data the content of the file at path, at once and only
// when all of it is on disk.
func writeFileWhole(path string, data []byte, mode os.FileMode) error {
	return createWhole(path, mode, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// createWhole gives the file that write writes the name path, at once and only
// when all of it is on disk.
func createWhole(path string, mode os.FileMode, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".singularity-*")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
