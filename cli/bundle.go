package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/bundle"
	"singularity/sif"
	"singularity/sign"
)

func newBundleCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:   "bundle",
		Short: "Carry images, keys, policy and advisories across an air gap",
		Long:  "A bundle is one signed file with everything that a site without a network needs. It is a SIF, so that sign and verify work on it as well.",
		Example: "  $ singularity bundle create --image debian.sif --keys ring.asc site.bundle.sif\n" +
			"  $ singularity bundle import --dir /srv/site site.bundle.sif",
	}
	c.AddCommand(newBundleCreateCommand(log), newBundleShowCommand(), newBundleImportCommand(log))
	return c
}

// bundleOptions are the flags of bundle create.
type bundleOptions struct {
	signOptions
	name  string
	force bool
	files map[bundle.Kind]*[]string
}

func newBundleCreateCommand(log *action.Log) *cobra.Command {
	o := bundleOptions{files: map[bundle.Kind]*[]string{}}
	c := &cobra.Command{
		Use:   "create [options] <file>",
		Short: "Make a bundle and sign it",
		Long:  "Write files into one bundle and sign it, with a key of your keyring, of a PEM file, or one that gpg-agent or ssh-agent keeps.",
		Example: "  $ singularity bundle create --image a.sif --advisories osv.zip site.bundle.sif\n" +
			"  $ singularity bundle create --key site.pem --policy ecl.toml site.bundle.sif",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return usageError(c, err)
			}
			return createBundle(c, log, &o, args[0])
		},
	}
	f := c.Flags()
	for _, x := range []struct {
		kind       bundle.Kind
		flag, what string
	}{{bundle.Images, "image", "an image"}, {bundle.Keys, "keys", "public keys"}, {bundle.Policy, "policy", "a file of policy, such as ecl.toml"}, {bundle.Advisories, "advisories", "an archive or file of advisories"}} {
		list := new([]string)
		o.files[x.kind] = list
		f.StringArrayVar(list, x.flag, nil, "put this `file` in: "+x.what+"; may be repeated")
	}
	f.StringVar(&o.name, "name", "", "`name` of the bundle (default: of the file)")
	f.BoolVarP(&o.force, "force", "F", false, "replace a file that is there")
	f.StringVar(&o.file, "key", "", "sign with the private key in this PEM `file`")
	f.StringVar(&o.gpg, "gpg", "", "sign with the key of this `fingerprint` in gpg's secret keyring, by gpg-agent")
	f.StringVar(&o.ssh, "ssh-agent", "", "sign with the `key` of this fingerprint or comment, by ssh-agent")
	f.IntVarP(&o.key, "keyidx", "k", -1, "`number` of the key, as key list --secret shows it")
	return c
}

func createBundle(c *cobra.Command, log *action.Log, o *bundleOptions, path string) error {
	var items []bundle.Item
	for _, kind := range bundle.Kinds {
		for _, p := range *o.files[kind] {
			items = append(items, bundle.Item{Kind: kind, Name: filepath.Base(p), Path: p})
		}
	}
	if len(items) == 0 {
		return usageError(c, errors.New("a bundle of nothing: name files with --image, --keys, --policy or --advisories"))
	}
	if _, err := os.Lstat(path); err == nil && !o.force {
		return action.Fatal(fmt.Errorf("%q is there already", path), "use --force to replace it")
	}
	name := o.name
	if name == "" {
		name = strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".sif"), ".bundle")
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".bundle-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	bar := newTransferBar(log)
	m, err := bundle.Create(c.Context(), tmp, name, time.Now(), items, bar.of(name))
	bar.clear()
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("cannot create the bundle: %w", err)
	}
	o.noTree = true
	if err := signImage(c, log, o.signOptions, tmp.Name()); err != nil {
		return err
	}
	if err := os.Chmod(tmp.Name(), 0o644); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	log.Info(fmt.Sprintf("%d files are in %s", len(m.Items), path))
	return nil
}

func newBundleShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "show [options] <file>",
		Short:   "List what is in a bundle",
		Long:    "List the files in a bundle, as its manifest says. Nothing is verified: use verify.",
		Example: "  $ singularity bundle show site.bundle.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			b, done, err := openBundle(args[0])
			if err != nil {
				return err
			}
			defer done()
			if asJSON {
				return writeTwoSpaces(c.OutOrStdout(), b.Manifest)
			}
			rows := [][]string{{"KIND", "NAME", "SIZE", "SHA256"}}
			for _, x := range b.Manifest.Items {
				rows = append(rows, []string{string(x.Kind), x.Name, fmt.Sprint(x.Size), x.SHA256})
			}
			fmt.Fprintf(c.OutOrStdout(), "%s, %s\n", oneLine(b.Manifest.Name), b.Manifest.Created.Format(time.RFC3339))
			writeTable(c.OutOrStdout(), rows)
			return nil
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

// openBundle opens the bundle called path, and returns how to close it.
func openBundle(path string) (*openedBundle, func(), error) {
	r, size, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	f, err := sif.Open(r, size)
	if err == nil {
		var b *bundle.Bundle
		if b, err = bundle.Open(f); err == nil {
			return &openedBundle{b, f}, func() { r.Close() }, nil
		}
	}
	r.Close()
	return nil, nil, fmt.Errorf("cannot use %q: %w", path, err)
}

// openedBundle is a bundle with the file that it is in.
type openedBundle struct {
	*bundle.Bundle
	file *sif.File
}

// importOptions are the flags of bundle import.
type importOptions struct {
	verifyOptions
	dir   string
	older bool
}

func newBundleImportCommand(log *action.Log) *cobra.Command {
	var o importOptions
	c := &cobra.Command{
		Use:   "import [options] <file>",
		Short: "Verify a bundle and put its files into a directory",
		Long: "Verify the signatures of a bundle with keys of this host and put its files into DIR/images, keys, policy and advisories, each whole or not at all. " +
			"Nothing is fetched. A bundle that is older than the last one of the directory is refused.",
		Example: "  $ singularity bundle import --dir /srv/site \\\n      --require-fingerprint FINGERPRINT site.bundle.sif",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.local = true
			if err := o.check(); err != nil {
				return usageError(c, err)
			}
			return importBundle(c, log, &o, args[0])
		},
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.dir, "dir", "", "`directory` for the files; it must be there")
	f.BoolVar(&o.older, "allow-older", false, "take a bundle that is older than the last one")
	f.StringArrayVar(&o.require, "require-fingerprint", nil, "demand a signature of the key with this `fingerprint`; may be repeated")
	c.MarkFlagRequired("dir")
	return c
}

func importBundle(c *cobra.Command, log *action.Log, o *importOptions, path string) error {
	b, done, err := openBundle(path)
	if err != nil {
		return err
	}
	defer done()
	if err := o.verifyBundle(c.Context(), log, b); err != nil {
		return explainVerify(fmt.Errorf("cannot import %q: %w", path, err))
	}
	bar := newTransferBar(log)
	err = b.Import(c.Context(), o.dir, o.older, bar.of(b.Manifest.Name))
	bar.clear()
	if errors.Is(err, bundle.ErrOlder) {
		return action.Fatal(fmt.Errorf("cannot import %q: %w", path, err), "use --allow-older if that is meant: revoked keys may come back and advisories be lost")
	}
	if err != nil {
		return fmt.Errorf("cannot import %q: %w", path, err)
	}
	log.Info(fmt.Sprintf("%d files of %s are in %s", len(b.Manifest.Items), oneLine(b.Manifest.Name), o.dir))
	return nil
}

// verifyBundle wants every signature good and every object covered by one.
func (o *importOptions) verifyBundle(ctx context.Context, log *action.Log, b *openedBundle) error {
	var err error
	if o.Keyrings, err = verifyKeyrings(log); err != nil {
		return err
	}
	o.Now = time.Now()
	if o.Keys, err = o.load(log, o.Now); err != nil {
		return err
	}
	result, err := sign.Verify(ctx, b.file, o.Options)
	if err != nil {
		return err
	}
	covered := func(id uint32) bool {
		return slices.ContainsFunc(result.Signatures, func(s sign.Signature) bool {
			return s.Err == nil && slices.ContainsFunc(s.Verified, func(v sif.Object) bool { return v.ID == id })
		})
	}
	if !covered(b.Object.ID) {
		return errors.New("no signature covers its manifest")
	}
	for _, x := range b.Manifest.Items {
		if !covered(x.Object) {
			return fmt.Errorf("no signature covers %s/%s", x.Kind, x.Name)
		}
	}
	return nil
}
