package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/store"
	"singularity/server/store/embedded"
	"singularity/server/translog"
	"singularity/sif"
)

// sent is how many keys and images come as users send them. The others are copies
// of their records under other ids: to send all would take most of an hour.
const sent = 5_000

// filled makes a storage with so many keys and images, or takes that of an earlier
// run; only the token is new.
func (b *bench) filled(ctx context.Context, count int) (*site, error) {
	s := &site{b: b, dir: b.path(fmt.Sprintf("services-%d", count)), count: count}
	for _, d := range []string{s.dir, b.path("tmp/services")} {
		if err := b.makeDir(d); err != nil {
			return nil, err
		}
	}
	fresh := !exists(s.path("sent"))
	if fresh {
		os.RemoveAll(s.path("data"))
		say("filling a storage with %d images", count)
	}
	if err := s.open(ctx, fresh); err != nil {
		return nil, err
	}
	if err := s.certificate(); err != nil {
		return nil, err
	}
	if fresh {
		say("and with %d keys", count)
		if err := s.addKeys(ctx); err != nil {
			return nil, err
		}
		if err := os.WriteFile(s.path("sent"), nil, 0o644); err != nil {
			return nil, err
		}
	}
	if !exists(s.path("keys.list")) {
		if err := s.multiply(ctx); err != nil {
			return nil, err
		}
	}
	s.keys = strings.Fields(readWhole(s.path("keys.list")))
	return s, s.certificate()
}

