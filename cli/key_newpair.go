package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/client/keyserver"
	"singularity/pgp"
	"singularity/sign/keyring"
)

// newpairOptions are the flags of key newpair.
type newpairOptions struct {
	name, email, comment, password string
	push                           bool
	servers                        serverOptions
	bits                           int
}

func newKeyNewpairCommand(log *action.Log) *cobra.Command {
	var o newpairOptions
	c := &cobra.Command{
		Use:   "newpair [options]",
		Short: "Make a new key pair",
		Long: "Make a new OpenPGP key pair and put it in your keyrings. Asks for what the options do not say." +
			"\n\nOther users of this host can see the options of a running program; give a passphrase that matters by terminal or standard input.",
		Example: "  $ singularity key newpair\n" +
			"  $ singularity key newpair -N 'A. User' -E a.user@example.org -C work",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, serverEnv); err != nil {
				return err
			}
			return exitWith(2, keyNewpair(c, log, o))
		},
	}
	f := c.Flags()
	f.StringVarP(&o.name, "name", "N", "", "`name` in the user id")
	f.StringVarP(&o.email, "email", "E", "", "e-mail `address` in the user id")
	f.StringVarP(&o.comment, "comment", "C", "", "`comment` in the user id")
	f.StringVarP(&o.password, "password", "P", "", "`passphrase` of the secret key; empty for none")
	f.BoolVarP(&o.push, "push", "U", false, "send the public key to a key server")
	o.servers.addFlags(c)
	f.IntVarP(&o.bits, "bit-length", "b", pgp.DefaultBits, "length of the key in `bits`")
	return c
}

func keyNewpair(c *cobra.Command, log *action.Log, o newpairOptions) error {
	var servers *keyserver.Client
	if o.push {
		// Before the questions, not after them.
		var err error
		if servers, err = o.servers.client(c.Context()); err != nil {
			return fmt.Errorf("cannot push the key: %w", err)
		}
	}
	passphrase, err := askNewpair(c, &o)
	if err != nil {
		return fmt.Errorf("cannot make key: %w", err)
	}
	defer clear(passphrase)
	// Both rings must be usable before the long work starts.
	secret, err := localKeyring(log, true)
	if err != nil {
		return err
	}
	public, err := localKeyring(log, false)
	if err != nil {
		return err
	}
	for _, k := range []keyring.File{secret, public} {
		if _, err := k.Read(); err != nil {
			return err
		}
	}
	fmt.Fprint(c.ErrOrStderr(), "Generating Entity and OpenPGP Key Pair... ")
	key, err := pgp.Generate(pgp.Options{Name: o.name, Email: o.email, Comment: o.comment, Bits: o.bits,
		Passphrase: passphrase, Time: time.Now()})
	if err != nil {
		fmt.Fprintln(c.ErrOrStderr(), "failed")
		return fmt.Errorf("cannot make key: %w", err)
	}
	if err := storeKey(secret, public, key); err != nil {
		fmt.Fprintln(c.ErrOrStderr(), "failed")
		return err
	}
	fmt.Fprintln(c.ErrOrStderr(), "done")
	if !o.push {
		return nil
	}
	open, err := key.Public()
	if err != nil {
		return err
	}
	if err := sendKey(c, log, servers, open); err != nil {
		return action.Fatal(fmt.Errorf("the key was made and is in your keyrings, but was not sent: %w", err),
			"singularity key push "+key.Fingerprint().String()+" sends it")
	}
	return nil
}

// askNewpair asks for what o lacks and returns the passphrase.
func askNewpair(c *cobra.Command, o *newpairOptions) ([]byte, error) {
	p := newPrompter(c)
	for _, q := range []struct {
		flag, question string
		field          *string
	}{
		{"name", "Enter your name (e.g., John Doe) : ", &o.name},
		{"email", "Enter your email address (e.g., john.doe@example.com) : ", &o.email},
		{"comment", "Enter optional comment (e.g., development keys) : ", &o.comment},
	} {
		if c.Flags().Changed(q.flag) {
			continue
		}
		var err error
		if *q.field, err = p.Line(q.question); err != nil {
			return nil, err
		}
	}
	if c.Flags().Changed("password") {
		return []byte(o.password), nil
	}
	return p.NewSecret()
}

// storeKey puts a secret key in its ring, and the public part in the other one
// unless it is there. The public part goes first: alone it does no harm.
func storeKey(secret, public keyring.File, key *pgp.Key) error {
	open, err := key.Public()
	if err != nil {
		return err
	}
	add := func(r *pgp.Ring) error {
		if r.Find(key.Fingerprint()) != nil {
			return &presentError{key.Fingerprint()}
		}
		r.Add(key)
		return nil
	}
	r, err := secret.Read()
	if err != nil {
		return err
	}
	if err := add(r); err != nil {
		return err
	}
	err = changeRing(public, func(r *pgp.Ring) error {
		if r.Find(key.Fingerprint()) == nil {
			r.Add(open)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return changeRing(secret, add)
}

// presentError tells that a key is in the ring already.
type presentError struct{ fingerprint pgp.Fingerprint }

func (e *presentError) Error() string {
	return fmt.Sprintf("the key with fingerprint %s already belongs to the keyring", e.fingerprint)
}
