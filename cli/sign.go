package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/cli/prompt"
	"singularity/linux/lockfile"
	"singularity/pgp"
	"singularity/sign"
)

// signOptions are the flags of sign.
type signOptions struct {
	sign.Selection
	key    int    // number in the secret keyring, -1: ask
	file   string // of a key in PEM form, in place of the keyring
	gpg    string // fingerprint of a key that gpg-agent has
	ssh    string // fingerprint or comment of a key that ssh-agent has
	noTree bool
}

func newSignCommand(log *action.Log) *cobra.Command {
	var o signOptions
	c := &cobra.Command{
		Use:   "sign [options] <image>",
		Short: "Sign an image",
		Long: "Add a digital signature to a SIF image, for each group of its data objects, with a key of your secret keyring, of a PEM file, or one that gpg-agent or ssh-agent keeps. " +
			"The signature covers all data objects, and what the image says about them." +
			"\n\nAn image without a signature also gets a hash tree (0.8 percent of its size), so that every block that is read while the image runs is checked, without reading all of it first. " +
			"Programs that know nothing of the tree ignore it.",
		Example: "  $ singularity sign debian.sif\n" +
			"  $ singularity sign --keyidx 1 debian.sif\n" +
			"  $ singularity sign --gpg 5994BE54C31CF1B5E1994F987C52CF6D055F072B debian.sif",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cosign, err := withCosign(c, noCosignSign)
			if err != nil {
				return usageError(c, err)
			}
			if err := setFromEnv(c, []flagEnv{{flag: "key", key: "SIGN_KEY"}}); err != nil {
				return err
			}
			if err := o.check(); err != nil {
				return usageError(c, err)
			}
			switch {
			case cosign && o.file == "":
				return usageError(c, errCosignKey)
			case cosign:
				return cosignSign(c, log, o.file, args[0])
			}
			return signImage(c, log, o, args[0])
		},
	}
	addSelectionFlags(c, &o.Selection, "sign")
	addCosignFlag(c, "make")
	f := c.Flags()
	f.StringVar(&o.file, "key", "", "sign with the private key in this PEM `file`, in place of a key of the keyring")
	f.StringVar(&o.gpg, "gpg", "", "sign with the key of this `fingerprint` in gpg's secret keyring, by gpg-agent")
	f.StringVar(&o.ssh, "ssh-agent", "", "sign with the key of this fingerprint (SHA256:...) or comment, by ssh-agent; `key` may be on a token")
	f.IntVarP(&o.key, "keyidx", "k", -1, "`number` of the key, as key list --secret shows it")
	f.BoolVar(&o.noTree, "no-tree", false, "add no hash tree, by which what is read of the image is checked while it runs")
	f.BoolP("all", "a", false, "sign all objects")
	f.MarkDeprecated("all", "it is the default now")
	return c
}

// selection is what --group-id and --sif-id say.
func addSelectionFlags(c *cobra.Command, s *sign.Selection, verb string) {
	f := c.Flags()
	f.Uint32VarP(&s.Group, "group-id", "g", 0, verb+" the objects of the group with this `number`")
	f.Uint32VarP(&s.Object, "sif-id", "i", 0, verb+" the object with this `number`")
	f.Uint32Var(&s.Group, "groupid", 0, verb+" the objects of the group with this `number`")
	f.Uint32Var(&s.Object, "id", 0, verb+" the object with this `number`")
	f.MarkDeprecated("groupid", "use '--group-id'")
	f.MarkDeprecated("id", "use '--sif-id'")
}

func (o *signOptions) check() error {
	given := ""
	for _, f := range []struct {
		name string
		set  bool
	}{{"--gpg", o.gpg != ""}, {"--ssh-agent", o.ssh != ""}, {"--key", o.file != ""}, {"--keyidx", o.key != -1}} {
		if f.set && given != "" {
			return fmt.Errorf("%s and %s exclude each other", given, f.name)
		}
		if f.set {
			given = f.name
		}
	}
	if o.gpg != "" {
		if _, err := pgp.ParseFingerprint(o.gpg); err != nil {
			return err
		}
	}
	return checkSelection(o.Selection)
}

func checkSelection(s sign.Selection) error {
	if s.Group != 0 && s.Object != 0 {
		return errors.New("--group-id and --sif-id exclude each other")
	}
	return nil
}

