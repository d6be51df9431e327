package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"singularity/server/route"
)

// The cost of a new password: 64 MiB and about a tenth of a second.
const (
	hashMemory = 64 << 10 // KiB
	hashTime   = 2
	hashLanes  = 1
	hashSize   = 32
)

// hashPassword returns the argon2id hash in PHC form.
func hashPassword(password string) string {
	salt := randomBytes(16)
	return formatPHC(salt, argon2.IDKey([]byte(password), salt, hashTime, hashMemory, hashLanes, hashSize))
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func formatPHC(salt, sum []byte) string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashTime, hashLanes, b.EncodeToString(salt), b.EncodeToString(sum))
}

type phc struct {
	memory, time uint32
	lanes        uint8
	salt, sum    []byte
}

var errPHC = errors.New("the stored password is not an argon2id hash in PHC form")

// parsePHC reads a hash. Its costs are bounded, though only we write hashes.
func parsePHC(text string) (phc, error) {
	f := strings.Split(text, "$")
	if len(text) > 300 || len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != "v="+strconv.Itoa(argon2.Version) {
		return phc{}, errPHC
	}
	cost := strings.Split(f[3], ",")
	if len(cost) != 3 {
		return phc{}, errPHC
	}
	var n [3]uint64
	for i, prefix := range []string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(cost[i], prefix)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil {
			return phc{}, errPHC
		}
		n[i] = v
	}
	salt, err1 := base64.RawStdEncoding.Strict().DecodeString(f[4])
	sum, err2 := base64.RawStdEncoding.Strict().DecodeString(f[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(sum) < 16 || n[0] < 8 || n[0] > 1<<20 || n[1] < 1 || n[1] > 20 || n[2] < 1 || n[2] > 16 {
		return phc{}, errPHC
	}
	return phc{uint32(n[0]), uint32(n[1]), uint8(n[2]), salt, sum}, nil
}

func (p phc) matches(password string) bool {
	sum := argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.lanes, uint32(len(p.sum)))
	return subtle.ConstantTimeCompare(sum, p.sum) == 1
}

// hashing waits for a place among those that hash, so that many log-ins take
// neither all memory nor all processors.
func (s *Service) hash(ctx context.Context, f func()) error {
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
		f()
		return nil
	case <-wait.Done():
		return route.Errorf(http.StatusServiceUnavailable, "many people log in at this moment: try again")
	}
}

// CheckPassword says whether a new password will do.
func checkPassword(password, name string) error {
	switch {
	case utf8.RuneCountInString(password) < 12:
		return route.Errorf(http.StatusBadRequest, "a password has at least 12 characters")
	case len(password) > 1024:
		return route.Errorf(http.StatusBadRequest, "a password has at most 1024 bytes")
	case strings.Contains(strings.ToLower(password), strings.ToLower(name)) && len(name) > 3 || strings.Count(password, password[:1]) == len(password):
		return route.Errorf(http.StatusBadRequest, "this password is too easy to guess")
	}
	return nil
}

// SetPassword gives an account a password, and ends its sessions.
func (s *Service) SetPassword(ctx context.Context, id, password string) error {
	a, err := s.AccountByID(ctx, id)
	if err != nil {
		return err
	}
	if a.Kind != User {
		return route.Errorf(http.StatusBadRequest, "only people have passwords")
	}
	if err := checkPassword(password, a.Name); err != nil {
		return err
	}
	var text string
	if err := s.hash(ctx, func() { text = hashPassword(password) }); err != nil {
		return err
	}
	if _, err := s.UpdateAccount(ctx, id, func(a *Account) error { a.Password = text; return nil }); err != nil {
		return err
	}
	return s.endSessions(ctx, id, "")
}

var errLogin = route.Errorf(http.StatusUnauthorized, "the name or the password is wrong")

// login returns the account with that name and password. It takes as long for a
// name that nobody has (SC-151), and counts failures.
func (s *Service) login(ctx context.Context, from netip.Addr, name, password string) (Account, error) {
	if err := s.guesses.check(from, s.now()); err != nil {
		return Account{}, err
	}
	if len(password) > 1024 || len(name) > 64 {
		s.guesses.failed(from, s.now())
		return Account{}, errLogin
	}
	a, err := s.Account(ctx, name)
	if err != nil && !isNotFound(err) {
		return Account{}, err
	}
	stored := a.Password
	if err != nil || stored == "" {
		stored = s.nothing
	}
	p, err := parsePHC(stored)
	if err != nil {
		return Account{}, err
	}
	matches := false
	if err := s.hash(ctx, func() { matches = p.matches(password) }); err != nil {
		return Account{}, err
	}
	if !matches || stored == s.nothing || !a.Active() || a.Kind != User {
		s.guesses.failed(from, s.now())
		return Account{}, errLogin
	}
	return a, nil
}
