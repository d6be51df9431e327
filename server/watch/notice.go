package watch

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/smtp"
	"slices"
	"strings"
	"time"

	"singularity/advisory"
	"singularity/api"
	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/store"
)

// Mail is how letters are sent: always with STARTTLS.
type Mail struct {
	Server         string // HOST:PORT; empty for none
	From           string
	User, Password string
	TLS            *tls.Config // nil for the authorities of the system
}

// told is which findings of an image were told of under some rules, at the severity of
// that time.
type told struct {
	Hash string   `json:"hash"`
	IDs  []string `json:"ids"`
}

var toldIndexes = []store.Index[told]{{Name: "hash", Of: func(t *told) []string { return []string{t.Hash} }}}

// The times and bounds of notices.
const (
	noticeLease = 5 * time.Minute
	noticeEvery = time.Minute
	maxNoticed  = 500 // findings that one notice names
	maxTold     = 20_000
	maxBackoff  = 6 * time.Hour
	mailTime    = 30 * time.Second
)

// notify tells of new findings under all rules that want it.
func (s *Service) notify(ctx context.Context) error {
	s.ruling.mu.RLock()
	var due []string
	now := s.now()
	for key, r := range s.ruling.by {
		if r.Notify > advisory.Unknown && (r.Webhook != "" || r.Mail) && !r.Next.After(now) && (r.Tries > 0 || s.ruling.told[key] != s.newsOf(&r)) {
			due = append(due, key)
		}
	}
	s.ruling.mu.RUnlock()
	var failed error
	for _, key := range due {
		i, err := s.rules.Update(ctx, key, func(r *rules) error {
			if r.Next.After(now) {
				return errTaken
			}
			r.Next = now.Add(noticeLease).UTC()
			return nil
		})
		if errors.Is(err, errTaken) || missing(err) {
			continue
		}
		news := s.newsOf(&i.Value)
		if err == nil {
			err = s.notifyBy(ctx, key, i.Value)
		}
		if err == nil {
			s.ruling.mu.Lock()
			s.ruling.told[key] = news
			s.ruling.mu.Unlock()
		}
		failed = errors.Join(failed, err)
	}
	if len(due) > 0 {
		failed = errors.Join(failed, s.loadRules(ctx))
	}
	return failed
}

// newsOf is another text whenever there may be something new to tell.
func (s *Service) newsOf(r *rules) string {
	s.said.mu.RLock()
	defer s.said.mu.RUnlock()
	return fmt.Sprint(s.corpus.turnOf(), s.said.turn, s.now().UTC().Format(time.DateOnly), r.Notify, r.Webhook, r.Mail)
}

// noticed is what a notice tells of an image, and what will have been told then.
type noticed struct {
	image api.NoticedImage
	hash  string
	key   string
	ids   []string
}

// notifyBy sends what is new under some rules, and keeps what came of it.
func (s *Service) notifyBy(ctx context.Context, key string, r rules) error {
	list, notice, err := s.fresh(ctx, key, &r)
	if err != nil {
		return err
	}
	var sent error
	if len(list) > 0 {
		if sent = s.send(ctx, key, &r, notice); sent == nil {
			err = s.noteTold(ctx, list)
		}
	}
	_, stored := s.rules.Update(ctx, key, func(v *rules) error {
		now := s.now().UTC()
		v.Next, v.Tries = now.Add(noticeEvery), 0
		switch {
		case sent != nil:
			v.Tries, v.LastError = r.Tries+1, short(sent)
			v.Next = now.Add(min(noticeEvery<<min(v.Tries, 12), maxBackoff))
		case len(list) > 0:
			v.LastSent, v.LastError = now, ""
		}
		return nil
	})
	if sent != nil {
		s.log.Warn("a notice of findings cannot be sent", "about", r.About, "error", sent.Error())
	}
	if missing(stored) {
		stored = nil
	}
	return errors.Join(err, stored)
}

