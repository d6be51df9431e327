package conformance

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"singularity/pgp"
)

var keyChecks = []check{
	{"key-nothing", "a key that is not there is 404", "discovery", (*run).noKey},
	{"key-short", "a search for two characters is 400", "discovery", (*run).shortKey},
	{"key-nobody", "a key of nobody is refused with 401", "discovery", (*run).keyOfNobody},
	{"key-bad", "what is no key is refused", "token-status", (*run).badKey},
	{"key-add", "a key is published: 200", "token-status", (*run).addKey},
	{"key-get", "it is served as one block, by fingerprint and by id", "key-add", (*run).getKey},
	{"key-index", "a list for machines has the lines that clients parse", "key-add", (*run).index},
}

// keyPair is the key that the checks publish.
type keyPair struct {
	public, secret []byte // armoured
	fingerprint    string
}

func (r *run) lookup(token bool, values url.Values) (answer, error) {
	return r.do(request{method: "GET", url: r.keystore + "/pks/lookup?" + values.Encode(), token: token})
}

func (r *run) noKey() error {
	for _, op := range []string{"get", "index"} {
		a, err := r.lookup(false, url.Values{"op": {op}, "options": {"mr"}, "exact": {"on"}, "search": {"0x" + strings.Repeat("0", 39) + "1"}})
		if err != nil {
			return err
		}
		if err := a.is(http.StatusNotFound); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) shortKey() error {
	return r.refused(request{method: "GET", url: r.keystore + "/pks/lookup?op=index&options=mr&search=ab"}, "/pks/lookup", http.StatusBadRequest)
}

func (r *run) send(token bool, text []byte) (answer, error) {
	form := url.Values{"keytext": {string(text)}}.Encode()
	return r.do(request{method: "POST", url: r.keystore + "/pks/add", token: token, body: []byte(form), header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}})
}

// newKey makes a key for an address that nobody has (RFC 2606), once.
func (r *run) newKey() (keyPair, error) {
	if r.key.public != nil {
		return r.key, nil
	}
	k, err := pgp.Generate(pgp.Options{Name: "Conformance check", Email: randomName() + "@example.invalid", Bits: 2048, Time: time.Now()})
	if err != nil {
		return keyPair{}, err
	}
	p, err := k.Public()
	if err != nil {
		return keyPair{}, err
	}
	r.key.fingerprint = k.Fingerprint().String()
	if r.key.secret, err = k.Armor(); err != nil {
		return keyPair{}, err
	}
	r.key.public, err = p.Armor()
	return r.key, err
}

func (r *run) keyOfNobody() error {
	k, err := r.newKey()
	if err != nil {
		return err
	}
	a, err := r.send(false, k.public)
	if err != nil {
		return err
	}
	if a.status == http.StatusOK {
		return skipped{"this server takes keys from anybody"}
	}
	return a.is(http.StatusUnauthorized)
}

func (r *run) badKey() error {
	a, err := r.send(true, []byte("no key at all"))
	if err != nil {
		return err
	}
	if a.status < 400 || a.status >= 500 {
		return wrong("%s: status %d for what is no key", a.call, a.status)
	}
	return nil
}

func (r *run) addKey() error {
	k, err := r.newKey()
	if err != nil {
		return err
	}
	if a, err := r.send(true, k.secret); err != nil || a.status < 400 || a.status >= 500 {
		return wrong("a secret key is answered with %d %v: nobody should send one, and no server take it", a.status, err)
	}
	a, err := r.send(true, k.public)
	if err != nil {
		return err
	}
	if err := a.is(http.StatusOK); err != nil {
		return err
	}
	r.begun = append(r.begun, cleanup{"DELETE", r.site + "/v1/keys/" + k.fingerprint})
	return nil
}

func (r *run) getKey() error {
	for _, search := range []string{r.key.fingerprint, strings.ToLower(r.key.fingerprint), r.key.fingerprint[24:]} {
		a, err := r.lookup(false, url.Values{"op": {"get"}, "exact": {"on"}, "search": {"0x" + search}})
		if err != nil {
			return err
		}
		if err := a.is(http.StatusOK); err != nil {
			return err
		}
		if strings.Count(string(a.body), "-----BEGIN PGP PUBLIC KEY BLOCK-----") != 1 {
			return wrong("%s: the answer is not one armoured block", a.call)
		}
		list, err := pgp.ReadCerts(a.body, 5, nil)
		if err != nil {
			return wrong("%s: the block cannot be read: %v", a.call, err)
		}
		if len(list) != 1 || list[0].Fingerprint().String() != r.key.fingerprint {
			return wrong("%s: %d keys, or another one than asked for", a.call, len(list))
		}
		if len(list[0].UserIDs()) == 0 {
			return wrong("%s: the key has no user id: clients cannot read it", a.call)
		}
	}
	return nil
}

func (r *run) index() error {
	a, err := r.lookup(true, url.Values{"op": {"index"}, "options": {"mr"}, "fingerprint": {"on"}, "x-pagesize": {"256"}, "search": {"0x" + r.key.fingerprint}})
	if err != nil {
		return err
	}
	if err := a.is(http.StatusOK); err != nil {
		return err
	}
	if err := checkIndex(string(a.body), r.key.fingerprint); err != nil {
		return wrong("%s: %v", a.call, err)
	}
	return nil
}

// checkIndex looks at a list as the oldest clients parse it, which index into
// fields without looking whether they are there.
func checkIndex(text, fingerprint string) error {
	if strings.Contains(text, "\r") {
		return wrong("a line ends in a carriage return")
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	info := strings.Split(lines[0], ":")
	if len(info) != 3 || info[0] != "info" || info[1] != "1" {
		return wrong("the first line is %.40q, not info:1:COUNT", lines[0])
	}
	keys, found := 0, false
	for _, l := range lines[1:] {
		f := strings.Split(l, ":")
		switch f[0] {
		case "pub":
			if len(f) != 7 || len(f[1]) < 8 || len(f[6]) > 1 {
				return wrong("%.80q has not the 7 fields of a key", l)
			}
			if _, err := strconv.Atoi(f[2]); err != nil {
				return wrong("the algorithm %.20q is no number", f[2])
			}
			keys++
			found = found || f[1] == fingerprint
		case "uid":
			if len(f) != 5 {
				return wrong("%.80q has not the 5 fields of a user id", l)
			}
			if _, err := url.QueryUnescape(f[1]); err != nil {
				return wrong("%.80q is not escaped", f[1])
			}
		}
	}
	if info[2] != strconv.Itoa(keys) {
		return wrong("the first line counts %s keys, and %d follow", info[2], keys)
	}
	if !found {
		return wrong("the key %s is not among them", fingerprint)
	}
	return nil
}
