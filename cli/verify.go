package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/pgp"
	"singularity/sif"
	"singularity/sign"
)

// verifyOptions are the flags of verify.
type verifyOptions struct {
	sign.Options
	certificateOptions
	servers             serverOptions
	require             []string
	local, json, byTree bool
}

func newVerifyCommand(log *action.Log) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify [options] <image>",
		Short: "Verify the signatures of an image",
		Long: "Verify that every group of data objects of a SIF image is signed, by keys of the global keyring or of yours, and has not changed since. " +
			"All signatures must be good; --any asks for one of each group." +
			"\n\nA key that no keyring has is looked up on the key servers, if there are any: --local keeps that from happening. " +
			"Anybody can put a key there, under any name." +
			"\n\nSuccess says that somebody whose key was found signed the image. Use --require-fingerprint where it matters who.",
		Example: "  $ singularity verify debian.sif\n" +
			"  $ singularity verify --require-fingerprint FINGERPRINT debian.sif",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if cosign, err := withCosign(c, noCosignVerify); err != nil {
				return usageError(c, err)
			} else if cosign {
				return o.verifyCosign(c, log, args[0])
			}
			if err := setFromEnv(c, slices.Concat(verifyEnv, serverEnv)); err != nil {
				return err
			}
			if err := o.check(); err != nil {
				return usageError(c, err)
			}
			return verifyImage(c, log, o, args[0])
		},
	}
	addSelectionFlags(c, &o.Selection, "verify")
	addCosignFlag(c, "verify")
	o.addFlags(c)
	o.servers.addFlags(c)
	f := c.Flags()
	f.BoolVarP(&o.LegacyAll, "all", "a", false, "with --legacy-insecure, verify all objects")
	f.BoolVar(&o.byTree, "by-tree", false, "check partitions by their hash trees alone, on all processors")
	f.BoolVar(&o.Any, "any", false, "one good signature of each group is enough")
	f.BoolVarP(&o.json, "json", "j", false, "print JSON")
	f.BoolVar(&o.Legacy, "legacy-insecure", false, "verify signatures made before version 3.6, which protect the data only")
	f.BoolVarP(&o.local, "local", "l", false, "use keys of this host only, ask no key server")
	f.StringArrayVar(&o.require, "require-fingerprint", nil, "demand a signature of the key with this `fingerprint`; may be repeated")
	return c
}

// remote lets o ask key servers. A mistake in an address that the user gave is
// told at once, all else when a key is wanted.
func (o *verifyOptions) remote(c *cobra.Command, log *action.Log) error {
	o.Lookup = o.servers.lookUp(c.Context(), log)
	if len(o.servers.urls) == 0 {
		return nil
	}
	_, err := o.servers.client(c.Context())
	return err
}

func (o *verifyOptions) check() error {
	for _, s := range o.require {
		fp, err := pgp.ParseFingerprint(s)
		if err != nil {
			return err
		}
		o.Require = append(o.Require, fp)
	}
	if o.byTree {
		o.How = sign.ByTree
	}
	if err := o.certificateOptions.check(); err != nil {
		return err
	}
	return checkSelection(o.Selection)
}