func signImage(c *cobra.Command, log *action.Log, o signOptions, path string) error {
	fail := func(err error) error { return explainSign(fmt.Errorf("failed to sign container: %w", err), path) }
	now := time.Now()
	if _, err := os.Stat(path); err != nil { // before the questions
		return fail(err)
	}
	signer, done, err := o.signer(c, log, now)
	if err != nil {
		return fail(err)
	}
	defer done()
	// Only now, so that nobody waits for an answer with the image locked.
	w, err := openLocked(path)
	if err != nil {
		return fail(err)
	}
	fi, err := w.Stat()
	if err == nil {
		unix.Fadvise(int(w.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
		var added *sign.Signed
		added, err = sign.Sign(context.Background(), w, fi.Size(), sign.Request{Selection: o.Selection,
			Signer: signer, Now: now, Trees: !o.noTree})
		logTrees(log, added)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return fail(err)
	}
	log.Info("Signature created and applied to image '" + path + "'")
	return nil
}

// signer returns the signer that the flags ask for, and what is to be done at the
// end.
func (o *signOptions) signer(c *cobra.Command, log *action.Log, now time.Time) (sign.Signer, func(), error) {
	nothing := func() {}
	p := newPrompter(c)
	switch {
	case o.gpg != "":
		s, err := gpgSigner(c.Context(), log, o.gpg, now)
		return s, nothing, err
	case o.ssh != "":
		return sshSigner(log, o.ssh)
	case o.file != "":
		log.Info("Signing image with key material from '" + o.file + "'")
		key, err := privateKey(p, o.file)
		if err != nil {
			return nil, nothing, err
		}
		s, err := sign.DSSE(key)
		if err != nil {
			return nil, nothing, keyMaterialError(o.file, err)
		}
		return s, nothing, nil
	}
	key, err := signingKey(log, p, o.key)
	if err != nil {
		return nil, nothing, err
	}
	log.Info("Signing image with PGP key material")
	var passphrase []byte
	if key.Locked() {
		if passphrase, err = p.Secret("Enter key passphrase : "); err != nil {
			return nil, nothing, err
		}
	}
	return sign.OpenPGP(key, passphrase, now), func() { clear(passphrase) }, nil
}

// logTrees tells what became of the hash trees.
func logTrees(log *action.Log, done *sign.Signed) {
	switch {
	case done == nil:
	case done.NoTrees != "":
		log.Info("No hash tree was added to the image: " + done.NoTrees)
	case done.Trees > 0:
		log.Verbose("Hash trees added: what is read of the image is checked while it runs")
	}
}

// signingKey returns the secret key numbered index, or if that is -1 the only
// one, or the one that is chosen.
func signingKey(log *action.Log, p *prompt.Prompter, index int) (*pgp.Key, error) {
	k, err := localKeyring(log, true)
	if err != nil {
		return nil, err
	}
	r, err := k.Read()
	if err != nil {
		return nil, err
	}
	keys := r.Keys()
	switch {
	case len(keys) == 0:
		return nil, action.Fatal(fmt.Errorf("no secret key in %q", k.Path()), "singularity key newpair makes one")
	case index == -1:
		return chooseKey(p, keys, "private")
	case index < 0 || index >= len(keys):
		return nil, action.Fatal(fmt.Errorf("no key number %d in %q, which has %d", index, k.Path(), len(keys)),
			"singularity key list --secret shows the numbers")
	}
	return keys[index], nil
}

// explainSign gives err the hint that helps the user.
func explainSign(err error, path string) error {
	hint := ""
	inner, isFailure := errors.AsType[*action.Failure](err)
	switch {
	case isFailure:
		hint = inner.Hint
	case errors.Is(err, lockfile.ErrLocked):
		hint = "wait until the other program is done with the image"
	case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		hint = "signing writes to the image: sign a copy of your own"
	case spaceHint(err) != "":
		hint = spaceHint(err)
	case errors.Is(err, unix.ETXTBSY):
		hint = "the image is in use; sign a copy"
	case errors.Is(err, pgp.ErrPassphrase):
		hint = "singularity key list --secret shows your keys, --keyidx chooses one"
	case errors.Is(err, os.ErrNotExist):
		hint = "check the path of the image"
	default:
		return err
	}
	return action.Fatal(err, hint)
}
