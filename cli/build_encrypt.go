package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"singularity/action"
	"singularity/build"
	"singularity/cli/unlock"
	"singularity/image"
	"singularity/luks"
)

// encrypts tells whether the flags ask for encryption: the environment alone
// does not.
func (f *buildFlags) encrypts() bool { return f.encrypt || f.passphrase || f.pemPath != "" }

// checkEncryption refuses what cannot work before anything is built.
func (f *buildFlags) checkEncryption() error {
	source := unlock.Find(f.pemPath, f.passphrase)
	switch {
	case !f.encrypts() && f.strip:
		return errors.New("--strip-metadata needs --encrypt: beside a plain root file system it would hide nothing")
	case !f.encrypts():
		return nil
	case f.cacheSteps:
		return action.Fatal(errors.New("cannot keep steps of an image that is encrypted: they would lie in the cache in clear"), "leave out --cache-steps")
	case f.sandbox:
		return errors.New("cannot encrypt a sandbox: only the root file system of a SIF file can be encrypted")
	case source.None():
		return action.Fatal(errors.New("cannot encrypt without a key"), "use --passphrase, --pem-path, "+unlock.PassphraseVariable+" or "+unlock.PEMVariable)
	case source.PEM != "":
		_, err := source.PublicKey()
		return err
	}
	return nil
}

// unlockBase lets a build begin with encrypted images. Their key is that in the
// environment, else that of the flags, which must be a private one then. It is asked
// for at most once.
func (f *buildFlags) unlockBase(o *build.Options) {
	source := unlock.Find("", false)
	if source.None() {
		source = unlock.Find(f.pemPath, f.passphrase)
	}
	o.Unlock = func(im *image.Image) (*io.SectionReader, error) {
		if source.Ask {
			source.Asked = f.asked
		}
		plain, _, err := source.Open(im)
		return plain, err
	}
}

// seal finds the key of the image, and asks for it if need be.
func (f *buildFlags) seal(log *action.Log, o *build.Options) error {
	f.unlockBase(o)
	source := unlock.Find(f.pemPath, f.passphrase)
	if !f.encrypts() {
		if !source.None() {
			log.Warning("Encryption related env vars found, but --encrypt was not specified. NOT encrypting container.")
		}
		return nil
	}
	limits := unlock.Limits()
	var key []byte
	kdf, err := luks.RandomKDF(), error(nil)
	if source.PEM != "" {
		key, o.Message, err = newWrappedKey(source, limits)
	} else if kdf, err = luks.DefaultKDF(limits); err == nil {
		if key, err = source.Passphrase(true); err == nil && len(key) == 0 {
			err = errors.New("Cannot encrypt container with empty passphrase")
		}
	}
	if err != nil {
		return err
	}
	if source.Ask {
		f.asked = bytes.Clone(key) // the base image may have the same
	}
	if o.StripMetadata = f.strip; !f.strip {
		log.Info("The definition and the labels stay readable without the key: singularity inspect shows them. Use --strip-metadata to leave them out.")
	}
	o.Seal = func(ctx context.Context, w io.WriterAt) (*luks.Writer, error) {
		defer clear(key)
		return luks.Create(ctx, w, key, luks.Options{KDF: kdf, Limits: limits})
	}
	for _, k := range action.KeyVariables() {
		os.Unsetenv(k)
	}
	return nil
}

// newWrappedKey makes a random passphrase and the message that only the holder
// of the RSA key can read.
func newWrappedKey(source unlock.Source, l luks.Limits) (key, message []byte, err error) {
	public, err := source.PublicKey()
	if err != nil {
		return nil, nil, err
	}
	if key, err = luks.NewSecret(l); err != nil {
		return nil, nil, err
	}
	message, err = luks.WrapKey(public, key)
	return key, message, err
}