func verifyImage(c *cobra.Command, log *action.Log, o verifyOptions, path string) error {
	fail := func(err error) error { return explainVerify(fmt.Errorf("failed to verify container: %w", err)) }
	var err error
	if o.Keyrings, err = verifyKeyrings(log); err != nil {
		return fail(err)
	}
	if !o.local {
		if err := o.remote(c, log); err != nil {
			return fail(err)
		}
	}
	r, size, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	unix.Fadvise(int(r.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	f, err := sif.Open(r, size)
	if err != nil {
		return fail(fmt.Errorf("cannot read %q: %w", path, err))
	}
	o.Now = time.Now()
	if o.Keys, err = o.load(log, o.Now); err != nil {
		return fail(err)
	}
	if len(o.Keys) == 0 {
		log.Info("Verifying image with PGP key material")
	}
	result, err := sign.Verify(context.Background(), f, o.Options)
	for _, w := range result.Warnings {
		log.Warning(w)
	}
	whole := o.Selection == (sign.Selection{}) && !o.Legacy && err == nil
	if o.json {
		out := verifyResult(result)
		out.Answers = answer(result, err)
		if whole {
			out.Trust = verifiedLine(c.Context(), log, f, result, path)
		}
		err = errors.Join(err, writeTwoSpaces(c.OutOrStdout(), out))
	} else {
		err = errors.Join(err, writeSignatures(c.OutOrStdout(), result, log.Color && action.IsTerminal(1)))
	}
	if err != nil {
		return fail(err)
	}
	log.Info("Verified signature(s) from image '" + path + "'")
	if whole && !o.json {
		log.Info(verifiedLine(c.Context(), log, f, result, path))
	}
	if o.byTree && len(result.Trees) > 0 {
		log.Info("Partitions were verified by their hash trees")
	} else if o.byTree {
		log.Info("The image has no hash tree: it was verified by its digests")
	}
	return nil
}

// verifyKeyrings returns the rings in the order in which they are asked. A
// global ring that cannot be trusted is left out, with a warning.
func verifyKeyrings(log *action.Log) ([]sign.Keyring, error) {
	var list []sign.Keyring
	global, err := globalKeyring(log).Read()
	if err != nil {
		log.Warning(err.Error())
	} else if len(global.Keys()) > 0 {
		list = append(list, sign.Keyring{Origin: sign.Global, Ring: global})
	}
	k, err := localKeyring(log, false)
	if err != nil {
		return nil, err
	}
	local, err := k.Read()
	return append(list, sign.Keyring{Origin: sign.Local, Ring: local}), err
}

// explainVerify gives err the hint that helps the user.
func explainVerify(err error) error {
	if inner, ok := errors.AsType[*action.Failure](err); ok {
		return action.Fatal(err, inner.Hint)
	}
	if errors.Is(err, sign.ErrNoKey) {
		return action.Fatal(err, "the image was signed with a key file or a certificate: name it with --key or --certificate, or use --any")
	}
	if unknown, ok := errors.AsType[*pgp.UnknownKeyError](err); ok {
		return action.Fatal(err, fmt.Sprintf("get the public key with id %016X from its owner, then: singularity key import FILE; or name a key server with --url", unknown.ID))
	}
	if errors.Is(err, sign.ErrNoSignature) {
		return action.Fatal(err, "singularity sif list shows which signatures the image has")
	}
	return err
}

// originColors are the terminal colours of the keyrings' names.
var originColors = map[sign.Origin]string{sign.Local: "32", sign.Global: "36", sign.Remote: "33"}

// writeSignatures writes a block of lines for each signature. Other people's
// scripts read them.
func writeSignatures(w io.Writer, r *sign.Result, color bool) error {
	var b strings.Builder
	for _, s := range r.Signatures {
		if s.Key != nil {
			prefix := "[" + string(s.Origin) + "]"
			if color {
				prefix = "\x1b[" + originColors[s.Origin] + "m" + prefix + "\x1b[0m"
			}
			fmt.Fprintf(&b, "%-18v Signing entity: %s\n", prefix, oneLine(s.Key.UserID()))
			fmt.Fprintf(&b, "%-18v Fingerprint: %s\n", prefix, s.Key.Fingerprint())
		}
		if s.Err == nil || len(s.Verified) > 0 {
			b.WriteString("Objects verified:\nID  |GROUP   |LINK    |TYPE\n" + strings.Repeat("-", 48) + "\n")
			for _, o := range s.Verified {
				fmt.Fprintf(&b, "%-4d|%-8s|%-8s|%s\n", o.ID, groupText(o), linkText(o, "%d (G)"), o.Type)
			}
		}
		if s.Err != nil {
			fmt.Fprintf(&b, "\nError encountered during signature verification: %s\n", oneLine(s.Err.Error()))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// verifyJSON is the output of verify --json.
type verifyJSON struct {
	Signatures int
	SignerKeys []signerKeyJSON // null if there are none
	Answers    answersJSON
	Trust      string `json:",omitempty"` // the answers in one sentence, of an image that is verified as a whole
}

type signerKeyJSON struct{ Signer signerJSON }

// signerJSON is one object that one signature covers.
type signerJSON struct {
	Partition, Name, Fingerprint  string
	KeyLocal, KeyCheck, DataCheck bool
}

func verifyResult(r *sign.Result) verifyJSON {
	out := verifyJSON{Signatures: len(r.Signatures)}
	for _, s := range r.Signatures {
		if s.Key == nil && s.Public == nil {
			continue
		}
		add := func(objects []sif.Object, good bool) {
			for _, o := range objects {
				if s.Key == nil {
					// Other programs read that there is no OpenPGP key.
					out.SignerKeys = append(out.SignerKeys, signerKeyJSON{signerJSON{Partition: o.Type.String(), Name: "unknown", DataCheck: good}})
					continue
				}
				out.SignerKeys = append(out.SignerKeys, signerKeyJSON{signerJSON{
					Partition: o.Type.String(), Name: s.Key.UserID(),
					Fingerprint: strings.ToLower(s.Key.Fingerprint().String()),
					KeyLocal:    s.Origin != sign.Remote, KeyCheck: true, DataCheck: good,
				}})
			}
		}
		add(s.Verified, true)
		add(s.Damaged, false)
	}
	return out
}