// fresh collects the findings that nobody was told of.
func (s *Service) fresh(ctx context.Context, key string, r *rules) ([]noticed, *api.Notice, error) {
	data := s.state()
	n := &api.Notice{Site: s.o.URL, About: r.About, At: s.now().UTC(), DataOf: data.Newest, Counts: map[string]int{}, Images: []api.NoticedImage{}}
	var list []noticed
	names, ids := 0, []string{}
	everything := auth.With(ctx, auth.Caller{ID: "watch", Admin: true, Scopes: []auth.Scope{auth.LibraryRead}})
	for i, err := range s.lib.Visible(everything, "") {
		if err != nil {
			return nil, nil, err
		}
		collection := i.Collection
		if key == site {
			collection = ""
		} else if key != collection {
			continue
		}
		v, err := s.freshOf(ctx, key, collection, i, r.Notify)
		if err != nil {
			return nil, nil, err
		}
		if len(v.image.Findings) == 0 {
			continue
		}
		for _, f := range v.image.Findings {
			n.Counts[f.Severity]++
			ids = append(ids, v.hash+f.ID)
		}
		list = append(list, v)
		room := max(maxNoticed-names, 0)
		shownNow := v.image
		if len(shownNow.Findings) > room {
			n.More += len(shownNow.Findings) - room
			shownNow.Findings = shownNow.Findings[:room]
		}
		names += len(shownNow.Findings)
		if len(shownNow.Findings) > 0 {
			n.Images = append(n.Images, shownNow)
		}
	}
	slices.Sort(ids)
	n.ID = idOf(append([]string{key}, ids...)...)
	return list, n, nil
}

func (s *Service) freshOf(ctx context.Context, key, collection string, i library.Stored, least advisory.Level) (noticed, error) {
	v := noticed{hash: i.Hash, key: key + "/" + i.Container + "/" + i.Hash}
	k, ok := s.corpus.image(i.Hash)
	if !ok || len(k.findings) == 0 || k.findings[0].Level < least {
		return v, nil
	}
	before, err := s.told.Get(ctx, v.key)
	if err != nil && !missing(err) {
		return v, err
	}
	s.suppress(k.findings, i.Hash, collection)
	v.ids = before.Value.IDs
	v.image = api.NoticedImage{Image: i.Path(), Hash: i.Image.Hash, Tags: i.Image.Tags, URL: s.o.URL + "/security/images/" + i.Path() + ":" + i.Image.Hash}
	for n := range k.findings {
		f := &k.findings[n]
		if f.Level < least {
			break
		}
		if f.Ignored != "" || slices.Contains(v.ids, f.ID) || len(v.ids) >= maxTold {
			continue
		}
		v.ids = append(v.ids, f.ID)
		v.image.Findings = append(v.image.Findings, shown(f))
	}
	return v, nil
}

func (s *Service) noteTold(ctx context.Context, list []noticed) error {
	for _, v := range list {
		_, err := s.told.Update(ctx, v.key, func(t *told) error { t.IDs = v.ids; return nil })
		if missing(err) {
			_, err = s.told.Insert(ctx, v.key, told{v.hash, v.ids})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// send sends a notice in every way that the rules name.
func (s *Service) send(ctx context.Context, key string, r *rules, n *api.Notice) error {
	var failed error
	if r.Webhook != "" {
		failed = s.post(ctx, r, n)
	}
	if r.Mail && failed == nil {
		failed = s.mail(ctx, key, n)
	}
	return failed
}

// post sends a notice to a webhook. The signature is over the time and the body, so that
// neither can be changed or sent again later.
func (s *Service) post(ctx context.Context, r *rules, n *api.Notice) error {
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.Webhook, bytes.NewReader(body))
	if err != nil {
		return err
	}
	at := fmt.Sprint(s.now().Unix())
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "singularity-server")
	req.Header.Set("X-Singularity-Timestamp", at)
	req.Header.Set("X-Singularity-Signature", "sha256="+Signature(r.Secret, at, body))
	res, err := s.o.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("cannot reach the webhook: %w", err)
	}
	res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("the webhook answers %s", res.Status)
	}
	return nil
}

