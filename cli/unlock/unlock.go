// Package unlock finds the key of an encrypted image and opens its root partition:
// what singularity-unlock adds to a start, and what the verbs of singularity-cli that
// read such images use.
//
// In go an image, the options and the environment, out comes a reader of the squashfs
// in the partition. The image is hostile: packages luks and gocryptfs bound what it
// asks for, and keys are in memory of package secret.
//
// Files: unlock.go (sources of keys, LUKS), gocryptfs.go (images of the other
// fork).
package unlock

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"singularity/action"
	"singularity/cli/prompt"
	"singularity/conf"
	"singularity/gocryptfs"
	"singularity/host"
	"singularity/image"
	"singularity/linux/secret"
	"singularity/luks"
	"singularity/plan"
	"singularity/sif"
)

// The environment variables of action.KeyVariables.
const (
	PassphraseVariable = "SINGULARITY_ENCRYPTION_PASSPHRASE"
	PEMVariable        = "SINGULARITY_ENCRYPTION_PEM_PATH"
)

// Source is where the key of an encrypted image comes from: the first of
// --pem-path, --passphrase and the two variables that is there.
type Source struct {
	PEM    string // path
	Ask    bool
	Asked  []byte // the answer, if another process has asked
	phrase string
}

// Find returns the source that the options and the environment name.
func Find(pemPath string, ask bool) Source {
	switch {
	case pemPath != "":
		return Source{PEM: pemPath}
	case ask:
		return Source{Ask: true}
	case os.Getenv(PEMVariable) != "":
		return Source{PEM: os.Getenv(PEMVariable)}
	}
	return Source{phrase: os.Getenv(PassphraseVariable)}
}

// None tells whether there is no source at all.
func (k Source) None() bool { return k.PEM == "" && !k.Ask && k.phrase == "" }

// Passphrase returns the passphrase, and asks for it if need be: twice for a
// new one at a terminal, since nobody could find out what was typed.
func (k Source) Passphrase(fresh bool) ([]byte, error) {
	if !k.Ask {
		return []byte(k.phrase), nil
	}
	if k.Asked != nil {
		return bytes.Clone(k.Asked), nil
	}
	p := prompt.New(os.Stdin, os.Stderr)
	first, err := p.Secret("Enter encryption passphrase: ")
	if err != nil || !fresh || !p.Terminal() {
		return first, err
	}
	again, err := p.Secret("Retype encryption passphrase: ")
	defer clear(again)
	if err == nil && !bytes.Equal(first, again) {
		err = errors.New("passphrases do not match")
	}
	return first, err
}

// readPEM reads a file with a key.
func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, action.Fatal(errors.New("Specified PEM file "+path+": does not exist."), "check --pem-path or "+PEMVariable)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := conf.ReadAll(f, luks.MaxPEMSize)
	if err != nil {
		err = fmt.Errorf("cannot use %q as a key: %w", path, err)
	}
	return text, err
}

// PublicKey reads the key that an image is encrypted for.
func (k Source) PublicKey() (*rsa.PublicKey, error) {
	text, err := readPEM(k.PEM)
	if err != nil {
		return nil, err
	}
	key, err := luks.ParsePublicKey(text)
	if err != nil {
		return nil, action.Fatal(fmt.Errorf("Invalid encryption public key: %s: %w", k.PEM, err), "make one with: openssl rsa -in KEY -RSAPublicKey_out -out KEY.pub")
	}
	return key, nil
}

func (k Source) privateKey() (*rsa.PrivateKey, error) {
	text, err := readPEM(k.PEM)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := luks.ParsePrivateKey(text)
	if err != nil {
		return nil, action.Fatal(fmt.Errorf("Invalid encryption private key: %s: %w", k.PEM, err), "an RSA key in PEM is wanted, PKCS #1 or PKCS #8, not encrypted itself")
	}
	return key, nil
}

// Limits are those of this process.
func Limits() luks.Limits {
	m := host.MemoryLeft()
	return luks.Limits{Memory: m.Size, Rule: m.Rule, Keys: secret.Alloc}
}

// Extensions are what this package adds to a start.
func Extensions() action.Extensions {
	return action.Extensions{Unlock: unlock, Ask: ask}
}

// unlock opens the encrypted root partition of im for a start. If passphrase is
// not nil it has been asked for.
func unlock(im *image.Image, o *plan.Options, passphrase []byte, log *action.Log) (*io.SectionReader, []byte, error) {
	source := Find(o.PEMPath, o.Passphrase)
	source.Asked = passphrase
	return source.Open(im)
}

// ask asks for the passphrase of an image that exists.
func ask() ([]byte, error) { return Source{Ask: true}.Passphrase(false) }

