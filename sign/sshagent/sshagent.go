// Package sshagent signs with keys that ssh-agent keeps. By "ssh-add -s MODULE"
// those are the keys of a PKCS#11 token too, so that no library of a token is
// ever loaded here.
//
// In go the agent's socket and the name of a key, out comes a crypto.Signer of
// whole messages: RSA with PKCS #1 v1.5 and SHA-256, ECDSA on P-256, and Ed25519,
// freed from the wrapping of SSH. The agent is the user's own; yet what it signs
// with is checked by whoever uses the signature.
//
// Specs: draft-ietf-sshm-ssh-agent; RFC 4253, 5656, 8332 and 8709 for keys and
// signatures.
package sshagent

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// ErrNoAgent says that no agent can be reached.
var ErrNoAgent = errors.New("no ssh-agent is running")

// Key is a key of an agent, a crypto.Signer and crypto.MessageSigner.
type Key struct {
	Comment string
	public  crypto.PublicKey
	ssh     *agent.Key
	agent   agent.ExtendedAgent
	conn    net.Conn
}

// Find returns the key of the agent at the socket path that has this fingerprint
// (SHA256:...), or else this comment. The key must be closed.
func Find(path, name string) (*Key, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: SSH_AUTH_SOCK is not set", ErrNoAgent)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	k, err := find(agent.NewClient(c), name)
	if err != nil {
		c.Close()
		return nil, err
	}
	k.conn = c
	return k, nil
}

func find(a agent.ExtendedAgent, name string) (*Key, error) {
	list, err := a.List()
	if err != nil {
		return nil, fmt.Errorf("cannot list the keys of ssh-agent: %w", err)
	}
	var byID, byComment []*agent.Key
	for _, k := range list {
		if ssh.FingerprintSHA256(k) == name {
			byID = append(byID, k)
		}
		if k.Comment == name {
			byComment = append(byComment, k)
		}
	}
	found := byComment
	// Security: a comment is what its owner chose, and may look like a fingerprint.
	if len(byID) > 0 {
		found = byID
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("ssh-agent has no key %q among its %d", name, len(list))
	case 1:
	default:
		var ids []string
		for _, k := range found {
			ids = append(ids, ssh.FingerprintSHA256(k))
		}
		return nil, fmt.Errorf("ssh-agent has %d keys %q: %s", len(found), name, strings.Join(ids, ", "))
	}
	public, err := publicKey(found[0])
	if err != nil {
		return nil, err
	}
	return &Key{Comment: found[0].Comment, public: public, ssh: found[0], agent: a}, nil
}

// publicKey returns the key in k, if its signatures can be of SHA-256.
func publicKey(k *agent.Key) (crypto.PublicKey, error) {
	bad := fmt.Errorf("a key of type %q cannot sign images: use RSA, ECDSA on P-256, or Ed25519", k.Type())
	switch k.Type() {
	case ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoED25519:
	default:
		return nil, bad // others hash otherwise, or sign more than the message
	}
	parsed, err := ssh.ParsePublicKey(k.Blob)
	if err != nil {
		return nil, fmt.Errorf("cannot read a key of ssh-agent: %w", err)
	}
	c, ok := parsed.(ssh.CryptoPublicKey)
	if !ok || parsed.Type() != k.Type() {
		return nil, bad
	}
	switch p := c.CryptoPublicKey().(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return p, nil
	}
	return nil, bad
}

// Close ends the connection to the agent.
func (k *Key) Close() error { return k.conn.Close() }

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign fails: an agent wants the message, not its digest.
func (k *Key) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("ssh-agent signs whole messages only")
}

// SignMessage signs message, with SHA-256 if the key is not Ed25519.
func (k *Key) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	want, wantHash, flags := k.ssh.Type(), crypto.SHA256, agent.SignatureFlags(0)
	switch want {
	case ssh.KeyAlgoRSA:
		want, flags = ssh.KeyAlgoRSASHA256, agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoED25519:
		wantHash = 0
	}
	if opts.HashFunc() != wantHash {
		return nil, fmt.Errorf("ssh-agent does not sign with hash %d", opts.HashFunc())
	}
	s, err := k.agent.SignWithFlags(k.ssh, message, flags)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent does not sign: %w", err)
	}
	if s.Format != want || len(bytes.TrimSpace(s.Rest)) != 0 {
		return nil, fmt.Errorf("ssh-agent signs by %q, want %q", s.Format, want)
	}
	if k.ssh.Type() == ssh.KeyAlgoECDSA256 {
		return fromSSH(s.Blob)
	}
	return s.Blob, nil
}

// fromSSH returns an ECDSA signature in ASN.1.
func fromSSH(blob []byte) ([]byte, error) {
	var s struct{ R, S *big.Int }
	if err := ssh.Unmarshal(blob, &s); err != nil || s.R.Sign() <= 0 || s.S.Sign() <= 0 {
		return nil, errors.New("ssh-agent answers with no signature")
	}
	return asn1.Marshal(s)
}
