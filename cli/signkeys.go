package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/cli/prompt"
	"singularity/conf"
	"singularity/sign"
	"singularity/sign/certificate"
	"singularity/sign/keyfile"
)

// readSmall reads a file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return conf.ReadAll(f, limit)
}

// keyMaterialError is the error of a key file.
func keyMaterialError(path string, err error) error {
	hint := "a private or public key in PEM form is wanted, RSA, ECDSA or Ed25519"
	if errors.Is(err, keyfile.ErrPassphrase) {
		hint = "check the passphrase"
	}
	return action.Fatal(fmt.Errorf("failed to load key material: cannot use %q: %w", path, err), hint)
}

// privateKey reads the private key of a PEM file, and asks for its passphrase if
// it has one.
func privateKey(p *prompt.Prompter, path string) (crypto.Signer, error) {
	data, err := readSmall(path, keyfile.MaxSize)
	if err == nil {
		defer clear(data)
		var key crypto.Signer
		if key, err = keyfile.Private(data, func() ([]byte, error) { return p.Secret("Enter key passphrase : ") }); err == nil {
			return key, nil
		}
	}
	return nil, keyMaterialError(path, err)
}

// certificateOptions are the flags of verify about X.509 certificates.
type certificateOptions struct {
	key                        string
	leaf, intermediates, roots string
	ocsp                       bool
}

// verifyEnv are the variables of those flags.
var verifyEnv = []flagEnv{
	{flag: "key", key: "VERIFY_KEY"}, {flag: "certificate", key: "VERIFY_CERTIFICATE"},
	{flag: "certificate-intermediates", key: "VERIFY_INTERMEDIATES"}, {flag: "certificate-roots", key: "VERIFY_ROOTS"},
	{flag: "ocsp-verify", key: "VERIFY_OCSP"}, {flag: "local", key: "LOCAL_VERIFY"},
}

func (o *certificateOptions) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.key, "key", "", "verify with the public key in this `file`, in PEM form or as OpenSSH writes it")
	f.StringVar(&o.leaf, "certificate", "", "verify with the certificate in this PEM `file`, which must be for signing code")
	f.StringVar(&o.intermediates, "certificate-intermediates", "", "certificates between that one and a root, in a PEM `file`")
	f.StringVar(&o.roots, "certificate-roots", "", "root certificates in a PEM `file`, in place of those of the system")
	f.BoolVar(&o.ocsp, "ocsp-verify", false, "ask by OCSP whether the certificates were revoked")
}

func (o *certificateOptions) check() error {
	if o.leaf == "" && (o.intermediates != "" || o.roots != "" || o.ocsp) {
		return errors.New("--certificate-intermediates, --certificate-roots and --ocsp-verify need --certificate")
	}
	return nil
}

// load returns the keys that the flags name, and says so.
func (o *certificateOptions) load(log *action.Log, now time.Time) ([]*sign.PublicKey, error) {
	var list []*sign.PublicKey
	if o.key != "" {
		log.Info("Verifying image with key material from '" + o.key + "'")
		key, err := publicKey(o.key)
		if err != nil {
			return nil, keyMaterialError(o.key, err)
		}
		list = append(list, key)
	}
	if o.leaf != "" {
		log.Info("Verifying image with key material from certificate '" + o.leaf + "'")
		key, err := o.certified(now)
		if err != nil {
			return nil, err
		}
		list = append(list, key)
	}
	return list, nil
}

func publicKey(path string) (*sign.PublicKey, error) {
	data, err := readSmall(path, keyfile.MaxSize)
	if err != nil {
		return nil, err
	}
	key, err := keyfile.Public(data)
	if err != nil {
		return nil, err
	}
	return sign.NewPublicKey(key, path)
}

// certified returns the key of the certificate, once its chain is good.
func (o *certificateOptions) certified(now time.Time) (*sign.PublicKey, error) {
	fail := func(path string, err error) error {
		return action.Fatal(fmt.Errorf("failed to load certificate: cannot use %q: %w", path, err), "a certificate in PEM form is wanted")
	}
	data, err := readSmall(o.leaf, certificate.MaxSize)
	if err != nil {
		return nil, fail(o.leaf, err)
	}
	leaf, err := certificate.Parse(data)
	if err != nil {
		return nil, fail(o.leaf, err)
	}
	pool := func(path string) (*x509.CertPool, error) {
		if path == "" {
			return nil, nil
		}
		data, err := readSmall(path, certificate.MaxSize)
		if err != nil {
			return nil, fail(path, err)
		}
		p, err := certificate.Pool(data)
		if err != nil {
			return nil, fail(path, err)
		}
		return p, nil
	}
	between, err := pool(o.intermediates)
	if err != nil {
		return nil, err
	}
	roots, err := pool(o.roots)
	if err != nil {
		return nil, err
	}
	chains, err := certificate.Chains(leaf, between, roots, now)
	if err != nil {
		return nil, action.Fatal(fmt.Errorf("failed to verify certificate %q: %w", o.leaf, err),
			"--certificate-roots and --certificate-intermediates name what leads to it; it must be for signing code and of today")
	}
	if o.ocsp {
		if err := certificate.Revoked(context.Background(), http.DefaultClient, chains, now); err != nil {
			return nil, action.Fatal(err, "without --ocsp-verify nobody is asked")
		}
	}
	return sign.NewPublicKey(leaf.PublicKey, leaf.Subject.String())
}
