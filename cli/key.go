package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/cli/prompt"
	"singularity/pgp"
	"singularity/sign/keyring"
)

func newKeyCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use: "key", Aliases: []string{"keys"},
		Short: "Manage OpenPGP keys",
		Long: "Manage the OpenPGP keys that sign images and the keys that signatures are verified with. " +
			"Your keyrings are in ~/.singularity/sypgp; SINGULARITY_SYPGPDIR names another directory.",
		Example: "  $ singularity key newpair\n" +
			"  $ singularity key list\n" +
			"  $ singularity key export --armor mykey.asc\n" +
			"  $ singularity key import theirkey.asc",
	}
	c.AddCommand(newKeyNewpairCommand(log), newKeyCosignCommand(log), newKeyListCommand(log), newKeyImportCommand(log),
		newKeyExportCommand(log), newKeyRemoveCommand(log),
		newKeySearchCommand(log), newKeyPullCommand(log), newKeyPushCommand(log))
	return c
}

// keySelection are the flags that tell a keyring.
type keySelection struct {
	secret, global bool
}

// addKeyFlags adds --global and, unless secret is "", --secret with that help.
func (s *keySelection) addFlags(c *cobra.Command, secret string) {
	f := c.Flags()
	f.BoolVarP(&s.global, "global", "g", false, "use the global keyring, which the administrator keeps")
	if secret != "" {
		f.BoolVarP(&s.secret, "secret", "s", false, secret)
		f.BoolVar(&s.secret, "private", false, "same as --secret")
		f.MarkHidden("private")
	}
}

// keyring returns the ring that s selects.
func (s *keySelection) keyring(log *action.Log) (keyring.File, error) {
	if s.global && s.secret {
		return keyring.File{}, errors.New("the global keyring has no secret keys")
	}
	if s.global {
		return globalKeyring(log), nil
	}
	return localKeyring(log, s.secret)
}

// exitWith gives err the exit status code; a hint of err stays.
func exitWith(code int, err error) error {
	if err == nil {
		return nil
	}
	f := &action.Failure{Err: err, Code: code}
	if inner, ok := errors.AsType[*action.Failure](err); ok {
		f.Hint = inner.Hint
	}
	return f
}

// envBool sets the flag name from SINGULARITY_KEY unless it was given.
func envBool(c *cobra.Command, name, key string) error {
	value := strings.TrimSpace(os.Getenv("SINGULARITY_" + key))
	if value == "" || c.Flags().Changed(name) {
		return nil
	}
	if _, err := strconv.ParseBool(value); err != nil {
		return fmt.Errorf("While parsing environment variables: cannot use SINGULARITY_%s=%q: want true or false", key, value)
	}
	return c.Flags().Set(name, value)
}

func newKeyListCommand(log *action.Log) *cobra.Command {
	var s keySelection
	asJSON := false
	c := &cobra.Command{
		Use:   "list [options]",
		Short: "List the keys of a keyring",
		Long:  "List the keys of your public keyring, or of the one that the options select.",
		Example: "  $ singularity key list\n" +
			"  $ singularity key list --secret",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := envBool(c, "secret", "SECRET"); err != nil {
				return err
			}
			k, err := s.keyring(log)
			if err != nil {
				return err
			}
			r, err := k.Read()
			if err != nil {
				return err
			}
			if asJSON {
				return writeKeysJSON(c.OutOrStdout(), r.Keys(), time.Now())
			}
			kind := "Public"
			if s.secret {
				kind = "Private"
			}
			if _, err := fmt.Fprintf(c.OutOrStdout(), "%s key listing (%s):\n\n", kind, oneLine(k.Path())); err != nil {
				return err
			}
			return writeKeys(c.OutOrStdout(), r.Keys())
		},
	}
	s.addFlags(c, "list secret keys")
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

// writeKeys writes the keys as numbered blocks of lines. Other people's scripts
// read them.
func writeKeys(w io.Writer, keys []*pgp.Key) error {
	var b strings.Builder
	for i, k := range keys {
		head := fmt.Sprintf("%-4s", strconv.Itoa(i)+")")
		for _, id := range k.UserIDs() {
			fmt.Fprintf(&b, "%s%-19s%s\n", head, "User:", oneLine(id))
			head = "    "
		}
		fmt.Fprintf(&b, "    %-19s%s\n", "Creation time:", k.Created())
		fmt.Fprintf(&b, "    %-19s%s\n", "Fingerprint:", k.Fingerprint())
		fmt.Fprintf(&b, "    %-19s%d\n\n", "Length (in bits):", k.Bits())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// keyJSON is a key in the output of key list --json.
type keyJSON struct {
	Fingerprint string
	UserIDs     []string
	Created     time.Time
	Expires     *time.Time `json:",omitempty"`
	Revoked     bool
	Bits        int
	Secret      bool
	Protected   *bool `json:",omitempty"` // secret keys only
}

func writeKeysJSON(w io.Writer, keys []*pgp.Key, now time.Time) error {
	list := []keyJSON{}
	for _, k := range keys {
		j := keyJSON{Fingerprint: k.Fingerprint().String(), UserIDs: k.UserIDs(), Created: k.Created().UTC(),
			Revoked: k.Revoked(now), Bits: k.Bits(), Secret: k.Secret()}
		if t := k.Expires(); !t.IsZero() {
			t = t.UTC()
			j.Expires = &t
		}
		if k.Secret() {
			protected := k.Protected()
			j.Protected = &protected
		}
		list = append(list, j)
	}
	return writeTwoSpaces(w, list)
}

// writeTwoSpaces writes v as JSON in the layout that the keys and signatures
// commands share.
func writeTwoSpaces(w io.Writer, v any) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, escapeJSON(b.String()))
	return err
}

// chooseKey returns one of keys: the only one, or the one whose number is
// answered after they have been listed.
func chooseKey(p *prompt.Prompter, keys []*pgp.Key, kind string) (*pgp.Key, error) {
	if len(keys) == 1 {
		return keys[0], nil
	}
	if err := writeKeys(p.Out, keys); err != nil {
		return nil, err
	}
	i, err := p.Choice("Enter # of "+kind+" key to use : ", len(keys))
	if err != nil {
		return nil, err
	}
	return keys[i], nil
}

func newKeyRemoveCommand(log *action.Log) *cobra.Command {
	var s keySelection
	c := &cobra.Command{
		Use:     "remove [options] <fingerprint>",
		Short:   "Remove a key from a keyring",
		Long:    "Remove the key with this fingerprint, 40 hexadecimal digits, from your public keyring or the one that the options select. All other keys stay as they are.",
		Example: "  $ singularity key remove 5994BE54C31CF1B5E1994F987C52CF6D055F072B",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			fp, err := pgp.ParseFingerprint(args[0])
			if err != nil {
				return action.Fatal(fmt.Errorf("cannot remove key: %w", err), "singularity key list shows fingerprints")
			}
			k, err := s.keyring(log)
			if err != nil {
				return err
			}
			return changeRing(k, func(r *pgp.Ring) error {
				if !r.Remove(fp) {
					return action.Fatal(fmt.Errorf("cannot remove key: no key with fingerprint %s in %q", fp, k.Path()),
						"singularity key list shows fingerprints")
				}
				return nil
			})
		},
	}
	s.addFlags(c, "remove the secret key")
	return c
}
