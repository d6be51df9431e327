// Package certificate says whether an X.509 certificate may sign images: its
// chain, its purpose, its time, and by OCSP whether it was revoked.
//
// Certificates come from files that the caller names, answers of OCSP from the
// network: both are bounded in size, and answers in time.
//
// Specs: RFC 5280, RFC 6960.
package certificate

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Limits on input from outside.
const (
	MaxSize       = 8 << 20 // of a file, in bytes
	maxAnswer     = 64 << 10
	answerTimeout = 10 * time.Second
	maxChains     = 1
)

// Parse returns the first certificate of a PEM file.
func Parse(data []byte) (*x509.Certificate, error) {
	list, err := parseAll(data, 1)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// Pool returns all certificates of a PEM file.
func Pool(data []byte) (*x509.CertPool, error) {
	list, err := parseAll(data, 10000)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	for _, c := range list {
		p.AddCert(c)
	}
	return p, nil
}

func parseAll(data []byte, limit int) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for len(list) < limit {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("it holds no certificate in PEM form")
	}
	return list, nil
}

// Chains returns the ways from leaf to a root, for signing code at the time now.
// Nil roots are those of the system.
func Chains(leaf *x509.Certificate, intermediates, roots *x509.CertPool, now time.Time) ([][]*x509.Certificate, error) {
	return leaf.Verify(x509.VerifyOptions{Intermediates: intermediates, Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}})
}

// ErrOCSP is wrapped by the errors of Revoked.
var ErrOCSP = errors.New("OCSP verification has failed")

// Revoked asks for every certificate of the only chain whether it was revoked,
// and returns nil if all are good. Whatever cannot be found out is an error.
func Revoked(ctx context.Context, client *http.Client, chains [][]*x509.Certificate, now time.Time) error {
	if len(chains) != maxChains {
		return fmt.Errorf("%w: the certificate has %d chains, one is wanted", ErrOCSP, len(chains))
	}
	chain := chains[0]
	for _, c := range chain {
		if bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil {
			continue
		}
		i := slices.IndexFunc(chain, func(o *x509.Certificate) bool {
			return o != c && bytes.Equal(o.RawSubject, c.RawIssuer) && (len(c.AuthorityKeyId) == 0 || bytes.Equal(o.SubjectKeyId, c.AuthorityKeyId))
		})
		if i < 0 {
			return fmt.Errorf("%w: the issuer of %q is not in the chain", ErrOCSP, c.Subject)
		}
		if err := ask(ctx, client, c, chain[i], now, 0); err != nil {
			return fmt.Errorf("%w: %q: %w", ErrOCSP, c.Subject, err)
		}
	}
	return nil
}

// maxDelegation bounds responders whose certificate must itself be asked about.
const maxDelegation = 2

func ask(ctx context.Context, client *http.Client, c, issuer *x509.Certificate, now time.Time, depth int) error {
	if len(c.OCSPServer) == 0 {
		return errors.New("it names no OCSP server")
	}
	request, err := ocsp.CreateRequest(c, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1})
	if err != nil {
		return err
	}
	raw, err := post(ctx, client, c.OCSPServer[0], request)
	if err != nil {
		return err
	}
	r, err := ocsp.ParseResponseForCert(raw, c, issuer)
	if err != nil {
		return err
	}
	switch {
	case r.Status == ocsp.Revoked:
		return fmt.Errorf("revoked since %s", r.RevokedAt.UTC().Format(time.RFC3339))
	case r.Status != ocsp.Good:
		return errors.New("its status is not known")
	case now.Before(r.ThisUpdate):
		return errors.New("the answer is of the future")
	case r.NextUpdate.IsZero() || now.After(r.NextUpdate):
		return errors.New("the answer is too old")
	}
	d := r.Certificate
	if d == nil || d.Equal(issuer) {
		return nil
	}
	// A delegated responder: its own certificate must say so, and be good.
	if now.Before(d.NotBefore) || now.After(d.NotAfter) || !slices.Contains(d.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return errors.New("the responder's certificate is not for OCSP")
	}
	for _, e := range d.Extensions {
		if e.Id.String() == "1.3.6.1.5.5.7.48.1.5" { // no check
			return nil
		}
	}
	if depth == maxDelegation {
		return errors.New("too many responders")
	}
	return ask(ctx, client, d, issuer, now, depth+1)
}

// post sends a request. Redirects go to HTTP servers only.
func post(ctx context.Context, client *http.Client, to string, request []byte) ([]byte, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no address of an OCSP server", to)
	}
	ctx, stop := context.WithTimeout(ctx, answerTimeout)
	defer stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/ocsp-request")
	c := *client
	c.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > 5 || r.URL.Scheme != "http" && r.URL.Scheme != "https" {
			return errors.New("redirected to " + r.URL.Redacted())
		}
		return nil
	}
	answer, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", u.Host, answer.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err == nil && len(raw) > maxAnswer {
		err = fmt.Errorf("%s answers with more than %d bytes", u.Host, maxAnswer)
	}
	return raw, err
}