// Open opens the encrypted root partition of im. It returns the squashfs in it, and
// the secret that another process of ours opens it again with.
func (k Source) Open(im *image.Image) (plain *io.SectionReader, exported []byte, err error) {
	if k.None() {
		return nil, nil, action.Fatal(errors.New("no key was provided, cannot access encrypted container"),
			"use --passphrase, --pem-path, "+PassphraseVariable+" or "+PEMVariable)
	}
	r, err := im.Section()
	if err == nil && im.Format == image.FormatGocryptfs {
		plain, exported, err = k.openGocryptfs(im, r)
	} else if err == nil {
		plain, exported, err = k.openLUKS(im, r)
	}
	if err != nil {
		return nil, nil, explainKey(im.Path, err)
	}
	return plain, exported, nil
}

// openLUKS checks the header before it asks for any key.
func (k Source) openLUKS(im *image.Image, r *io.SectionReader) (*io.SectionReader, []byte, error) {
	c, err := luks.Open(r, r.Size())
	if err != nil {
		return nil, nil, err
	}
	key, err := k.key(im)
	if err != nil {
		return nil, nil, err
	}
	defer clear(key)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	limits := luks.Limits{Keys: secret.Alloc}
	if slices.ContainsFunc(c.Slots, func(s luks.Slot) bool { return s.KDF.Cost() > 0 }) {
		limits = Limits() // takes a millisecond to find out
	}
	v, err := c.Unlock(ctx, key, limits)
	if err != nil {
		return nil, nil, err
	}
	exported, err := secret.Alloc(luks.ExportSize)
	if err != nil {
		return nil, nil, err
	}
	v.Export(exported)
	return io.NewSectionReader(v, 0, v.Size()), exported, nil
}

// key returns the passphrase of im.
func (k Source) key(im *image.Image) ([]byte, error) {
	if k.PEM != "" {
		return unwrapped(im, k)
	}
	return k.Passphrase(false)
}

// errNoMessage says that an image was encrypted with a passphrase.
var errNoMessage = errors.New("it holds no key for a PEM file: it was encrypted with a passphrase")

// unwrapped returns the passphrase in the message linked to the root partition.
func unwrapped(im *image.Image, source Source) ([]byte, error) {
	private, err := source.privateKey()
	if err != nil {
		return nil, err
	}
	root, err := im.SIF.Primary()
	if err != nil {
		return nil, err
	}
	for _, o := range im.SIF.Objects() {
		m, ok := o.CryptoMessage()
		if !ok || m.Format != sif.FormatPEM || m.Message != sif.MessageRSAOAEP || o.LinkIsGroup || o.Link != root.ID {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(im.SIF.Reader(o), luks.MaxPEMSize+1))
		if err != nil {
			return nil, err
		}
		return luks.UnwrapKey(private, text)
	}
	return nil, errNoMessage
}

// explainKey adds what to do.
func explainKey(path string, err error) error {
	text := fmt.Errorf("cannot decrypt %s: %w", path, err)
	switch limit, other := new(luks.LimitError), new(gocryptfs.LimitError); {
	case errors.Is(err, luks.ErrKey), errors.Is(err, gocryptfs.ErrKey):
		return action.Fatal(fmt.Errorf("failed to decrypt, ensure you have supplied appropriate key material: %s: %w", path, err), "")
	case errors.Is(err, luks.ErrMessage):
		return action.Fatal(text, "Please check you are providing the correct key for decryption")
	case errors.Is(err, errNoMessage):
		return action.Fatal(text, "use --passphrase or "+PassphraseVariable)
	case errors.Is(err, luks.ErrHeader), errors.Is(err, luks.ErrNotLUKS), errors.Is(err, gocryptfs.ErrConfig), errors.Is(err, gocryptfs.ErrContent), errors.Is(err, errNoGocryptfs):
		return action.Fatal(text, "the image is damaged, or was made to mislead: get it again")
	case errors.As(err, &limit), errors.As(err, &other):
		return action.Fatal(text, "raise the limit, or build the image again, which takes 256 MiB to open, or less with --pem-path")
	case errors.Is(err, context.Canceled):
		return &action.Failure{Err: errors.New("interrupted"), Code: 1}
	}
	return err
}

// Again opens a partition in a server process, with the secret that Open gave.
func Again(format image.Format, r *io.SectionReader, exported []byte) (*io.SectionReader, error) {
	if format == image.FormatGocryptfs {
		return gocryptfsAgain(r, exported)
	}
	v, err := luks.Import(r, exported, luks.Limits{Keys: secret.Alloc})
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(v, 0, v.Size()), nil
}