func readWhole(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// open makes a token for this run, and the images, with no server there.
func (s *site) open(ctx context.Context, fresh bool) error {
	if os.Getuid() == 0 && !fresh {
		if err := os.Chown(s.path("data"), 0, 0); err != nil {
			return err
		}
		for _, d := range []string{"blobs", "uploads"} {
			if err := os.Chown(s.path("data/"+d), 0, 0); err != nil {
				return err
			}
		}
	}
	st, err := embedded.Open(s.path("data"))
	if err != nil {
		return err
	}
	defer st.Close()
	a, caller, err := s.enroll(ctx, st.Records)
	if err != nil || !fresh {
		return err
	}
	const containers = 100
	return s.fill(auth.With(ctx, caller), st.Records, st.Blobs, a, containers, sent/containers)
}

// fill gives each of some containers all of some contents.
func (s *site) fill(ctx context.Context, records store.Records, blobs store.Blobs, a *auth.Service, containers, contents int) error {
	l, err := translog.Open(ctx, records, "bench")
	if err != nil {
		return err
	}
	lib, err := library.Open(ctx, records, blobs, a, library.Options{URL: "https://127.0.0.1", Log: l})
	if err != nil {
		return err
	}
	return s.addImages(ctx, blobs, lib, containers, contents)
}

// enroll makes an account and a token of it.
func (s *site) enroll(ctx context.Context, records store.Records) (*auth.Service, auth.Caller, error) {
	none := auth.Caller{}
	a, err := auth.Open(ctx, records, auth.Options{URL: "https://127.0.0.1", AuditLog: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, none, err
	}
	who, err := a.Account(ctx, "bench")
	if errors.Is(err, store.ErrNotFound) {
		who, err = a.AddAccount(ctx, auth.Account{Kind: auth.User, Name: "bench", Email: "bench@example.org", Admin: true})
	}
	if err != nil {
		return nil, none, err
	}
	caller := auth.Caller{ID: who.ID, Name: who.Name, Kind: auth.User, Admin: true, Scopes: auth.Scopes}
	s.token, _, err = a.AddToken(ctx, caller, who.ID, auth.NewToken{Name: "bench", Scopes: auth.Scopes})
	return a, caller, err
}

func (s *site) addImages(ctx context.Context, blobs store.Blobs, lib *library.Service, containers, contents int) error {
	var sums []string
	for n := range contents {
		var image bytes.Buffer
		f, err := os.CreateTemp("", "bench-*.sif")
		if err != nil {
			return err
		}
		defer f.Close()
		os.Remove(f.Name())
		if _, err = sif.Create(f, sif.CreateOptions{}, sif.Input{Type: sif.DataPartition, Group: 1, Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: runtime.GOARCH}.Extra(),
			Data: strings.NewReader(fmt.Sprint("image ", n))}); err != nil {
			return err
		}
		if _, err := io.Copy(&image, io.NewSectionReader(f, 0, 1<<30)); err != nil {
			return err
		}
		sum := sha256.Sum256(image.Bytes())
		sums = append(sums, hex.EncodeToString(sum[:]))
		if _, err := blobs.Put(ctx, library.BlobName(sums[n]), &image, store.Content{Size: int64(image.Len()), SHA256: sums[n]}); err != nil {
			return err
		}
	}
	var all sync.WaitGroup
	errs := make([]error, containers)
	for n := range containers {
		all.Go(func() {
			k, err := lib.Ensure(ctx, fmt.Sprintf("many%d/images/c", n)) // an entity counts its bytes one image at a time
			for i, sum := range sums {
				if err == nil {
					err = lib.AddSIF(ctx, k.ID, sum)
				}
				if err == nil && i < 20 {
					err = lib.TagSIF(ctx, k.ID, sum, fmt.Sprint("v", i))
				}
			}
			errs[n] = err
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// addKeys sends keys as users do, five at a time.
func (s *site) addKeys(ctx context.Context) error {
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	const each, clients = 5, 16
	var all sync.WaitGroup
	errs := make([]error, clients)
	for c := range clients {
		all.Go(func() {
			for n := c * each; n < sent && errs[c] == nil; n += clients * each {
				_, errs[c] = s.sendKeys(ctx, n, each)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// multiply copies the records of keys and images.
func (s *site) multiply(ctx context.Context) error {
	db, err := sql.Open("sqlite", "file:"+s.path("data/records.db")+"?_pragma=cache_size(-1000000)&_pragma=synchronous(OFF)&_pragma=temp_store(2)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	real, err := texts(ctx, tx, "SELECT lower(substr(key, 25)) FROM record WHERE coll = 'keys'")
	if err != nil {
		return err
	}
	list := real
	for n := 1; n < s.count/len(real); n++ {
		for _, c := range copied {
			for _, text := range c.texts() {
				if _, err := tx.ExecContext(ctx, text, c.collection, fmt.Sprintf(c.digits, n), len(real)); err != nil {
					return err
				}
			}
		}
		for _, id := range real {
			list = append(list, id[:12]+fmt.Sprintf("%04x", n))
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return os.WriteFile(s.path("keys.list"), []byte(strings.Join(list, "\n")), 0o644)
}

func texts(ctx context.Context, tx *sql.Tx, query string) ([]string, error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, rows.Err()
}

// copied are the collections of which records are copied, with what besides the key
// has to be another text in each copy.
var copied = []copies{{"keys", "substr(key, 33)", "%04X"}, {"library_images", "json_extract(CAST(data AS TEXT), '$.hash')", "%04x"}}

type copies struct{ collection, also, digits string }

// texts copy the first records of a collection, with their entries: ?1 is its name,
// ?2 what the texts end with in the copy, ?3 how many records.
func (c copies) texts() []string {
	other := func(column string) string {
		return "substr(" + column + ", 1, length(" + column + ") - 4) || ?2"
	}
	replaced := func(column string) string {
		return "replace(replace(" + column + ", b.key, " + other("b.key") + "), b.also, " + other("b.also") + ")"
	}
	return []string{
		"CREATE TEMP TABLE IF NOT EXISTS base_" + c.collection + " AS SELECT key, " + c.also + " AS also FROM record WHERE coll = ?1 ORDER BY id LIMIT ?3",
		"INSERT OR IGNORE INTO record (coll, key, rev, expires, data) SELECT r.coll, " + other("b.key") + ", r.rev, r.expires, CAST(" + replaced("CAST(r.data AS TEXT)") + " AS BLOB) " +
			"FROM temp.base_" + c.collection + " b CROSS JOIN record r ON r.coll = ?1 AND r.key = b.key",
		"INSERT OR IGNORE INTO entry (coll, ix, value, key, uniq) SELECT e.coll, e.ix, " + replaced("e.value") + ", " + other("b.key") + ", e.uniq " +
			"FROM temp.base_" + c.collection + " b CROSS JOIN entry e INDEXED BY entry_key ON e.coll = ?1 AND e.key = b.key",
	}
}

// sendKeys makes keys and sends them in one block. It returns their ids.
func (s *site) sendKeys(ctx context.Context, first, count int) ([]string, error) {
	var ids []string
	var text bytes.Buffer
	w, err := armor.Encode(&text, openpgp.PublicKeyType, nil)
	if err != nil {
		return nil, err
	}
	for i := range count {
		e, err := openpgp.NewEntity(fmt.Sprint("User ", first+i), "", fmt.Sprintf("user%d@example.org", first+i), &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
		if err == nil {
			err = e.Serialize(w)
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, fmt.Sprintf("%016x", e.PrimaryKey.KeyId))
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/pks/add", strings.NewReader(url.Values{"keytext": {text.String()}}.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer "+s.token)
	res, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("adding keys: %s: %s", res.Status, answer)
	}
	return ids, err
}
