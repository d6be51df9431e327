package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/sign/keyfile"
)

func newKeyCosignCommand(log *action.Log) *cobra.Command {
	var prefix string
	c := &cobra.Command{
		Use:   "generate-cosign-key-pair [options]",
		Short: "Make a pair of keys as cosign does",
		Long: "Make an ECDSA key and write it to PREFIX.key, encrypted with a passphrase, and its public part to PREFIX.pub. " +
			"Both serve for sign --key and verify --key, and for cosign. Files that exist are never overwritten.",
		Example: "  $ singularity key generate-cosign-key-pair --output-key-prefix mykey\n  $ singularity sign --key mykey.key image.sif",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			pass, err := newPrompter(c).NewSecret()
			if err != nil {
				return err
			}
			defer clear(pass)
			private, public, err := keyfile.Cosign(pass)
			if err != nil {
				return fmt.Errorf("cannot make key: %w", err)
			}
			if err := writeKeyPair(prefix, private, public); err != nil {
				return err
			}
			log.Info("Private key written to " + prefix + ".key, public key to " + prefix + ".pub")
			return nil
		},
	}
	c.Flags().StringVar(&prefix, "output-key-prefix", "singularity-cosign", "beginning of the names of both `files`")
	return c
}

// writeKeyPair writes both files, or none.
func writeKeyPair(prefix string, private, public []byte) error {
	if err := writeNew(prefix+".key", private, 0o600); err != nil {
		return err
	}
	if err := writeNew(prefix+".pub", public, 0o644); err != nil {
		os.Remove(prefix + ".key")
		return err
	}
	return nil
}

func writeNew(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return action.Fatal(fmt.Errorf("%q is there already", path), "choose another --output-key-prefix")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}
