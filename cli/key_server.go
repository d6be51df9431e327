package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/client/keyserver"
	"singularity/pgp"
	"singularity/sign/keyring"
)

func newKeySearchCommand(log *action.Log) *cobra.Command {
	var o serverOptions
	long := false
	c := &cobra.Command{
		Use:   "search [options] <text>",
		Short: "Search a key server",
		Long: "Search a key server for keys whose name or address has this text, or which have this id or fingerprint." +
			"\n\nWhat a server lists was checked by nobody: names are what their owners chose.",
		Example: "  $ singularity key search --url https://keys.example.org someone@example.org",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, serverEnv); err != nil {
				return err
			}
			return exitWith(2, keySearch(c, log, o, long, args[0]))
		},
	}
	o.addFlags(c)
	c.Flags().BoolVarP(&long, "long-list", "l", false, "print all that is known of the keys")
	return c
}

func keySearch(c *cobra.Command, log *action.Log, o serverOptions, long bool, text string) error {
	fail := func(err error) error { return explainServer(fmt.Errorf("cannot search for %q: %w", text, err)) }
	client, err := o.client(c.Context())
	if err != nil {
		return fail(err)
	}
	list, more, err := client.Search(c.Context(), text)
	if err != nil {
		return fail(err)
	}
	if more {
		log.Warning(fmt.Sprintf("the key server has more than these %d keys", len(list)))
	}
	if long {
		return writeLongResults(c.OutOrStdout(), list)
	}
	return writeResults(c.OutOrStdout(), list)
}

