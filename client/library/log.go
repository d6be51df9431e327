package library

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"singularity/api"
	"singularity/client/translog"
)

// witness is what is remembered of the library's log, for one request.
type witness struct {
	memory translog.Memory
	server string // as the memory names it
	host   string
	last   translog.State
}

// witness has a request ask for a proof that goes on from what is remembered.
func (c *Client) witness(query url.Values) (*witness, error) {
	u, err := url.Parse(c.Base)
	if err != nil {
		return nil, err
	}
	w := &witness{memory: c.Memory, server: u.Scheme + "://" + u.Host, host: u.Host}
	if w.memory != nil {
		if w.last, err = w.memory.Load(w.server); err != nil {
			return nil, err
		}
	}
	query.Set("proof", strconv.FormatInt(w.last.Size, 10))
	return w, nil
}

// check checks that the log says what the library answered: that a tag of a
// container means the image.
func (w *witness) check(header http.Header, p *api.LogProof, name, tag, arch string, i *api.Image) error {
	offered := header.Get(api.LogHeader)
	if yes, err := translog.Offered(w.host, offered, w.last); !yes || err != nil {
		return err
	}
	switch {
	case p == nil:
		return fmt.Errorf("%w: the library %q has none for the tag %q", translog.ErrProof, w.host, tag)
	case p.Key != offered:
		return fmt.Errorf("%w: its key is another than the library %q said", translog.ErrProof, w.host)
	}
	name, err := fullName(name, i)
	if err != nil {
		return err
	}
	digits, err := Hex(i.Hash)
	if err != nil {
		return err
	}
	next, err := translog.Check(*p, "tag", api.TagName(name, tag, arch), "sha256:"+digits, w.last)
	if err != nil {
		return fmt.Errorf("cannot take the answer of the library %q: %w", w.host, err)
	}
	if w.memory != nil {
		// A home that cannot be written stays at an older checkpoint, which is as
		// good a witness.
		_ = w.memory.Save(w.server, next)
	}
	return nil
}

// fullName returns the name of an image's container in the log. A library chooses
// the entity and collection of a short name.
//
// Security: it does not choose more than that, or the log could prove the tag of
// another container.
func fullName(name string, i *api.Image) (string, error) {
	if i.EntityName == "" && strings.Count(name, "/") == 2 {
		return name, nil
	}
	full := i.EntityName + "/" + i.CollectionName + "/" + i.ContainerName
	if full != name && !strings.HasSuffix(full, "/"+name) {
		return "", fmt.Errorf("the library answers with an image of %q, not of %q", full, name)
	}
	return full, nil
}