// Signature is that of a notice: HMAC-SHA256 of the time, a dot and the body.
func Signature(secret, at string, body []byte) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(at + "."))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// owners are the addresses of those who own a collection, or administer the site.
func (s *Service) owners(ctx context.Context, key, about string) ([]string, error) {
	var list []string
	add := func(a auth.Account) {
		if a.Active() && a.Email != "" && !slices.Contains(list, a.Email) {
			list = append(list, a.Email)
		}
	}
	if key == site {
		for after := ""; ; {
			accounts, next, err := s.auth.Accounts(ctx, auth.User, after, store.MaxPage)
			if err != nil {
				return nil, err
			}
			for _, a := range accounts {
				if a.Admin {
					add(a)
				}
			}
			if after = next; next == "" {
				return list, nil
			}
		}
	}
	entity, _, _ := strings.Cut(about, "/")
	a, err := s.auth.Account(ctx, entity)
	if err != nil {
		return nil, err
	}
	add(a)
	for id, role := range a.Members {
		if m, err := s.auth.AccountByID(ctx, id); err == nil && role == auth.Owner {
			add(m)
		}
	}
	grants, err := s.auth.Grants(ctx, key)
	for _, g := range grants {
		if m, err := s.auth.AccountByID(ctx, g.Subject); err == nil && g.Role == auth.Owner {
			add(m)
		}
	}
	slices.Sort(list)
	return list, err
}

// mail sends a notice as a letter.
func (s *Service) mail(ctx context.Context, key string, n *api.Notice) error {
	if s.o.Mail.Server == "" {
		return errors.New("this server sends no mail: its administrator sets watch_smtp")
	}
	to, err := s.owners(ctx, key, n.About)
	if err != nil {
		return err
	}
	if len(to) == 0 {
		return errors.New("no owner has an address for mail")
	}
	for _, address := range to {
		if err := s.o.Mail.send(ctx, address, letter(s.o.Mail.From, address, n)); err != nil {
			return fmt.Errorf("cannot send mail: %w", err)
		}
	}
	return nil
}

// letter writes a notice. Addresses were checked when they came; texts of strangers
// are in the body alone.
func letter(from, to string, n *api.Notice) []byte {
	var b bytes.Buffer
	total := n.More
	for _, i := range n.Images {
		total += len(i.Findings)
	}
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%s.%s@singularity-server>\r\n", from, to, mime.QEncoding.Encode("utf-8", fmt.Sprintf("%d new findings in images of %s", total, n.About)), n.At.Format(time.RFC1123Z), n.ID, idOf(to))
	b.WriteString("Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	q := quotedprintable.NewWriter(&b)
	fmt.Fprintf(q, "%s\r\nAdvisories as of %s.\r\n", n.Site, n.DataOf.Format(time.DateOnly))
	for _, i := range n.Images {
		fmt.Fprintf(q, "\r\n%s %s\r\n%s\r\n", i.Image, strings.Join(i.Tags, " "), i.URL)
		for _, f := range i.Findings {
			fixed := "no correction"
			if len(f.Fixed) > 0 {
				fixed = "corrected in " + strings.Join(f.Fixed, ", ")
			}
			fmt.Fprintf(q, "  %s (%s) %s %s, %s\r\n", printable(f.ID), f.Severity, printable(f.Package.Name), printable(f.Package.Version), printable(fixed))
		}
	}
	if n.More > 0 {
		fmt.Fprintf(q, "\r\nand %d more.\r\n", n.More)
	}
	q.Close()
	return b.Bytes()
}

func printable(text string) string { return short(errors.New(text)) }

// send hands a letter to the server, which must offer STARTTLS with a certificate for its
// name.
func (m *Mail) send(ctx context.Context, to string, letter []byte) error {
	host, _, err := net.SplitHostPort(m.Server)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{Timeout: mailTime}).DialContext(ctx, "tcp", m.Server)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(mailTime))
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	defer c.Close()
	config := &tls.Config{}
	if m.TLS != nil {
		config = m.TLS.Clone()
	}
	config.ServerName, config.MinVersion = host, tls.VersionTLS12
	if ok, _ := c.Extension("STARTTLS"); !ok {
		return errors.New("the mail server does not offer STARTTLS")
	}
	if err := c.StartTLS(config); err != nil {
		return err
	}
	if m.User != "" {
		if err := c.Auth(smtp.PlainAuth("", m.User, m.Password, host)); err != nil {
			return err
		}
	}
	if err := errors.Join(c.Mail(m.From), c.Rcpt(to)); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err = w.Write(letter); err == nil {
		err = w.Close()
	}
	return errors.Join(err, c.Quit())
}