// writeResults writes a line for each user id. Other people's scripts read them.
func writeResults(w io.Writer, list []keyserver.Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Showing %d results\n\n%-16s  %-4s  %s\n", len(list), "KEY ID", "BITS", "NAME/EMAIL")
	for _, r := range list {
		// The last 8 digits alone could be anybody's.
		writeResult(&b, fmt.Sprintf("%-16s  %-4d  ", r.ID[max(0, len(r.ID)-16):], r.Bits), r.UserIDs)
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

func writeLongResults(w io.Writer, list []keyserver.Result) error {
	const layout = "%-40s  %-9v  %-4v  %-29s  %-29s  %-9s  "
	var b strings.Builder
	fmt.Fprintf(&b, "Showing %d results\n\n"+layout+"%s\n", len(list), "FINGERPRINT", "ALGORITHM", "BITS", "CREATION DATE", "EXPIRATION DATE", "STATUS", "NAME/EMAIL")
	for _, r := range list {
		created, expires := "[unknown]", "[ultimate]"
		if !r.Created.IsZero() {
			created = r.Created.Format(time.DateTime + " -0700 MST")
		}
		if !r.Expires.IsZero() {
			expires = r.Expires.Format(time.DateTime + " -0700 MST")
		}
		writeResult(&b, fmt.Sprintf(layout, r.ID, algorithmName(r.Algorithm), r.Bits, created, expires, statusName(r.Flags)), r.UserIDs)
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

// writeResult writes head before the first user id, and blanks before others.
func writeResult(b *strings.Builder, head string, ids []string) {
	if len(ids) == 0 {
		ids = []string{""}
	}
	for _, id := range ids {
		b.WriteString(strings.TrimRight(head+oneLine(id), " ") + "\n")
		head = strings.Repeat(" ", len(head))
	}
}

// algorithmName returns the name of an algorithm of OpenPGP.
func algorithmName(n int) string {
	switch n {
	case 1, 2, 3:
		return "RSA"
	case 16:
		return "Elgamal"
	case 17:
		return "DSA"
	case 18:
		return "ECDH"
	case 19:
		return "ECDSA"
	case 22, 27, 28:
		return "EdDSA"
	}
	return "unknown"
}

func statusName(flags string) string {
	for _, s := range []struct{ flag, name string }{{"r", "[revoked]"}, {"d", "[disabled]"}, {"e", "[expired]"}} {
		if strings.Contains(flags, s.flag) {
			return s.name
		}
	}
	return "[enabled]"
}

func newKeyPullCommand(log *action.Log) *cobra.Command {
	var s keySelection
	var o serverOptions
	c := &cobra.Command{
		Use:   "pull [options] <fingerprint>",
		Short: "Get a key from a key server",
		Long: "Get the key with this fingerprint, or this id of 16 digits, from a key server, and put it in your public keyring. " +
			"If the keyring has it, a revocation is taken over." +
			"\n\nA key in the keyring is trusted by verify. Have the fingerprint from the key's owner, not from a search.",
		Example: "  $ singularity key pull -u https://keys.example.org FINGERPRINT",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, serverEnv); err != nil {
				return err
			}
			return exitWith(2, keyPull(c, log, s, o, args[0]))
		},
	}
	o.addFlags(c)
	s.addFlags(c, "")
	return c
}

func keyPull(c *cobra.Command, log *action.Log, s keySelection, o serverOptions, arg string) error {
	fail := func(err error) error { return explainServer(fmt.Errorf("cannot pull the key: %w", err)) }
	id, err := keyserver.ParseID(arg)
	if err != nil {
		return fail(action.Fatal(err, "singularity key search lists ids"))
	}
	k, err := s.keyring(log)
	if err != nil {
		return fail(err)
	}
	client, err := o.client(c.Context())
	if err != nil {
		return fail(err)
	}
	keys, err := client.Get(c.Context(), id)
	if err != nil {
		return fail(err)
	}
	key, err := oneOf(id, keys)
	if err != nil {
		return fail(err)
	}
	added, err := takeKey(log, k, key)
	if err != nil {
		return fail(err)
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%d key(s) added to keyring of trust %s\n", added, oneLine(k.Path()))
	return err
}

// oneOf returns the only one of keys.
//
// Security: two keys can be made to have one id of 16 digits (SC-119).
func oneOf(id keyserver.ID, keys []*pgp.Key) (*pgp.Key, error) {
	if len(keys) == 1 {
		return keys[0], nil
	}
	var list []string
	for _, k := range keys {
		list = append(list, k.Fingerprint().String())
	}
	return nil, action.Fatal(fmt.Errorf("%d keys have the id %s: %s", len(keys), id, strings.Join(list, ", ")), "use the fingerprint")
}

// takeKey puts a key into the ring. One that is there stays as it is, but for a
// revocation, which nobody but its owner could have made.
func takeKey(log *action.Log, k keyring.File, key *pgp.Key) (added int, err error) {
	now := time.Now()
	if key.Revoked(now) {
		log.Warning(fmt.Sprintf("the key %s was revoked by its owner", key.Fingerprint()))
	}
	err = changeRing(k, func(r *pgp.Ring) error {
		old := r.Find(key.Fingerprint())
		switch {
		case old == nil:
			added = 1
		case bytes.Equal(old.Bytes(), key.Bytes()) || old.Revoked(now) || !key.Revoked(now):
			log.Info(fmt.Sprintf("The keyring has the key %s", key.Fingerprint()))
			return nil
		default:
			r.Remove(key.Fingerprint())
			log.Info(fmt.Sprintf("The keyring takes over the revocation of the key %s", key.Fingerprint()))
		}
		r.Add(key)
		return nil
	})
	return added, err
}

func newKeyPushCommand(log *action.Log) *cobra.Command {
	var s keySelection
	var o serverOptions
	c := &cobra.Command{
		Use:     "push [options] <fingerprint>",
		Short:   "Send a public key to a key server",
		Long:    "Send the public key with this fingerprint, or this id of 16 digits, from your keyring to a key server, where anybody can get it.",
		Example: "  $ singularity key push -u https://keys.example.org FINGERPRINT",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setFromEnv(c, serverEnv); err != nil {
				return err
			}
			return exitWith(2, keyPush(c, log, s, o, args[0]))
		},
	}
	o.addFlags(c)
	s.addFlags(c, "")
	return c
}

func keyPush(c *cobra.Command, log *action.Log, s keySelection, o serverOptions, arg string) error {
	fail := func(err error) error { return explainServer(fmt.Errorf("cannot push the key: %w", err)) }
	id, err := keyserver.ParseID(arg)
	if err != nil {
		return fail(action.Fatal(err, "singularity key list shows fingerprints"))
	}
	k, err := s.keyring(log)
	if err != nil {
		return fail(err)
	}
	ring, err := k.Read()
	if err != nil {
		return fail(err)
	}
	keys := id.Find(ring)
	if len(keys) == 0 {
		return fail(action.Fatal(fmt.Errorf("no key with the fingerprint or id %s in %q", id, k.Path()), "singularity key list shows fingerprints"))
	}
	key, err := oneOf(id, keys)
	if err != nil {
		return fail(err)
	}
	client, err := o.client(c.Context())
	if err != nil {
		return fail(err)
	}
	if err := sendKey(c, log, client, key); err != nil {
		return fail(err)
	}
	return nil
}

// sendKey sends the public key, and says so.
func sendKey(c *cobra.Command, log *action.Log, client *keyserver.Client, key *pgp.Key) error {
	moderated, err := client.Add(c.Context(), key)
	if errors.Is(err, keyserver.ErrNotFound) {
		return fmt.Errorf("the server takes no keys: %v", err) // 404 says nothing about the key
	}
	if err != nil {
		return err
	}
	if moderated {
		log.Info("The key server will serve the key once somebody has looked at it")
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "public key `%s' pushed to server successfully\n", key.Fingerprint())
	return err
}
