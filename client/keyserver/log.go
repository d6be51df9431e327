package keyserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"singularity/api"
	"singularity/client/translog"
	"singularity/pgp"
)

// Remember makes c keep the checkpoints of logs, so that a server which shows
// another history later, or none any more, is found out.
func (c *Client) Remember(m translog.Memory) { c.memory = m }

// checkLog checks that the server's log has the keys as they came, if the server
// says that it has a log, or had one before.
func (c *Client) checkLog(ctx context.Context, s server, offered string, keys []*pgp.Key) error {
	name := s.base.Scheme + "://" + s.base.Host
	last := translog.State{}
	if c.memory != nil {
		var err error
		if last, err = c.memory.Load(name); err != nil {
			return err
		}
	}
	if yes, err := translog.Offered(s.base.Host, offered, last); !yes || err != nil {
		return err
	}
	for _, k := range keys {
		p, err := c.proof(ctx, s, k.Fingerprint(), last.Size)
		if err != nil {
			return err
		}
		if p.Key != offered {
			return fmt.Errorf("%w: its key is another than key server %q said", translog.ErrProof, s.base.Host)
		}
		sum := sha256.Sum256(k.Bytes())
		if last, err = translog.Check(p, "key", k.Fingerprint().String(), "sha256:"+hex.EncodeToString(sum[:]), last); err != nil {
			return fmt.Errorf("cannot take the key from key server %q: %w", s.base.Host, err)
		}
	}
	if c.memory != nil {
		// A home that cannot be written stays at an older checkpoint, which is as
		// good a witness.
		_ = c.memory.Save(name, last)
	}
	return nil
}

func (c *Client) proof(ctx context.Context, s server, f pgp.Fingerprint, from int64) (api.LogProof, error) {
	ctx, stop := context.WithTimeout(ctx, c.timeout)
	defer stop()
	u := s.base.JoinPath("/v1/keys/" + f.String() + "/proof")
	u.RawQuery = "from=" + strconv.FormatInt(from, 10)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return api.LogProof{}, err
	}
	a, err := s.do(r, maxNote)
	if errors.Is(err, ErrNotFound) {
		return api.LogProof{}, fmt.Errorf("%w: key server %q has none for the key %s", translog.ErrProof, s.base.Host, f)
	}
	if err != nil {
		return api.LogProof{}, err
	}
	var p struct{ Data api.LogProof }
	if err := json.Unmarshal(a.body, &p); err != nil {
		return api.LogProof{}, fmt.Errorf("%w: that of key server %q is not readable", translog.ErrProof, s.base.Host)
	}
	return p.Data, nil
}
