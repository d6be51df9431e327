// Package gpgagent signs with keys that gpg-agent keeps, on disk or on a card.
//
// In goes the fingerprint of a key of gpg's secret keyring, out come its public
// part, as gpg exports it, and signatures of digests. The secret part stays
// with the agent, which asks for the passphrase itself.
//
// gpg and gpgconf are found by PATH, as the user's shell finds them. They and the
// agent are the user's own; yet lengths are bounded, and a signature is checked
// by whoever gets it, since an agent may have used another key.
//
// Specs: the Assuan protocol and gpg-agent's commands in the manuals of
// libassuan and GnuPG, the colon listing in GnuPG's doc/DETAILS.
package gpgagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"singularity/pgp"
)

// toolTimeout bounds a run of gpg, which may have to wait for a card.
const toolTimeout = 60 * time.Second

// Key is a key whose secret part gpg-agent has.
type Key struct {
	Public *pgp.Key
	// By is the fingerprint of what signs: the key itself, or a sub-key of it if
	// it may not sign.
	By   pgp.Fingerprint
	grip string // the agent's name for it
}

// Find returns the key with that fingerprint.
func Find(ctx context.Context, fp pgp.Fingerprint) (*Key, error) {
	list, err := tool(ctx, "gpg", "--batch", "--no-tty", "--with-colons", "--with-keygrip", "--list-secret-keys", "--", fp.String())
	if err != nil {
		return nil, err
	}
	by, grip, err := signing(string(list), fp)
	if err != nil {
		return nil, err
	}
	data, err := tool(ctx, "gpg", "--batch", "--no-tty", "--export", "--", fp.String())
	if err != nil {
		return nil, err
	}
	ring, err := pgp.ParseRing(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read what gpg exports: %w", err)
	}
	public := ring.Find(fp)
	if public == nil {
		return nil, fmt.Errorf("gpg exports no usable key %s", fp)
	}
	return &Key{Public: public, By: by, grip: grip}, nil
}

// secret is a key or sub-key in gpg's listing.
type secret struct {
	by        pgp.Fingerprint
	grip      string
	usable    bool // signs, has its secret part, and is in force
	isPrimary bool
	named     bool // by is set
}

// signing finds in a colon listing what can sign for the key fp: the primary key,
// or else the newest sub-key, which is what gpg takes.
func signing(list string, fp pgp.Fingerprint) (by pgp.Fingerprint, grip string, err error) {
	var all []secret
	for line := range strings.Lines(list) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) < 10 {
			continue
		}
		last := len(all) - 1
		switch {
		case f[0] == "sec" || f[0] == "ssb":
			// Field 12 are the uses, 15 is # where there is no secret part.
			usable := len(f) > 11 && strings.Contains(f[11], "s") && !strings.ContainsAny(f[1], "rein") && (len(f) < 15 || f[14] != "#")
			all = append(all, secret{usable: usable, isPrimary: f[0] == "sec"})
		case f[0] == "fpr" && last >= 0 && !all[last].named:
			if all[last].by, err = pgp.ParseFingerprint(f[9]); err != nil {
				return by, "", errors.New("gpg lists a key that is not of version 4")
			}
			all[last].named = true
		case f[0] == "grp" && last >= 0:
			all[last].grip = f[9]
		}
	}
	found := false
	mine := false // within the key fp
	for _, s := range all {
		if s.isPrimary {
			mine = s.by == fp
		}
		if !mine || !s.usable || !isGrip(s.grip) {
			continue
		}
		by, grip, found = s.by, s.grip, true
		if s.isPrimary {
			break
		}
	}
	if !found {
		return by, "", fmt.Errorf("gpg has no secret key %s that can sign now", fp)
	}
	return by, grip, nil
}

// isGrip tells whether s is 40 hexadecimal digits: it becomes part of a command.
func isGrip(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789ABCDEFabcdef") == ""
}

// tool runs a program of GnuPG and returns what it prints.
func tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, toolTimeout)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var msg bytes.Buffer
	cmd.Stderr = &msg
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err // names the program
	}
	out, err := io.ReadAll(io.LimitReader(pipe, pgp.MaxRingSize+1))
	if err == nil && len(out) > pgp.MaxRingSize {
		err = errors.New("it prints too much")
		stop()
	}
	if err = errors.Join(err, cmd.Wait()); err != nil {
		text, _, _ := strings.Cut(strings.TrimSpace(msg.String()), "\n")
		return nil, fmt.Errorf("cannot run %s: %w: %s", name, err, text)
	}
	return out, nil
}

// Sign signs a SHA-256 digest, as a pgp.DigestSigner. The agent may ask the user
// for a passphrase, for which it is told of the terminal.
func (k *Key) Sign(ctx context.Context, digest []byte) ([][]byte, error) {
	if _, err := tool(ctx, "gpgconf", "--launch", "gpg-agent"); err != nil {
		return nil, err
	}
	out, err := tool(ctx, "gpgconf", "--list-dirs", "agent-socket")
	if err != nil {
		return nil, err
	}
	path := strings.TrimRight(string(out), "\n")
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("gpgconf names no socket of the agent, but %q", path)
	}
	c, err := dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("cannot reach gpg-agent: %w", err)
	}
	defer c.close()
	raw, err := c.sign(k.grip, digest, "Sign an image of Singularity with the key "+k.Public.Fingerprint().String())
	if err != nil {
		return nil, fmt.Errorf("gpg-agent does not sign: %w", err)
	}
	return numbers(raw)
}
